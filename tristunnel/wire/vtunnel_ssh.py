"""
vtunnel's messages over SSH, from version 0.1.0 on: requests and channels with JSON in
them, and the forms of its keys.

Read from its source of version 0.6.0 (C{server.go}, C{client.go}, C{auth.go}).
"""

from __future__ import annotations

import binascii
from base64 import b64decode, b64encode
from dataclasses import dataclass
from hashlib import sha256

from tristunnel.errors import badOption, protocolError
from tristunnel.wire.framed import decodeObject, encodeObject
from tristunnel.wire.ssh import packTexts

__all__ = [
    "CHANNEL",
    "LISTEN",
    "PING",
    "PONG",
    "USER",
    "Listen",
    "hostSeedFor",
    "keyBlob",
    "packPort",
    "packPublicKey",
    "parsePrivateKey",
    "parsePublicKey",
    "portIn",
]

USER = "vtunnel"
"""The user name by which its clients log in."""

LISTEN, PING, PONG = "listen", "ping", b"pong"
CHANNEL = "tunnel"

_PRIVATE, _PUBLIC = "vt-priv-", "vt-pub-"
_SIZE = 32


@dataclass(frozen=True)
class Listen:
    """
    A request for a port.

    @ivar port: The port; 0 for any.
    @ivar localAddress: The service, in the client's words.
    @ivar domain: A name that is to lead there, or empty.
    @ivar headers: C{Name: value} for headers that are added to requests for that name.
    """

    port: int
    localAddress: str = ""
    domain: str = ""
    headers: tuple[str, ...] = ()

    @classmethod
    def unpack(cls, data: bytes) -> Listen:
        """@raise TunnelError: C{protocol-error}."""
        fields = decodeObject(data)
        texts = [fields.get(name) or "" for name in ("local_addr", "domain")]
        if not all(isinstance(text, str) for text in texts):
            raise protocolError("a request for a port has no address")
        local, domain = (str(text)[:256] for text in texts)
        return cls(portIn(data), local, domain, _headersIn(fields.get("headers")))

    def pack(self) -> bytes:
        """Write it."""
        fields: dict[str, object] = {"port": self.port, "local_addr": self.localAddress}
        if self.domain:
            fields["domain"] = self.domain
        if self.headers:
            headers: dict[str, list[str]] = {}
            for name, _, value in (each.partition(":") for each in self.headers):
                headers.setdefault(name, []).append(value.strip())
            fields["headers"] = headers
        return encodeObject(fields)


def _headersIn(told: object) -> tuple[str, ...]:
    """
    Read headers as Go's C{http.Header} has them: a list of values for each name.

    @return: One line for each name, as RFC 9110, 5.3 joins them.
    @raise TunnelError: C{protocol-error}.
    """
    headers = told or {}
    if not isinstance(headers, dict) or not all(
        isinstance(values, list) and all(isinstance(each, str) for each in values)
        for values in headers.values()
    ):
        raise protocolError("vtunnel's headers are lists of texts by name")
    return tuple(f"{name}: {', '.join(values)}" for name, values in headers.items())


def portIn(data: bytes) -> int:
    """
    Read a port from an object; if it is missing, it is 0.

    @raise TunnelError: C{protocol-error}.
    """
    port = decodeObject(data).get("port") or 0
    if type(port) is not int or not 0 <= port <= 65535:
        raise protocolError("vtunnel's port is no port")
    return port


def packPort(port: int) -> bytes:
    """Write the payload that opens a channel, and that answers a request."""
    return encodeObject({"port": port})


def keyBlob(public: bytes) -> bytes:
    """Write a public key in SSH's wire format."""
    return packTexts("ssh-ed25519", public)


def hostSeedFor(public: bytes) -> bytes:
    """
    Make the seed of the only host key that a client with a key accepts: anyone who
    knows its public key can do so.

    @param public: The client's public key.
    """
    return sha256(keyBlob(public)).digest()


def parsePrivateKey(text: str) -> bytes:
    """
    Read C{vt-priv-...}.

    @return: The seed.
    @raise TunnelError: C{bad-option}.
    """
    return _parse(text, _PRIVATE)


def parsePublicKey(text: str) -> bytes:
    """
    Read C{vt-pub-...}.

    @raise TunnelError: C{bad-option}.
    """
    return _parse(text, _PUBLIC)


def packPublicKey(public: bytes) -> str:
    """Write C{vt-pub-...}."""
    return _PUBLIC + b64encode(public).decode().rstrip("=")


def _parse(text: str, prefix: str) -> bytes:
    bare = text.strip()
    try:
        data = b64decode(bare.removeprefix(prefix) + "=", validate=True)
    except (binascii.Error, ValueError):
        data = b""
    if not bare.startswith(prefix) or len(data) != _SIZE:
        raise badOption(f"a key of vtunnel's is {prefix} and 43 characters of base64")
    return data
