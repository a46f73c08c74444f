"""Two servers over the loopback interface."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import gatherResults
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.loopback import LoopbackTestCase, Service
from tests.support.polling import until
from tests.support.processes import freePort
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.errors import TunnelError
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.permissions import Grant, Identity, Permissions
from tristunnel.node.spec import parseNode
from tristunnel.node.tunnel import CONNECTED, FAILED, RECONNECTING, RETRY, NodeTunnel
from tristunnel.service.caller import Caller
from tristunnel.service.methods import methodsOf
from tristunnel.service.tunnel_service import TunnelService

ANYBODY = Caller(Identity("anonymous", anonymous=True), "localhost")


class NodeTests(LoopbackTestCase):
    """This server is A; C{self.tunnels} is B's."""

    def node(self, settings: str, name: str = "web") -> NodeTunnel:
        spec = parseNode(
            self.reactor, f"{name}=tcp:127.0.0.1:{self.serverPort},{settings}"
        )
        tunnel = NodeTunnel(
            self.reactor, spec, grace=0.0, delay=lambda failures, hint: 0.02
        )
        tunnel.startService()
        self.addCleanup(self._stop, tunnel)
        return tunnel

    async def become(self, tunnel: NodeTunnel, state: str) -> None:
        await until(lambda: tunnel.state == state)

    async def test_forward(self) -> None:
        """A service at A has a port at B; states and counts are right."""
        await self.startServer()
        service, port = Service(), freePort()
        tunnel = self.node(f"forward={port}=127.0.0.1:{self.offer(service)}")
        self.assertEqual(tunnel.describe()["state"], RECONNECTING)
        await self.become(tunnel, CONNECTED)
        visitor, arrival = await self.pair(port, service)
        visitor.say(b"question")
        await arrival.has(8)
        self.assertEqual(tunnel.describe()["visitors"], 1)
        arrival.say(b"answer!")
        arrival.finish()
        await visitor.ended()
        visitor.finish()
        await arrival.gone()
        await until(lambda: not tunnel.describe()["visitors"])
        told = tunnel.describe()
        del told["since"]
        self.assertEqual(
            told,
            {
                "name": "web",
                "server": f"tcp:127.0.0.1:{self.serverPort}",
                "offers": True,
                "local": tunnel.spec.forward.target,
                "remote": f"tcp://127.0.0.1:{port}",
                "state": "connected",
                "reason": "",
                "connects": 1,
                "visitors": 0,
                "visitorsTotal": 1,
                "bytesIn": 8,
                "bytesOut": 7,
            },
        )

    async def test_listen(self) -> None:
        """A port at A leads to a named service at B."""
        await self.startServer()
        service = Service()
        await self.startClient(f"db=127.0.0.1:{self.offer(service)}")
        tunnel = self.node("listen=tcp:0:interface=127.0.0.1,service=db")
        await self.become(tunnel, CONNECTED)
        port: Any = tunnel._port
        visitor, arrival = await self.pair(port.listening.getHost().port, service)
        visitor.say(b"question")
        await arrival.has(8)
        arrival.say(b"answer!")
        await visitor.has(7)
        self.assertEqual(tunnel.describe()["visitors"], 1)
        visitor.finish()
        arrival.finish()
        await gatherResults([visitor.gone(), arrival.gone()])
        await until(lambda: not tunnel.describe()["visitors"])
        told = tunnel.describe()
        self.assertEqual((told["bytesIn"], told["bytesOut"]), (8, 7))
        self.assertEqual((told["offers"], told["visitorsTotal"]), (False, 1))

    async def test_several(self) -> None:
        """There may be several between two servers, of both kinds."""
        await self.startServer()
        services = [Service(), Service()]
        ports = [freePort(), freePort()]
        tunnels = [
            self.node(f"forward={port}=127.0.0.1:{self.offer(service)}", f"n{port}")
            for port, service in zip(ports, services, strict=True)
        ]
        for tunnel in tunnels:
            await self.become(tunnel, CONNECTED)
        for port, service in zip(ports, services, strict=True):
            visitor, arrival = await self.pair(port, service)
            visitor.say(b"x")
            await arrival.has(1)

    async def test_cut(self) -> None:
        """A lost session is told of, and comes back by itself, to the same port."""
        await self.startServer()
        service, port = Service(), freePort()
        tunnel = self.node(f"forward={port}=127.0.0.1:{self.offer(service)}")
        await self.become(tunnel, CONNECTED)
        visitor, arrival = await self.pair(port, service)
        states: list[str] = []
        become = tunnel.become

        def noting(state: str, reason: TunnelError | None) -> None:
            become(state, reason)
            states.append(tunnel.state)

        self.patch(tunnel, "become", noting)
        client: Any = tunnel._client
        client.session.transport.abortConnection()
        await until(lambda: CONNECTED in states)
        self.assertEqual(states, [RECONNECTING, CONNECTED])
        await gatherResults([visitor.gone(), arrival.gone()])
        self.assertEqual(tunnel.describe()["connects"], 2)
        self.assertEqual(tunnel.describe()["visitors"], 0)
        visitor, arrival = await self.pair(port, service)
        visitor.say(b"again")
        await arrival.has(5)

    async def test_portTaken(self) -> None:
        """A port that the other server does not have makes it failed; it is had once
        that is over."""
        await self.startServer()
        port = freePort()
        taken = self.reactor.listenTCP(port, Service(), interface="127.0.0.1")
        tunnel = self.node(f"forward={port}=127.0.0.1:1")
        await self.become(tunnel, FAILED)
        self.assertIn("[port-taken]", str(tunnel.describe()["reason"]))
        await taken.stopListening()
        await self.become(tunnel, CONNECTED)
        self.assertEqual(tunnel.describe()["reason"], "")

    async def test_localPortTaken(self) -> None:
        """So does one that this side does not have."""
        await self.startServer()
        taken = self.offer(Service())
        tunnel = self.node(f"listen=tcp:{taken}:interface=127.0.0.1,service=x")
        await self.become(tunnel, FAILED)
        self.assertIn("[port-taken]", str(tunnel.describe()["reason"]))

    async def test_refused(self) -> None:
        """A server that does not let us in makes it failed, and is asked again after a
        while."""
        await self.startServer()

        async def refuse(*args: object) -> Identity:
            raise TunnelError("auth-refused")

        patched = self.patch(self.sessions.authenticator, "authenticate", refuse)
        tunnel = self.node(f"forward={freePort()}=127.0.0.1:1")
        await self.become(tunnel, FAILED)
        self.assertIn("[auth-refused]", str(tunnel.describe()["reason"]))
        patched.restore()
        await until(lambda: tunnel._retry is not None)
        retry: Any = tunnel._retry
        self.assertTrue(retry.getTime() - self.reactor.seconds() > RETRY - 60)
        retry.reset(0)
        await self.become(tunnel, CONNECTED)

    async def test_serverAway(self) -> None:
        """A server that is not there yet is waited for."""
        await self.startServer()
        where = self.serverPort
        self.serverPort = freePort()
        tunnel = self.node(f"forward={freePort()}=127.0.0.1:1")
        await until(lambda: tunnel.reason is not None)
        self.assertEqual(tunnel.state, RECONNECTING)
        self.serverPort = where


