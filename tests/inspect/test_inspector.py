"""Tests for L{tristunnel.inspect.inspector}, its options, and replays over sockets."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, Protocol
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.inspect.streams import INFO, STREAMS
from tristunnel.cli.client import HTTPOptions, UDPOptions
from tristunnel.cli.client_tap import Options
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import parseForward
from tristunnel.inspect.inspector import Inspector
from tristunnel.inspect.options import InspectSettings, parseInspect
from tristunnel.inspect.record import Limits
from tristunnel.inspect.tap import Tap

reactor: Any = _reactor
_TO = ("--connect", "tcp:127.0.0.1:9", "--forward", "3000")


class OptionTests(SynchronousTestCase):
    """What C{--inspect} takes."""

    def _options(self, *words: str, kind: type[Any] = Options) -> Any:
        options = kind()
        options.parseOptions(list(words))
        return options

    def test_off(self) -> None:
        """Nobody looks at anything unless somebody says so."""
        self.assertIsNone(self._options(*_TO).inspection)

    def test_places(self) -> None:
        """A value may stand behind it, or be left out wherever it stands."""
        for words, place in (
            (("--inspect",), "localhost:4040"),
            (("--inspect", "--private", "--forward", "x=1"), "localhost:4040"),
            (("--inspect", "localhost:4041"), "localhost:4041"),
            (("--inspect=4042",), "4042"),
            (("--inspect=[::1]:4043",), "[::1]:4043"),
            (("--inspect=127.0.0.1:0",), "127.0.0.1:0"),
            (("--inspect=192.0.2.1:4040", "--inspect-remote"), "192.0.2.1:4040"),
        ):
            options = self._options(*_TO, *words)
            # As it is read again when a file is reloaded.
            for each in (options, options.another()):
                self.assertEqual(each.inspection.place.description, place)
        short = self._options("--inspect", "3000", "--to", "tcp:h:9", kind=HTTPOptions)
        self.assertEqual(short["forward"], ["3000"])
        self.assertEqual(short.inspection.place.description, "localhost:4040")

    def test_limits(self) -> None:
        """How much is kept can be said."""
        more = ("--inspect-requests", "9", "--inspect-body", "1MiB")
        options = self._options(*_TO, "--inspect", *more, "--inspect-memory", "2MiB")
        self.assertEqual(options.inspection.limits, Limits(9, 2**20, 2**21))

    def test_refused(self) -> None:
        """What others could reach, and what is wrong, is refused with the cure."""
        for words, cure in (
            (("--inspect=0.0.0.0:4040",), "--inspect-remote"),
            (("--inspect=[::]:4040",), "--inspect-remote"),
            (("--inspect=192.0.2.1:4040",), "--inspect-remote"),
            (("--inspect=blog.example:4040",), "localhost"),
            (("--inspect=localhost:x",), "HOST:PORT"),
            (("--inspect=localhost:70000",), "HOST:PORT"),
            (("--inspect-remote",), "--inspect HOST:PORT"),
            (("--inspect", "--inspect-body", "many"), "--inspect-body"),
            (("--inspect", "--inspect-requests", "0"), "--inspect-requests"),
        ):
            error = self.assertRaises(usage.UsageError, self._options, *_TO, *words)
            self.assertIn(cure, str(error))
        visiting = ("--connect", "tcp:h:9", "--listen", "2222", "--service", "x")
        self.assertRaises(usage.UsageError, self._options, *visiting, "--inspect")
        self.assertNotIn("inspect=", UDPOptions().longOpt)


class _Service(Protocol):
    """Answers as it is told to."""

    def __init__(self, answer: Callable[[bytes], bytes]) -> None:
        self._heard = b""
        self._answer = answer

    def dataReceived(self, data: bytes) -> None:
        self._heard += data
        if b"\r\n\r\n" in self._heard:
            assert self.transport is not None
            answer = self._answer(self._heard)
            if answer:
                self.transport.write(answer)
            else:
                self.transport.loseConnection()


class ReplayTests(TestCase):
    """A request is sent again to a service that there is."""

    def setUp(self) -> None:
        self.asked: list[bytes] = []
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

        def answered(request: bytes) -> bytes:
            self.asked.append(request)
            return self.answer

        factory = Factory.forProtocol(lambda: _Service(answered))
        self.port = reactor.listenTCP(0, factory, interface="127.0.0.1")
        self.addCleanup(self.port.stopListening)
        place = parseInspect(reactor, "127.0.0.1:0", False)
        self.inspector = Inspector(reactor, InspectSettings(place, Limits()))

    def recorded(self, name: str = "one", more: str = "") -> int:
        number = self.port.getHost().port
        forward = parseForward(reactor, f"8080=127.0.0.1:{number}{more}")
        tap = Tap(self.inspector.record, forward, INFO)
        asked, answered, _ = STREAMS[name]
        tap.asked(asked[0])
        for data in answered:
            tap.answered(data)
        return next(reversed(self.inspector.record.exchanges))

    def again(self, id: int, **edits: object) -> Deferred[dict[str, Any]]:
        made: Any = self.inspector.calls["replayRequest"](None, id, **edits)
        return made

    async def test_asItWas(self) -> None:
        """The service is asked the same, and the answer is among the others."""
        made = await self.again(self.recorded())
        self.assertEqual((made["status"], made["replayOf"]), (200, 1))
        self.assertTrue(self.asked[0].startswith(b"GET /a HTTP/1.1\r\nHost: h\r\n"))
        self.assertEqual(self.inspector.latest(5)[0], made)

    async def test_edited(self) -> None:
        """Or something else."""
        await self.again(self.recorded(), method="POST", path="/b", body="new")
        self.assertTrue(self.asked[0].startswith(b"POST /b HTTP/1.1\r\n"))
        self.assertTrue(self.asked[0].endswith(b"\r\n\r\nnew"))

    async def test_proxyHeader(self) -> None:
        """A service that is told where visitors come from is told the same again."""
        await self.again(self.recorded(more=",proxy=v1"))
        self.assertTrue(self.asked[0].startswith(b"PROXY TCP4 192.0.2.7"), self.asked)

    async def test_webSocket(self) -> None:
        """The request for a WebSocket is over with the answer to it."""
        self.answer = STREAMS["a WebSocket"][1][0]
        made = await self.again(self.recorded("a WebSocket"))
        self.assertEqual((made["status"], made["problem"]), (101, ""))

    async def test_noAnswer(self) -> None:
        """A service that says nothing is said to have said nothing."""
        self.answer = b""
        made = await self.again(self.recorded())
        self.assertEqual(made["status"], None)
        self.assertIn("closed the connection", made["problem"])

    async def test_noService(self) -> None:
        """One that is not there is named."""
        id = self.recorded()
        await self.port.stopListening()
        with self.assertRaises(TunnelError) as caught:
            await self.again(id)
        self.assertEqual(caught.exception.code.name, "service-unreachable")

    async def test_listening(self) -> None:
        """The page has an address with a token while it runs."""
        urls: list[str] = []
        self.inspector.opened = urls.append
        self.assertEqual(self.inspector.url, "")
        self.inspector.startService()
        self.assertEqual(urls, [self.inspector.url])
        self.assertRegex(urls[0], r"^http://127\.0\.0\.1:\d+/\?token=[\w-]{32}$")
        await self.inspector.stopService()
        self.assertEqual(self.inspector.page, "")

    async def test_taken(self) -> None:
        """A port that somebody else has is said to be taken, with the cure."""
        reasons: list[TunnelError] = []
        number = self.port.getHost().port
        place = parseInspect(reactor, f"127.0.0.1:{number}", False)
        other = Inspector(reactor, InspectSettings(place, Limits()))
        other.failed = reasons.append
        other.startService()
        self.assertIn(f"--inspect 127.0.0.1:{number}", reasons[0].message)
        await other.stopService()
