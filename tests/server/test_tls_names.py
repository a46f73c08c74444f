"""
One port for several TLS names, on sockets of ours and on Twisted's: who gets a
connection, and that nothing of what was looked at is lost.
"""

from __future__ import annotations

import os
import socket
import ssl
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, connectionDone
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.support.notes import ServerNotes
from tests.support.polling import until
from tests.support.protocols import Answering, Hearing
from tests.support.stock import StockReactor
from tests.tls.authority import makeAuthority
from tests.tls.files import FileTestCase
from tests.wire.test_client_hello import hello, name, records
from tristunnel.acme.challenges import Answers
from tristunnel.dataplane.dial import HostEndpoint
from tristunnel.dataplane.join import join
from tristunnel.dataplane.reactor import polledReactor
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.tls import tlsOverEndpoint
from tristunnel.dataplane.transport_end import EndFactory
from tristunnel.errors import TunnelError
from tristunnel.model.options import TunnelOptions
from tristunnel.names.table import NameTable, Route
from tristunnel.server.tls_names import Certificates, Served, TLSNamesFactory
from tristunnel.service.preauth import PreauthLimiter
from tristunnel.tls.named import NamedCertificates
from tristunnel.tls.server_context import ReloadingCertificate
from tristunnel.wire.client_hello import CHALLENGE


class Echo(Answering):
    """Says who it is, and then all that it hears."""

    def __init__(self, who: bytes, alive: set[Echo]) -> None:
        super().__init__(who)
        self.alive = alive

    def connectionMade(self) -> None:
        self.alive.add(self)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.alive.discard(self)


