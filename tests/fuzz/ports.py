"""
A whole server in memory, for unauthenticated peers to come to.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.defer import succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.failure import Failure

from tests.fuzz.broken import Broken
from tests.tls.authority import makeAuthority
from tristunnel.auth.checkers import checkingCallable
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.dashboard.pages import Watch
from tristunnel.dialects.bore.dialect import BoreDialect
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.dialects.table import portProtocols
from tristunnel.gate.attempts import Attempts
from tristunnel.gate.knocking import KnockPage
from tristunnel.gate.pages import GatePages
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.forwarded import Forwarded
from tristunnel.http.join import JoinPage
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import Health, HTTPPortProtocol, rootOf, rpcPages
from tristunnel.model.memory_book import MemoryBook
from tristunnel.names.public import PublicNames
from tristunnel.names.table import NameTable
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.server.minecraft import MinecraftFactory
from tristunnel.server.postgres import PostgresFactory
from tristunnel.server.proxied import behindProxy
from tristunnel.server.tls_names import Certificates, Served, TLSNamesFactory
from tristunnel.server.websocket_pages import webSocketPages
from tristunnel.service.knocks import KNOCK_PATH
from tristunnel.service.preauth import PreauthLimiter
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.tls.directory import CertificateDirectory

__all__ = ["Ports", "boring", "databases", "named", "players", "proxied", "secure"]

Wrap = Callable[["Ports"], Any]
"""Puts something around the factory of a server's port."""


class Ports:
    """
    A whole server in memory. Bytes come in at the port.

    @param asked: Whether unauthenticated peers are asked who they are. Then no login is
        right. If not, there are no calls, so that no peer opens a tunnel,
        which would stay.
    @param wrap: What is around the port.

    @ivar errors: What was logged that is no everyday matter.
    """

    def __init__(self, asked: bool = True, wrap: Wrap | None = None) -> None:
        self.clock = Clock()
        self.errors: list[LogEvent] = []
        watch = Watch(self.clock)
        self._tally = watch.counters
        checker = checkingCallable(lambda f: False)
        authenticator = Authenticator(portalFor([checker])) if asked else None
        self.service = TunnelService(
            self.clock, MemoryBook(self.clock), {}, watch.observer
        )
        self.sessions = TunnelServerFactory(self.clock, self.service, authenticator)
        self.limiter = PreauthLimiter(self.clock.seconds)
        # Every unauthenticated peer comes by a proxy that is trusted.
        forwarded = Forwarded(["10.0.0.0/8"])
        callers = HTTPCallers(self.sessions.authenticator, forwarded, self.limiter)
        pages: dict[bytes, Any] = {b"health": Health()}
        pages.update(watch.pages(self.service, callers, self.limiter, asked))
        if asked:
            pages.update(rpcPages(self.service, callers))
            pages.update(webSocketPages(self.sessions, callers, ["/tunnel"]))
            pages[b"join"] = JoinPage(self.service, callers, forwarded)
            pages[KNOCK_PATH] = KnockPage(
                self.service.knocks,
                callers,
                forwarded,
                Attempts(self.clock, self.limiter),
                GatePages(PublicNames()),
                lambda host: succeed([]),
            )
        site = LimitedSite(rootOf(pages), reactor=self.clock, admit=callers.admit)
        http = [HTTPPortProtocol(site)]
        self.factory: Any = ProtocolDetectorFactory(
            self.clock,
            [*portProtocols(self.sessions), *http] if asked else http,
            watch.observer,
            limiter=self.limiter,
            proxied=wrap is proxied,
        )
        if wrap is not None:
            self.factory = wrap(self)
        self._observer = cast(Any, self._note)
        globalLogPublisher.addObserver(self._observer)
        self._address = 0
        names = ("sessions", "unauthenticated", "clients", "tunnels")
        self._left = {**dict.fromkeys(names, 0), "timers": 2}

    def close(self) -> None:
        globalLogPublisher.removeObserver(self._observer)

    def _note(self, event: LogEvent) -> None:
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            self.errors.append(event)

    def __call__(self, data: bytes) -> bool:
        """Be a peer who says something, waits and leaves; whether it was answered."""
        # A new address each time, or the gate would let nobody in; but not too
        # many, as it remembers them.
        self._address = (self._address + 1) % 4096
        address = IPv4Address(
            "TCP",
            f"10.{self._address >> 16 & 255}."
            f"{self._address >> 8 & 255}.{self._address & 255}",
            1,
        )
        transport = _Line(address, self.clock)
        protocol: Any = self.factory.buildProtocol(address)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        half = len(data) // 2
        for piece in (data[:half], data[half:]):
            if transport.connected and not transport.disconnecting and piece:
                transport.protocol.dataReceived(piece)
        self.clock.advance(0)
        self.clock.advance(15)
        answered = bool(transport.value())
        transport.cut()
        # What lingers, lingers for a bounded time.
        for _ in range(3):
            self.clock.advance(45)
        if self.errors:
            errors, self.errors = self.errors, []
            raise Broken(f"logged: {errors[0].get('log_failure') or errors[0]}")
        left = {
            "sessions": len(self.sessions.sessions),
            "unauthenticated": self.limiter.unauthenticated,
            "clients": len(self.service.clients),
            "tunnels": len(self._tally.tunnels),
            "timers": len(self.clock.getDelayedCalls()),
        }
        # What one has left is not blamed on the next.
        before, self._left = self._left, left
        more = [name for name in left if left[name] > before[name]]
        if more:
            raise Broken(f"of this there is more: {', '.join(more)}")
        return answered


