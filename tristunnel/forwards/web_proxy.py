"""C{--forward PORT=proxy:allow=...}: the client as an HTTP proxy into its network."""

from __future__ import annotations

from collections.abc import Mapping

from tristunnel.errors import TunnelError
from tristunnel.forwards.onward import Gateway, Onward
from tristunnel.wire.http_answer import wholeResponse
from tristunnel.wire.proxy_request import ProxyRequest, ProxyRequestDecoder

__all__ = ["WebProxy"]

_STATUS = {
    "auth-refused": 407,
    "limit-reached": 503,
    "not-permitted": 403,
    "protocol-error": 400,
    "service-timeout": 504,
}


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
        status = _STATUS.get(error.code.name, 502)
        challenge = b'Proxy-Authenticate: Basic realm="tristunnel"\r\n' * (
            status == 407
        )
        self.transport.write(
            wholeResponse(status, f"{error.message}\n".encode(), challenge)
        )
