"""
A session at the client, L{tristunnel.dialects.framed.client}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IProtocolFactory
from twisted.protocols.tls import TLSMemoryBIOFactory

from tests.dialects.framed.network import (
    SERVER,
    RawPeer,
    ServiceNetworkTestCase,
    Wire,
)
from tests.vectors import readVectors
from tristunnel.connect.address import ServerAddress
from tristunnel.dialects.framed.client import TunnelClientFactory, TunnelClientProtocol
from tristunnel.dialects.framed.datagram_path import PATH
from tristunnel.dialects.framed.liveness import DEADLINE
from tristunnel.dialects.framed.session import HANDSHAKE_TIMEOUT
from tristunnel.errors import LONGEST_HINT, TunnelError
from tristunnel.wire.framed import Frame, FrameType, encodeCredit, encodeObject

WINDOW = 1 << 18
WELCOME = {
    "port": 0,
    "tristunnel": {
        "version": 1,
        "streamWindow": WINDOW,
        "sessionWindow": 1 << 25,
        "lease": {"id": "a", "secret": "b", "seconds": 120},
        "tunnels": [],
    },
}


class ClientTestCase(ServiceNetworkTestCase):
    """
    A test of a session with a server that the test plays.

    @ivar client: The session.
    @ivar server: What the test plays.
    """

    def setUp(self) -> None:
        super().setUp()
        self.server = RawPeer()

    def connect(self, **options: Any) -> TunnelClientProtocol:
        self.client = self.factory(**options).buildProtocol(SERVER)
        self.join(self.server, self.client)
        return self.client

    def factory(self, **options: Any) -> TunnelClientFactory:
        kind = "tls" if self.tls else "tcp"
        return TunnelClientFactory(
            self.clock,
            lambda uri: ("web", self.web),
            {"id": "x"},
            self.seen,
            where=f"{kind}:server.example:9000",
            **options,
        )

    def reason(self, client: TunnelClientProtocol | None = None) -> TunnelError:
        failed = self.failureResultOf((client or self.client).whenReady(), TunnelError)
        error = failed.value
        assert isinstance(error, TunnelError)
        self.assertNotIn("\n", error.message)
        return error


class PlainServerTests(ClientTestCase):
    """A server that speaks W3P's protocol and nothing else."""

    def test_recorded(self) -> None:
        """
        In the recorded exchange our client does what W3P's own did, byte for
        byte but for the extension that it offers.
        """
        chunks = [
            (line["from"], bytes.fromhex(line["hex"]))
            for line in readVectors("w3p-http-get")
            if line["conn"] == 1 and "hex" in line
        ]
        said = {
            who: b"".join(data for sender, data in chunks if sender == who)
            for who in ("client", "server")
        }
        self.connect()
        offered = dict(self.server.handshake)
        offered.pop("tristunnel")
        self.assertEqual(offered, {"id": "x"})
        answer = 11 + int.from_bytes(said["server"][7:11], "big")
        request = 4 + int.from_bytes(said["server"][answer : answer + 4], "big")
        self.server.say(said["server"][: answer + request])
        self.settle()
        self.assertEqual(self.client.port, 45267)
        self.assertFalse(self.client.extended)
        (service,) = self.web.visits
        self.assertEqual(service.data, said["server"][answer + 9 : answer + request])

        theirs = said["client"][11 + int.from_bytes(said["client"][7:11], "big") :]
        page = 4 + int.from_bytes(theirs[:4], "big")
        service.transport.write(theirs[9:page])
        self.settle()
        self.assertEqual(self.server.data, theirs[:page])
        # The visitor leaves: W3P's client answers the close in kind.
        self.server.say(said["server"][answer + request :])
        self.settle()
        self.assertEqual(self.server.data, theirs)
        self.assertIsNone(self.server.lost)

    def test_stubbornService(self) -> None:
        """
        A close ends both directions. A service that goes on nevertheless is
        cut off, in the end.
        """
        self.connect()
        self.server.say({"port": 4000}, Frame(7, FrameType.DATA, b"hello"))
        self.settle()
        (service,) = self.web.visits
        self.server.say(Frame(7, FrameType.CLOSE, b""))
        self.settle()
        self.advance(100, 5)
        # In memory there is no half-close that it could have seen.
        self.assertIsNone(service.lost)
        self.advance(30, 5)
        self.assertIsNotNone(service.lost)

    def test_closes(self) -> None:
        """A server that closes without an answer may have refused us."""
        self.connect()
        self.server.transport.loseConnection()
        self.settle()
        self.assertIn("refuses the credentials", self.reason().message)

    def test_noPort(self) -> None:
        """An answer without a port is none."""
        for wrong in ({}, {"port": 0}, {"port": "80"}, {"port": 70000}, {"port": None}):
            self.server = RawPeer()
            self.connect()
            self.server.say(wrong)
            self.settle()
            self.assertIn("no port", self.reason().message)

    def test_silentForEver(self) -> None:
        """A plain server cannot be asked for a sign of life."""
        self.connect()
        self.server.say({"port": 4000})
        self.settle()
        self.advance(DEADLINE * 4, 5)
        self.assertIsNone(self.client.lost)


