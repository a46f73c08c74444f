"""
The fields of SSH's messages (RFC 4251, section 5), and the messages of its
connection protocol (RFC 4254).

Packets, keys and authentication are twisted.conch's.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct

from tristunnel.errors import TunnelError, protocolError

__all__ = [
    "BEGINNING",
    "Fields",
    "Message",
    "OpenFailure",
    "failureOf",
    "packNumbers",
    "packText",
    "packTexts",
]

BEGINNING = b"SSH-"
"""The beginning of a connection (RFC 4253, section 4.2)."""

_NUMBER = Struct(">L")


class Message(IntEnum):
    """The numbers of messages (RFC 4250, section 4.1.2)."""

    GLOBAL_REQUEST = 80
    REQUEST_SUCCESS = 81
    REQUEST_FAILURE = 82
    CHANNEL_OPEN = 90
    CHANNEL_OPEN_CONFIRMATION = 91
    CHANNEL_OPEN_FAILURE = 92
    CHANNEL_WINDOW_ADJUST = 93
    CHANNEL_DATA = 94
    CHANNEL_EXTENDED_DATA = 95
    CHANNEL_EOF = 96
    CHANNEL_CLOSE = 97
    CHANNEL_REQUEST = 98
    CHANNEL_SUCCESS = 99
    CHANNEL_FAILURE = 100


class OpenFailure(IntEnum):
    """Why a channel was not opened (RFC 4254, section 5.1)."""

    PROHIBITED = 1
    CONNECT_FAILED = 2
    UNKNOWN_TYPE = 3
    SHORTAGE = 4


class Fields:
    """
    Reads the fields of a message, one after the other.

    @param data: The message without its number.
    """

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self) -> int:
        """
        Read a C{uint32}.

        @raise TunnelError: C{protocol-error}, like all of these methods, if the message
            ends before.
        """
        at = self._at
        if len(self._data) < at + 4:
            raise protocolError("an SSH message is cut short")
        self._at = at + 4
        value: int = _NUMBER.unpack_from(self._data, at)[0]
        return value

    def boolean(self) -> bool:
        """Read a C{boolean}, where any number but 0 is true."""
        if len(self._data) <= self._at:
            raise protocolError("an SSH message is cut short")
        self._at += 1
        return self._data[self._at - 1] != 0

    def data(self) -> bytes:
        """Read a C{string} of bytes."""
        size = self.number()
        at = self._at
        if size > len(self._data) - at:
            raise protocolError("an SSH message is cut short")
        self._at = at + size
        return self._data[at : at + size]

    def text(self, most: int = 1024) -> str:
        """
        Read a C{string} that people can read.

        @param most: The most bytes that it may have.
        """
        data = self.data()
        if len(data) > most:
            raise protocolError(f"a text in an SSH message has {len(data)} bytes")
        try:
            return data.decode("utf-8")
        except UnicodeDecodeError:
            raise protocolError("a text in an SSH message is not UTF-8") from None

    def port(self) -> int:
        """Read a C{uint32} that is a port."""
        value = self.number()
        if value > 65535:
            raise protocolError(f"{value} is no port")
        return value

    def rest(self) -> bytes:
        """Read what is left."""
        at, self._at = self._at, len(self._data)
        return self._data[at:]


def packText(text: str | bytes) -> bytes:
    """Write a C{string}."""
    data = text.encode("utf-8", "replace") if isinstance(text, str) else text
    return _NUMBER.pack(len(data)) + data


def packTexts(*texts: str | bytes) -> bytes:
    """Write several C{string}s."""
    return b"".join(map(packText, texts))


def packNumbers(*values: int) -> bytes:
    """Write several C{uint32}s."""
    return b"".join(map(_NUMBER.pack, values))


def failureOf(refusal: TunnelError) -> OpenFailure:
    """Find the number for a refusal in RFC 4254."""
    name = refusal.code.name
    if name in ("not-permitted", "unknown-tunnel", "auth-refused"):
        return OpenFailure.PROHIBITED
    if name == "limit-reached":
        return OpenFailure.SHORTAGE
    return OpenFailure.CONNECT_FAILED
