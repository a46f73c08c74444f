"""C{--ask}: a hook that decides."""

from __future__ import annotations

import json
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Site

from tests.model.test_tunnel import PlainEnd, Side, Watching
from tests.support.listening import listenHere
from tests.support.polling import until
from tristunnel.auth.realm import Authenticator
from tristunnel.errors import TunnelError
from tristunnel.hooks.ask import MOST, QUESTIONS, DecidingHook, parseAsk
from tristunnel.hooks.event import HookEvent
from tristunnel.model.options import TunnelOptions
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Tunnel

reactor: Any = _reactor
PEER = IPv4Address("TCP", "192.0.2.1", 1234)


class ParseTests(SynchronousTestCase):
    """What the option says."""

    def test_questions(self) -> None:
        """All, or those that are named."""
        self.assertEqual(parseAsk("https://a.test/x=y")[0], set(QUESTIONS))
        questions, url, shown = parseAsk("login,visitor=https://a.test/SECRET")
        self.assertEqual(questions, {"login", "visitor"})
        self.assertEqual((url, shown), ("https://a.test/SECRET", "https://a.test/"))

    def test_wrong(self) -> None:
        """What is wrong is told."""
        for text, words in (
            ("logins=https://a.test/", "did you mean login?"),
            ("exec:true", "takes a URL"),
            ("", "takes a URL"),
        ):
            error = self.assertRaises(TunnelError, parseAsk, text)
            self.assertIn(words, error.message)


class _Post:
    def __init__(self) -> None:
        self.asked: list[HookEvent] = []
        self.answers: list[Deferred[Any]] = []

    def send(self, event: HookEvent, now: float) -> Deferred[Any]:
        self.asked.append(event)
        self.answers.append(Deferred())
        return self.answers[-1]


class _Answer:
    def __init__(self, code: int, body: bytes = b"") -> None:
        self.code, self._body = code, body

    def deliverBody(self, protocol: Any) -> None:
        protocol.dataReceived(self._body)
        protocol.connectionLost(None)


class DecidingTests(SynchronousTestCase):
    """Answers, and none."""

    def setUp(self) -> None:
        self.clock, self.post = Clock(), _Post()

    def hook(self, allows: bool = False, ask: str = "https://a.test/") -> DecidingHook:
        made = DecidingHook(self.clock, parseAsk(ask), b"", 3.0, allows)
        made._post = self.post  # type: ignore[assignment] # a fake
        return made

    def login(self, hook: DecidingHook) -> Deferred[None]:
        return hook.login(Identity("laptop"), PEER)

    def refusal(self, asked: Deferred[None]) -> TunnelError:
        return self.failureResultOf(asked, TunnelError).value

    def test_allowed(self) -> None:
        """The 200s allow."""
        asked = self.login(self.hook())
        self.assertNoResult(asked)
        self.post.answers[0].callback(_Answer(204))
        self.successResultOf(asked)
        described = self.post.asked[0].describe()
        self.assertEqual(described["kind"], "login")
        self.assertEqual(described["client"], "laptop")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """The 400s refuse, with a reason in one line that nothing hides in."""
        asked = self.login(self.hook(allows=True))
        self.post.answers[0].callback(_Answer(403, b"not \x1b[31mtoday\nat all"))
        error = self.refusal(asked)
        self.assertEqual(error.code.name, "not-permitted")
        self.assertEqual(error.message, "not ?[31mtoday")
        asked = self.login(self.hook())
        self.post.answers[1].callback(_Answer(400, b"x" * 10**6))
        self.assertEqual(len(self.refusal(asked).message), 200)

    def test_nothing(self) -> None:
        """Without a decision the default holds: 500, no answer, no connection."""
        for allows in (True, False):
            for answer in (_Answer(500), _Answer(302), Failure(OSError("gone")), None):
                asked = self.login(self.hook(allows))
                if answer is None:
                    self.clock.advance(3)
                else:
                    self.post.answers[-1].callback(answer)
                if allows:
                    self.successResultOf(asked)
                else:
                    self.assertEqual(self.refusal(asked).code.name, "limit-reached")

    def test_questions(self) -> None:
        """What is not asked is allowed at once."""
        hook = self.hook(ask="open=https://a.test/")
        self.successResultOf(self.login(hook))
        asked = hook.tunnel(Identity("laptop"), TunnelOptions(port=8080))
        self.assertNoResult(asked)
        self.assertEqual(self.post.asked[0].fields["port"], 8080)

    def test_most(self) -> None:
        """A crowd is not asked for: what is too much meets the default."""
        hook = self.hook()
        waiting = [self.login(hook) for _ in range(MOST)]
        self.refusal(self.login(hook))
        self.assertEqual(len(self.post.asked), MOST)
        # Whoever asks something else is none of them.
        other = hook.tunnel(Identity("laptop"), TunnelOptions())
        self.assertEqual(len(self.post.asked), MOST + 1)
        self.assertNoResult(other)
        self.post.answers[-1].callback(_Answer(200))
        self.successResultOf(other)
        self.post.answers[0].callback(_Answer(200))
        self.successResultOf(waiting[0])
        waiting.append(self.login(hook))
        self.assertNoResult(waiting[-1])
        self.clock.advance(3)
        for each in waiting[1:]:
            self.refusal(each)


