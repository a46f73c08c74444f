"""
zlayer's control messages: the payload of one WebSocket message each.

Layout: type u8, length of the payload u32 big-endian, payload; at most 65,536
bytes in all. Strings are a u16 length and UTF-8, but the name in L{Register}
has a u8 length. UUIDs are 16 bytes. (The zlayer-tunnel crate 0.8, its
C{protocol.rs}, and bytes computed by hand from that layout.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from struct import Struct
from typing import ClassVar, TypeVar, dataclass_transform
from uuid import UUID

from tristunnel.errors import TunnelError, protocolError

__all__ = [
    "MAX_MESSAGE",
    "MESSAGES",
    "TCP",
    "UDP",
    "Auth",
    "AuthFail",
    "AuthOk",
    "Connect",
    "ConnectAck",
    "ConnectFail",
    "Disconnect",
    "Heartbeat",
    "HeartbeatAck",
    "Message",
    "Register",
    "RegisterFail",
    "RegisterOk",
    "Unregister",
    "decodeMessage",
    "encodeMessage",
]

MAX_MESSAGE = 65536
"""The most bytes of a message, including its head of five."""

TCP, UDP = 0, 1
"""The protocols of a service."""

_HEAD = Struct("!BI")
_U8, _U16, _U64 = Struct("!B"), Struct("!H"), Struct("!Q")


class _Reader:
    """Reads values from a payload."""

    def __init__(self, kind: str, payload: bytes) -> None:
        self._kind = kind
        self._payload = payload
        self._offset = 0

    def take(self, size: int) -> bytes:
        """
        Take bytes.

        @raise TunnelError: C{protocol-error}, if there are fewer.
        """
        data = self._payload[self._offset : self._offset + size]
        if len(data) < size:
            raise protocolError(f"{self._kind} is cut short")
        self._offset += size
        return data

    def number(self, layout: Struct) -> int:
        (value,) = layout.unpack(self.take(layout.size))
        return int(value)

    def end(self) -> None:
        """
        @raise TunnelError: C{protocol-error}, if anything is left.
        """
        left = len(self._payload) - self._offset
        if left:
            raise protocolError(f"{self._kind} has {left} bytes too many")


def _text(length: Struct) -> tuple[Callable[..., bytes], Callable[..., object]]:
    def write(value: str) -> bytes:
        data = value.encode()
        longest = 256**length.size - 1
        if len(data) > longest:
            raise TunnelError(
                "bad-option", f"a string of {len(data)} bytes has at most {longest}"
            )
        return length.pack(len(data)) + data

    def read(reader: _Reader) -> str:
        data = reader.take(reader.number(length))
        try:
            return data.decode()
        except UnicodeDecodeError:
            raise protocolError("a string is not UTF-8") from None

    return write, read


def _number(layout: Struct) -> tuple[Callable[..., bytes], Callable[..., object]]:
    return layout.pack, lambda reader: reader.number(layout)


def _readProtocol(reader: _Reader) -> int:
    value = reader.number(_U8)
    if value not in (TCP, UDP):
        raise protocolError(f"there is no protocol {value}")
    return value


_CODECS: dict[str, tuple[Callable[..., bytes], Callable[..., object]]] = {
    "text": _text(_U16),
    "name": _text(_U8),
    "uuid": (lambda value: value.bytes, lambda reader: UUID(bytes=reader.take(16))),
    "port": _number(_U16),
    "protocol": (_U8.pack, _readProtocol),
    "time": _number(_U64),
}


@dataclass(frozen=True)
class Message:
    """
    A message.

    @cvar code: Its type on the wire.
    @cvar layout: How its fields are written, in their order.
    """

    code: ClassVar[int]
    layout: ClassVar[tuple[str, ...]]


MESSAGES: dict[int, type[Message]] = {}
"""All kinds of messages, by their types on the wire."""

_M = TypeVar("_M", bound=Message)


@dataclass_transform(frozen_default=True)
def _message(code: int, *layout: str) -> Callable[[type[_M]], type[_M]]:
    def register(kind: type[_M]) -> type[_M]:
        kind.code, kind.layout = code, layout
        made = dataclass(frozen=True)(kind)
        MESSAGES[code] = made
        return made

    return register


@_message(0x01, "text", "uuid")
class Auth(Message):
    """A client says who it is."""

    token: str
    clientId: UUID


@_message(0x02, "uuid")
class AuthOk(Message):
    """The client is let in."""

    tunnelId: UUID


@_message(0x03, "text")
class AuthFail(Message):
    """The client is not let in."""

    reason: str


@_message(0x10, "name", "protocol", "port", "port")
class Register(Message):
    """
    A client offers a service.

    @ivar remotePort: The port for visitors; 0 for any.
    """

    name: str
    protocol: int
    localPort: int
    remotePort: int


@_message(0x11, "uuid")
class RegisterOk(Message):
    """The service is open to visitors."""

    serviceId: UUID


@_message(0x12, "text")
class RegisterFail(Message):
    """The service is not."""

    reason: str


@_message(0x20, "uuid", "uuid", "text")
class Connect(Message):
    """
    A visitor came.

    @ivar visitor: Its address, C{ip:port}.
    """

    serviceId: UUID
    connectionId: UUID
    visitor: str


@_message(0x21, "uuid")
class ConnectAck(Message):
    """The client has reached the service for a visitor."""

    connectionId: UUID


@_message(0x22, "uuid", "text")
class ConnectFail(Message):
    """The client has not."""

    connectionId: UUID
    reason: str


@_message(0x30, "time")
class Heartbeat(Message):
    """
    A sign of life.

    @ivar time: Milliseconds since the epoch.
    """

    time: int


@_message(0x31, "time")
class HeartbeatAck(Message):
    """The answer to it, with the same time."""

    time: int


@_message(0x40, "uuid")
class Unregister(Message):
    """A service is no longer on offer."""

    serviceId: UUID


@_message(0x41, "text")
class Disconnect(Message):
    """The server ends the session."""

    reason: str


def encodeMessage(message: Message) -> bytes:
    """
    Write a message.

    @raise TunnelError: C{bad-option}, if a string is too long for it.
    """
    payload = b"".join(
        _CODECS[codec][0](getattr(message, field.name))
        for codec, field in zip(message.layout, fields(message), strict=True)
    )
    if _HEAD.size + len(payload) > MAX_MESSAGE:
        raise TunnelError("bad-option", f"a message has at most {MAX_MESSAGE} bytes")
    return _HEAD.pack(message.code, len(payload)) + payload


def decodeMessage(data: bytes) -> Message:
    """
    Read the one message that a WebSocket message holds.

    @raise TunnelError: C{protocol-error}, with what is wrong.
    """
    if len(data) > MAX_MESSAGE:
        raise protocolError(f"{len(data)} bytes are more than {MAX_MESSAGE}")
    if len(data) < _HEAD.size:
        raise protocolError("the message is shorter than its head")
    code, length = _HEAD.unpack_from(data)
    kind = MESSAGES.get(code)
    if kind is None:
        raise protocolError(f"there is no message type 0x{code:02x}")
    if length != len(data) - _HEAD.size:
        raise protocolError(
            f"{kind.__name__} announces {length} bytes and has {len(data) - _HEAD.size}"
        )
    reader = _Reader(kind.__name__, data[_HEAD.size :])
    message = kind(*(_CODECS[codec][1](reader) for codec in kind.layout))
    reader.end()
    return message
