"""
What a stranger can make the server read before it is known who that is, and
bytes that are nearly right.

Each target takes bytes and returns whether they were accepted; it raises
L{Broken} if it did anything but accept them or refuse them as it should.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable, Sequence
from typing import Any, cast

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.logger import LogEvent, LogLevel, globalLogPublisher
from twisted.python.failure import Failure

from tests.vectors import readVectors
from tests.websocket.frames import closePayload, frame, upgrade
from tristunnel.auth.connection_filter import checkingCallable
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.errors import TunnelError
from tristunnel.observer import ServerObserver
from tristunnel.rpc.jsonrpc import Dispatcher
from tristunnel.rpc.site import limitedSite
from tristunnel.rpc.strictjson import BadJSON, decode
from tristunnel.rpc.xmlrpc import _BadCall, _parse
from tristunnel.server.doors import DoorFactory, FramedDoor
from tristunnel.server.gate import Gate
from tristunnel.sessions.server import TunnelServerFactory
from tristunnel.tunnels.options import TunnelOptions
from tristunnel.tunnels.registry import MemoryRegistry
from tristunnel.tunnels.service import TunnelService
from tristunnel.web.callers import HTTPCallers
from tristunnel.web.tree import Health, HTTPDoor, rootOf, rpcPages
from tristunnel.websocket.pages import webSocketPages
from tristunnel.wire import vtunnel, zlayer
from tristunnel.wire.framed import FrameDecoder, HandshakeDecoder, encodeHandshake

__all__ = ["SEEDS", "TARGETS", "Broken", "Doors", "mutate"]


class Broken(Exception):
    """
    A parser did what it must not.
    """


# The parsers


def handshake(data: bytes) -> bool:
    """
    The first message of the framed protocol, in two pieces.
    """
    decoder = HandshakeDecoder()
    try:
        decoder.feed(data[: len(data) // 2])
        return decoder.feed(data[len(data) // 2 :]) is not None
    except TunnelError:
        return False


def frames(data: bytes) -> bool:
    """
    Frames of the framed protocol.
    """
    decoder = FrameDecoder()
    try:
        decoder.feed(data[: len(data) // 3])
        return bool(decoder.feed(data[len(data) // 3 :]))
    except TunnelError:
        return False


def zlayerMessage(data: bytes) -> bool:
    """
    A message of zlayer's, written again if it is one.
    """
    try:
        message = zlayer.decodeMessage(data)
    except TunnelError:
        return False
    if zlayer.decodeMessage(zlayer.encodeMessage(message)) != message:
        raise Broken("it is read as something else when it is written again")
    return True


def vtunnelMessage(data: bytes) -> bool:
    """
    A message of vtunnel's.
    """
    try:
        vtunnel.decodeMessage(data)
    except TunnelError:
        return False
    return True


_dispatcher = Dispatcher({"openTunnel": lambda caller, **options: 1}.get)


def jsonRPC(data: bytes) -> bool:
    """
    JSON-RPC: there is always an answer in JSON, or none.
    """
    answers: list[bytes | None] = []
    _dispatcher.dispatch(None, data).addCallback(answers.append)
    if len(answers) != 1:
        raise Broken("there is no answer")
    if answers[0] is None:
        return True
    answer = json.loads(answers[0])
    return not (isinstance(answer, dict) and "error" in answer)


def xmlRPC(data: bytes) -> bool:
    """
    XML-RPC.
    """
    try:
        _parse(data)
    except _BadCall:
        return False
    return True


def tunnelOptions(data: bytes) -> bool:
    """
    The options of C{openTunnel}, and the networks in them.
    """
    try:
        value = decode(data)
        if not isinstance(value, dict):
            return False
        TunnelOptions.fromMapping(value)
    except (BadJSON, TunnelError):
        return False
    return True


class Doors:
    """
    A whole server in memory, of which every stranger is one: no login is
    right. Bytes come in at the port.

    @ivar errors: What was logged that is no everyday matter.
    """

    def __init__(self) -> None:
        self.clock = Clock()
        self.errors: list[LogEvent] = []
        authenticator = Authenticator(portalFor([checkingCallable(lambda f: False)]))
        self.service = TunnelService(self.clock, MemoryRegistry(), {}, ServerObserver())
        self.sessions = TunnelServerFactory(self.clock, self.service, authenticator)
        callers = HTTPCallers(authenticator)
        pages: dict[bytes, Any] = {b"health": Health()}
        pages.update(rpcPages(self.service, callers))
        pages.update(
            webSocketPages(
                self.clock, self.service, self.sessions, callers, ["/tunnel"]
            )
        )
        site = limitedSite(rootOf(pages), reactor=self.clock)
        self.gate = Gate(self.clock.seconds)
        self.factory = DoorFactory(
            self.clock,
            [FramedDoor(self.sessions), HTTPDoor(site)],
            ServerObserver(),
            gate=self.gate,
        )
        self._observer = cast(Any, self._note)
        globalLogPublisher.addObserver(self._observer)
        self._address = 0

    def close(self) -> None:
        """
        Listen to the log no more.
        """
        globalLogPublisher.removeObserver(self._observer)

    def _note(self, event: LogEvent) -> None:
        """
        Keep what should not happen.
        """
        if event.get("log_level") in (LogLevel.error, LogLevel.critical):
            self.errors.append(event)

    def __call__(self, data: bytes) -> bool:
        """
        Be a stranger who says something, waits and leaves.

        @return: Whether there was an answer.
        """
        # A new address each time, or the gate would let nobody in.
        self._address += 1
        address = IPv4Address(
            "TCP",
            f"10.{self._address >> 16 & 255}."
            f"{self._address >> 8 & 255}.{self._address & 255}",
            1,
        )
        transport = _Line(address, self.clock)
        protocol: Any = self.factory.buildProtocol(address)
        transport.protocol = protocol
        protocol.makeConnection(transport)
        half = len(data) // 2
        for piece in (data[:half], data[half:]):
            if transport.connected and not transport.disconnecting and piece:
                transport.protocol.dataReceived(piece)
        self.clock.advance(0)
        self.clock.advance(15)
        answered = bool(transport.value())
        transport.cut()
        # What lingers, lingers for a bounded time.
        for _ in range(3):
            self.clock.advance(45)
        if self.errors:
            errors, self.errors = self.errors, []
            raise Broken(f"logged: {errors[0].get('log_failure') or errors[0]}")
        if self.sessions.sessions or self.gate.strangers or len(self.service.clients):
            raise Broken("something is left of it")
        if len(self.clock.getDelayedCalls()) > 2:
            raise Broken(f"timers are left: {self.clock.getDelayedCalls()}")
        return answered


class _Line(StringTransport):
    """
    A connection that can be closed from either side.
    """

    protocol: Any

    def __init__(self, address: IPv4Address, clock: Clock) -> None:
        super().__init__(address, address)
        self.connected = True
        self._clock = clock

    def cut(self) -> None:
        """
        Lose the connection, once.
        """
        if self.connected:
            self.connected = False
            self.protocol.connectionLost(Failure(ConnectionDone()))

    def loseConnection(self) -> None:
        """
        Be lost in the reactor's next turn, as sockets are.
        """
        self.disconnecting = True
        self._clock.callLater(0, self.cut)

    abortConnection = loseConnection

    def unregisterProducer(self) -> None:
        """
        Forget the producer; as with sockets, none is no error.
        """
        if self.producer is not None:
            super().unregisterProducer()

    def pauseProducing(self) -> None:
        """Nothing is sent anyway."""

    resumeProducing = pauseProducing

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing to set."""

    setTcpKeepAlive = setTcpNoDelay

    def loseWriteConnection(self) -> None:
        """Nobody listens anyway."""

    def isSecure(self) -> bool:
        """No."""
        return False


