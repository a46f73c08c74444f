"""
One port for the server's own pages and for tunnels' HTTP hosts: the C{Host} of a
connection's first request says which of the two serves it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.interfaces import IAddress, IProtocol

from tristunnel.dialects.base.dialect import PortProtocol
from tristunnel.server.detector import Deciding
from tristunnel.service.preauth import PendingConnection
from tristunnel.util.hosts import hostSaid

__all__ = ["SharedHTTP", "hostAsked"]

_LONGEST = 16 * 1024
"""Bytes in which a head must name its host."""

_HOST = re.compile(rb"\r?\nhost:[ \t]*([^\r\n]*)[ \t]*\r?\n", re.IGNORECASE)
_ABSOLUTE = re.compile(rb"[A-Z]+ [a-z]+://([^/ \r\n]*)", re.IGNORECASE)
_END = re.compile(rb"\r?\n\r?\n")


def hostAsked(head: bytes) -> str | None:
    """
    Find which host a request is for. This only decides who serves it, who then reads
    the host again.

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


class _Waiting(Deciding):
    """
    Waits for a head.

    @param parent: What is served.
    @param address: Where the connection comes from.
    @param remaining: Seconds until the head must be there.
    @param pending: Counts it among those of whom nothing is known.
    """

    def __init__(
        self,
        parent: SharedHTTP,
        address: IAddress | None,
        remaining: float,
        pending: PendingConnection,
    ) -> None:
        super().__init__(parent.reactor, address, pending)
        self._parent = parent
        self._remaining = remaining

    def connectionMade(self) -> None:
        self._pending.leave = self.transport.abortConnection
        self._within(self._remaining, self.transport.abortConnection)

    def dataReceived(self, data: bytes) -> None:
        if self._inner is not None:
            # Whoever handed on the connection may know no other method.
            self._inner.dataReceived(data)
            return
        self._began += data
        host = hostAsked(self._began)
        if host is not None:
            self._handOver(self._parent.protocolFor(host))


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
        """Find who serves a host."""
        return self._names if host and self._isName(host) else self._own

    def open(
        self, address: IAddress | None, remaining: float, pending: PendingConnection
    ) -> IProtocol | None:
        return _Waiting(self, address, remaining, pending)
