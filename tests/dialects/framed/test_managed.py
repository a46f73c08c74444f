"""What a managed client asks its server for, and when."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import ILogObserver, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from tristunnel.dialects.framed.managed import ASK_AGAIN, AskedForwards
from tristunnel.forwards.consent import Consent


class Session:
    """A session whose server answers late."""

    lost = None

    def __init__(self) -> None:
        self.calls: list[tuple[dict[str, Any], Deferred[object]]] = []

    def call(self, method: str, **params: Any) -> Deferred[object]:
        answer: Deferred[object] = Deferred()
        self.calls.append((params, answer))
        return answer


class AskedForwardsTests(SynchronousTestCase):
    """The last change is always seen."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.session = Session()
        self.offered: list[list[str]] = []
        self.lines: list[str] = []
        asked: Any = AskedForwards(self.clock, self._current, self._offer)
        self.asked = asked
        self.asked.consent = Consent(["localhost:3000"])

        @implementer(ILogObserver)
        def observe(event: Any) -> None:
            if "why" in event:
                self.lines.append(event["why"])

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def _current(self) -> Any:
        return self.session

    async def _offer(self, session: Any) -> list[str]:
        self.offered.append([forward.spec for forward in self.asked.forwards])
        return []

    def _change(self) -> None:
        self.asked.askAgain()
        self.clock.advance(ASK_AGAIN)

    def _answer(self, *wanted: object) -> None:
        self.session.calls.pop(0)[1].callback(list(wanted))

    def test_meanwhile(self) -> None:
        """A change that comes while the server answers for the last one is seen."""
        self._change()
        self._change()
        self.assertEqual(len(self.session.calls), 1)
        self._answer()
        self.clock.advance(ASK_AGAIN)
        self._answer({"id": "1", "to": "localhost:3000"})
        self.assertEqual([len(each) for each in self.offered], [0, 1])
        self.clock.advance(ASK_AGAIN)
        self.assertEqual(self.session.calls, [])

    def test_many(self) -> None:
        """Many changes at once are two questions."""
        for _ in range(50):
            self.asked.askAgain()
        self.clock.advance(ASK_AGAIN)
        self._answer()
        self.clock.advance(ASK_AGAIN)
        self.assertEqual(len(self.session.calls), 1)

    def test_refusedOnce(self) -> None:
        """The log says once what is refused, and the server is told each time."""
        refused = {"id": "1", "to": "localhost:1"}
        for _ in range(3):
            self._change()
            self._answer(refused)
            ((params, answer),) = self.session.calls
            self.assertEqual(list(params["refused"]), ["1"])
            self.session.calls.clear()
            answer.callback(None)
        self.assertEqual(len(self.lines), 1)
        self.assertIn("localhost:1", self.lines[0])