# Bytes that are nearly right


def _seeds() -> dict[str, list[bytes]]:
    """
    Good inputs, by target.
    """
    offer = {
        "versions": [1],
        "streamWindow": 262144,
        "sessionWindow": 33554432,
        "lease": {"id": "x", "secret": "y"},
        "tunnel": {"id": "0011223344556677", "secret": "s"},
        "direct": "auto",
    }
    hello = encodeHandshake({"id": "laptop", "token": "tun_x", "tristunnel": offer})
    ticket = encodeHandshake({"tristunnel": {"ticket": "abc"}})
    access = encodeHandshake({"tristunnel": {"access": {"id": "a", "secret": "b"}}})
    recorded = [
        bytes.fromhex(line["hex"])
        for line in readVectors("w3p-http-get")
        if "hex" in line
    ]
    binary = [bytes.fromhex(line["hex"]) for line in readVectors("zlayer-messages")]
    texts = [
        line["text"].encode()
        for line in readVectors("vtunnel-http-get")
        if "text" in line
    ]
    call = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "openTunnel",
            "params": {"port": 8080, "allow": ["10.0.0.0/8"]},
        }
    ).encode()
    batch = b"[" + b",".join([call] * 3) + b"]"
    xml = (
        b'<?xml version="1.0"?><methodCall><methodName>openTunnel</methodName><params>'
        b"<param><value><struct><member><name>port</name><value><int>1</int></value>"
        b"</member></struct></value></param></params></methodCall>"
    )
    options = json.dumps(
        {
            "port": 1,
            "name": "x",
            "ttl": 1.5,
            "allow": "10.0.0.0/8,::1",
            "rate": 5,
            "idle": 60,
            "private": True,
        }
    ).encode()

    def post(path: str, body: bytes, *more: str) -> bytes:
        lines = [
            f"POST {path} HTTP/1.1",
            "Host: server:9000",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *more,
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body

    basic = base64.b64encode(b"laptop:secret").decode()
    doors = [
        hello,
        ticket,
        access,
        post("/rpc", call),
        post("/rpc", batch, f"Authorization: Basic {basic}"),
        post("/RPC2", xml, "Authorization: Bearer tun_x"),
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 2,
        upgrade() + frame(2, hello),
        upgrade() + b"".join(frame(2, message) for message in binary[:3]),
        upgrade() + b"".join(frame(1, text) for text in texts[:3]),
        upgrade() + frame(2, b"a", fin=False) + frame(9, b"ping") + frame(0, b"b"),
        upgrade("/host/x") + frame(2, b"bytes"),
        upgrade("/client", Authorization="Bearer x") + frame(8, closePayload(1000)),
    ]
    return {
        "handshake": [hello, ticket, access, *recorded[:2]],
        "frames": [piece for piece in recorded if piece[:7] != b"W3PTUNL"],
        "zlayer": binary,
        "vtunnel": texts,
        "jsonrpc": [call, batch],
        "xmlrpc": [xml],
        "options": [options],
        "doors": doors,
    }


SEEDS = _seeds()
"""Good inputs, by target."""

TARGETS: dict[str, Callable[[bytes], bool]] = {
    "handshake": handshake,
    "frames": frames,
    "zlayer": zlayerMessage,
    "vtunnel": vtunnelMessage,
    "jsonrpc": jsonRPC,
    "xmlrpc": xmlRPC,
    "options": tunnelOptions,
}
"""The parsers alone; L{Doors} has them all, and what is around them."""

_NUMBERS = (b"\x00" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\x80\x00\x00\x00")
_WORDS = (
    b"[" * 100,
    b'{"a":' * 50,
    b"9" * 400,
    b"1e999",
    b"NaN",
    b"\\ud800",
    b"\x00",
    b"\r\n\r\n",
    b"W3PTUNL",
    b"\xff\xfe",
    b"%00",
    b"&lt;",
    b"<!DOCTYPE a>",
    b"Transfer-Encoding: chunked\r\n",
    b"null",
    b"-1",
    b"::1",
)


def mutate(seeds: Sequence[bytes], chance: random.Random) -> bytes:
    """
    Make something that is nearly right.
    """
    data = bytearray(chance.choice(seeds))
    for _ in range(chance.choice((1, 1, 1, 2, 3, 8))):
        size = len(data)
        at = chance.randrange(size + 1)
        kind = chance.randrange(8)
        if kind == 0 and size:
            data[at % size] ^= 1 << chance.randrange(8)
        elif kind == 1 and size:
            data[at % size] = chance.randrange(256)
        elif kind == 2:
            data[at:at] = chance.randbytes(chance.randrange(1, 9))
        elif kind == 3:
            del data[at : at + chance.randrange(1, 17)]
        elif kind == 4:
            data[at : at + 4] = chance.choice(_NUMBERS)
        elif kind == 5:
            data[at:at] = chance.choice(_WORDS)
        elif kind == 6:
            begin = chance.randrange(size + 1)
            data[at:at] = data[begin : begin + chance.randrange(1, 65)]
        else:
            other = chance.choice(seeds)
            data[at:] = other[chance.randrange(len(other) + 1) :]
    return bytes(data)
