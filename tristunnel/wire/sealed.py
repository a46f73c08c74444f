"""
Packets of a direct path: sealed with a session's keys, each valid once.

The packets are specified in C{docs/protocol-udp.rst}.
"""

from __future__ import annotations

import secrets
from struct import Struct
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

__all__ = ["NAME", "OVERHEAD", "REPLAY_WINDOW", "Keys", "Sealing", "newKeys"]

NAME = 8
"""The bytes of a path's name, at the front of each packet."""

OVERHEAD = NAME + 8 + 16
"""The bytes of a packet beside its content: name, number, and authentication tag."""

REPLAY_WINDOW = 1024
"""How many packets behind the newest one may still come, once each."""

_NUMBER = Struct("!Q")
_NONCE = Struct("!4xQ")


class Keys(NamedTuple):
    """
    The secrets that only the two ends of a path share.

    @ivar name: Tells the path from others; not secret.
    @ivar toServer: Seals what the client sends.
    @ivar toClient: Seals what the server sends.
    """

    name: bytes
    toServer: bytes
    toClient: bytes


def newKeys() -> Keys:
    """Make the keys of a new path."""
    return Keys(
        secrets.token_bytes(NAME), secrets.token_bytes(32), secrets.token_bytes(32)
    )


class Sealing:
    """
    Seals and opens packets, at one end of a path.

    ChaCha20-Poly1305 (RFC 8439) with a key for each direction. The packet's
    number is the nonce, so none is ever used twice; the name is bound to it.

    @param keys: The path's.
    @param isServer: Whether this is the server's end.
    """

    def __init__(self, keys: Keys, isServer: bool) -> None:
        ours, theirs = keys.toClient, keys.toServer
        if not isServer:
            ours, theirs = theirs, ours
        self._name = keys.name
        self._seal = ChaCha20Poly1305(ours).encrypt
        self._open = ChaCha20Poly1305(theirs).decrypt
        self._sent = 0
        self._newest = 0
        self._seen = 0

    def seal(self, content: bytes) -> bytes:
        """Make a packet."""
        self._sent += 1
        number = self._sent
        sealed = self._seal(_NONCE.pack(number), content, self._name)
        return self._name + _NUMBER.pack(number) + sealed

    def open(self, packet: bytes) -> tuple[bytes, bool] | None:
        """
        Open a packet.

        @return: Its content, and whether no newer one came before; C{None} if
            it is not the peer's, or came already, or is too old to know.
        """
        if len(packet) < OVERHEAD or packet[:NAME] != self._name:
            return None
        (number,) = _NUMBER.unpack_from(packet, NAME)
        behind = self._newest - number
        if behind >= REPLAY_WINDOW or (behind >= 0 and self._seen >> behind & 1):
            return None
        try:
            content = self._open(_NONCE.pack(number), packet[NAME + 8 :], self._name)
        except InvalidTag:
            return None
        # Only now: a forged number must not move the window.
        if behind >= 0:
            self._seen |= 1 << behind
            return content, False
        ahead = min(-behind, REPLAY_WINDOW)
        self._seen = (self._seen << ahead | 1) & ((1 << REPLAY_WINDOW) - 1)
        self._newest = number
        return content, True
