"""
A request to an HTTP proxy: its head, whose first line names the destination (RFC 9112,
3.2.2 and 3.2.3).
"""

from __future__ import annotations

import re
from base64 import b64decode
from dataclasses import dataclass
from urllib.parse import urlsplit

from tristunnel.errors import TunnelError, protocolError
from tristunnel.util.hosts import hostName, parsePlace

__all__ = ["MAX_HEAD", "ProxyRequest", "ProxyRequestDecoder"]

MAX_HEAD = 64 * 1024
"""The most bytes of a head."""

_LINE = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]{1,32}) (\S+) HTTP/1\.([01])")
_FIELD = re.compile(rb"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([^\r\n\0]*?)[ \t]*")
_OWN = {b"proxy-authorization", b"proxy-connection", b"connection", b"keep-alive"}
"""Fields that are for the proxy, and for this connection."""


@dataclass(frozen=True)
class ProxyRequest:
    """
    A request to a proxy.

    @ivar host: The host, as L{hostName<tristunnel.util.hosts.hostName>} writes it.
    @ivar head: The head to send to it first; empty for C{CONNECT}.
    @ivar login: User and password, or C{None}.
    """

    host: str
    port: int
    head: bytes = b""
    login: tuple[bytes, bytes] | None = None


class ProxyRequestDecoder:
    """
    Reads one request.

    @ivar buffer: What came and was not used; after the request, it is for the
        destination.
    """

    def __init__(self) -> None:
        self.buffer = b""

    def feed(self, data: bytes) -> ProxyRequest | None:
        """
        Take bytes.

        @return: The request, once it is whole.
        @raise TunnelError: C{protocol-error}.
        """
        self.buffer += data
        end = self.buffer.find(b"\r\n\r\n")
        if end < 0:
            if len(self.buffer) > MAX_HEAD:
                raise protocolError("the request's head is too long")
            return None
        if end > MAX_HEAD:
            raise protocolError("the request's head is too long")
        first, *lines = self.buffer[:end].split(b"\r\n")
        self.buffer = self.buffer[end + 4 :]
        found = _LINE.fullmatch(first)
        fields = [_FIELD.fullmatch(line) for line in lines]
        if found is None or not all(fields):
            raise protocolError("that is not an HTTP request")
        pairs = [(each[1], each[2]) for each in fields if each is not None]
        method, target = found[1], found[2].decode("latin-1")
        try:
            if method == b"CONNECT":
                host, port = parsePlace(target)
                return ProxyRequest(host, port, b"", _loginIn(pairs))
            return self._forOthers(method, target, pairs)
        except ValueError as error:
            raise protocolError(f"the request names no host: {error}") from None

    def _forOthers(
        self, method: bytes, target: str, pairs: list[tuple[bytes, bytes]]
    ) -> ProxyRequest:
        """
        Write a request as its origin server takes it, as the last one of its
        connection: the next may be for another server.
        """
        url = urlsplit(target)
        if url.scheme != "http" or not url.hostname:
            raise ValueError("write http://HOST/PATH, or use CONNECT")
        host, port = hostName(url.hostname), url.port or 80
        nominated = {
            name.strip().lower()
            for key, value in pairs
            if key.lower() == b"connection"
            for name in value.split(b",")
        }
        path = url._replace(scheme="", netloc="", fragment="").geturl() or "/"
        if not path.startswith("/"):
            path = f"/{path}"
        place = url.netloc.rpartition("@")[2]
        lines = [
            b"%s %s HTTP/1.1" % (method, path.encode("latin-1")),
            b"Host: %s" % place.encode("latin-1"),
        ]
        lines += [
            b"%s: %s" % pair
            for pair in pairs
            if pair[0].lower() not in _OWN | nominated | {b"host"}
        ]
        head = b"\r\n".join([*lines, b"Connection: close", b"", b""])
        return ProxyRequest(host, port, head, _loginIn(pairs))


def _loginIn(pairs: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes] | None:
    for key, value in pairs:
        if key.lower() == b"proxy-authorization":
            scheme, _, coded = value.partition(b" ")
            if scheme.lower() == b"basic":
                try:
                    user, _, password = b64decode(coded, validate=True).partition(b":")
                except ValueError:
                    raise TunnelError("auth-refused") from None
                return user, password
    return None
