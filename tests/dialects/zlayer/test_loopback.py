"""
zlayer's dialect over the loopback interface.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

from twisted.internet.defer import Deferred, gatherResults

from tests.dialects.zlayer.rig import CLIENT_ID, ZLayerTestCase, named
from tests.support.listening import listenHere
from tests.support.loopback import Service
from tests.support.polling import until
from tests.support.processes import Program, freePort, startTristunnel
from tests.support.waiting import WaitingEnd
from tests.websocket.rig import Recorder
from tristunnel.dialects.zlayer.client_service import ZLayerClientService
from tristunnel.dialects.zlayer.data import ZLayerSessions
from tristunnel.errors import TunnelError
from tristunnel.model.ports import PortRange
from tristunnel.server.embedding import TunnelWebSocketFactory
from tristunnel.wire.zlayer import (
    Auth,
    AuthFail,
    Connect,
    ConnectAck,
    ConnectFail,
    Disconnect,
    Register,
    RegisterFail,
    Unregister,
)


class ControlTests(ZLayerTestCase):
    """What a client by hand sees of the server."""

    async def test_login(self) -> None:
        """A client with a token is let in and is among the sessions, by its dialect."""
        await self.startServer()
        await self.loggedIn()
        self.assertEqual(self.notes.named("clientConnected")[0][1], "zlayer")
        (client,) = self.tunnels.clients
        self.assertEqual(client.dialect, "zlayer")

    async def test_fragments(self) -> None:
        """A message that comes in several frames is one message."""
        await self.startServer()
        peer = await self.peer()
        data = bytes.fromhex("01 00000013 0001 74") + CLIENT_ID.bytes
        connection = peer.connection
        connection.beginMessage(isBinary=True)
        for piece in (data[:1], data[1:9], data[9:]):
            connection.beginMessageFrame(len(piece))
            connection.sendMessageFrameData(piece)
        connection.endMessage()
        await peer.until(lambda it: it.messages)
        self.assertEqual(peer.messages[0][:5], bytes.fromhex("02 00000010"))

    async def test_register(self) -> None:
        """A service gets a port and its name; visitors are announced with their
        address."""
        await self.startServer()
        peer = await self.loggedIn()
        service, port = await self.register(peer, "ssh")
        visitor = await self.visit(port)
        connect = await peer.next(Connect)
        self.assertEqual(connect.serviceId, service)
        here = visitor.transport.getHost()
        self.assertEqual(connect.visitor, f"127.0.0.1:{here.port}")
        tunnel = await named(self.tunnels, "ssh")
        self.assertEqual(tunnel.address.rpartition(":")[2], str(port))

    async def test_data(self) -> None:
        """The data connection of a visitor carries its bytes, those that came before it
        too; its close ends the visitor's connection."""
        await self.startServer()
        peer = await self.loggedIn()
        _, port = await self.register(peer)
        visitor = await self.visit(port)
        visitor.say(b"early ")
        connect = await peer.next(Connect)
        peer.say(ConnectAck(connect.connectionId))
        data = await self.peer(f"{self.path}/data/{connect.connectionId}", Recorder())
        await data.until(lambda it: it.data == b"early ")
        visitor.say(b"late")
        await data.until(lambda it: it.data == b"early late")
        data.connection.sendBytes(b"answer")
        await visitor.has(6)
        data.connection.close()
        await visitor.ended()
        self.assertEqual(visitor.data, b"answer")

    async def test_crowd(self) -> None:
        """The data connections of visitors who come at once are awaited, and no
        connections of unauthenticated peers."""
        self.unauthenticated = (2, 1000)
        await self.startServer()
        peer = await self.loggedIn()
        _, port = await self.register(peer)
        visitors = [await self.visit(port) for _ in range(50)]
        for visitor in visitors:
            visitor.say(b"hello")
        await peer.next(Connect, 50)
        opening = [
            self.peer(f"{self.path}/data/{connect.connectionId}", Recorder())
            for connect in peer.heard(Connect)
        ]
        datas = await gatherResults(map(Deferred.fromCoroutine, opening))
        for data in datas:
            await data.until(lambda it: it.data == b"hello")

    async def test_dataOnce(self) -> None:
        """A connection's id is good for one connection, and nobody else's is."""
        await self.startServer()
        peer = await self.loggedIn()
        _, port = await self.register(peer)
        await self.visit(port)
        connect = await peer.next(Connect)
        path = f"{self.path}/data/{connect.connectionId}"
        await self.peer(path, Recorder())
        for wrong in (path, f"{self.path}/data/{uuid4()}", f"{self.path}/data/x"):
            error = await self.assertFailure(self._opening(wrong), TunnelError)
            self.assertIn("404", error.message)

    def _opening(self, path: str) -> Any:
        endpoint: Any = self.server(path).endpoint
        return endpoint.open(Recorder())

    async def test_connectFail(self) -> None:
        """A visitor whose service is not reached is turned away, and the log has the
        client's reason."""
        await self.startServer()
        peer = await self.loggedIn()
        _, port = await self.register(peer)
        visitor = await self.visit(port)
        connect = await peer.next(Connect)
        peer.say(ConnectFail(connect.connectionId, "no such thing\n"))
        await visitor.gone()
        gone = await self.told(self.notes, "visitorGone")
        self.assertEqual(gone, (0, 0, "service-unreachable"))

    async def test_connectFailOfAnother(self) -> None:
        """A client cannot turn another's visitors away."""
        await self.startServer()
        peer, other = await self.loggedIn("a"), await self.loggedIn("b")
        _, port = await self.register(peer)
        await self.visit(port)
        connect = await peer.next(Connect)
        other.say(ConnectFail(connect.connectionId, "ha"))
        await self.register(other, "another")
        self.assertEqual(len(self.sessions.shared(ZLayerSessions)), 1)

    async def test_visitorLeaves(self) -> None:
        """Nobody is waited for who has left."""
        await self.startServer()
        peer = await self.loggedIn()
        _, port = await self.register(peer)
        visitor = await self.visit(port)
        connect = await peer.next(Connect)
        visitor.abort()
        await visitor.gone()
        await self.told(self.notes, "visitorGone")
        self.assertEqual(len(self.sessions.shared(ZLayerSessions)), 0)
        await self.assertFailure(
            self._opening(f"{self.path}/data/{connect.connectionId}"), TunnelError
        )

    async def test_unregister(self) -> None:
        """A service that is taken back has no port any more; the session goes on."""
        await self.startServer()
        peer = await self.loggedIn()
        service, _ = await self.register(peer)
        peer.say(Unregister(service))
        peer.say(Unregister(uuid4()))
        await self.register(peer, "another")
        names = [t.name for t in list(self.tunnels.here)]
        self.assertEqual(names, ["another"])

    async def test_sameName(self) -> None:
        """Two clients may have a service of the same name; the first one's has it for
        the whole server."""
        await self.startServer()
        first, second = await self.loggedIn("a"), await self.loggedIn("b")
        _, port = await self.register(first, "ssh")
        await self.register(second, "ssh")
        tunnel = await named(self.tunnels, "ssh")
        assert tunnel.listener is not None
        self.assertEqual(tunnel.listener.address[2], port)
        self.assertEqual(len(list(self.tunnels.here)), 2)

    async def test_ports(self) -> None:
        """Ports come from zlayer's range; one outside it is refused."""
        await self.startServer()
        self.sessions.shared(ZLayerSessions).ports = PortRange(((30000, 31000),))
        peer = await self.loggedIn()
        _, port = await self.register(peer)
        self.assertIn(port, range(30000, 31001))
        peer.say(Register("out", 0, 80, 2222))
        refusal = await peer.next(RegisterFail)
        self.assertIn("port 2222 is not allowed here", refusal.reason)
        self.assertIn("[port-not-permitted]", refusal.reason)

    async def test_portTaken(self) -> None:
        """An asked-for port is given or refused; with all of them taken, so is any
        other."""
        await self.startServer()
        peer = await self.loggedIn()
        _, port = await self.register(peer)
        peer.say(Register("again", 0, 80, port))
        self.assertIn("[port-taken]", (await peer.next(RegisterFail)).reason)
        self.sessions.shared(ZLayerSessions).ports = PortRange(((port, port),))
        peer.say(Register("more", 0, 80, 0))
        refusal = await peer.next(RegisterFail, 2)
        self.assertIn("[ports-exhausted]", refusal.reason)

    async def test_services(self) -> None:
        """A client may have so many services."""
        await self.startServer()
        self.tunnels.rights.services = 2
        peer = await self.loggedIn()
        for name in ("a", "b", "c"):
            peer.say(Register(name, 0, 80, 0))
        self.assertIn("[limit-reached]", (await peer.next(RegisterFail)).reason)
        self.assertEqual(len(list(self.tunnels.here)), 2)

    async def test_clients(self) -> None:
        """So many clients may be there."""
        await self.startServer()
        self.tunnels.clients.limit = 1
        await self.loggedIn("a")
        peer = await self.peer()
        peer.say(Auth("b", CLIENT_ID))
        self.assertIn("[limit-reached]", (await peer.next(AuthFail)).reason)
        await peer.gone()

    async def test_inUse(self) -> None:
        """A token has one session, until that is over."""
        await self.startServer()
        first = await self.loggedIn()
        second = await self.peer()
        second.say(Auth("token", CLIENT_ID))
        self.assertEqual((await second.next(AuthFail)).reason, "Token already in use")
        await second.gone()
        first.connection.close()
        await first.gone()
        await self.loggedIn()

    async def test_expectedAuth(self) -> None:
        """Who begins with something else is told so."""
        await self.startServer()
        peer = await self.peer()
        peer.say(Register("web", 0, 80, 0))
        self.assertEqual((await peer.next(AuthFail)).reason, "Expected AUTH message")
        await peer.gone()
        self.assertEqual(peer.reason, "protocol-error")

    async def test_emptyToken(self) -> None:
        """No token at all is refused, where anybody may come, too."""
        await self.startServer()
        peer = await self.peer()
        peer.say(Auth("", CLIENT_ID))
        self.assertIn("Token cannot be empty", (await peer.next(AuthFail)).reason)
        await peer.gone()

    async def test_badMessage(self) -> None:
        """A message that cannot be read ends the session, with a reason; its ports are
        free again."""
        await self.startServer()
        for data in (b"\x99\0\0\0\0", b"\x10\0\0\0\x05\x01\xff\0\0\0", b"\x30", b""):
            peer = await self.loggedIn()
            await self.register(peer)
            peer.connection.sendWhole(data)
            self.assertIn("[protocol-error]", (await peer.next(Disconnect)).reason)
            await peer.gone()
            self.assertEqual(list(self.tunnels.here), [])

    async def test_oversized(self) -> None:
        """So does one that is too long."""
        await self.startServer()
        peer = await self.loggedIn()
        peer.connection.sendWhole(b"\x10" + bytes(65536))
        await peer.gone()
        self.assertIn("longer than the 65536", str(peer.why))

    async def test_text(self) -> None:
        """So does text."""
        await self.startServer()
        peer = await self.loggedIn()
        peer.connection.sendText(b"hello")
        self.assertIn("[protocol-error]", (await peer.next(Disconnect)).reason)
        await peer.gone()

    async def test_serversMessage(self) -> None:
        """So does one that only a server sends."""
        await self.startServer()
        peer = await self.loggedIn()
        peer.say(AuthFail("?"))
        self.assertIn("AuthFail", (await peer.next(Disconnect)).reason)
        await peer.gone()

    async def test_closed(self) -> None:
        """When its last tunnel is closed by somebody else, the session ends."""
        await self.startServer()
        peer = await self.loggedIn()
        await self.register(peer)
        (tunnel,) = list(self.tunnels.here)
        await self.tunnels.destroy(tunnel, TunnelError("closed", "by order"))
        self.assertEqual((await peer.next(Disconnect)).reason, "by order [closed]")
        await peer.gone()

    async def test_stop(self) -> None:
        """A server that stops says so."""
        server = await self.startServer()
        peer = await self.loggedIn()
        await self.register(peer)
        await server.stopService()
        self.assertIn("[shutting-down]", (await peer.next(Disconnect)).reason)
        await peer.gone()

    async def test_timeout(self) -> None:
        """A client must log in within the time for handshakes."""
        await self.startServer(timeout=0.05)
        peer = await self.peer()
        await peer.gone()
        self.assertEqual(peer.reason, "handshake-timeout")