class PlainServerTLSTests(PlainServerTests):
    """The same over TLS."""

    tls = True


class ExtendedServerTests(ClientTestCase):
    """A server that speaks the extension."""

    def ready(self, *messages: Frame, **options: Any) -> None:
        self.connect(**options)
        self.server.say(WELCOME, *messages)
        self.settle()
        self.assertIs(self.successResultOf(self.client.whenReady()), self.client)

    def test_hello(self) -> None:
        """The client says who it is, what it speaks, and which lease it had."""
        self.connect(host="server.example", lease={"id": "a", "secret": "b"})
        offer = self.server.handshake["tristunnel"]
        self.assertEqual(offer["versions"], [1])
        self.assertEqual(offer["host"], "server.example")
        self.assertEqual(offer["lease"], {"id": "a", "secret": "b"})

    def test_proxied(self) -> None:
        """
        Behind a proxy no datagrams go beside the session: they would go to the
        proxy.
        """
        for proxied in (False, True):
            factory = self.factory()
            factory.proxied = proxied
            self.setUp()
            self.join(self.server, factory.buildProtocol(SERVER))
            offer = self.server.handshake["tristunnel"]
            self.assertEqual(offer.get(PATH, False), not proxied)

    def test_refused(self) -> None:
        """A refusal has a code, a message and a hint, which are bounded."""
        refused = {"code": "auth-refused", "message": "go " * 400, "retryAfter": 1e99}
        self.connect()
        self.server.say({"tristunnel": {"refused": refused}})
        self.settle()
        reason = self.reason()
        self.assertEqual(reason.code.name, "auth-refused")
        self.assertTrue(reason.code.permanent)
        self.assertEqual(len(reason.message), 500)
        self.assertEqual(reason.retryAfter, LONGEST_HINT)

    def test_otherVersion(self) -> None:
        """A server of another version is told apart."""
        self.connect()
        self.server.say({"port": 0, "tristunnel": {"version": 9}})
        self.settle()
        self.assertIn("does not speak version", self.reason().message)

    def test_visitor(self) -> None:
        """
        A stream that is opened reaches the service, is answered, and may
        carry bytes before that.
        """
        info = encodeObject({"tunnel": "w3p://server/1", "visitor": "v:1"})
        self.ready(
            Frame(2, FrameType.OPEN, encodeCredit(WINDOW) + info),
            Frame(2, FrameType.DATA, b"question"),
            Frame(2, FrameType.EOF, b""),
        )
        (service,) = self.web.visits
        self.assertEqual(service.data, b"question")
        service.transport.write(b"answer")
        self.settle()
        frames = [f for f in self.server.frames() if f.stream == 2]
        self.assertEqual([f.kind for f in frames], [FrameType.OPENED, FrameType.DATA])
        self.assertEqual(frames[1].payload, b"answer")

    def test_calls(self) -> None:
        """A call is answered, with a result or an error."""
        self.ready()
        right = self.client.call("openTunnel", port=1)
        wrong = self.client.call("openTunnel", port=2)
        self.settle()
        answers = [
            {"jsonrpc": "2.0", "id": 1, "result": "w3p://x/1"},
            {
                "jsonrpc": "2.0",
                "id": 2,
                "error": {
                    "code": -32004,
                    "message": "port 2 is in use",
                    "data": {"code": "port-taken"},
                },
            },
        ]
        for answer in answers:
            self.server.say(Frame(0, FrameType.CONTROL, encodeObject(answer)))
        self.settle()
        self.assertEqual(self.successResultOf(right), "w3p://x/1")
        error = self.failureResultOf(wrong, TunnelError).value
        self.assertEqual(error.code.name, "port-taken")

    def test_lost(self) -> None:
        """When the connection is lost, calls fail and visitors are reset."""
        self.ready(Frame(2, FrameType.OPEN, encodeCredit(WINDOW) + b"{}"))
        waiting = self.client.call("openTunnel")
        over = self.client.whenOver()
        self.settle()
        (service,) = self.web.visits
        self.wires[-1].cut()
        self.web.settle()
        self.failureResultOf(waiting, TunnelError)
        self.assertEqual(self.successResultOf(over).code.name, "session-lost")
        self.assertIsNotNone(service.lost)

    def test_silence(self) -> None:
        """A server that is silent is asked, and given up at the deadline."""
        self.ready()
        self.advance(26)
        kinds = [frame.kind for frame in self.server.frames()]
        self.assertIn(FrameType.PING, kinds)
        self.advance(DEADLINE)
        self.assertIn(
            "nothing was received", self.successResultOf(self.client.whenOver()).message
        )

    def test_nothingAfterTheEnd(self) -> None:
        """A stream that is opened while the session ends reaches no service."""
        self.ready()
        self.client.fail(TunnelError("protocol-error"))
        self.client.dataReceived(
            b"\0\0\0\x0f\0\0\0\x02\x20" + encodeCredit(WINDOW) + b"{}"
        )
        self.settle()
        self.assertEqual(self.web.visits, [])


