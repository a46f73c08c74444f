"""
Twisted's own endpoints and protocols on sockets of ours,
L{tristunnel.dataplane.reactor} and L{tristunnel.dataplane.transport}; and the same
on Twisted's sockets, which must not differ.
"""

from __future__ import annotations

import os
from socket import SHUT_RDWR
from typing import Any

from OpenSSL import SSL
from twisted.application.internet import ClientService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    INegotiated,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from tests.support.polling import until
from tests.support.protocols import Hearing
from tests.support.short import shortDirectory
from tests.tls.authority import makeAuthority
from tests.tls.files import FileTestCase
from tristunnel.dataplane.reactor import polledReactor
from tristunnel.dataplane.tls import tlsOverClientEndpoint, tlsOverEndpoint
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.tls.client_context import ServerVerification
from tristunnel.tls.server_context import ReloadingCertificate


class Recorder(Hearing):
    """Says when it is connected."""

    def __init__(self) -> None:
        super().__init__()
        self.made: Deferred[Any] = Deferred()

    def connectionMade(self) -> None:
        self.made.callback(self)

    async def why(self) -> Failure:
        reason = (await self.gone()).lost
        assert reason is not None
        return reason


@implementer(IHalfCloseableProtocol)
class HalfRecorder(Recorder):
    """Knows of half-closes."""

    def __init__(self) -> None:
        super().__init__()
        self.readOver: Deferred[None] = Deferred()

    def readConnectionLost(self) -> None:
        self.readOver.callback(None)

    def writeConnectionLost(self) -> None:
        """Not of interest."""


