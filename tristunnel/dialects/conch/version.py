"""The lines with which an SSH connection begins (RFC 4253, section 4.2)."""

from __future__ import annotations

from tristunnel.errors import printable, protocolError
from tristunnel.wire.ssh import BEGINNING

__all__ = ["checkVersion", "takeVersion"]

MAX_PREAMBLE = 4096
"""Bytes of lines that a server may send before its version."""

MAX_VERSION = 255
"""Bytes of the line with the version (RFC 4253, section 4.2)."""


def takeVersion(unread: bytearray, fromServer: bool) -> bytes | None:
    """
    Take the peer's version line, and those that may be before it.

    @param unread: What has come; without these lines afterwards.
    @param fromServer: Whether the peer is a server: only that may say something before.
    @return: The line without its end; C{None} if it has not come yet.
    @raise TunnelError: C{protocol-error}, if it is too long, or too much came before.
    """
    start = 0
    while True:
        end = unread.find(b"\n", start)
        if end < 0:
            if len(unread) - start > MAX_VERSION or start > MAX_PREAMBLE:
                raise protocolError("the peer's SSH version is too long")
            return None
        line = bytes(unread[start:end]).removesuffix(b"\r")
        start = end + 1
        if line.startswith(BEGINNING):
            break
        if start > MAX_PREAMBLE or not fromServer:
            raise protocolError("the peer said too much before its SSH version")
    if len(line) > MAX_VERSION:
        raise protocolError("the peer's SSH version is too long")
    del unread[:start]
    return line


def checkVersion(line: bytes, versions: tuple[bytes, ...]) -> None:
    """
    Check the peer's version.

    @param line: Its line.
    @param versions: The versions of the protocol that it may announce.
    @raise TunnelError: C{protocol-error}, for one that is not spoken here.
    """
    if not line.startswith(tuple(BEGINNING + each + b"-" for each in versions)):
        said = printable(line.decode("utf-8", "replace"), 60)
        raise protocolError(f"the peer speaks {said!r}, which is not SSH 2.0")
