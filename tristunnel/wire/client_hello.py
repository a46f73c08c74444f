"""
The first message of a TLS client (RFC 8446, section 4.1.2): the server that it asks
for, and the protocols that it speaks. Only this is read here; nothing is decrypted or
answered.

If the client hides the name (RFC 9849, ECH), this is the outer one, which leads to the
server that can decrypt the inner one.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["CHALLENGE", "LONGEST", "MOST_RECORDS", "ClientHello", "readClientHello"]

CHALLENGE = b"acme-tls/1"
"""The only protocol of an authority that checks the answer to its challenge (RFC 8737,
section 4)."""

LONGEST = 16 * 1024
"""The most bytes of a hello; one with post-quantum keys has about 2,000."""

MOST_RECORDS = 64
"""The most records of a hello; browsers need one or two."""

_HANDSHAKE, _CLIENT_HELLO = 22, 1
_RECORD_HEAD, _MESSAGE_HEAD = 5, 4
_LONGEST_RECORD = 1 << 14
_SERVER_NAME, _ALPN = 0, 16
_HOST_NAME = 0
_LONGEST_NAME = 253


@dataclass(frozen=True, slots=True)
class ClientHello:
    """
    What a client asks for.

    @ivar serverName: The server's name, in lower case and without a final dot; empty if
        it is not given (RFC 6066, section 3).
    @ivar protocols: The protocols that it offers, the best first (RFC 7301); may be
        empty.
    """

    serverName: str = ""
    protocols: tuple[bytes, ...] = ()


class _Reader:
    """Takes a message apart; each piece must be there in full."""

    __slots__ = ("_data", "_position")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def __bool__(self) -> bool:
        return self._position < len(self._data)

    def take(self, count: int) -> bytes:
        end = self._position + count
        if end > len(self._data):
            raise ValueError("a damaged TLS hello")
        piece = self._data[self._position : end]
        self._position = end
        return piece

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, size: int) -> bytes:
        """Read bytes that follow their length, which has C{size} bytes."""
        return self.take(self.number(size))

    def whole(self, size: int) -> _Reader:
        """The same, if nothing may follow."""
        inner = _Reader(self.vector(size))
        if self:
            raise ValueError("a damaged TLS hello")
        return inner


def readClientHello(data: bytes) -> ClientHello | int:
    """
    Read a hello, whole or in part.

    @param data: All that has come so far; what follows the hello does not matter.
    @return: The hello; or how many bytes there must be in all before it makes sense
        to look again.
    @raise ValueError: If this is no hello, or one that no client sends: why, in
        words.
    """
    message = b""
    position = records = 0
    while True:
        head = data[position : position + _RECORD_HEAD]
        if head[:1] not in (b"", b"\x16") or head[1:2] not in (b"", b"\x03"):
            raise ValueError("no TLS hello")
        if len(head) < _RECORD_HEAD:
            return position + _RECORD_HEAD
        length = int.from_bytes(head[3:5], "big")
        records += 1
        if not 0 < length <= _LONGEST_RECORD or records > MOST_RECORDS:
            raise ValueError("a TLS hello in pieces that no client makes")
        position += _RECORD_HEAD + length
        message += data[position - length : position]
        if message and message[0] != _CLIENT_HELLO:
            raise ValueError("another TLS message than a hello")
        if len(message) >= _MESSAGE_HEAD:
            whole = _MESSAGE_HEAD + int.from_bytes(message[1:4], "big")
            if whole > LONGEST:
                raise ValueError(f"a TLS hello of more than {LONGEST} bytes")
            if len(message) >= whole:
                return _readMessage(message[_MESSAGE_HEAD:whole])
        if len(data) < position:
            return position


def _readMessage(message: bytes) -> ClientHello:
    reader = _Reader(message)
    # The old version, and the random bytes.
    reader.take(2 + 32)
    if len(reader.vector(1)) > 32:
        raise ValueError("a damaged TLS hello")
    ciphers, compressions = reader.vector(2), reader.vector(1)
    if len(ciphers) < 2 or len(ciphers) % 2 or not compressions:
        raise ValueError("a damaged TLS hello")
    name, protocols = "", tuple[bytes, ...]()
    seen: set[int] = set()
    extensions = reader.whole(2) if reader else _Reader(b"")
    while extensions:
        kind, content = extensions.number(2), _Reader(extensions.vector(2))
        if kind in seen:
            # With two, nobody can know which one counts.
            raise ValueError("a TLS hello that says something twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _serverName(content)
        elif kind == _ALPN:
            protocols = _protocols(content)
    return ClientHello(name, protocols)


def _serverName(content: _Reader) -> str:
    names = content.whole(2)
    found = b""
    while names:
        kind, name = names.number(1), names.vector(2)
        if kind == _HOST_NAME:
            if found or not name:
                raise ValueError("a TLS hello with no name, or several")
            found = name
    text = found.decode("ascii", "replace").lower().removesuffix(".")
    if len(text) > _LONGEST_NAME or not all(c.isalnum() or c in "-._" for c in text):
        raise ValueError("a TLS hello for something that is no name")
    return text


def _protocols(content: _Reader) -> tuple[bytes, ...]:
    names = content.whole(2)
    found = []
    while names:
        name = names.vector(1)
        if not name:
            raise ValueError("a damaged TLS hello")
        found.append(name)
    return tuple(found)
