"""
Datagrams in a byte stream, as chisel sends them: values of Go's C{encoding/gob}, each a
C{struct{Src string; Payload []byte}}.

Only the part of gob that this needs is here, written from its documentation and
compared with what Go's own package writes.
"""

from __future__ import annotations

from tristunnel.errors import protocolError

__all__ = ["MAX_DATAGRAM", "TYPE", "DatagramReader", "packDatagram"]

MAX_DATAGRAM = 9012
"""The bytes of the longest datagram that chisel takes."""

_MAX_MESSAGE = MAX_DATAGRAM + 1024

TYPE = bytes.fromhex(
    "2a7f030101097564705061636b657401ff800001020103537263010c0001075061796c6f6164010a"
    "000000"
)
"""The definition of the type, which each side sends once, at the beginning."""

_ID = b"\xff\x80"
"""That type's number, 64, as a signed number."""


def _packNumber(value: int) -> bytes:
    if value < 128:
        return bytes((value,))
    data = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes((256 - len(data),)) + data


def _field(data: bytes) -> bytes:
    # Empty fields are left out; the next one's number counts them.
    return _packNumber(len(data)) + data


def packDatagram(source: str, datagram: bytes) -> bytes:
    """
    Write a datagram.

    @param source: Where it comes from, or goes to, as C{HOST:PORT}; not empty.
    """
    value = _ID + b"\1" + _field(source.encode())
    if datagram:
        value += b"\1" + _field(datagram)
    return _field(value + b"\0")


class DatagramReader:
    """Reads datagrams from pieces of any size."""

    def __init__(self) -> None:
        self._buffer = b""

    def feed(self, data: bytes) -> list[tuple[str, bytes]]:
        """
        Take bytes.

        @return: The datagrams that are whole now, each with its address.
        @raise TunnelError: C{protocol-error}.
        """
        self._buffer += data
        found: list[tuple[str, bytes]] = []
        while True:
            size, at = _number(self._buffer, 0)
            if size > _MAX_MESSAGE:
                raise protocolError(f"a datagram of chisel's has {size} bytes")
            if at < 0 or len(self._buffer) < at + size:
                return found
            message = self._buffer[at : at + size]
            self._buffer = self._buffer[at + size :]
            kind, at = _number(message, 0)
            # The last bit is the sign: a negative number means the definition of a
            # type.
            if at > 0 and not kind & 1:
                found.append(_unpack(message, at))


def _number(data: bytes, at: int) -> tuple[int, int]:
    """
    Read an unsigned number.

    @return: The number, and the offset of the next one; -1 if it is cut short.
    """
    if at >= len(data):
        return 0, -1
    first = data[at]
    if first < 128:
        return first, at + 1
    size = 256 - first
    if size > 8:
        raise protocolError("a number in a datagram of chisel's is too long")
    if len(data) < at + 1 + size:
        return 0, -1
    return int.from_bytes(data[at + 1 : at + 1 + size], "big"), at + 1 + size


def _unpack(message: bytes, at: int) -> tuple[str, bytes]:
    fields = [b"", b""]
    index = -1
    while True:
        delta, at = _number(message, at)
        if at < 0:
            raise protocolError("a datagram of chisel's is cut short")
        if not delta:
            return fields[0][:256].decode("utf-8", "replace"), fields[1]
        index += delta
        size, at = _number(message, at)
        if index >= len(fields) or at < 0 or len(message) < at + size:
            raise protocolError("a datagram of chisel's is not one")
        fields[index] = message[at : at + size]
        at += size
