"""
All pages of a server that speak WebSocket. On those where clients connect, the
first message tells the dialect.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress

from autobahn.websocket import USES_NVX
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import IResource

from tristunnel.auth.credentials import MAX_NAME
from tristunnel.dialects.base.dialect import WebSocketPath
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.table import DIALECTS, Served
from tristunnel.errors import TunnelError, badOption
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.forwarded import Forwarded
from tristunnel.model.permissions import ANONYMOUS_IDENTITY
from tristunnel.util.repeating import stopTimer
from tristunnel.websocket.connection import PING_INTERVAL, Connection, Receiver
from tristunnel.websocket.page import WebSocketPage, WebSocketRequest

__all__ = [
    "FirstMessage",
    "clientsPath",
    "makePage",
    "parsePaths",
    "receiverBelow",
    "warnIfSlow",
    "webSocketPages",
]

_log = Logger(namespace="tristunnel.server")

MAX_FIRST = 128 * 1024
"""Bytes of the longest first message, which is held whole although it is not known who
sends it: a login, and what a client sends right after it."""

ROOT = b""
"""The name of the root page."""

_TAKEN = ("health", "rpc", "RPC2", "metrics", "dashboard")


def parsePaths(paths: Sequence[str]) -> list[str]:
    """
    Check where clients connect by WebSocket.

    @raise TunnelError: C{bad-option}.
    """
    taken = {*_TAKEN, *(name for each in DIALECTS.values() for name in each.pageNames)}
    for path in paths:
        inner = path.strip("/")
        if not path.startswith("/") or "//" in path or not path.isprintable():
            raise badOption(f"--websocket-path {path!r}: write it as /tunnel")
        if inner.partition("/")[0] in taken:
            raise badOption(f"--websocket-path {path!r} is used by another page")
    return list(paths)


class FirstMessage:
    """
    Receives from a connection whose dialect is not known yet.

    @param sessions: The server's sessions, of which it will be one.
    @param arrival: How the client came.
    @param served: The dialects that it may speak.
    """

    def __init__(
        self, sessions: ServerSessions, arrival: Arrival, served: Served = DIALECTS
    ) -> None:
        self._sessions = sessions
        self._served = served
        self._arrival = arrival
        self._late: IDelayedCall | None = None

    def opened(self, connection: Connection) -> None:
        self._arrival.connection = connection
        connection.pending = self._arrival.pending
        connection.pending.leave = connection.abort
        connection.wholeUpTo = MAX_FIRST
        self._late = self._sessions.reactor.callLater(
            self._sessions.handshakeTimeout, self._tooLate, connection
        )

    def _tooLate(self, connection: Connection) -> None:
        seconds = self._sessions.handshakeTimeout
        connection.fail(
            TunnelError("handshake-timeout", f"nothing was received for {seconds:g} s")
        )

    def _handOver(self, message: bytes, isBinary: bool) -> Receiver | None:
        connection = self._arrival.connection
        assert self._late is not None and connection is not None
        left = self._late.getTime() - self._sessions.reactor.seconds()
        self._arrival.remaining = max(left, 0.001)
        self._late.cancel()
        connection.wholeUpTo = 0
        # All are asked, so that none takes what is another one's.
        known = (
            each
            for each in reversed(DIALECTS.values())
            if each.takesFirst(message, isBinary)
        )
        chosen = next(known, None)
        if chosen is None or chosen.name not in self._served:
            what = "that protocol" if chosen is None else chosen.name
            connection.fail(
                TunnelError("not-permitted", f"this server does not speak {what}")
            )
            return None
        self._arrival.first = message
        try:
            receiver: Receiver = chosen.receiver(self._sessions, self._arrival)
        except TunnelError as problem:
            connection.fail(problem)
            return None
        connection.receiver = receiver
        receiver.opened(connection)
        return receiver

    def bytesReceived(self, data: bytes) -> None:
        if (receiver := self._handOver(data, True)) is not None:
            receiver.bytesReceived(data)

    def textReceived(self, text: bytes) -> None:
        if (receiver := self._handOver(text, False)) is not None:
            receiver.textReceived(text)

    def closeReceived(self, reason: TunnelError | None) -> None:
        """Note that the client leaves without a word."""

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        # This also happens when the WebSocket was never open, because of a bad header.
        self._arrival.pending.known()
        stopTimer(self._late)


def receiverBelow(
    sessions: ServerSessions, path: str, served: Served = DIALECTS
) -> Receiver | None:
    """
    Find what receives a WebSocket that belongs to a session, whose path is its
    credential.

    @raise TunnelError: C{unknown-tunnel}.
    """
    found = (each.receiverBelow(sessions, path) for each in served.values())
    return next((receiver for receiver in found if receiver is not None), None)


def clientsPath(
    sessions: ServerSessions, callers: HTTPCallers, served: Served = DIALECTS
) -> WebSocketPath:
    """
    Make the page where clients connect.

    @param callers: Finds out who a request is from. Credentials in it must be good;
        without any, the client's first message may have them.
    """

    async def receive(asked: WebSocketRequest) -> Receiver:
        belongs = receiverBelow(sessions, asked.name, served)
        if belongs is not None:
            return belongs
        vouched = asked.request.getHeader(b"authorization") is not None
        if vouched:
            caller = await callers(asked.request)
        else:
            caller = callers.describe(asked.request, ANONYMOUS_IDENTITY)
            if caller.certificate:
                with suppress(TunnelError):
                    # It may be enough, or the credentials are in the first message.
                    caller = await callers(asked.request)
                    vouched = True
        # This is last, since only the connection's end undoes it.
        arrival = Arrival(caller, vouched, callers.newcomer(asked.request))
        named = (asked.request.args or {}).get(b"id", [b""])[0]
        arrival.says = named[:MAX_NAME].decode("utf-8", "replace")
        return FirstMessage(sessions, arrival, served)

    spoken = [name for each in served.values() for name in each.subprotocols]
    return WebSocketPath(receive, spoken)


def webSocketPages(
    sessions: ServerSessions,
    callers: HTTPCallers,
    paths: Sequence[str] = ("tunnel",),
    forwarded: Forwarded | None = None,
    pingInterval: float = PING_INTERVAL,
    served: Served = DIALECTS,
) -> dict[bytes, IResource]:
    """
    Make the pages, and have the service offer raw WebSockets as tunnels' ends.

    @param paths: Where clients connect.
    @param forwarded: Whom proxies speak for.
    @param pingInterval: Seconds between pings, 0 for none.
    @param served: The dialects that are spoken.
    """
    clients = makePage(
        sessions, clientsPath(sessions, callers, served), forwarded, pingInterval
    )
    pages: dict[bytes, IResource] = {
        path.strip("/").encode(): clients for path in paths
    }
    if any(dialect.atRoot for dialect in served.values()):
        pages.setdefault(ROOT, clients)
    for dialect in served.values():
        for name, path in dialect.pages(sessions, callers).items():
            pages[name.encode()] = makePage(sessions, path, forwarded, pingInterval)
    return pages


def makePage(
    sessions: ServerSessions,
    path: WebSocketPath,
    forwarded: Forwarded | None,
    pingInterval: float,
) -> WebSocketPage:
    """Make one page, whose connections are counted among the server's."""
    return WebSocketPage(
        sessions.reactor,
        path.receive,
        path.subprotocols,
        path.anyOrigin,
        pingInterval,
        forwarded,
        sessions.webSockets,
    )


def warnIfSlow() -> None:
    """Log it if WebSockets are served without what makes them fast."""
    if not USES_NVX:
        _log.warn(
            "autobahn runs without its C code: WebSockets will be slow; install its"
            " wheel, and leave AUTOBAHN_USE_NVX unset"
        )
