"""As much of Minecraft's protocol as the server list of the game speaks."""

from __future__ import annotations

__all__ = ["handshake", "legacyPing", "readPacket", "varint"]


def varint(value: int) -> bytes:
    """A number as packets have it."""
    made = bytearray()
    while True:
        value, low = value >> 7, value & 0x7F
        made.append(low | (0x80 if value else 0))
        if not value:
            return bytes(made)


def handshake(host: str | bytes, protocol: int = 767, state: int = 1) -> bytes:
    """The first packet of a player."""
    name = host.encode() if isinstance(host, str) else host
    body = b"\0" + varint(protocol) + varint(len(name)) + name + b"\x63\xdd"
    body += varint(state)
    return varint(len(body)) + body


def legacyPing(host: str) -> bytes:
    """The question of a client of version 1.6."""
    name = host.encode("utf-16-be")
    rest = b"\x4e" + (len(name) // 2).to_bytes(2) + name + (25565).to_bytes(4)
    head = b"\xfe\x01\xfa\0\x0b" + "MC|PingHost".encode("utf-16-be")
    return head + len(rest).to_bytes(2) + rest


def readPacket(data: bytes) -> tuple[int, str]:
    """A packet that has a text: its number, and the text."""

    def number(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if not byte & 0x80:
                return value, at

    size, at = number(0)
    assert len(data) == at + size
    identifier, at = number(at)
    length, at = number(at)
    assert len(data) == at + length
    return identifier, data[at:].decode()