class ExtendedServerTLSTests(ExtendedServerTests):
    """The same over TLS."""

    tls = True


class WrongServerTests(ClientTestCase):
    """
    Servers of another kind, reached without TLS: the client says what they
    seem to be, and what to write instead.
    """

    def answer(self, data: bytes) -> str:
        """Have the server answer with bytes; what the client says then."""
        self.server = RawPeer()
        self.connect()
        self.server.say(data)
        self.settle()
        self.assertIsNotNone(self.server.lost)
        return self.reason().message

    def test_http(self) -> None:
        """A web server."""
        message = self.answer(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertIn("server.example:9000 answered with an HTTP answer", message)
        self.assertIn("check the port", message)

    def test_ssh(self) -> None:
        """An SSH server, or a mail server, which speak first."""
        self.assertIn("SSH banner", self.answer(b"SSH-2.0-OpenSSH_9.2\r\n"))
        self.assertIn("SMTP", self.answer(b"220 mail.example ESMTP\r\n"))

    def test_somethingElse(self) -> None:
        """Bytes of unknown meaning are shown, but not all of them."""
        message = self.answer(b"\x00\x01\x02" * 10_000)
        self.assertIn(r"\x00\x01\x02", message)
        self.assertLess(len(message), 300)

    def test_oneByte(self) -> None:
        """The first wrong byte is enough."""
        self.assertIn("b'Z'", self.answer(b"Z"))

    def test_hugeAnswer(self) -> None:
        """A length of 4 GiB is refused before any body."""
        message = self.answer(b"W3PTUNL\xff\xff\xff\xff")
        self.assertIn("4294967295", message)

    def test_silence(self) -> None:
        """A server that accepts and says nothing."""
        self.connect()
        self.advance(HANDSHAKE_TIMEOUT - 1)
        self.assertNoResult(ready := self.client.whenReady())
        self.advance(2)
        message = self.failureResultOf(ready, TunnelError).getErrorMessage()
        self.assertIn("sent nothing for 10 s", message)
        self.assertEqual("write tls:" in message, not self.tls)
        self.assertIsNotNone(self.server.lost)

    def test_halfAnAnswer(self) -> None:
        """A server that begins to answer and stops."""
        self.connect()
        self.server.say(b"W3PTUNL\0\0")
        self.settle()
        self.advance(HANDSHAKE_TIMEOUT + 1)
        self.assertEqual(self.reason().code.name, "handshake-timeout")


class WrongServerTLSTests(WrongServerTests):
    """The same within TLS."""

    tls = True


class UnevenTLSTests(ClientTestCase):
    """One side speaks TLS, the other one does not."""

    tls = True

    def test_plainClient(self) -> None:
        """Without TLS at a server that has it."""
        client = self.factory().buildProtocol(SERVER)
        self.joinUnevenly(self.sessions, client)
        self.settle()
        self.assertIn("write tls: instead of tcp:", self.reason(client).message)
        self.tls = False
        self.connect()
        # An alert of TLS 1.2: a protocol version that is not supported.
        self.server.say(bytes.fromhex("15030100020246"))
        self.settle()
        message = self.reason().message
        self.assertIn("the server speaks TLS: write tls: instead of tcp:", message)

    def test_tlsClient(self) -> None:
        """TLS at a server that has none."""
        for answer in (b"", b"HTTP/1.1 400 Bad Request\r\n\r\n", b"SSH-2.0-x\r\n"):
            self.server = RawPeer(answer)
            client = self.uneven()
            if not answer:
                self.server.transport.loseConnection()
                self.settle()
            message = self.reason(client).message
            self.assertIn("tcp:", message)
            self.assertIn("instead of tls:", message)

    def test_ourPlainServer(self) -> None:
        """TLS at a port of ours that has none."""
        client = self.uneven(self.sessions)
        self.assertIn("tcp:", self.reason(client).message)
        ((_, line),) = self.notes.named("peerRefused")
        self.assertIn("TLS hello", line)

    def test_credentialsStayInside(self) -> None:
        """Nothing is said before the server has shown who it is."""
        self.server = RawPeer()
        self.uneven()
        self.assertNotIn(b"W3PTUNL", self.server.data)
        self.assertEqual(self.seen.named("credentialsSent"), [])
        self.wires[-1].cut()

    def uneven(self, server: IProtocolFactory | None = None) -> TunnelClientProtocol:
        """Connect a client with TLS to a server without."""
        _, verification = self.contexts()
        nowhere: Any = None
        address = ServerAddress(
            "server", "server.example", nowhere, verification=verification
        )
        factory = self.factory(explain=address.explain)
        over: Any = TLSMemoryBIOFactory(verification, True, factory, self.clock)
        top = over.buildProtocol(SERVER)
        client: TunnelClientProtocol = top.wrappedProtocol
        self.tls = False
        wire: Wire = self.join(server or self.server, top)
        self.tls = True
        wire.settle()
        return client
