"""
One port for the server's own pages and for tunnels' HTTP hosts: the C{Host} of a
connection's first request says which of the two serves it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IAddress, IDelayedCall, IProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tristunnel.dialects.base.dialect import PortProtocol
from tristunnel.service.preauth import PendingConnection
from tristunnel.util.hosts import hostSaid

__all__ = ["SharedHTTP", "hostAsked"]

_LONGEST = 16 * 1024
"""Bytes in which a head must have said its host; whoever serves longer ones refuses
this one."""

_HOST = re.compile(rb"\r?\nhost:[ \t]*([^\r\n]*)[ \t]*\r?\n", re.IGNORECASE)
_ABSOLUTE = re.compile(rb"[A-Z]+ [a-z]+://([^/ \r\n]*)", re.IGNORECASE)
_END = re.compile(rb"\r?\n\r?\n")


def hostAsked(head: bytes) -> str | None:
    """
    Find which host a request is for. Whoever serves it finds out for itself; this only
    says who that is.

    @param head: Its first bytes.
    @return: The host without its port, empty if there is none; C{None} as long as
        that cannot be told.
    """
    if not _END.search(head) and len(head) < _LONGEST:
        return None
    found = _ABSOLUTE.match(head) or _HOST.search(head)
    if found is None:
        return ""
    text = found[1].decode("latin-1").strip()
    bare, colon, port = text.rpartition(":")
    if colon and (port.isdecimal() or not port) and not port.endswith("]"):
        text = bare
    return hostSaid(text).removesuffix(".")


class _Waiting(Protocol):
    """
    Waits for a head.

    @param parent: What is served.
    @param address: Where the connection comes from.
    @param remaining: Seconds until the head must be there.
    @param pending: Counts it among those of whom nothing is known.
    """

    transport: Any

    def __init__(
        self,
        parent: SharedHTTP,
        address: IAddress | None,
        remaining: float,
        pending: PendingConnection,
    ) -> None:
        self._parent = parent
        self._address = address
        self._remaining = remaining
        self._pending = pending
        self._began = b""
        self._inner: Any = None
        self._deadline: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self._pending.leave = self.transport.abortConnection
        self._deadline = self._parent.reactor.callLater(
            self._remaining, self.transport.abortConnection
        )

    def dataReceived(self, data: bytes) -> None:
        self._began += data
        host = hostAsked(self._began)
        if host is None:
            return
        remaining = self._stopDeadline()
        chosen = self._parent.protocolFor(host)
        inner: Any = chosen.open(self._address, remaining, self._pending)
        if inner is None:
            self.transport.abortConnection()
            return
        self._inner = inner
        self.dataReceived = inner.dataReceived  # type: ignore[method-assign]
        inner.makeConnection(self.transport)
        began, self._began = self._began, b""
        inner.dataReceived(began)

    def _stopDeadline(self) -> float:
        deadline, self._deadline = self._deadline, None
        if deadline is None or not deadline.active():
            return 0.0
        deadline.cancel()
        left: float = deadline.getTime() - self._parent.reactor.seconds()
        return max(left, 0.0)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stopDeadline()
        if self._inner is None:
            self._pending.known()
        else:
            self._inner.connectionLost(reason)


class SharedHTTP:
    """
    HTTP among the protocols of a port that has both.

    @param reactor: Tells time.
    @param own: The server's own pages.
    @param names: Tunnels' hosts.
    @param isName: Whether a host is a tunnel's, or might be.
    """

    def __init__(
        self,
        reactor: Any,
        own: PortProtocol,
        names: PortProtocol,
        isName: Callable[[str], bool],
    ) -> None:
        self.reactor = reactor
        self.beginnings: Sequence[bytes] = own.beginnings
        self._own = own
        self._names = names
        self._isName = isName

    def protocolFor(self, host: str) -> PortProtocol:
        """Who serves a host."""
        return self._names if host and self._isName(host) else self._own

    def open(
        self, address: IAddress | None, remaining: float, pending: PendingConnection
    ) -> IProtocol | None:
        return _Waiting(self, address, remaining, pending)