class AuthTests(ZLayerTestCase):
    """A server that asks who its clients are."""

    users: Mapping[str, str] = {"laptop": "secret"}

    async def test_wrong(self) -> None:
        """A wrong token is refused in the dialect's way."""
        await self.startServer()
        peer = await self.peer()
        peer.say(Auth("laptop:wrong", CLIENT_ID))
        self.assertIn("[auth-refused]", (await peer.next(AuthFail)).reason)
        await peer.gone()

    async def test_right(self) -> None:
        """A name and a secret are a token, too."""
        await self.startServer()
        await self.loggedIn("laptop:secret")
        (client,) = self.tunnels.clients
        self.assertEqual(client.identity.name, "laptop")

    async def test_clientStops(self) -> None:
        """Our client makes no more attempts with a wrong token."""
        await self.startServer()
        refused: list[TunnelError] = []
        client = ZLayerClientService(
            self.reactor,
            self.server(self.path),
            [],
            {"id": "laptop", "secret": "wrong"},
            self.seen,
            gaveUp=refused.append,
        )
        client.startService()
        self.addCleanup(self._stop, client)
        await self.told(self.seen, "gaveUp")
        await until(lambda: refused)
        self.assertEqual(refused[0].code.name, "auth-refused")


class StreamTests(ZLayerTestCase):
    """Our server and our client."""

    async def test_bothWays(self) -> None:
        """Bytes pass both ways, and each direction ends apart."""
        await self.startServer()
        service = Service(b"hello ")
        (port,) = await self.startClient(f"web=127.0.0.1:{self.offer(service)}")
        visitor, arrival = await self.pair(port, service)
        visitor.say(b"question")
        visitor.finish()
        await arrival.ended()
        self.assertEqual(arrival.data, b"question")
        arrival.say(b"answer")
        arrival.finish()
        await visitor.gone()
        self.assertEqual(visitor.data, b"hello answer")
        await arrival.gone()
        gone = await self.told(self.notes, "visitorGone")
        self.assertEqual(gone, (8, 12, ""))

    async def test_bulk(self) -> None:
        """Many bytes arrive whole, both ways at once."""
        await self.startServer()
        service = Service()
        (port,) = await self.startClient(f"web=127.0.0.1:{self.offer(service)}")
        visitor, arrival = await self.pair(port, service)
        there, back = os.urandom(3_000_000), os.urandom(3_000_000)
        visitor.say(there)
        arrival.say(back)
        visitor.finish()
        arrival.finish()
        await gatherResults([visitor.gone(), arrival.gone()])
        self.assertTrue(arrival.data == there and visitor.data == back)

    async def test_many(self) -> None:
        """Many visitors come at once."""
        await self.startServer()
        service = Service()
        (port,) = await self.startClient(f"web=127.0.0.1:{self.offer(service)}")
        visitors = [await self.visit(port) for _ in range(50)]
        for number, visitor in enumerate(visitors):
            visitor.say(b"%d" % number)
        for _ in visitors:
            arrival = await service.arrivals.get()
            await arrival.has(1)
        for arrival in service.talks:
            await arrival.until(lambda talk: talk.data)
            arrival.say(bytes(arrival.data))
            arrival.finish()
        for number, visitor in enumerate(visitors):
            await visitor.ended()
            self.assertEqual(visitor.data, b"%d" % number)

    async def test_nobodyThere(self) -> None:
        """A service that is not there is an answer, not a silence."""
        await self.startServer()
        (port,) = await self.startClient(f"web=127.0.0.1:{freePort()}")
        visitor = await self.visit(port)
        await visitor.gone()
        gone = await self.told(self.notes, "visitorGone")
        self.assertEqual(gone[2], "service-refused")

    async def test_reset(self) -> None:
        """A break on one side is one on the other."""
        await self.startServer()
        service = Service()
        (port,) = await self.startClient(f"web=127.0.0.1:{self.offer(service)}")
        visitor, arrival = await self.pair(port, service)
        visitor.abort()
        await arrival.gone()
        visitor, arrival = await self.pair(port, service)
        arrival.abort()
        await visitor.gone()

    async def test_controlLost(self) -> None:
        """When the control connection is lost, the client comes back and has its
        services again."""
        await self.startServer()
        service = Service()
        await self.startClient(f"web=127.0.0.1:{self.offer(service)}")
        session: Any
        (session,) = self.sessions.shared(ZLayerSessions).inUse.values()
        session.connection.abort()
        await self.told(self.zSeen, "tunnelReady", 2)
        (tunnel,) = list(self.tunnels.here)
        assert tunnel.listener is not None
        visitor, arrival = await self.pair(tunnel.listener.address[2], service)
        visitor.say(b"again")
        await arrival.has(5)

    async def test_tunnelClosed(self) -> None:
        """A tunnel that is closed breaks its streams."""
        await self.startServer()
        service = Service()
        port, _ = await self.startClient(
            f"web=127.0.0.1:{self.offer(service)}", "other=127.0.0.1:1"
        )
        visitor, arrival = await self.pair(port, service)
        tunnel = await named(self.tunnels, "web")
        await self.tunnels.destroy(tunnel, TunnelError("closed"))
        await gatherResults([visitor.gone(), arrival.gone()])

    async def test_named(self) -> None:
        """A service is found by its name."""
        await self.startServer()
        service = Service()
        await self.startClient(f"ssh=127.0.0.1:{self.offer(service)}")
        tunnel = await named(self.tunnels, "ssh")
        end = WaitingEnd()
        tunnel.visitorArrived(end, "192.0.2.1:1")
        await service.arrivals.get()


