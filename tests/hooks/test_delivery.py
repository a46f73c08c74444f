"""Delivering events to receivers that take them, or do not."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.hooks.delivery import ATTEMPT, OLDEST, WAITING, Hooks
from tristunnel.hooks.event import KINDS, HookEvent
from tristunnel.hooks.target import NotTaken, Target


class _Receiver:
    """Takes events when the test says so."""

    def __init__(self) -> None:
        self.asked: list[HookEvent] = []
        self.answers: list[Deferred[None]] = []

    def deliver(self, event: HookEvent, now: float) -> Deferred[None]:
        self.asked.append(event)
        self.answers.append(Deferred())
        return self.answers[-1]

    @property
    def texts(self) -> list[str]:
        return [event.text for event in self.asked]

    def take(self) -> None:
        self.answers[-1].callback(None)

    def refuse(self, **hint: Any) -> None:
        self.answers[-1].errback(NotTaken("no", **hint))


class DeliveryTests(SynchronousTestCase):
    """Events in order, again, and bounded."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.receiver, self.other = _Receiver(), _Receiver()
        some = frozenset({"client-up"})
        self.hooks = Hooks(
            self.clock,
            [
                Target("one", frozenset(KINDS), lambda r, s: self.receiver),
                Target("other", some, lambda r, s: self.other),
            ],
            b"",
            "server",
        )

    def tell(self, *texts: str, kind: str = "client-down") -> None:
        for text in texts:
            self.hooks.tell(kind, text)

    def test_order(self) -> None:
        """One at a time, in their order; each to those who want it."""
        self.tell("a", "b")
        self.tell("c", kind="client-up")
        self.assertEqual(self.receiver.texts, ["a"])
        self.receiver.take()
        self.receiver.take()
        self.assertEqual(self.receiver.texts, ["a", "b", "c"])
        self.assertEqual(self.other.texts, ["c"])

    def test_again(self) -> None:
        """One that was not taken comes again, with the same id, later and later."""
        self.tell("a")
        delays = []
        for _ in range(8):
            self.receiver.refuse()
            tried = len(self.receiver.asked)
            since = self.clock.seconds()
            while len(self.receiver.asked) == tried:
                self.clock.advance(0.5)
            delays.append(self.clock.seconds() - since)
        self.assertEqual(len({event.id for event in self.receiver.asked}), 1)
        self.assertLessEqual(max(delays), 61)
        self.assertGreater(delays[-1], 8 * delays[0])

    def test_hint(self) -> None:
        """A receiver's hint is believed, within bounds."""
        self.tell("a")
        self.receiver.refuse(retryAfter=100)
        self.clock.advance(100)
        self.assertEqual(len(self.receiver.asked), 1)
        self.clock.advance(1)
        self.receiver.refuse(retryAfter=1e9)
        self.clock.advance(590)
        self.assertEqual(len(self.receiver.asked), 2)
        self.clock.advance(13)
        self.assertEqual(len(self.receiver.asked), 3)

    def test_silent(self) -> None:
        """One that does not answer is asked again; nobody else waits."""
        self.tell("a")
        self.clock.advance(ATTEMPT)
        self.tell("b", kind="client-up")
        self.assertEqual(self.other.texts, ["b"])
        self.clock.advance(1)
        self.assertEqual(self.receiver.texts, ["a", "a"])

    def test_bounded(self) -> None:
        """Of too many the oldest are lost, and the receiver learns how many."""
        self.tell(*map(str, range(WAITING + 50)))
        self.assertEqual(self.hooks.waiting, WAITING)
        self.receiver.take()
        self.assertEqual(self.receiver.asked[-1].kind, "hook-overrun")
        self.assertEqual(self.receiver.asked[-1].fields["lost"], 50)
        self.receiver.take()
        while self.receiver.asked[-1].text != str(WAITING + 49):
            self.receiver.take()
        self.receiver.take()
        self.assertEqual(self.hooks.waiting, 0)
        taken = [
            event.text for event in self.receiver.asked if event.kind != "hook-overrun"
        ]
        self.assertEqual(taken, ["0", *map(str, range(51, WAITING + 50))])

    def test_old(self) -> None:
        """One is not tried for ever; the next one is told that it was lost."""
        self.tell("a")
        while self.clock.seconds() <= OLDEST:
            self.receiver.refuse()
            tried = len(self.receiver.asked)
            while len(self.receiver.asked) == tried and self.hooks.waiting:
                self.clock.advance(1)
            if not self.hooks.waiting:
                break
        self.assertEqual(self.hooks.waiting, 0)
        self.tell("b")
        self.receiver.take()
        self.assertEqual(self.receiver.texts[-2], "b")
        self.assertEqual(self.receiver.asked[-1].fields, {"lost": 1})

    def test_broken(self) -> None:
        """A receiver of ours that raises loses one event, and is logged."""

        def broken(event: HookEvent, now: float) -> Deferred[None]:
            self.receiver.asked.append(event)
            raise ZeroDivisionError

        patched = self.patch(self.receiver, "deliver", broken)
        self.tell("a")
        patched.restore()
        self.clock.advance(5)
        self.assertEqual(self.receiver.texts, ["a", "a"])

    def test_stop(self) -> None:
        """At a stop what was postponed is tried at once, for a short time."""
        self.tell("a", "b")
        self.receiver.refuse()
        stopping = Deferred.fromCoroutine(self.hooks.stop())
        self.receiver.take()
        self.receiver.take()
        self.assertEqual(self.receiver.texts, ["a", "a", "b"])
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopSilent(self) -> None:
        """A receiver that is silent holds up nobody."""
        self.tell("a")
        stopping = Deferred.fromCoroutine(self.hooks.stop())
        self.assertNoResult(stopping)
        self.clock.advance(2)
        self.successResultOf(stopping)
        self.assertEqual(self.hooks.waiting, 0)
