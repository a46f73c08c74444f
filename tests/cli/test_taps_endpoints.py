"""The ways from a client to a server, and how visitors come in."""

from __future__ import annotations

from pathlib import Path

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)

from tests.support.listening import listenHere
from tests.support.loopback import LoopbackTestCase, Service, Talk
from tests.support.polling import until
from tests.support.processes import freePort
from tests.support.short import shortDirectory
from tests.tls.authority import Authority, makeAuthority
from tests.tls.files import replace
from tristunnel.connect.address import Trust
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.model.ports import PortRange
from tristunnel.server.ports import TLSFiles
from tristunnel.tls.client_context import ServerVerification
from tristunnel.tls.server_context import ReloadingCertificate
from tristunnel.util import watch


class EndpointTests(LoopbackTestCase):
    """Ports and ways to them, as they are written on the command lines."""

    async def through(self, connect: str = "") -> Talk:
        service = Service(b"hello")
        target = f"0=127.0.0.1:{self.offer(service)}"
        (port,) = await self.startClient(target, connect=connect)
        visitor = await self.visit(port)
        await visitor.has(5)
        self.assertEqual(bytes(visitor.data), b"hello")
        return visitor

    def certificate(self, authority: Authority) -> Path:
        certificate, key = authority.issue(["localhost", "127.0.0.1", "::1"])
        return replace(self.directory / "cert.pem", certificate + key)

    def seenLine(self, event: str) -> Deferred[str]:
        """Wait for an event of the client whose message is to be looked at."""
        line: Deferred[str] = Deferred()

        def told(told: tuple[str, ...]) -> None:
            if told[0] == event and not line.called:
                line.callback(told[-1])

        self.seen.listeners.append(told)
        return line

    async def test_unix(self) -> None:
        """A UNIX socket."""
        path = shortDirectory(self) / "s"
        await self.startServer(f"unix:{path}")
        await self.through(f"unix:{path}")

    async def test_unixWithTLS(self) -> None:
        """TLS goes over any endpoint, a UNIX socket too."""
        authority = makeAuthority()
        self.files = TLSFiles(str(self.certificate(authority)))
        self.trust = Trust(ca=str(authority.write(self.directory / "ca.pem")))
        path = shortDirectory(self) / "s"
        await self.startServer(f"unix:{path}")
        await self.through(rf"tls:localhost:1:endpoint=unix\:{path}")

    async def test_tcp6(self) -> None:
        """IPv6, with and without TLS."""
        await self.startServer(r"tcp6:0:interface=\:\:1")
        await self.through(rf"tcp:\:\:1:{self.serverPort}")
        authority = makeAuthority()
        self.files = TLSFiles(str(self.certificate(authority)))
        self.trust = Trust(ca=str(authority.write(self.directory / "ca.pem")))
        await self.startServer(r"tcp6:0:interface=\:\:1")
        await self.through(rf"tls:\:\:1:{self.serverPort}")

    async def test_directory(self) -> None:
        """A directory of certificates."""
        authority = makeAuthority()
        certificate, key = authority.issue(["localhost", "::1"])
        pems = self.directory / "pems"
        pems.mkdir()
        (pems / "localhost.pem").write_bytes(certificate + key)
        self.trust = Trust(ca=str(authority.write(self.directory / "ca.pem")))
        await self.startServer(rf"tls:{pems}:port=0:interface=\:\:1")
        await self.through(rf"tls:\:\:1:{self.serverPort}")

    async def test_proxied(self) -> None:
        """Behind a balancer the client's address is the one in the PROXY header, and
        the header comes before TLS."""
        authority = makeAuthority()
        for secure in (False, True):
            trust: Path | None = None
            if secure:
                self.files = TLSFiles(str(self.certificate(authority)))
                trust = authority.write(self.directory / "ca.pem")
            await self.startServer("haproxy:tcp:0:interface=127.0.0.1")
            peers: list[str] = []
            self.notes.peers = peers
            peer = await self.visit(self.serverPort)
            peer.say(b"PROXY TCP4 192.0.2.9 198.51.100.1 777 9000\r\n")
            hello = b'W3PTUNL\0\0\0\x0b{"id": "x"}'
            if not secure:
                peer.say(hello)
                await peer.has(11)
            else:
                peer.close()
                await peer.gone()
                await self.helloAfterHeader(trust, hello)
            self.assertEqual(peers, ["192.0.2.9"])

    async def helloAfterHeader(self, ca: Path | None, hello: bytes) -> None:
        from twisted.internet.protocol import Factory
        from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
        from twisted.protocols.tls import TLSMemoryBIOFactory

        class Header(ProtocolWrapper):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.write(b"PROXY TCP4 192.0.2.9 198.51.100.1 777 9000\r\n")
                super().connectionMade()

        talk = Talk()
        creator = ServerVerification("localhost", trustRoots=ca)
        inner = Factory.forProtocol(lambda: talk)
        below = WrappingFactory(TLSMemoryBIOFactory(creator, True, inner))
        below.protocol = Header
        endpoint = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.serverPort)
        await endpoint.connect(below)
        talk.say(hello)
        await talk.has(11)
        talk.abort()
        await talk.gone()

    async def test_renewed(self) -> None:
        """A certificate that was renewed on disk is shown without a restart."""
        self.patch(watch, "CHECK_INTERVAL", 0.0)
        first, second = makeAuthority("first"), makeAuthority("second")
        self.files = TLSFiles(str(self.certificate(first)))
        await self.startServer()
        self.tls = True
        self.trust = Trust(ca=str(first.write(self.directory / "first.pem")))
        await self.through()
        self.certificate(second)
        self.trust = Trust(ca=str(second.write(self.directory / "second.pem")))
        await self.through()

    async def test_clientCertificate(self) -> None:
        """With --client-ca a client needs a certificate; without one it says so, and
        the server too."""
        authority = makeAuthority()
        ca = str(authority.write(self.directory / "ca.pem"))
        self.files = TLSFiles(str(self.certificate(authority)), "", ca)
        self.trust = Trust(ca=ca)
        await self.startServer()
        self.tls = True
        lost = self.seenLine("disconnected")
        self.beginClient("0=localhost:1")
        self.assertIn("requires a certificate of this client", await lost)
        await self.client.stopService()
        self.assertIn("showed no certificate", self.notes.named("peerRefused")[0][1])
        certificate, key = authority.issue(["a client"], client=True)
        mine = self.directory / "mine.pem"
        mine.write_bytes(certificate + key)
        await self.through(
            f"tls:localhost:{self.serverPort}:certificate={mine}:privateKey={mine}"
        )

    async def test_wrongServer(self) -> None:
        """A client that does not know the server's certificate, or its name, or pins
        another one, says so and tells nothing."""
        authority = makeAuthority()
        self.files = TLSFiles(str(self.certificate(authority)))
        ca = str(authority.write(self.directory / "ca.pem"))
        other = str(makeAuthority("another").write(self.directory / "other.pem"))
        await self.startServer()
        self.tls = True
        for trust, host, word in (
            (Trust(ca=other), "localhost", "--ca"),
            (Trust(pins=(b"x" * 32,)), "localhost", "pin"),
            (Trust(ca=ca), "127.0.0.2", "127.0.0.2"),
        ):
            self.trust = trust
            lost = self.seenLine("disconnected")
            self.beginClient("0=localhost:1", connect=f"tls:{host}:{self.serverPort}")
            if host == "127.0.0.2":
                # Nobody may listen there; then there is nothing to verify.
                await self.client.stopService()
                continue
            self.assertIn(word, await lost)
            await self.client.stopService()
        self.assertEqual(self.seen.named("credentialsSent"), [])
        self.assertEqual(self.notes.named("clientConnected"), [])

    async def test_visitorsOverTLS(self) -> None:
        """With a visitors' certificate visitors speak TLS."""
        authority = makeAuthority()
        creator = ReloadingCertificate(self.certificate(authority))
        ca = authority.write(self.directory / "ca.pem")
        await self.startServer(
            listeners=TCPListeners(self.reactor, "127.0.0.1", creator=creator)
        )
        service = Service(b"hello")
        (port,) = await self.startClient(f"0=127.0.0.1:{self.offer(service)}")
        ((address, _),) = self.seen.named("tunnelReady")
        self.assertEqual(address, f"tls://127.0.0.1:{port}")
        visitor: Talk = await connectProtocol(
            wrapClientTLS(
                ServerVerification("localhost", trustRoots=ca),
                TCP4ClientEndpoint(self.reactor, "127.0.0.1", port),
            ),
            Talk(),
        )
        await visitor.has(5)
        self.assertEqual(bytes(visitor.data), b"hello")
        visitor.say(b"and back")
        talk = await service.arrivals.get()
        await talk.has(8)
        talk.close()
        await visitor.gone()

    async def test_serviceWithTLS(self) -> None:
        """A service that speaks TLS is reached with C{tls:}; one whose certificate is
        wrong is a line and a reset at once."""
        authority = makeAuthority()
        creator = ReloadingCertificate(self.certificate(authority))
        from twisted.protocols.tls import TLSMemoryBIOFactory

        service = Service(b"hello")
        over = TLSMemoryBIOFactory(creator, False, service)
        number = listenHere(self, self.reactor, over)
        self.addCleanup(self._endAll, service)
        trust = self.directory / "trust"
        trust.mkdir()
        authority.write(trust / "ca.pem")
        await self.startServer()
        good, bad = await self.startClient(
            f"0=tls:localhost:{number}:trustRoots={trust}", f"=tls:localhost:{number}"
        )
        visitor = await self.visit(good)
        await visitor.has(5)
        visitor.abort()
        visitor = await self.visit(bad)
        await visitor.gone()
        self.assertEqual(bytes(visitor.data), b"")
        ((target, code),) = self.seen.named("serviceFailed")
        self.assertEqual(code, "service-unreachable")
        self.assertIn("tls:localhost", target)

    async def test_taken(self) -> None:
        """A port that somebody has is told, and got when it is free."""
        await self.startServer()
        port = freePort()
        other = self.reactor.listenTCP(port, Service(), interface="127.0.0.1")
        failed = self.seenLine("tunnelFailed")
        self.beginClient(f"{port}=localhost:1")
        self.assertEqual(await failed, "port-taken")
        await other.stopListening()
        await until(lambda: self.seen.named("tunnelReady"))
        self.assertEqual(
            self.seen.named("tunnelReady"), [(f"tcp://127.0.0.1:{port}", "localhost:1")]
        )

    async def test_outsideTheRange(self) -> None:
        """Ports are given out of the range alone."""
        ports = PortRange(((40900, 40950),))
        await self.startServer(listeners=TCPListeners(self.reactor, "127.0.0.1", ports))
        (port,) = await self.startClient("0=localhost:1")
        self.assertIn(port, ports)
        failed = self.seenLine("tunnelFailed")
        self.beginClient("30000=localhost:1")
        self.assertEqual(await failed, "port-not-permitted")
