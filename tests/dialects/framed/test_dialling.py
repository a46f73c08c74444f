"""Forward tunnels: a client listens, and the server or another client dials."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.internet.task import Clock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.support.ends import NotingEnd
from tests.support.loopback import LoopbackTestCase, Service
from tests.support.polling import until
from tristunnel.cli.client_tap import Options
from tristunnel.client.dials import parseDial
from tristunnel.client.local import localEndpoint, makeLocalPort
from tristunnel.client.visitor import LocalPort
from tristunnel.connect.address import parseConnect
from tristunnel.dialects.base.dialling import DialSide
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.framed.dialect import FramedDialect, bySession
from tristunnel.errors import TunnelError
from tristunnel.forwards.dialling import DialRequest, dialDestinations
from tristunnel.listeners.udp import UDPListeners
from tristunnel.model.permissions import (
    ANONYMOUS_IDENTITY,
    Grant,
    Identity,
    Permissions,
)
from tristunnel.service.caller import Caller
from tristunnel.service.listing import Listing

DATA = os.urandom(700_000)


class OptionTests(SynchronousTestCase):
    """The command line."""

    def test_parse(self) -> None:
        """What follows the last mark is what is reached, unless it is a keyword's."""
        from twisted.internet import reactor

        for text, target, client in (
            ("5432=db.internal:5432", "db.internal:5432", ""),
            ("5432=DB.internal:5432@office", "db.internal:5432", "office"),
            ("tcp:1:interface=127.0.0.1=[::1]:2", "[::1]:2", ""),
            ("unix:/run/x=h:1", "h:1", ""),
            ("1=unix:/run/x@office", "unix:/run/x", "office"),
            ("1080=socks:", "socks:", ""),
            ("tcp:1080:interface=127.0.0.1=socks:@office", "socks:", "office"),
            ("udp:53:interface=127.0.0.1=h:53", "h:53", ""),
        ):
            dial = parseDial(reactor, text)
            assert dial is not None
            self.assertEqual((dial.target, dial.client), (target, client), text)
        for text in ("2222", "tcp:1:interface=127.0.0.1", "unix:/run/x:mode=660"):
            self.assertIsNone(parseDial(reactor, text))

    def test_refused(self) -> None:
        """Mistakes are told in one line."""
        for words, part in (
            ("--listen 1=h", "nothing to dial"),
            ("--listen 1=h:1@a/b", "a client's name"),
            ("--listen 1=unix:x", "whole path"),
            ("--listen udp:1=unix:/x", "no datagrams"),
            ("--listen udp:1=socks:@office", "no datagrams"),
            ("--listen 1 --listen 2", "has no target"),
            ("--listen 1=h:1 --service x", "leave out --service"),
            ("--listen 1=h:1 --dialect vtunnel", "does not dial"),
            ("--dial-allow h", "HOST:PORTS"),
            ("--listen udp:x=h:1", "not a UDP port"),
        ):
            options = Options()
            error = self.assertRaises(
                UsageError,
                options.parseOptions,
                ["--connect", "ws://h/", *words.split()],
            )
            self.assertIn(part, str(error))

    def test_many(self) -> None:
        """Several may stand beside forwards."""
        options = Options()
        options.parseOptions(
            [
                "--connect",
                "tcp:h:1",
                "--listen",
                "1=h:1",
                "--listen",
                "udp:2=h:2@b",
                "--forward",
                "3000",
                "--dial-allow",
                "10.0.0.0/8:443",
                "--dial-allow",
                "unix:/run/x",
            ]
        )
        self.assertEqual(len(options.dials), 2)
        self.assertTrue(options.destinations)