class StatusTests(SynchronousTestCase):
    """C{listNodeTunnels}."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.service = TunnelService(
            self.clock, MemoryBook(self.clock), {"tcp": TCPListeners(self.clock)}
        )
        spec = parseNode(self.clock, "web=tcp:b:9000,forward=80=localhost:80")
        self.tunnel = NodeTunnel(self.clock, spec, now=lambda: 1000.0)
        self.service.nodes = [self.tunnel]
        self.call: Any = methodsOf(self.service)["listNodeTunnels"]

    def test_whom(self) -> None:
        """Admins see it, and everybody where nobody is asked who they are."""
        for identity in (
            ANYBODY.identity,
            Identity("boss", grant=Grant(Permissions(may=frozenset({"admin"})))),
        ):
            (entry,) = self.call(Caller(identity, "localhost"))
            self.assertEqual(entry["name"], "web")
        for identity in (Identity("laptop"), Identity("x", grant=Grant(Permissions()))):
            error = self.assertRaises(
                TunnelError, self.call, Caller(identity, "localhost")
            )
            self.assertEqual(error.code.name, "not-permitted")

    def test_since(self) -> None:
        """It is told since when a state lasts."""
        self.tunnel.become(FAILED, TunnelError("port-taken"))
        self.clock.advance(10)
        self.assertEqual(self.tunnel.describe()["since"], 990.0)
        self.tunnel.become(FAILED, TunnelError("port-taken"))
        self.assertEqual(self.tunnel.describe()["since"], 990.0)

    def test_clientFails(self) -> None:
        """A client that fails is replaced; a stop ends the waiting."""
        started: list[TunnelClientService] = []

        def start(client: TunnelClientService) -> None:
            started.append(client)

        self.patch(TunnelClientService, "startService", start)
        self.tunnel.startService()
        (client,) = started
        client._gaveUp(TunnelError("internal"))
        self.clock.advance(RETRY)
        self.clock.advance(0)
        self.assertEqual(len(started), 2)
        started[1]._gaveUp(TunnelError("internal"))
        self.successResultOf(self.tunnel.stopService())
        self.assertEqual(self.clock.getDelayedCalls(), [])
