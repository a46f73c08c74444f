"""
Ports whose connections say in their first message which tunnel they are for, on sockets
of ours and on Twisted's.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import ssl
from collections.abc import Callable
from functools import partial
from struct import pack
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SkipTest, TestCase

from tests.support.minecraft import handshake, legacyPing, readPacket
from tests.support.notes import ServerNotes
from tests.support.polling import until, untilClosed
from tests.support.protocols import Answering
from tests.support.stock import StockReactor
from tests.tls.authority import makeAuthority
from tests.tls.files import FileTestCase
from tristunnel.dataplane.dial import HostEndpoint
from tristunnel.dataplane.join import join
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.transport_end import EndFactory
from tristunnel.errors import TunnelError
from tristunnel.model.options import TunnelOptions
from tristunnel.names.table import NameTable, Route
from tristunnel.server.minecraft import MinecraftFactory
from tristunnel.server.postgres import PostgresFactory
from tristunnel.server.tls_names import Certificates
from tristunnel.service.preauth import PreauthLimiter
from tristunnel.tls.server_context import ReloadingCertificate
from tristunnel.wire.minecraft import MinecraftHandshake, refusal


def _hear(connection: Any, end: bytes) -> bytes:
    """Read until something is said, or the connection ends."""
    said = b""
    while not (end and said.endswith(end)):
        more = connection.recv(65536)
        if not more:
            break
        said += more
    return said


class FirstMessageTestCase(TestCase, FileTestCase):
    """A port, and a service behind the name C{a.t.example}."""

    ours = True
    kind = ""

    async def setUp(self) -> None:  # type: ignore[override] # trial waits for it
        FileTestCase.setUp(self)
        self.reactor: Any = ourReactor() if self.ours else StockReactor(reactor)
        self.notes = ServerNotes()
        self.table = NameTable()
        self.limiter = PreauthLimiter(self.reactor.seconds, 8)
        self.ends: list[Any] = []
        factory = Factory.forProtocol(partial(Answering, b"<"))
        factory.noisy = False
        service = await self.listen(factory)
        self.port = await self.listen(self.make())

        async def visit(end: Any) -> None:
            self.ends.append(end)
            came: Deferred[Any] = Deferred()
            endpoint = HostEndpoint(self.reactor, "127.0.0.1", service, 5.0)
            await endpoint.connect(EndFactory(self.reactor, came.callback))
            self.ends.append(await came)
            join(end, self.ends[-1], lambda reason: None)

        def arrived(end: Any, address: str) -> None:
            Deferred.fromCoroutine(visit(end))

        options = TunnelOptions()
        self.table.enter(Route(self.kind, "a.t.example", "", options, arrived))

    def make(self) -> Any:
        raise NotImplementedError

    async def listen(self, factory: Any) -> int:
        endpoint: Any = TCP4ServerEndpoint(self.reactor, 0, 50, "127.0.0.1")
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def talk(self, speak: Callable[[socket.socket], bytes]) -> Deferred[bytes]:
        """Have a visitor say something; what it hears."""

        def talking() -> bytes:
            address = "127.0.0.1", self.port
            with socket.create_connection(address, 10) as connection:
                try:
                    return speak(connection)
                except (ConnectionError, ssl.SSLError):
                    return b"reset"

        return deferToThread(talking)

    def say(self, *pieces: bytes, end: bytes = b"") -> Deferred[bytes]:
        def speak(connection: socket.socket) -> bytes:
            for piece in pieces:
                connection.sendall(piece)
            return _hear(connection, end)

        return self.talk(speak)

    async def settled(self) -> None:
        """Wait until nobody is left of whom nothing is known."""
        await until(lambda: not self.limiter.unauthenticated)

    async def tearDown(self) -> None:  # type: ignore[override] # trial waits for it
        for end in self.ends:
            end.reset(TunnelError("closed"))
        # Nobody listens any more: trial does what was left to clean up first.
        await untilClosed()

    @property
    def why(self) -> str:
        return str(self.notes.events[-1])


class MinecraftTests(FirstMessageTestCase):
    """Players."""

    kind = "minecraft"

    def make(self) -> Any:
        return MinecraftFactory(
            self.reactor, self.notes, self.limiter, table=self.table
        )

    async def test_status(self) -> None:
        """The handshake and all behind it goes to the server that it names, as it is:
        for the server list, for a login, and of old clients."""
        for hello in (
            handshake("A.t.example.\0FML3\0"),
            handshake("a.t.example", state=2),
            legacyPing("a.t.example"),
        ):
            more = b"\x01\0" + os.urandom(50_000)
            said = await self.say(hello[:3], hello[3:] + more, end=more[-50:])
            self.assertEqual(said, b"<" + hello + more)
        self.assertEqual(self.notes.events, [])
        self.assertEqual({isinstance(e, SocketEnd) for e in self.ends}, {self.ours})

    async def test_unknown(self) -> None:
        """The game shows why nobody is there."""
        said = await self.say(handshake("b.t.example") + b"\x01\0")
        shown = json.loads(readPacket(said)[1])
        words = "There is no server called b.t.example here"
        self.assertEqual(shown["description"], {"text": words})
        said = await self.say(handshake("b.t.example", state=2))
        self.assertEqual(said, refusal(MinecraftHandshake("", 0, 2), words))
        self.assertIn("unknown-tunnel", self.why)
        await self.settled()

    async def test_other(self) -> None:
        """What is no handshake is cut off; what may become one is waited for."""
        for data in (b"GET / HTTP/1.1\r\n\r\n", b"\xfe\x01", b"\x10\x07"):
            if data == b"\xfe\x01":
                data += b"\xfa\0\x0c"
            self.assertIn(await self.say(data), (b"", b"reset"))
            self.assertIn("protocol-error", self.why)
        await self.settled()


class StockMinecraftTests(MinecraftTests):
    """The same on Twisted's sockets."""

    ours = False


