"""
chisel's messages over SSH: its configuration, and the names of its channels.

Read from its source of November 2026 (C{share/settings}, C{share/tunnel}).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tristunnel.errors import protocolError
from tristunnel.wire.framed import decodeObject, encodeObject

__all__ = [
    "CHANNEL",
    "CLIENT_VERSION",
    "CONFIG",
    "MAX_REMOTES",
    "PING",
    "PONG",
    "SERVER_VERSION",
    "SOCKS",
    "SUBPROTOCOL",
    "UDP",
    "VERSION",
    "Remote",
    "packConfig",
    "unpackConfig",
]

SUBPROTOCOL = "chisel-v3"
CLIENT_VERSION = b"SSH-chisel-v3-client"
SERVER_VERSION = b"SSH-chisel-v3-server"
VERSION = b"chisel"
"""Stands in the place of the version in SSH's version string."""

CONFIG, PING, PONG = "config", "ping", b"pong"
CHANNEL = "chisel"
SOCKS = "socks"
"""Stands in the place of a service where the client is a proxy."""

UDP = "/udp"
"""The suffix of a service that takes datagrams."""

MAX_REMOTES = 1000
"""The most remotes that a client may have."""

_TEXTS = (
    "LocalHost",
    "LocalPort",
    "LocalProto",
    "RemoteHost",
    "RemotePort",
    "RemoteProto",
)
_FLAGS = ("Socks", "Reverse", "Stdio")


@dataclass(frozen=True)
class Remote:
    """
    One remote: C{R:LOCALHOST:LOCALPORT:REMOTEHOST:REMOTEPORT}.

    @ivar localHost: The host where the listening side listens.
    @ivar localPort: The port there.
    @ivar remoteHost: The host of the service.
    @ivar remotePort: Its port.
    @ivar isUDP: Whether it takes datagrams.
    @ivar isReverse: Whether the server listens.
    @ivar isSocks: Whether there is a proxy in place of a service.
    """

    localHost: str
    localPort: int
    remoteHost: str = ""
    remotePort: int = 0
    isUDP: bool = False
    isReverse: bool = True
    isSocks: bool = False

    @property
    def target(self) -> str:
        """The name of a channel to it."""
        if self.isSocks:
            return SOCKS
        return f"{self.remoteHost}:{self.remotePort}{UDP if self.isUDP else ''}"


def _unpack(fields: Any) -> Remote:
    if not isinstance(fields, dict):
        raise protocolError("a remote of chisel's is not an object")
    texts = {name: fields.get(name) or "" for name in _TEXTS}
    flags = {name: fields.get(name) or False for name in _FLAGS}
    if not all(isinstance(text, str) and len(text) <= 256 for text in texts.values()):
        raise protocolError("a remote of chisel's has no texts")
    if not all(isinstance(flag, bool) for flag in flags.values()):
        raise protocolError("a remote of chisel's is neither here nor there")
    isSocks, isUDP = (
        flags["Socks"],
        "udp" in (texts["LocalProto"], texts["RemoteProto"]),
    )
    return Remote(
        texts["LocalHost"],
        0 if flags["Stdio"] else _port(texts["LocalPort"]),
        texts["RemoteHost"],
        0 if isSocks else _port(texts["RemotePort"]),
        isUDP,
        flags["Reverse"],
        isSocks,
    )


def _port(text: str) -> int:
    if not (text.isascii() and text.isdecimal() and 0 < int(text) < 65536):
        raise protocolError(f"{text[:20]!r} in a remote of chisel's is no port")
    return int(text)


def unpackConfig(data: bytes) -> list[Remote]:
    """
    Read a client's configuration.

    @raise TunnelError: C{protocol-error}.
    """
    remotes = decodeObject(data).get("Remotes") or []
    if not isinstance(remotes, list) or len(remotes) > MAX_REMOTES:
        raise protocolError(f"chisel's configuration has up to {MAX_REMOTES} remotes")
    return [_unpack(each) for each in remotes]


def packConfig(remotes: Iterable[Remote], version: str = "") -> bytes:
    """Write a client's configuration."""
    return encodeObject(
        {
            "Version": version,
            "Remotes": [
                {
                    "LocalHost": each.localHost,
                    "LocalPort": str(each.localPort),
                    "LocalProto": "udp" if each.isUDP else "tcp",
                    "RemoteHost": each.remoteHost,
                    "RemotePort": str(each.remotePort) if each.remotePort else "",
                    "RemoteProto": "udp" if each.isUDP else "tcp",
                    "Socks": each.isSocks,
                    "Reverse": each.isReverse,
                    "Stdio": False,
                }
                for each in remotes
            ],
        }
    )