class TransportCases:
    """What a connection does, whatever it is made of."""

    server = "tcp:0:interface=127.0.0.1"
    kind: type[Recorder] = Recorder
    ours = True
    addCleanup: Any
    assertEqual: Any

    def reactor(self) -> Any:
        from twisted.internet import reactor

        return polledReactor(reactor) if self.ours else reactor

    async def connect(self, kind: type[Recorder] = Recorder) -> tuple[Any, Any]:
        """Make a connection; the protocols of the server and the client."""
        arrived: Deferred[Any] = Deferred()

        class Made(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> Recorder:
                made = kind()
                made.made.addCallback(arrived.callback)
                return made

        port = await serverFromString(self.reactor(), self.server).listen(Made())
        self.addCleanup(port.stopListening)
        where = port.getHost()
        text = (
            f"tcp:127.0.0.1:{where.port}"
            if hasattr(where, "port")
            else f"unix:{where.name.decode()}"
        )
        factory = Factory.forProtocol(kind)
        factory.noisy = False
        client = await clientFromString(self.reactor(), text).connect(factory)
        server = await arrived
        for each in (client, server):
            if each.transport is not None:
                self.addCleanup(self.end, each)
        return server, client

    async def end(self, protocol: Any) -> None:
        if protocol.lost is None:
            protocol.transport.abortConnection()
        await protocol.gone()

    async def test_bytes(self) -> None:
        """Bytes arrive, more than any buffer holds, both ways at once."""
        server, client = await self.connect()
        data = os.urandom(3_000_000)
        server.transport.write(data)
        client.transport.writeSequence([data[:10], data[10:]])
        self.assertEqual(data, (await client.has(len(data))).data)
        self.assertEqual(data, (await server.has(len(data))).data)

    async def test_loseConnection(self) -> None:
        """All that was written arrives before the end, which is an orderly one."""
        server, client = await self.connect()
        data = os.urandom(2_000_000)
        server.transport.write(data)
        server.transport.loseConnection()
        # Until the close comes to pass there may be more.
        server.transport.write(b"last")
        data += b"last"
        (await client.why()).trap(ConnectionDone)
        (await server.why()).trap(ConnectionDone)
        self.assertEqual(data, client.data)

    async def test_abort(self) -> None:
        """A connection that is broken is no orderly end to the far side."""
        server, client = await self.connect()
        server.transport.write(b"x" * 1_000_000)
        server.transport.abortConnection()
        (await server.why()).trap(ConnectionAborted)
        reason = await client.why()
        if self.server.startswith("tcp"):
            reason.trap(ConnectionLost)

    async def test_halfClose(self) -> None:
        """One direction ends, and the other goes on."""
        server, client = await self.connect(HalfRecorder)
        client.transport.write(b"question")
        client.transport.loseWriteConnection()
        await server.readOver
        self.assertEqual(b"question", server.data)
        server.transport.write(b"answer")
        server.transport.loseWriteConnection()
        await client.readOver
        self.assertEqual(b"answer", client.data)

    async def test_pause(self) -> None:
        """Nothing comes while reading is paused, and everything afterwards."""
        server, client = await self.connect()
        client.transport.pauseProducing()
        server.transport.write(b"x" * 1_000_000)
        client.transport.resumeProducing()
        self.assertEqual(1_000_000, len((await client.has(1_000_000)).data))

    async def test_producer(self) -> None:
        """
        A producer is paused when much waits, resumed when it does not, and a
        connection ends only when it has left.
        """
        server, client = await self.connect()
        told: list[str] = []
        resumed: Deferred[None] = Deferred()

        class Producer:
            def pauseProducing(self) -> None:
                told.append("pause")

            def resumeProducing(self) -> None:
                told.append("resume")
                if not resumed.called:
                    resumed.callback(None)

            def stopProducing(self) -> None:
                """The connection is gone."""

        server.transport.registerProducer(Producer(), True)
        server.transport.write(b"x" * 8_000_000)
        await client.has(8_000_000)
        await resumed
        self.assertEqual(["pause", "resume"], told)
        server.transport.loseConnection()
        server.transport.unregisterProducer()
        (await client.why()).trap(ConnectionDone)

    async def test_interface(self) -> None:
        """A transport is what Twisted says one is."""
        server, client = await self.connect()
        for each in (server, client):
            verifyObject(ITCPTransport, each.transport)
            self.assertEqual(self.ours, isinstance(each.transport, SocketTransport))
        self.assertEqual(server.transport.getPeer(), client.transport.getHost())


class OwnTCPTests(TransportCases, TestCase):
    """TCP on sockets of ours."""


class TwistedTCPTests(TransportCases, TestCase):
    """TCP on Twisted's."""

    ours = False


class OwnUNIXTests(TransportCases, TestCase):
    """UNIX sockets of ours."""

    def setUp(self) -> None:
        self.server = f"unix:{shortDirectory(self) / 's'}"


@implementer(IHandshakeListener)
class TLSRecorder(Recorder):
    """Waits for TLS."""

    def __init__(self) -> None:
        super().__init__()
        self.shaken: Deferred[None] = Deferred()

    def handshakeCompleted(self) -> None:
        self.shaken.callback(None)


class TLSTests(FileTestCase, TestCase):
    """TLS on sockets of ours, with Twisted's TLS at the other end, and with itself."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = makeAuthority()
        self.creator = ReloadingCertificate(
            self.write("cert.pem", *self.authority.issue(["localhost"]))
        )
        self.trust = self.authority.write(self.directory / "ca.pem")

    async def meet(self, serverOurs: bool, clientOurs: bool) -> tuple[Any, Any]:
        """Make a connection, with TLS up at both ends."""
        from twisted.internet import reactor

        arrived: Deferred[Any] = Deferred()

        class Made(Factory):
            noisy = False

            def buildProtocol(self, addr: Any) -> TLSRecorder:
                made = TLSRecorder()
                made.made.addCallback(arrived.callback)
                return made

        listening = polledReactor(reactor) if serverOurs else reactor
        below = serverFromString(listening, "tcp:0:interface=127.0.0.1")
        port: Any = await tlsOverEndpoint(self.creator, below).listen(Made())
        self.addCleanup(port.stopListening)
        factory = Factory.forProtocol(TLSRecorder)
        factory.noisy = False
        dialling = polledReactor(reactor) if clientOurs else reactor
        creator = ServerVerification("localhost", trustRoots=self.trust)
        client: Any = await tlsOverClientEndpoint(
            creator, clientFromString(dialling, f"tcp:127.0.0.1:{port.getHost().port}")
        ).connect(factory)
        server = await arrived
        await server.shaken
        await client.shaken
        return server, client

    async def test_bytes(self) -> None:
        """
        Bytes arrive whole, more than any buffer holds, both ways at once; and an
        orderly end after them.
        """
        data = os.urandom(3_000_000)
        for serverOurs, clientOurs in ((1, 1), (1, 0), (0, 1), (0, 0)):
            server, client = await self.meet(bool(serverOurs), bool(clientOurs))
            server.transport.write(data)
            for at in range(0, len(data), 99_999):
                client.transport.write(data[at : at + 99_999])
            self.assertEqual(data, (await client.has(len(data))).data)
            self.assertEqual(data, (await server.has(len(data))).data)
            self.assertIsNotNone(client.transport.getPeerCertificate())
            handle = client.transport.getHandle()
            self.assertEqual("TLSv1.3", handle.get_protocol_version_name())
            self.assertTrue(INegotiated.providedBy(server.transport))
            server.transport.loseConnection()
            for each in (client, server):
                (await each.why()).trap(ConnectionDone)

    async def test_failsAtOnce(self) -> None:
        """
        A handshake that fails as soon as it begins breaks nobody who waits for the
        connection, such as Twisted's service that connects again and again.
        """
        from twisted.internet import reactor

        class Broken(ServerVerification):
            def clientConnectionForTLS(self, protocol: Any) -> SSL.Connection:
                made = super().clientConnectionForTLS(protocol)
                protocol.connection.shutdown(SHUT_RDWR)
                return made

        silent = Factory.forProtocol(Protocol)
        silent.noisy = False
        path = f"{shortDirectory(self)}/socket"
        listening = serverFromString(reactor, f"unix:{path}")
        port: Any = await listening.listen(silent)
        self.addCleanup(port.stopListening)
        dialling = clientFromString(polledReactor(reactor), f"unix:{path}")
        creator = Broken("localhost", trustRoots=self.trust)
        factory = Factory.forProtocol(TLSRecorder)
        factory.noisy = False
        service = ClientService(tlsOverClientEndpoint(creator, dialling), factory)
        service.startService()
        self.addCleanup(service.stopService)
        client: Any = await service.whenConnected()
        (await client.why()).trap(ConnectionLost)

    async def test_pause(self) -> None:
        """What OpenSSL has decrypted already is not forgotten by a pause."""
        server, client = await self.meet(True, True)
        client.transport.pauseProducing()
        server.transport.write(b"x" * 1_000_000)
        while len(client.data) < 1_000_000:
            client.transport.resumeProducing()
            await client.has(len(client.data) + 1)
            client.transport.pauseProducing()
        client.transport.abortConnection()
        for each in (client, server):
            await each.gone()

    async def test_wrongServer(self) -> None:
        """A server whose certificate is not the one that was meant gets no byte."""
        self.trust = makeAuthority().write(self.directory / "other.pem")
        meeting = self.meet(True, True)
        made: list[TLSRecorder] = []
        kept = TLSRecorder.connectionMade

        def connectionMade(recorder: TLSRecorder) -> None:
            made.append(recorder)
            kept(recorder)

        self.patch(TLSRecorder, "connectionMade", connectionMade)
        waiting = Deferred.fromCoroutine(meeting)
        waiting.addErrback(lambda failure: None)
        await until(lambda: len(made) >= 2)
        for each in made:
            self.assertTrue((await each.why()).check(SSL.Error))
        self.assertFalse(any(each.data for each in made))
        waiting.cancel()

    @staticmethod
    def clock() -> Any:
        from twisted.internet import reactor

        return reactor
