"""
Tests for L{tristunnel.dataplane.dial}, on real sockets.
"""

from __future__ import annotations

import select
import socket
import struct
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.error import ConnectError, ConnectionRefusedError
from twisted.internet.protocol import Factory
from twisted.internet.task import deferLater
from twisted.internet.tcp import Server
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import TestCase

from tests.support.listening import listenHere
from tests.support.loopback import Service, Talk
from tests.support.processes import freePort
from tristunnel.dataplane import dial as dialling
from tristunnel.dataplane.dial import ServiceEndpoint, dial

reactor: Any = _reactor


class ServiceEndpointTests(TestCase):
    """Services of this machine and of others."""

    timeout = 60

    def listen(self) -> int:
        self.service = Service(b"welcome")
        return listenHere(self, reactor, self.service)

    async def check(self, host: str) -> Talk:
        endpoint = ServiceEndpoint(reactor, host, self.listen())
        factory = Factory.forProtocol(Talk)
        factory.noisy = False
        talk: Any = await endpoint.connect(factory)
        await talk.has(7)
        talk.say(b"thanks")
        served = self.service.talks[0]
        await served.has(6)
        talk.abort()
        await talk.gone()
        await served.gone()
        return talk

    async def test_here(self) -> None:
        """A service of this machine answers at once, without a connector."""
        talk = await self.check("127.0.0.1")
        self.assertIsInstance(talk.transport, Server)

    async def test_notAtOnce(self) -> None:
        """One that does not answer at once is waited for."""
        self.patch(dialling, "_connected", lambda host, port: None)
        talk = await self.check("127.0.0.1")
        self.assertNotIsInstance(talk.transport, Server)

    async def test_byName(self) -> None:
        """A name is looked up."""
        await self.check("localhost")

    async def test_refused(self) -> None:
        """Where nothing listens, that is the error, and no socket is left."""
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            port = bound.getsockname()[1]
            endpoint = ServiceEndpoint(reactor, "127.0.0.1", port)
            connecting = endpoint.connect(Factory.forProtocol(Talk))
            await self.assertFailure(connecting, ConnectionRefusedError)

    async def test_brokenAtOnce(self) -> None:
        """
        A connection that the other side breaks before anybody has looked at it
        is one that was not made, and not an error of the program.
        """

        def connected(host: str, port: int) -> socket.socket:
            made = socket.create_connection((host, port))
            arrived, _ = bound.accept()
            linger = struct.pack("ii", 1, 0)
            arrived.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            arrived.close()
            # Wait for the reset, without taking it.
            poll = select.poll()
            poll.register(made, select.POLLIN)
            poll.poll()
            return made

        self.patch(dialling, "_connected", connected)
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))
            bound.listen()
            port = bound.getsockname()[1]
            connecting = dial(reactor, "127.0.0.1", port, Factory.forProtocol(Talk))
            await self.assertFailure(connecting, ConnectError)

    async def test_itself(self) -> None:
        """
        A connection that got the very port that it goes to has met itself:
        nothing listens there, and a service can start there at once.
        """

        class Bound(socket.socket):
            """Comes from the port."""

            def connect_ex(self, address: Any) -> int:
                if self.getsockname()[1] == 0:
                    self.bind(address)
                return super().connect_ex(address)

        factory = Factory.forProtocol(Talk)
        factory.noisy = False
        here = ("127.0.0.1", freePort())
        for bind, kind in ((here, socket.socket), (None, Bound)):
            self.patch(dialling, "socket", kind)
            connecting = dial(reactor, *here, factory, bindAddress=bind)
            await self.assertFailure(connecting, ConnectionRefusedError)
            await deferLater(reactor, 0)
            with socket.socket() as service:
                service.bind(here)
                service.listen()

    def test_elsewhere(self) -> None:
        """Another machine is left to the reactor."""
        memory = MemoryReactorClock()
        dial(memory, "192.0.2.1", 80, Factory.forProtocol(Talk))
        self.assertEqual(memory.tcpClients[0][:2], ("192.0.2.1", 80))