class RequestTests(SynchronousTestCase):
    """What is asked for."""

    @given(
        st.dictionaries(
            st.sampled_from(["dial", "client", "x"]),
            st.text(max_size=30) | st.integers() | st.none(),
        )
    )
    def test_anything(self, info: dict[str, object]) -> None:
        """Nothing but C{protocol-error} comes of anything."""
        try:
            DialRequest.read(info, False)
        except TunnelError as error:
            self.assertEqual(error.code.name, "protocol-error")

    def test_rights(self) -> None:
        """A token must be one that may dial, and a capability is good for its own."""
        for permissions, isForOne, code in (
            (Permissions(may=frozenset({"open", "admin"})), False, "not-permitted"),
            (Permissions(may=frozenset({"dial"})), True, "not-permitted"),
            (
                Permissions(may=frozenset({"dial"}), servicesOf="x"),
                False,
                "not-permitted",
            ),
            (Permissions(may=frozenset({"dial"}), expires=1.0), False, "token-expired"),
        ):
            identity = Identity("me", grant=Grant(permissions))
            session: Any = SimpleNamespace(
                caller=lambda identity=identity: Caller(identity, "h"),
                isForOneTunnel=isForOne,
                visits=None,
            )
            service: Any = SimpleNamespace(reactor=Clock())
            side = DialSide(session, service, lambda name: None)
            end = NotingEnd()
            side.opened(
                end, {"dial": "h:1"}, IPv4Address("TCP", "h", 1), lambda: None, False
            )
            self.assertEqual(end.told, [code])


class _Echo(DatagramProtocol):
    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.transport.write(b"echo " + datagram, addr)


class _Asker(DatagramProtocol):
    def __init__(self) -> None:
        self.came: Deferred[bytes] = Deferred()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if not self.came.called:
            self.came.callback(datagram)


