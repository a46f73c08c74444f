"""
bore's messages: JSON with a null byte behind it, over plain TCP.

Read from its source of version 0.6.0 (C{src/shared.rs}, C{src/auth.rs}). A secret
never crosses the wire: the server sends a random number, and the client answers with
HMAC-SHA-256 of it under the SHA-256 of the secret.
"""

from __future__ import annotations

import hmac
import json
from dataclasses import dataclass
from hashlib import sha256
from uuid import UUID

from tristunnel.errors import protocolError
from tristunnel.wire.framed import decodeObject

__all__ = [
    "CONTROL_PORT",
    "HEARTBEAT",
    "MAX_MESSAGE",
    "Accept",
    "Authenticate",
    "ClientMessage",
    "Hello",
    "isAnswer",
    "nextMessage",
    "packAccept",
    "packChallenge",
    "packConnection",
    "packError",
    "packHello",
    "unpack",
]

CONTROL_PORT = 7835
"""The only port that its client connects to."""

MAX_MESSAGE = 256
"""The most bytes of a message; either side ends the connection at a longer one."""

_LONGEST_TEXT = 200


@dataclass(frozen=True)
class Authenticate:
    """
    The answer to a challenge.

    @ivar tag: In hexadecimal.
    """

    tag: str


@dataclass(frozen=True)
class Hello:
    """
    A client asks for a port.

    @ivar port: The port; 0 for any.
    """

    port: int


@dataclass(frozen=True)
class Accept:
    """
    The connection is for a visitor from now on.

    @ivar id: Identifies the visitor.
    """

    id: UUID


ClientMessage = Authenticate | Hello | Accept


def nextMessage(data: bytes) -> tuple[bytes | None, bytes]:
    """
    Find the end of the first message.

    @param data: The bytes that came and were not taken yet.
    @return: The message without its null byte, or C{None} while it is not whole; and
        what is behind it.
    @raise TunnelError: C{protocol-error}, for one that is too long.
    """
    message, end, rest = data.partition(b"\0")
    if len(message) > MAX_MESSAGE:
        raise protocolError(f"a bore message may have up to {MAX_MESSAGE} bytes")
    return (message, rest) if end else (None, data)


def unpack(message: bytes) -> ClientMessage:
    """
    Read a client's message.

    @raise TunnelError: C{protocol-error}.
    """
    fields = decodeObject(message)
    if len(fields) == 1:
        ((kind, value),) = fields.items()
        if kind == "Authenticate" and isinstance(value, str):
            return Authenticate(value)
        if kind == "Hello" and type(value) is int and 0 <= value <= 65535:
            return Hello(value)
        if kind == "Accept" and isinstance(value, str):
            try:
                return Accept(UUID(value))
            except ValueError:
                pass
    raise protocolError("this is not a bore message")


def isAnswer(tag: str, challenge: UUID, digest: bytes) -> bool:
    """
    Whether a client has proved that it has the secret.

    @param tag: Its answer.
    @param challenge: The challenge that it was sent.
    @param digest: The SHA-256 of the secret.
    """
    right = hmac.digest(digest, challenge.bytes, sha256).hex()
    return hmac.compare_digest(right.encode(), tag.lower().encode("utf-8", "replace"))


def _pack(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode() + b"\0"


HEARTBEAT = _pack("Heartbeat")
"""Says that the server is alive; the client does nothing about it."""


def packChallenge(challenge: UUID) -> bytes:
    """Write a challenge to prove that the client has the secret."""
    return _pack({"Challenge": str(challenge)})


def packHello(port: int) -> bytes:
    """Write the message that tells a client its port."""
    return _pack({"Hello": port})


def packConnection(visitor: UUID) -> bytes:
    """Write the message by which a client opens a connection for a visitor."""
    return _pack({"Connection": str(visitor)})


def packAccept(visitor: UUID) -> bytes:
    """Write a client's message that a connection is for a visitor."""
    return _pack({"Accept": str(visitor)})


def packError(text: str) -> bytes:
    """Write why the connection ends; a long text is cut."""
    size = _LONGEST_TEXT
    while len(packed := _pack({"Error": text[:size]})) > MAX_MESSAGE:
        size //= 2
    return packed
