"""
The exchanges that C{docs/protocol.rst} shows, made by the real programs' code.

C{python -m tests.support.wire_example > docs/protocol-example.txt} writes them anew.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import implementer

from tristunnel.dialects.framed.client import TunnelClientFactory, TunnelClientProtocol
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, End
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.options import TunnelOptions
from tristunnel.model.ports import Reserve
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.wire.framed import MAGIC, FrameType, encodeFrame, encodeHandshake

__all__ = ["wireExample"]

_SERVER = IPv4Address("TCP", "192.0.2.1", 9000)
_CLIENT = IPv4Address("TCP", "198.51.100.7", 40000)
_VISITOR = "203.0.113.5:50000"


class _Secrets:
    """Randomness that is always the same."""

    def token_hex(self, size: int) -> str:
        """Count up."""
        return bytes(range(1, size + 1)).hex()

    def token_urlsafe(self, size: int) -> str:
        """Say that it is none."""
        return "not-so-secret"

    def randbits(self, bits: int) -> int:
        """Count up."""
        return 0x0102030405060708


class _Listener:
    """A visitors' port that nobody listens on."""

    def __init__(self, port: int) -> None:
        self.address = ("tcp", "", port)

    def close(self) -> Deferred[None]:
        """Do nothing."""
        return succeed(None)


class _Listeners:
    """Gives out port 30000 to those who want any."""

    async def open(
        self,
        options: TunnelOptions,
        arrived: Callable[[End, str], None],
        reserve: Reserve,
    ) -> _Listener:
        """Pretend to listen."""
        return _Listener(options.port or options.prefer or 30000)


class _End:
    """A visitor, whose end of a stream is worked by hand."""

    def __init__(self) -> None:
        self.received = 0
        self.peer: End | None = None

    def join(self, peer: End, closed: Closed) -> None:
        self.peer = peer

    def whileWaiting(self, left: Closed) -> None:
        """Do nothing."""

    def write(self, data: bytes) -> None:
        """Take bytes."""

    def finish(self) -> None:
        """Take the end."""

    def reset(self, reason: TunnelError) -> None:
        """Take a break."""

    def pauseReading(self) -> None:
        """Never called with so few bytes."""

    def resumeReading(self) -> None:
        """Never called with so few bytes."""


class _ServiceTransport(StringTransport):
    """A connection to the service, of which both directions end apart."""

    def loseWriteConnection(self) -> None:
        """Take the end."""


@implementer(IStreamClientEndpoint)
class _Service:
    """The service, which accepts at once and is worked by hand."""

    def __init__(self) -> None:
        self.connection: Any = None

    def connect(self, protocolFactory: Any) -> Deferred[Any]:
        self.connection = protocolFactory.buildProtocol(None)
        self.connection.makeConnection(_ServiceTransport())
        return succeed(self.connection)


def _messages(data: bytes) -> Iterator[tuple[str, bytes]]:
    """Split what was sent at one time into messages, each with its name."""
    while data:
        if data.startswith(MAGIC):
            head, name = len(MAGIC), "handshake"
        else:
            head = 0
            name = FrameType(data[8]).name.lower()
            name += f", stream {int.from_bytes(data[4:8], 'big')}"
        size = head + 4 + int.from_bytes(data[head : head + 4], "big")
        yield name, data[:size]
        data = data[size:]


def _dump(data: bytes) -> Iterator[str]:
    """Write bytes as C{hexdump} does: 16 to a line, and what they are in ASCII."""
    for at in range(0, len(data), 16):
        line = data[at : at + 16]
        text = "".join(chr(c) if 32 <= c < 127 else "." for c in line)
        yield f"    {line.hex(' '):47}  {text}".rstrip()


class _Wire:
    """Both sides' transports, and a record of what passes."""

    def __init__(self, clock: Clock) -> None:
        self.lines: list[str] = []
        listeners: Any = {"tcp": _Listeners()}
        self.service = TunnelService(
            clock, MemoryBook(clock), listeners, hostname="tunnel.example"
        )
        factory = TunnelServerFactory(clock, self.service)
        self.sessions = factory
        self.server = factory.buildProtocol(_CLIENT)
        self.serverTransport = StringTransport(_SERVER, _CLIENT)
        self.server.makeConnection(self.serverTransport)

    def record(self, who: str, data: bytes) -> None:
        """Write down what C{who} has sent."""
        for name, message in _messages(data):
            self.lines += [f"{who}: {name}", *_dump(message)]

    def toServer(self, data: bytes) -> None:
        """Pass bytes of the client on."""
        self.record("client", data)
        self.server.dataReceived(data)

    def fromServer(self) -> bytes:
        """Take the server's bytes."""
        data: bytes = self.serverTransport.value()
        self.serverTransport.clear()
        self.record("server", data)
        return data


def _extended() -> list[str]:
    clock = Clock()
    wire = _Wire(clock)
    service = _Service()
    clientFactory = TunnelClientFactory(
        clock, lambda uri: ("echo", service), {"id": "laptop"}, host="tunnel.example"
    )
    client: TunnelClientProtocol = clientFactory.buildProtocol(_SERVER)
    transport = StringTransport(_CLIENT, _SERVER)
    client.makeConnection(transport)

    def pump() -> None:
        while transport.value() or wire.serverTransport.value():
            data = transport.value()
            transport.clear()
            if data:
                wire.toServer(data)
            data = wire.fromServer()
            if data:
                client.dataReceived(data)

    pump()
    results: list[Any] = []
    client.call("openTunnel", port=8080).addCallback(results.append)
    pump()
    client.call("getTunnelAddress", uri=results[0]).addCallback(results.append)
    pump()
    (tunnel,) = wire.service.here
    visitor: Any = _End()
    tunnel.visitorArrived(visitor, _VISITOR)
    pump()
    assert visitor.peer is not None
    visitor.peer.write(b"hello\n")
    visitor.peer.finish()
    pump()
    service.connection.dataReceived(b"HELLO\n")
    service.connection.readConnectionLost()
    pump()
    wire.sessions.leave(TunnelError("shutting-down", retryAfter=1.0))
    pump()
    return wire.lines


def _plain() -> list[str]:
    """A session with a W3P client."""
    wire = _Wire(Clock())
    wire.toServer(encodeHandshake({"id": "laptop"}))
    wire.fromServer()
    (tunnel,) = wire.service.here
    visitor: Any = _End()
    tunnel.visitorArrived(visitor, _VISITOR)
    wire.fromServer()
    assert visitor.peer is not None
    visitor.peer.write(b"hello\n")
    wire.fromServer()
    wire.toServer(encodeFrame(1, FrameType.DATA, b"HELLO\n"))
    wire.toServer(encodeFrame(1, FrameType.CLOSE))
    return wire.lines


def wireExample() -> str:
    """
    @return: The text of C{docs/protocol-example.txt}.
    """
    with (
        patch("tristunnel.service.leases.secrets", _Secrets()),
        patch("tristunnel.util.secret.secrets", _Secrets()),
        patch("tristunnel.service.tunnel_service.secrets", _Secrets()),
        patch("tristunnel.dialects.framed.liveness.secrets", _Secrets()),
    ):
        lines = [
            "With the extension",
            "==================",
            *_extended(),
            "",
            "Plain W3P",
            "=========",
            *_plain(),
        ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(wireExample())
