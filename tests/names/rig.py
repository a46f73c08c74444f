"""A visitor's connection in memory, and tunnels whose services a test speaks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.ends import SilentEnd
from tristunnel.errors import TunnelError
from tristunnel.interfaces import End
from tristunnel.model.options import TunnelOptions
from tristunnel.names.heads import HeadRules
from tristunnel.names.public import PublicNames
from tristunnel.names.run import Run
from tristunnel.names.site import NameSite
from tristunnel.names.table import Route
from tristunnel.names.visitor import VisitorConnection


class Transport(StringTransport):
    """A transport that remembers how it was closed."""

    aborted = False

    def __init__(self) -> None:
        super().__init__(peerAddress=IPv4Address("TCP", "192.0.2.7", 5555))

    def abortConnection(self) -> None:
        self.aborted = True

    def loseWriteConnection(self) -> None:
        self.disconnecting = True


class Waits:
    """A connection among those of whom nothing is known."""

    leave: Callable[[], object] | None = None
    waiting = True

    def known(self) -> None:
        self.waiting = False


class Service(SilentEnd):
    """
    What a tunnel joins to one run of requests.

    @ivar run: The visitor's end.
    @ivar address: Where that comes from.
    @ivar got: What was written to the service since the last look.
    @ivar closed: Why the visitor's end is over; empty while it is not.
    """

    def __init__(self, run: Run, address: str) -> None:
        self.run, self.address = run, address
        self._got = b""
        self.finished = self.paused = False
        self.broken: TunnelError | None = None
        self.closed: list[TunnelError | None] = []

    def joined(self) -> Service:
        self.run.join(self, self.closed.append)
        return self

    def take(self) -> bytes:
        got, self._got = self._got, b""
        return got

    def say(self, data: bytes) -> None:
        self.run.write(data)

    def write(self, data: bytes) -> None:
        self._got += data

    def finish(self) -> None:
        self.finished = True

    def reset(self, reason: TunnelError) -> None:
        self.broken = reason

    def pauseReading(self) -> None:
        self.paused = True

    def resumeReading(self) -> None:
        self.paused = False


class VisitorTestCase(SynchronousTestCase):
    """
    A site with the names C{a.example} and C{b.example}.

    @ivar services: What came to each name.
    @ivar refusal: Why visitors are turned away, if they are.
    @ivar joins: Whether services are reached at once.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.names = PublicNames()
        self.site = NameSite(self.clock, self.names)
        self.services: dict[str, list[Service]] = {}
        self.refusal: TunnelError | None = None
        self.joins = True
        for host in ("a.example", "b.example"):
            self.route(host)

    def route(self, host: str, path: str = "", **options: Any) -> None:
        wanted = TunnelOptions.fromMapping({"listener": "http", **options})
        services = self.services.setdefault(host + path, [])

        def arrived(end: End, address: str) -> None:
            assert isinstance(end, Run)
            made = Service(end, address)
            services.append(made)
            if self.refusal is not None:
                end.reset(self.refusal)
            elif self.joins:
                made.joined()

        rules = HeadRules.of(wanted)
        self.names.table.enter(Route("http", host, path, wanted, arrived, rules))

    def connect(self, secure: bool = False) -> VisitorConnection:
        self.waits = Waits()
        visitor = VisitorConnection(self.site, secure, self.waits, 10.0)
        self.transport = Transport()
        visitor.makeConnection(self.transport)
        return visitor

    def lose(self, visitor: VisitorConnection, orderly: bool = True) -> None:
        reason = ConnectionDone() if orderly else ConnectionLost()
        visitor.connectionLost(Failure(reason))

    def answer(self) -> bytes:
        got: bytes = self.transport.value()
        self.transport.clear()
        return got

    def service(self, name: str = "a.example") -> Service:
        return self.services[name][-1]


def request(
    host: str = "a.example", target: str = "/", lines: str = "", method: str = "GET"
) -> bytes:
    return f"{method} {target} HTTP/1.1\r\nHost: {host}\r\n{lines}\r\n".encode()


def response(body: bytes = b"ok", lines: str = "", status: str = "200 OK") -> bytes:
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\n{lines}\r\n"
    return head.encode() + body