class TLSNamesTests(TestCase, FileTestCase):
    ours = True
    timeout_ = 10.0

    async def setUp(self) -> None:  # type: ignore[override] # trial waits for it
        FileTestCase.setUp(self)
        self.reactor: Any = (
            polledReactor(reactor) if self.ours else StockReactor(reactor)
        )
        self.authority = makeAuthority()
        self.trust = self.authority.write(self.directory / "ca.pem")
        self.notes = ServerNotes()
        self.table = NameTable()
        self.ends: list[Any] = []
        self.alive: set[Echo] = set()
        self.addCleanup(lambda: Deferred.fromCoroutine(self.quiet()))
        self.answers = Answers(self.directory / "challenges")
        self.put("named/b.example.pem", "b.example")
        default = ReloadingCertificate(
            self.put("default.pem", "a.example", "localhost")
        )
        named = NamedCertificates(self.directory / "named")
        self.limiter = PreauthLimiter(self.reactor.seconds, 8)
        certificates = Certificates(default, (named,))
        self.factory = TLSNamesFactory(
            self.reactor,
            self.notes,
            self.limiter,
            self.timeout_,
            table=self.table,
            own=Served(self.echo(b"here"), certificates),
            visitors=Served(self.echo(b"elsewhere"), certificates),
            isOwn=lambda name: name in ("", "a.example"),
            challenge=self.answers.contextFor,
            plain=self.echo(b"plain"),
        )
        self.port = await self.listen(self.factory)
        service = await self.listen(
            self.echo(b"service"),
            ReloadingCertificate(self.put("service.pem", "c.example")),
        )

        async def visit(end: Any, address: str) -> None:
            self.ends.append(end)
            endpoint = HostEndpoint(self.reactor, "127.0.0.1", service, 5.0)
            came: Deferred[Any] = Deferred()
            await endpoint.connect(EndFactory(self.reactor, came.callback))
            other = await came
            self.ends.append(other)
            join(end, other, lambda reason: None)

        def arrived(end: Any, address: str) -> None:
            Deferred.fromCoroutine(visit(end, address))

        route = Route("tls-name", "c.example", "", TunnelOptions(), arrived)
        self.table.enter(route)

    async def quiet(self) -> None:
        for end in self.ends:
            end.reset(TunnelError("closed"))
        await until(lambda: not self.alive)
        # What was broken off is gone in the reactor's next turn.
        await deferLater(reactor, 0)
        await deferLater(reactor, 0)

    def echo(self, who: bytes) -> Factory[Echo]:
        made = Factory.forProtocol(lambda: Echo(who, self.alive))
        made.noisy = False
        return made

    def put(self, path: str, *names: str) -> Any:
        return self.write(path, *self.authority.issue(names))

    async def listen(self, factory: Any, tls: Any = None) -> int:
        endpoint: Any = TCP4ServerEndpoint(self.reactor, 0, 50, "127.0.0.1")
        if tls is not None:
            endpoint = tlsOverEndpoint(tls, endpoint)
        port = await endpoint.listen(factory)
        self.addCleanup(port.stopListening)
        return int(port.getHost().port)

    def talk(self, serverName: str | None, data: bytes = b"") -> Deferred[Any]:
        """Speak TLS, and give the certificate's names and what came back."""

        def talking() -> tuple[set[str], bytes]:
            context = ssl.create_default_context(cafile=str(self.trust))
            context.check_hostname = False
            with (
                self.dialled() as connection,
                context.wrap_socket(connection, server_hostname=serverName) as tls,
            ):
                names: Any = tls.getpeercert()
                said = b""
                tls.sendall(data)
                while not (said and said.endswith(data)):
                    said += tls.recv(65536)
                return {each[1] for each in names["subjectAltName"]}, said

        return deferToThread(talking)

    def dialled(self) -> Any:
        return socket.create_connection(("127.0.0.1", self.port), 10)

    async def test_sorted(self) -> None:
        """A name's own tunnel, its own certificate, or the default."""
        for asked, names, who in (
            ("c.example", {"c.example"}, b"service"),
            ("b.example", {"b.example"}, b"elsewhere"),
            ("a.example", {"a.example", "localhost"}, b"here"),
            ("nobody.example", {"a.example", "localhost"}, b"elsewhere"),
            (None, {"a.example", "localhost"}, b"here"),
        ):
            self.assertEqual(await self.talk(asked), (names, who))
        self.assertEqual(self.notes.events, [])
        end, _ = self.ends
        self.assertEqual(isinstance(end, SocketEnd), self.ours)

    async def test_bulk(self) -> None:
        """Much goes through to a name and back, unchanged."""
        data = os.urandom(1_000_000)
        _, said = await self.talk("c.example", data)
        self.assertEqual(said, b"service" + data)

    async def connect(self) -> Hearing:
        made = Hearing()
        factory = Factory.forProtocol(lambda: made)
        factory.noisy = False
        await HostEndpoint(self.reactor, "127.0.0.1", self.port, 5.0).connect(factory)
        return made

    async def test_plain(self) -> None:
        """What is no TLS is for others, from its first byte on."""
        client = await self.connect()
        client.transport.write(b"W")
        await until(lambda: client.data == b"plainW")
        client.transport.loseConnection()
        await client.gone()

    async def test_pieces(self) -> None:
        """A hello that comes in pieces is waited for, and passed on whole."""
        client = await self.connect()
        whole = records(hello(name(b"c.example")), 40)
        for at in range(0, len(whole), 30):
            client.transport.write(whole[at : at + 30])
            await deferLater(reactor, 0.005)
        # An alert of the service's: it misses what a real hello has.
        await until(lambda: client.data[:1] == b"\x15")
        await client.gone()
        self.assertEqual(self.notes.events, [])

    async def test_refused(self) -> None:
        """What is no hello is refused in one line, and a silent peer in time."""
        self.factory.plain = None
        self.factory.timeout = 0.2
        for data, why in (
            (b"GET / HTTP/1.1\r\n\r\n", "takes TLS only"),
            (b"\x16\x03\x01\x00\x00", "in pieces"),
            (records(hello(name(b"a"), name(b"b"))), "twice"),
            (records(hello(name(b"c.example")))[:60], "no whole TLS hello"),
            (b"", "no whole TLS hello"),
        ):
            client = await self.connect()
            client.transport.write(data)
            await client.gone()
            self.assertIn(why, self.notes.events[-1][2])
            # Browsers that came without TLS are told so.
            self.assertEqual(b"https://" in client.data, data[:4] == b"GET ")
        self.assertEqual(len(self.notes.events), 5)

    async def test_left(self) -> None:
        """Who leaves in the middle is forgotten; too many from one place are not let
        in."""
        clients = [await self.connect() for _ in range(8)]
        clients[0].transport.write(b"\x16\x03\x01")
        ninth = await self.connect()
        await ninth.gone()
        self.assertEqual(self.notes.events[-1][1], "limit-reached")
        for client in clients:
            client.transport.abortConnection()
            await client.gone()
        await until(lambda: not self.limiter.unauthenticated)

    async def test_challenge(self) -> None:
        """An authority sees its answer, and nothing is made for other names."""
        self.answers.putCertificate("d.example", b"\x04\x02ok")

        def look(serverName: str) -> bytes:
            context = ssl.create_default_context()
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
            context.set_alpn_protocols([CHALLENGE.decode()])
            with (
                self.dialled() as connection,
                context.wrap_socket(connection, server_hostname=serverName) as tls,
            ):
                assert tls.selected_alpn_protocol() == CHALLENGE.decode()
                found = tls.getpeercert(True)
                assert tls.recv(1) == b""
                return found or b""

        self.assertIn(b"\x04\x02ok", await deferToThread(look, "d.example"))
        with self.assertRaises(OSError):
            await deferToThread(look, "e.example")
        self.assertIn("no challenge", self.notes.events[-1][2])
        await until(lambda: not self.limiter.unauthenticated)


class StockTLSNamesTests(TLSNamesTests):
    """The same where there is no epoll."""

    ours = False