class TLSStreamTests(StreamTests):
    """The same over C{wss:}."""

    tls = True


class EmbeddedTests(ZLayerTestCase):
    """A WebSocket factory of its own, in somebody else's program."""

    async def test_factory(self) -> None:
        """It takes control connections and data connections, and refuses those of
        nobody."""
        await self.startServer()
        factory = TunnelWebSocketFactory(self.reactor, self.sessions, 0.0)
        port = listenHere(self, self.reactor, factory)
        self.serverPort, self.path = port, "/any/where"
        service = Service(b"hello")
        (visitors,) = await self.startClient(f"web=127.0.0.1:{self.offer(service)}")
        visitor, arrival = await self.pair(visitors, service)
        visitor.say(b"question")
        visitor.finish()
        await arrival.ended()
        arrival.finish()
        await visitor.gone()
        self.assertEqual((visitor.data, arrival.data), (b"hello", b"question"))
        endpoint: Any = self.server(f"/any/where/data/{uuid4()}").endpoint
        error = await self.assertFailure(endpoint.open(Recorder()), TunnelError)
        self.assertIn("404", error.message)


class ProcessTests(ZLayerTestCase):
    """The programs."""

    async def test_both(self) -> None:
        """Server and client speak it, and a port of zlayer's range leads to the
        service."""

        def start(name: str, *options: str, **environment: str) -> Program:
            program = startTristunnel(
                self.reactor,
                name,
                [*options, "--state-dir", str(self.directory)],
                self.directory,
                environment,
            )
            self.addCleanup(program.stop)
            return program

        server = start("tunnel", "--port", "tcp:0:interface=127.0.0.1")
        found = await server.says(r"Listening for clients on 127.0.0.1:(\d+)")
        service = Service(b"hello")
        client = start(
            *("tunnel-client", "--dialect", "zlayer"),
            *("--connect", f"ws://127.0.0.1:{found[1]}/tunnel/v1"),
            *("--forward", f"web=127.0.0.1:{self.offer(service)}"),
            TRISTUNNEL_TOKEN="t",
        )
        await client.says(r"it speaks zlayer")
        await client.says(r"Visitors of web \(the server chose its port\)")
        opened = await server.says(r"is open at tcp://127.0.0.1:(\d+)")
        self.assertIn(int(opened[1]), range(30000, 31001))
        visitor = await self.visit(int(opened[1]))
        await visitor.has(5)