class _Line(StringTransport):
    """A connection that can be closed from either side."""

    protocol: Any

    def __init__(self, address: IPv4Address, clock: Clock) -> None:
        super().__init__(address, address)
        self.connected = True
        self._clock = clock

    def cut(self) -> None:
        """Lose the connection, once."""
        if self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def loseConnection(self) -> None:
        """Be lost in the reactor's next turn, as sockets are."""
        self.disconnecting = True
        self._clock.callLater(0, self.cut)

    abortConnection = loseConnection

    def unregisterProducer(self) -> None:
        """Forget the producer; as with sockets, none is no error."""
        if self.producer is not None:
            super().unregisterProducer()

    def pauseProducing(self) -> None:
        """Nothing is sent anyway."""

    resumeProducing = pauseProducing

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing to set."""

    setTcpKeepAlive = setTcpNoDelay

    def loseWriteConnection(self) -> None:
        """Nobody listens anyway."""

    def isSecure(self) -> bool:
        return False


class _Endpoint:
    """An endpoint that only keeps what it is to make connections with."""

    factory: Any

    def listen(self, factory: Any) -> Any:
        self.factory = factory
        return succeed(None)


def proxied(port: Ports) -> Any:
    endpoint = _Endpoint()
    behindProxy(cast(Any, endpoint), lambda host: True).listen(port.factory)
    return endpoint.factory


def _certificates() -> CertificateDirectory:
    with tempfile.TemporaryDirectory() as directory:
        authority = makeAuthority()
        for number, names in enumerate((["a.example"], ["*.b.example", "c.example"])):
            certificate, key = authority.issue(names)
            Path(directory, f"{number}.pem").write_bytes(certificate + key)
        # Time stands still for it, so that it never looks for the files again.
        return CertificateDirectory(directory, seconds=lambda: 0.0)


def secure(port: Ports) -> Any:
    """Put TLS around a port, with certificates for some names."""
    return TLSMemoryBIOFactory(_certificates(), False, port.factory, port.clock)


def named(port: Ports) -> Any:
    """Have one port with TLS for several names and without."""
    served = Served(port.factory, Certificates(_certificates()))
    return TLSNamesFactory(
        port.clock,
        port.factory.observer,
        port.limiter,
        table=NameTable(),
        own=served,
        visitors=served,
        isOwn=lambda name: name != "a.example",
        plain=port.factory,
    )


def players(port: Ports) -> Any:
    return MinecraftFactory(
        port.clock, port.factory.observer, port.limiter, table=NameTable()
    )


def databases(port: Ports) -> Any:
    return PostgresFactory(
        port.clock,
        port.factory.observer,
        port.limiter,
        table=NameTable(),
        certificates=Certificates(_certificates()),
        domains=lambda: ["b.example"],
    )


def boring(port: Ports) -> Any:
    return ProtocolDetectorFactory(
        port.clock,
        BoreDialect().portProtocols(port.sessions),
        port.factory.observer,
        limiter=port.limiter,
    )
