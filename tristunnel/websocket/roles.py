"""
The two roles of a WebSocket.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from autobahn.twisted.websocket import WebSocketClientProtocol, WebSocketServerProtocol
from twisted.internet.interfaces import IHandshakeListener, INegotiated
from zope.interface import implementer

from tristunnel.errors import TunnelError
from tristunnel.util.quantities import retryAfter
from tristunnel.websocket.connection import Connection

__all__ = ["ClientConnection", "ServerConnection"]

MAX_HEAD = 64 * 1024
"""Bytes of the longest HTTP answer to our opening handshake."""


class ServerConnection(Connection, WebSocketServerProtocol):  # type: ignore[misc] # ours replace some of autobahn's
    """
    A WebSocket that a client has opened.

    @ivar subprotocols: The subprotocols that are offered; the client's first choice
        among these is used, or else none.
    @ivar chosen: What was chosen, or empty.
    """

    subprotocols: Sequence[str] = ()
    chosen = ""

    def onConnect(self, request: Any) -> str | None:
        for offered in request.protocols:
            if offered in self.subprotocols:
                self.chosen = str(offered)
                return self.chosen
        return None


@implementer(IHandshakeListener)
class ClientConnection(Connection, WebSocketClientProtocol):  # type: ignore[misc] # ours replace some of autobahn's
    """
    A WebSocket that we open.

    @ivar refusal: Why the server did not open it, or C{None}.
    """

    refusal: TunnelError | None = None
    http_status_line: str = ""
    http_headers: dict[str, str] = {}  # noqa: RUF012
    data: bytes

    @property
    def chosen(self) -> str:
        """The subprotocol that the server has chosen, or empty."""
        return str(self.websocket_protocol_in_use or "")

    def startHandshake(self) -> None:
        """
        Ask for the upgrade; over TLS, only after the server was verified, since the
        headers may hold secrets.
        """
        if not INegotiated.providedBy(self.transport):
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        super().startHandshake()

    def sendData(
        self, data: bytes, sync: bool = False, chopsize: int | None = None
    ) -> None:
        """
        Send autobahn's request, correcting its Host header: it names the default port,
        and has no brackets around an address.
        """
        if self.state == self.STATE_CONNECTING:
            host = b"\r\nHost: " + self.factory.hostHeader.encode("ascii")
            data = re.sub(rb"\r\nHost: [^\r]*", host, data, count=1)
        super().sendData(data, sync, chopsize)

    def dataReceived(self, data: bytes) -> None:
        if self._isOpen:
            super().dataReceived(data)
            return
        try:
            super().dataReceived(data)
        except Exception:
            self.failHandshake("the answer is not HTTP")
        else:
            if not self._isOpen and len(self.data) > MAX_HEAD:
                self.failHandshake("the answer has no end")

    def failHandshake(self, reason: str) -> None:
        if self.refusal is None:
            parts = self.http_status_line.split(None, 2)
            status = parts[1] if len(parts) > 1 else ""
            if status == "101" or not status.isdecimal():
                self.refusal = TunnelError(
                    "protocol-error", f"the server does not speak WebSocket: {reason}"
                )
            else:
                self.refusal = _refusalOf(int(status), parts, self.http_headers)
            self._ownReason = self.refusal
        self.abort()


def _refusalOf(
    status: int, parts: Sequence[str], headers: Mapping[str, str]
) -> TunnelError:
    said = " ".join(parts[1:])
    cure = _CURES.get(status, "")
    return TunnelError(
        "auth-refused" if status in (401, 403, 407) else "session-lost",
        f"the server answered {said} instead of opening a WebSocket{cure}",
        retryAfter(headers.get("retry-after", "")),
    )


_OTHER_PATH = "; check the path of the URL: tristunnel's is /tunnel"
_CURES = {
    200: _OTHER_PATH,
    401: "; give it credentials: --header 'Authorization=Bearer TOKEN'",
    404: _OTHER_PATH,
    426: "; something on the network path blocks WebSockets: let proxies pass on the"
    " headers Upgrade and Connection",
    502: "; the proxy in front of it cannot reach it: is it running?",
    503: "; it may be overloaded, or not running behind its proxy",
    504: "; the proxy in front of it cannot reach it: is it running?",
}
