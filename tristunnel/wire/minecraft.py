"""
Minecraft's first packet, as far as it names the server that a player asks for.

The protocol of Java Edition is described in
U{https://minecraft.wiki/w/Java_Edition_protocol/Packets#Handshaking}, the ping of
clients before 1.7 in U{https://minecraft.wiki/w/Minecraft_Wiki:Projects/wiki.vg_merge/Server_List_Ping}.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

__all__ = ["LONGEST", "MinecraftHandshake", "NotMinecraft", "readHandshake", "refusal"]

LONGEST = 4096
"""The most bytes that are read of a first packet. The address has at most 255
characters; a proxy in front may add the player's own, an identifier and the texture of
a skin."""

_STATUS, _LOGIN, _TRANSFER = 1, 2, 3
_LEGACY = b"\xfe\x01\xfa\x00\x0b" + "MC|PingHost".encode("utf-16-be")
_VARINT = 5
"""The most bytes of a number."""


class NotMinecraft(Exception):
    """What came is not a handshake of Minecraft; the text says why."""


@dataclass(frozen=True)
class MinecraftHandshake:
    """
    The first message of a player's client.

    @ivar host: The server that it asks for, in lower case, without a final dot and what
        mods and proxies append.
    @ivar protocol: The version of the protocol.
    @ivar state: What comes next: 1 a question for the server list, 2 a login, 3 a
        login that another server has sent here; 0 with clients before 1.7.
    """

    host: str
    protocol: int
    state: int


class _More(Exception):
    pass


class _Reading:
    def __init__(self, data: bytes, end: int | None = None) -> None:
        self.data = data
        self.at = 0
        self._end = end

    def take(self, count: int) -> bytes:
        if self._end is not None and self.at + count > self._end:
            raise NotMinecraft("the packet ends in the middle of a value")
        if self.at + count > len(self.data):
            raise _More
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self) -> int:
        value = 0
        for place in range(_VARINT):
            (byte,) = self.take(1)
            value |= (byte & 0x7F) << 7 * place
            if not byte & 0x80:
                return value
        raise NotMinecraft("a number has no end")

    def within(self, size: int) -> None:
        """Limit what follows to a packet of so many bytes."""
        self._end = self.at + size


def _host(text: str) -> str:
    # Forge puts \\0FML\\0 behind the address, BungeeCord the player's own, and
    # protection services /// and a signature.
    bare = text.partition("\0")[0].partition("///")[0]
    return bare.lower().removesuffix(".")


def _modern(data: bytes) -> MinecraftHandshake:
    reading = _Reading(data)
    size = reading.number()
    if not 0 < size <= LONGEST - _VARINT:
        raise NotMinecraft("the first packet is too long for a handshake")
    reading.within(size)
    if reading.number() != 0:
        raise NotMinecraft("the first packet is no handshake")
    protocol = reading.number()
    host = reading.take(reading.number())
    reading.take(2)
    state = reading.number()
    if reading.at != _end(data, size) or state not in (_STATUS, _LOGIN, _TRANSFER):
        raise NotMinecraft("the handshake ends in another way")
    try:
        return MinecraftHandshake(_host(host.decode()), protocol, state)
    except UnicodeDecodeError:
        raise NotMinecraft("the address is not text") from None


def _end(data: bytes, size: int) -> int:
    head = _Reading(data)
    head.number()
    return head.at + size


def _legacy(data: bytes) -> MinecraftHandshake:
    if not data.startswith(_LEGACY):
        if _LEGACY.startswith(data):
            raise _More
        raise NotMinecraft("a ping that names no server")
    reading = _Reading(data)
    reading.take(len(_LEGACY))
    reading.within(2 + int.from_bytes(reading.take(2)))
    reading.at -= 2
    reading.take(2)
    (protocol,) = reading.take(1)
    host = reading.take(2 * int.from_bytes(reading.take(2)))
    reading.take(4)
    try:
        return MinecraftHandshake(_host(host.decode("utf-16-be")), protocol, 0)
    except UnicodeDecodeError:
        raise NotMinecraft("the address is not text") from None


def readHandshake(data: bytes) -> MinecraftHandshake | None:
    """
    Read the beginning of a connection.

    @param data: All that has come so far, of which no more than L{LONGEST} bytes are
        looked at.
    @return: What it says; C{None} if more has to come.
    @raise NotMinecraft: If it cannot be a handshake, whatever comes.
    """
    beginning = data[:LONGEST]
    try:
        return _legacy(beginning) if beginning[:1] == b"\xfe" else _modern(beginning)
    except _More:
        if len(data) >= LONGEST:
            raise NotMinecraft("the first packet does not end") from None
        return None


def _packet(identifier: int, text: str) -> bytes:
    content = text.encode()
    body = bytes([identifier]) + _varint(len(content)) + content
    return _varint(len(body)) + body


def _varint(value: int) -> bytes:
    made = bytearray()
    while value > 0x7F:
        made.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*made, value])


def refusal(handshake: MinecraftHandshake, reason: str) -> bytes:
    """
    Write a message, which the game shows, about why a player is not let in.

    @param reason: A line.
    """
    if handshake.state == _STATUS:
        shown = {
            "version": {"name": "-", "protocol": handshake.protocol},
            "players": {"max": 0, "online": 0},
            "description": {"text": reason},
        }
        return _packet(0, json.dumps(shown))
    if handshake.state:
        return _packet(0, json.dumps({"text": reason}))
    # A kick, as it was before 1.7.
    shown16 = reason[:200].encode("utf-16-be")
    return b"\xff" + (len(shown16) // 2).to_bytes(2) + shown16