class DialTests(LoopbackTestCase):
    """Bytes and datagrams, by the server and by another client."""

    async def begin(self, *allowed: str) -> None:
        await self.startServer()
        self.sessions.destinations = dialDestinations(allowed)

    async def connect(
        self, name: str, allowed: tuple[str, ...] = (), asks: bool = True
    ) -> TunnelClientService:
        client = TunnelClientService(
            self.reactor,
            parseConnect(self.reactor, f"tcp:127.0.0.1:{self.serverPort}", self.trust),
            [],
            {"id": name},
            grace=0.0,
        )
        client.asksToDial = asks
        client.destinations = dialDestinations(allowed)
        client.startService()
        self.addCleanup(self._stop, client)
        await until(lambda: client.session is not None)
        return client

    async def port(
        self,
        client: TunnelClientService,
        target: str,
        dialler: str = "",
        where: str = "tcp:0:interface=127.0.0.1",
        service: str = "",
    ) -> int:
        """@return: The local port that leads there."""
        route = FramedDialect().makeDial(client, target, dialler)
        if service:
            route = bySession(client, service)
        endpoint = localEndpoint(self.reactor, where)
        port: LocalPort = makeLocalPort(
            self.reactor, endpoint, where, route, target, 0.0
        )
        port.startService()
        self.addCleanup(port.stopService)
        at: Any = port.listening
        number: int = at.getHost().port
        return number

    async def talk(self, port: int, service: Service) -> None:
        """Bytes pass both ways, each direction ends by itself."""
        visitor, at = await self.pair(port, service)
        await visitor.has(6)
        visitor.say(DATA * 3)
        visitor.finish()
        await at.ended()
        self.assertEqual(bytes(at.data), DATA * 3)
        at.say(DATA * 3)
        at.finish()
        await visitor.ended()
        self.assertEqual(bytes(visitor.data), b"banner" + DATA * 3)

    async def test_server(self) -> None:
        """The server dials, and counts it as a visit."""
        service = Service(b"banner")
        at = self.offer(service)
        await self.begin(f"127.0.0.1:{at}")
        client = await self.connect("me")
        await self.talk(await self.port(client, f"127.0.0.1:{at}"), service)
        self.assertEqual(len(self.notes.named("visitorConnected")), 1)

    async def test_listed(self) -> None:
        """Whoever dials is listed with what that was, and can be disconnected."""
        service = Service(b"banner")
        at = self.offer(service)
        await self.begin(f"127.0.0.1:{at}")
        client = await self.connect("me")
        visitor, _ = await self.pair(
            await self.port(client, f"127.0.0.1:{at}"), service
        )
        await visitor.has(6)
        listing, caller = Listing(self.tunnels), Caller(ANONYMOUS_IDENTITY, "h")
        (entry,) = [
            each
            for each in await listing.listSessions(caller)
            if each["kind"] == "visitor"
        ]
        self.assertEqual(
            (f"127.0.0.1:{at}", "dialled:"), (entry["target"], entry["tunnel"])
        )
        with self.assertRaises(TunnelError):
            await listing.closeSession(caller, str(entry["id"]).partition(".")[0])
        await listing.closeSession(caller, str(entry["id"]))
        await visitor.gone()

    async def test_ownPort(self) -> None:
        """The server connects nobody to a port of its own."""
        await self.begin("localhost:*")
        client = await self.connect("me")
        for host in ("127.0.0.1", "localhost"):
            port = await self.port(client, f"{host}:{self.serverPort}")
            await (await self.visit(port)).gone()

    async def test_client(self) -> None:
        """Another client dials, by its own list."""
        service = Service(b"banner")
        at = self.offer(service)
        await self.begin()
        await self.connect("office", (f"localhost:{at}",), asks=False)
        client = await self.connect("me")
        await self.talk(await self.port(client, f"localhost:{at}", "office"), service)
        for target, dialler in (
            (f"127.0.0.1:{self.serverPort}", "office"),
            (f"localhost:{at}", "nobody"),
            (f"localhost:{at}", "me"),
            (f"localhost:{at}", ""),
        ):
            visitor = await self.visit(await self.port(client, target, dialler))
            await visitor.gone()
            self.assertEqual(bytes(visitor.data), b"")
        self.assertEqual(len(service.talks), 1)

    async def test_unix(self) -> None:
        """A UNIX socket is dialled that is named in the same words."""
        service = Service(b"banner")
        path = str(self.directory / "socket")
        port = self.outside.listenUNIX(path, service)
        self.addCleanup(port.stopListening)
        await self.begin(f"unix:{path}")
        client = await self.connect("me")
        await self.talk(await self.port(client, f"unix:{path}"), service)
        visitor = await self.visit(await self.port(client, f"unix:{path}2"))
        await visitor.gone()

    async def test_gone(self) -> None:
        """With the session of who has asked the connection is over."""
        service = Service(b"banner")
        at = self.offer(service)
        await self.begin(f"127.0.0.1:{at}")
        client = await self.connect("me")
        visitor, there = await self.pair(
            await self.port(client, f"127.0.0.1:{at}"), service
        )
        await visitor.has(6)
        session: Any = client.session
        session.transport.abortConnection()
        await visitor.gone()
        await there.gone()

    async def ask(self, port: int) -> bytes:
        """@return: What a UDP port answers."""
        asker = _Asker()
        mine = self.outside.listenUDP(0, asker, interface="127.0.0.1")
        self.addCleanup(mine.stopListening)
        mine.write(b"hello", ("127.0.0.1", port))
        return await asker.came

    async def test_datagrams(self) -> None:
        """The server dials, another client does, or a named service is visited."""
        echo = self.outside.listenUDP(0, _Echo(), interface="127.0.0.1")
        self.addCleanup(echo.stopListening)
        at = echo.getHost().port
        await self.begin(f"udp/127.0.0.1:{at}")
        self.tunnels.listeners["udp"] = UDPListeners(self.reactor, "127.0.0.1")
        await self.connect("office", (f"udp/localhost:{at}",), asks=False)
        await self.startClient(f"dns=udp:127.0.0.1:{at}")
        client = await self.connect("me")
        for target, dialler, service in (
            (f"127.0.0.1:{at}", "", ""),
            (f"localhost:{at}", "office", ""),
            ("", "", "dns"),
        ):
            port = await self.port(
                client, target, dialler, "udp:0:interface=127.0.0.1", service
            )
            self.assertEqual(await self.ask(port), b"echo hello")
        # Bytes are listed by themselves.
        visitor = await self.visit(await self.port(client, f"127.0.0.1:{at}"))
        await visitor.gone()

    async def test_olderServer(self) -> None:
        """A server that knows nothing of it is told of, and not asked."""
        await self.begin()
        client = await self.connect("me", asks=False)
        route = FramedDialect().makeDial(client, "h:1", "")
        error = await self.assertFailure(route(None), TunnelError)
        self.assertIn("dials for nobody", error.message)