class VisitorTests(SynchronousTestCase):
    """A visitor waits for a decision."""

    def setUp(self) -> None:
        self.observer, self.side, self.end = Watching(), Side(), PlainEnd()
        self.tunnel = Tunnel(
            "id", Identity("laptop"), self.side, self.observer, Clock().seconds
        )
        self.decision: Deferred[None] = Deferred()
        self.tunnel.ask = lambda stream: self.decision

    def arrive(self) -> None:
        self.tunnel.visitorArrived(self.end, "192.0.2.1:1")

    def test_allowed(self) -> None:
        """It is served afterwards."""
        self.arrive()
        self.assertEqual((self.side.streams, self.observer.events), ([], []))
        self.decision.callback(None)
        (stream,) = self.side.streams
        self.assertEqual(stream.id, "id.1")

    def test_refused(self) -> None:
        """It is turned away, and counted by the reason."""
        self.arrive()
        self.decision.errback(TunnelError("not-permitted"))
        self.assertEqual(self.end.calls, ["not-permitted"])
        self.assertEqual(self.tunnel.refusals["not-permitted"], 1)
        self.assertEqual(len(self.tunnel.streams), 0)

    def test_leaves(self) -> None:
        """One that leaves meanwhile is no longer asked for."""
        self.arrive()
        assert self.end.closed is not None
        self.end.closed(None)
        self.failureResultOf(self.decision) if not self.decision.called else None
        self.assertEqual(len(self.tunnel.streams), 0)
        self.assertEqual(self.side.streams, [])

    def test_closed(self) -> None:
        """A tunnel that closed meanwhile serves nobody."""
        self.arrive()
        self.tunnel.close(TunnelError("closed"))
        if not self.decision.called:
            self.decision.callback(None)
        self.assertEqual(self.side.streams, [])
        self.assertEqual(len(self.tunnel.streams), 0)

    def test_clientAway(self) -> None:
        """One whose client went meanwhile is told so."""
        self.arrive()
        self.tunnel.clientSide = None
        self.decision.callback(None)
        self.assertEqual(self.end.calls, ["client-away"])


class LoginTests(SynchronousTestCase):
    """An authenticator asks when it knows who it is."""

    def test_login(self) -> None:
        """A refusal refuses; agreement lets in."""
        authenticator = Authenticator()

        class No:
            def login(self, identity: Any, peer: Any) -> Deferred[None]:
                if identity.name == "anonymous" and peer == PEER:
                    return fail(TunnelError("not-permitted", "not today"))
                return succeed(None)

        authenticator.decisions = No()  # type: ignore[assignment] # a fake
        asked = authenticator.authenticate({}, PEER)
        self.assertEqual(
            self.failureResultOf(asked, TunnelError).value.message, "not today"
        )
        self.successResultOf(authenticator.authenticate({}, None))


class LoopbackTests(TestCase):
    """A real web server decides."""

    async def test_answers(self) -> None:
        """Yes, no, and nothing."""
        asked = []

        class Decider(Resource):
            isLeaf = True

            def render_POST(self, request: Any) -> Any:
                question = json.loads(request.content.read())
                asked.append(question["kind"])
                if question["client"] == "silent":
                    return NOT_DONE_YET
                request.setResponseCode(200 if question["client"] == "good" else 403)
                return b"we know you\n"

        port = listenHere(self, reactor, Site(Decider()))
        url = f"http://127.0.0.1:{port}/"
        hook = DecidingHook(reactor, parseAsk(url), b"", 0.2, True)
        await hook.login(Identity("good"), PEER)
        await hook.login(Identity("silent"), PEER)
        try:
            await hook.login(Identity("bad"), PEER)
        except TunnelError as error:
            self.assertEqual(error.message, "we know you")
        else:
            self.fail("it was let in")
        self.assertEqual(asked, ["login"] * 3)
        # Whoever has left is not let in by the default.
        patient = DecidingHook(reactor, parseAsk(url), b"", 30, True)
        asking = patient.login(Identity("silent"), PEER)
        await until(lambda: len(asked) >= 4)
        asking.cancel()
        await self.assertFailure(asking, CancelledError)
