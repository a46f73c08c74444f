"""
A port for several PostgreSQL servers: the server name in a client's TLS hello says
which one is meant, or else the database that it asks for.

TLS ends here, with the certificate for the name, so that programs find what they expect
whether or not the service has TLS. A client that asks for encryption by GSSAPI is told
that there is none, and one that asks for TLS, too, if the server has no certificate.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import (
    IAddress,
    IHandshakeListener,
    IProtocolNegotiationFactory,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.tls import serverTLSFactory
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.dataplane.transport_end import Arriving
from tristunnel.errors import TunnelError, printable
from tristunnel.names.table import NameTable, Route
from tristunnel.server.sorting import Sorting, SortingFactory
from tristunnel.server.tls_names import Certificates
from tristunnel.wire.client_hello import readClientHello
from tristunnel.wire.postgres import (
    NotPostgres,
    Opening,
    StartupMessage,
    readOpening,
    refusal,
)

__all__ = ["POSTGRES", "PostgresFactory"]

POSTGRES = "postgres"
"""What C{openTunnel} calls such a listener."""

_ALPN = b"postgresql"
_TLS_RECORD = b"\x16"
_QUESTIONS = 2
"""One for GSSAPI and then one for TLS: no client has more."""


class _Sorting(Sorting):
    awaited = "first message of PostgreSQL"

    _asked = 0
    _secure = False

    def sort(self, data: bytes) -> int:
        if data.startswith(_TLS_RECORD):
            return self._hello(data)
        if self._secure:
            self._wrong("TLS was to follow")
            return 0
        try:
            found = readOpening(data)
        except NotPostgres as problem:
            self._wrong(str(problem))
            return 0
        if found is None:
            return len(data) + 1
        message, size = found
        if isinstance(message, StartupMessage):
            self._start(message)
            return 0
        return self._answer(message, size, len(data))

    def _answer(self, question: Opening, size: int, count: int) -> int:
        self._asked += 1
        if question is Opening.CANCEL:
            # A cancel request names a process of one of the servers, and not the
            # server.
            self._wrong("to end a query takes TLS with a server name")
        elif self._asked > _QUESTIONS or count > size:
            # Bytes that come before the answer could have been inserted by an attacker.
            self._wrong("it did not wait for an answer")
        else:
            self._secure = (
                question is Opening.TLS and self._parent.certificates is not None
            )
            self.skip(size)
            self.transport.write(b"S" if self._secure else b"N")
        return 1

    def _hello(self, data: bytes) -> int:
        parent = self._parent
        if parent.certificates is None:
            self._wrong("this server has no TLS for PostgreSQL")
            return 0
        try:
            hello = readClientHello(data)
        except ValueError as problem:
            self._wrong(str(problem))
            return 0
        if isinstance(hello, int):
            return hello
        route = parent.table.find(POSTGRES, hello.serverName)
        creator = parent.certificates.creatorFor(hello.serverName)
        if route is None:
            secure = serverTLSFactory(creator, _Speaking(lambda: _Inside(self)))
            # It is still not known for which server it is.
            self.handOver(secure.buildProtocol(self._address))
        else:
            arriving = self.arrivingAt(route)
            secure = serverTLSFactory(creator, _Speaking(lambda: arriving))
            self.handOn(secure.buildProtocol(self._address))
        return 0

    def _start(self, message: StartupMessage) -> None:
        route = self.routeOf(message)
        if route is None:
            self.refuse(*unknown(message))
        else:
            self.giveTo(route)

    def routeOf(self, message: StartupMessage) -> Route | None:
        name, table = message.database.lower(), self._parent.table
        route: Route | None = table.find(POSTGRES, name)
        for domain in self._parent.domains():
            route = route or table.find(POSTGRES, f"{name}.{domain}")
        return route

    def _wrong(self, why: str) -> None:
        self.refuse(TunnelError("protocol-error", f"no PostgreSQL: {why}"))


def unknown(message: StartupMessage) -> tuple[TunnelError, bytes]:
    """Make the refusal of an unknown database, for the log and for the client."""
    words = (
        f"no tunnel is called {printable(message.database, 100)!r}: connect to its host"
        " name with TLS, or ask for a database of its name"
    )
    return TunnelError("unknown-tunnel", words), refusal(words)


@implementer(IProtocolNegotiationFactory)
class _Speaking(Factory[Protocol]):
    """Has TLS negotiate PostgreSQL."""

    noisy = False

    def __init__(self, make: Callable[[], Any]) -> None:
        self._make = make

    def acceptableProtocols(self) -> list[bytes]:
        return [_ALPN]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        return self._make()


@implementer(IHandshakeListener)
class _Inside(Protocol):
    """
    Waits within TLS for the message that names a database.

    @param sorting: Counts the connection until then.
    """

    transport: Any

    def __init__(self, sorting: _Sorting) -> None:
        self._sorting = sorting
        self._began = b""

    def handshakeCompleted(self) -> None:
        pass

    def dataReceived(self, data: bytes) -> None:
        self._began += data
        try:
            found = readOpening(self._began)
        except NotPostgres as problem:
            reason = f"no PostgreSQL: {problem}"
            self._sorting.refuse(TunnelError("protocol-error", reason))
            return
        if found is None:
            return
        message = found[0]
        if not isinstance(message, StartupMessage):
            reason = f"no PostgreSQL: it {message.value} within TLS"
            self._sorting.refuse(TunnelError("protocol-error", reason))
            return
        route = self._sorting.routeOf(message)
        if route is not None:
            self._arrive(route)
            return
        reason_, words = unknown(message)
        self._sorting.forget()
        self._sorting.tell(reason_)
        self.transport.write(words)
        self.transport.loseConnection()

    def _arrive(self, route: Route) -> None:
        sorting, transport, began = self._sorting, self.transport, self._began
        sorting.forget()
        arriving: Arriving = sorting.arrivingAt(route)
        arriving.makeConnection(transport)
        end: Any = arriving.end
        if isinstance(transport, SocketTransport):
            assert isinstance(end, SocketEnd)
            if not end.over:
                # The service has read nothing yet, so this comes first.
                end.bytesReceived(began)
            return
        # The layer in between goes on to call this one.
        self.dataReceived = end.dataReceived  # type: ignore[method-assign] # as said
        self.connectionLost = end.connectionLost  # type: ignore[method-assign] # as said
        end.handshakeCompleted()
        end.dataReceived(began)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._sorting.forget()


@dataclass(eq=False, kw_only=True)
class PostgresFactory(SortingFactory):
    """
    Serves such a port.

    @ivar table: Which names are tunnels'.
    @ivar certificates: What clients are shown; C{None} for no TLS.
    @ivar domains: Below which the names of databases are looked for.
    """

    sorting = _Sorting

    table: NameTable
    certificates: Certificates | None = None
    domains: Callable[[], Sequence[str]] = tuple
