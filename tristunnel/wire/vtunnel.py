"""
vtunnel's messages: JSON objects, each a WebSocket text message.

Taken from a recorded exchange, and from vtunnel's own source of two dates. The early
one (12 February) has C{listen}, C{connect}, C{data} and C{close}, and pings by
WebSocket. The later one (14 February) answers a C{listen} with C{listen_ok} or
C{listen_err}, sends C{local_addr} along with it, and has C{ping} and C{pong} messages.
Go leaves out fields that are zero, takes C{null} for zero, and skips members and types
that it does not know; so does this module.
"""

from __future__ import annotations

import binascii
from typing import NamedTuple

from tristunnel.errors import protocolError
from tristunnel.wire.framed import decodeObject, encodeObject

__all__ = [
    "CLOSE",
    "CONNECT",
    "DATA",
    "LISTEN",
    "LISTEN_ERR",
    "LISTEN_OK",
    "MAX_DATA",
    "PING",
    "PONG",
    "Message",
    "decodeMessage",
    "encodeData",
    "encodeMessage",
]

LISTEN = "listen"
LISTEN_OK = "listen_ok"
LISTEN_ERR = "listen_err"
CONNECT = "connect"
DATA = "data"
CLOSE = "close"
PING = "ping"
PONG = "pong"

MAX_DATA = 32 * 1024
"""Bytes of data in a message, as vtunnel's programs send."""

_MAX_STREAM = 0xFFFFFFFF

_DATA_HEAD = b'{"type":"data","stream_id":'
_DATA_KEY = b',"data":"'


class Message(NamedTuple):
    """
    One message.

    @ivar kind: The type of the message.
    @ivar port: A port at the server.
    @ivar stream: A visitor's number, from 1.
    @ivar data: Bytes.
    @ivar error: Why nothing listens.
    @ivar target: The service that the client connects visitors to.
    """

    kind: str
    port: int = 0
    stream: int = 0
    data: bytes = b""
    error: str = ""
    target: str = ""


def _number(fields: dict[str, object], name: str, most: int) -> int:
    value = fields.get(name)
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= most:
        raise protocolError(f"{name} is not a number from 0 to {most}")
    return value


def _text(fields: dict[str, object], name: str) -> str:
    value = fields.get(name)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise protocolError(f"{name} is not a string")
    return value


def _plainData(text: bytes) -> Message | None:
    """
    Read a data message that is written as all known programs write it, in
    half the time.

    @return: C{None} if it is written in another way, or is another message.
    """
    number, found, rest = text[len(_DATA_HEAD) :].partition(_DATA_KEY)
    if not (found and number.isdigit() and number[0] != 0x30 and len(number) < 10):
        return None
    try:
        # Anything that ends the string early is not base64.
        data = binascii.a2b_base64(rest[:-2], strict_mode=True)
    except ValueError:
        return None
    return Message(DATA, stream=int(number), data=data)


def decodeMessage(text: bytes) -> Message:
    """
    Read a message.

    @param text: UTF-8.
    @raise TunnelError: C{protocol-error}, with what is wrong.
    """
    if text.startswith(_DATA_HEAD) and text.endswith(b'"}'):
        message = _plainData(text)
        if message is not None:
            return message
    fields = decodeObject(text)
    kind = _text(fields, "type")
    if not kind:
        raise protocolError("the message has no type")
    try:
        # Only what the standard alphabet writes, as Go's decoder has it, which
        # skips line ends.
        encoded = _text(fields, "data").replace("\r", "").replace("\n", "")
        data = binascii.a2b_base64(encoded, strict_mode=True) if encoded else b""
    except ValueError:
        raise protocolError("data is not base64") from None
    return Message(
        kind,
        _number(fields, "port", 65535),
        _number(fields, "stream_id", _MAX_STREAM),
        data,
        _text(fields, "error"),
        _text(fields, "local_addr"),
    )


def encodeMessage(message: Message) -> bytes:
    """Write a message as Go does: in this order, and no zeros."""
    fields: dict[str, object] = {
        "type": message.kind,
        "port": message.port,
        "stream_id": message.stream,
        "data": binascii.b2a_base64(message.data, newline=False).decode("ascii"),
        "error": message.error,
        "local_addr": message.target,
    }
    # As Go does: what is zero is left out.
    return encodeObject({name: value for name, value in fields.items() if value})


def encodeData(stream: int, data: bytes) -> bytes:
    """Write a data message, of which there are many."""
    return b'{"type":"data","stream_id":%d,"data":"%b"}' % (
        stream,
        binascii.b2a_base64(data, newline=False),
    )