_ASK_TLS = pack("!II", 8, 80877103)
_ASK_GSS = pack("!II", 8, 80877104)


def _startup(database: str) -> bytes:
    body = f"user\0bob\0database\0{database}\0\0".encode()
    return pack("!II", len(body) + 8, 196608) + body


class PostgresTests(FirstMessageTestCase):
    """Programs that speak PostgreSQL's protocol."""

    kind = "postgres"

    def make(self) -> Any:
        authority = makeAuthority()
        self.trust = authority.write(self.directory / "ca.pem")
        files = self.write("own.pem", *authority.issue(["a.t.example", "t.example"]))
        self.factory = PostgresFactory(
            self.reactor,
            self.notes,
            self.limiter,
            table=self.table,
            certificates=Certificates(ReloadingCertificate(files)),
            domains=lambda: ["t.example"],
        )
        return self.factory

    def secure(
        self, serverName: str, data: bytes, asks: bool = True, end: bytes = b""
    ) -> Deferred[bytes]:
        def speak(connection: socket.socket) -> bytes:
            if asks:
                connection.sendall(_ASK_TLS)
                if connection.recv(1) != b"S":
                    return b"no TLS"
            context = ssl.create_default_context(cafile=str(self.trust))
            context.set_alpn_protocols(["postgresql"])
            with context.wrap_socket(connection, server_hostname=serverName) as tls:
                if tls.selected_alpn_protocol() != "postgresql":
                    return b"no protocol"
                tls.sendall(data)
                return _hear(tls, end)

        return self.talk(speak)

    async def test_names(self) -> None:
        """The server name says whose it is, or else the database; with TLS, asked for
        or at once, or without."""
        hello = _startup("a")
        other = _startup("shop") + os.urandom(100_000)
        for said, data in (
            (self.secure("a.t.example", other, end=other[-50:]), other),
            (self.secure("a.t.example", other, False, end=other[-50:]), other),
            (self.secure("t.example", hello, end=hello), hello),
            (self.say(hello[:7], hello[7:], end=hello), hello),
            (self.say(_startup("A.t.example"), end=b"\0\0"), _startup("A.t.example")),
        ):
            self.assertEqual(await said, b"<" + data)
        self.assertEqual(self.notes.events, [])
        self.assertEqual({isinstance(e, SocketEnd) for e in self.ends}, {self.ours})
        await self.settled()

    async def test_unknown(self) -> None:
        """A program shows why nobody is there."""
        for said in (
            await self.secure("t.example", _startup("b")),
            await self.say(_startup("b")),
        ):
            self.assertEqual(said[:1], b"E")
            self.assertIn(b"no tunnel is called 'b'", said)
            self.assertIn("unknown-tunnel", self.why)
        await self.settled()

    async def test_questions(self) -> None:
        """There is no GSSAPI, and no TLS without a certificate; then it goes on
        without."""
        hello = _startup("a")

        def speak(connection: socket.socket) -> bytes:
            answers = b""
            for question in (_ASK_GSS, _ASK_TLS):
                connection.sendall(question)
                answers += connection.recv(1)
            connection.sendall(hello)
            return answers + _hear(connection, hello)

        self.factory.certificates = None
        self.assertEqual(await self.talk(speak), b"NN<" + hello)

    async def test_other(self) -> None:
        """What is no PostgreSQL is cut off, and so is what somebody has put between a
        question and TLS."""
        for data in (
            b"GET / HTTP/1.1\r\n\r\n",
            _ASK_TLS + _startup("a"),
            _ASK_GSS + b"\0",
            pack("!IIII", 16, 80877102, 1, 2),
            b"\x16\x03\x01\0\x05hello",
        ):
            self.assertIn(await self.say(data), (b"", b"reset"))
            self.assertIn("protocol-error", self.why)
        for within in (b"GET / HTTP/1.1\r\n\r\n", _ASK_TLS):
            self.assertIn(await self.secure("t.example", within), (b"", b"reset"))
            self.assertIn("protocol-error", self.why)
        await self.settled()

    async def test_psql(self) -> None:
        """PostgreSQL's own client finds its way, and shows what is wrong."""
        program = shutil.which("psql")
        if program is None:
            raise SkipTest("psql is not installed")
        for how, words in (
            ("sslmode=require", b"no tunnel is called 'b'"),
            ("sslmode=disable", b"no tunnel is called 'b'"),
        ):
            place = f"host=127.0.0.1 port={self.port} user=u dbname=b {how}"
            found: Any = getProcessOutputAndValue(program, [place], os.environ)
            _, errors, status = await found
            self.assertIn(words, errors)
            self.assertEqual(status, 2)


class StockPostgresTests(PostgresTests):
    """The same on Twisted's sockets."""

    ours = False
