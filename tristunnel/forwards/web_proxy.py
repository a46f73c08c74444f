"""C{--forward PORT=proxy:allow=...}: the client as an HTTP proxy into its network."""

from __future__ import annotations

from collections.abc import Mapping

from tristunnel.errors import TunnelError
from tristunnel.forwards.onward import Gateway, Onward
from tristunnel.wire.proxy_request import ProxyRequest, ProxyRequestDecoder

__all__ = ["WebProxy"]

_STATUS = {
    "auth-refused": "407 Proxy Authentication Required",
    "limit-reached": "503 Service Unavailable",
    "not-permitted": "403 Forbidden",
    "protocol-error": "400 Bad Request",
    "service-timeout": "504 Gateway Timeout",
}
_ELSE = "502 Bad Gateway"


class WebProxy(Onward):
    """A visitor who speaks HTTP to its proxy."""

    def __init__(self, gateway: Gateway, info: Mapping[str, object]) -> None:
        super().__init__(gateway, info)
        self._decoder = ProxyRequestDecoder()
        self._request: ProxyRequest | None = None

    def heard(self, data: bytes) -> None:
        request = self._request = self._decoder.feed(data)
        if request is None:
            return
        self.early, self._decoder.buffer = self._decoder.buffer, b""
        if self.gateway.login is not None and request.login is None:
            raise TunnelError("auth-refused", "this proxy wants a user and a password")
        if not self.gateway.admits(*(request.login or (b"", b""))):
            self.punished()
            return
        self.go(request.host, request.port)

    def reached(self) -> bytes:
        if self._request is not None and self._request.head:
            return self._request.head
        self.transport.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
        return b""

    def refused(self, error: TunnelError) -> None:
        status = _STATUS.get(error.code.name, _ELSE)
        body = f"{error.message}\n".encode()
        lines = [
            f"HTTP/1.1 {status}",
            "Content-Type: text/plain; charset=utf-8",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        if status.startswith("407"):
            lines.append('Proxy-Authenticate: Basic realm="tristunnel"')
        self.transport.write("\r\n".join([*lines, "", ""]).encode() + body)
