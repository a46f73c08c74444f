"""
A way between a client and its server that can be cut, hung and slowed down.

It passes on TCP connections, whatever they carry. What it does to them is what
networks and the machines in them do: a connection is reset, closed, or falls
silent, in one direction or in both. It never loses bytes in the midst of a
connection that goes on, since TCP does not.
"""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import ClientFactory, Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Leg", "Link"]

_BUFFER = 64 * 1024
_SLOW, _FULL, _HUNG = 1, 2, 4


@implementer(IHalfCloseableProtocol, IPushProducer)
class Leg(Protocol):
    """
    One side of a connection that passes through.

    @ivar isUp: Whether what is read here goes to the server.
    @ivar other: The other side, once that stands.
    @ivar over: Whether it is gone.
    """

    transport: Any

    def __init__(self, way: Link, isUp: bool) -> None:
        self.isUp = isUp
        self.other: Leg | None = None
        self.over = False
        self._way = way
        self._held = 0
        self._eof = False
        self._finished = False
        self._late: deque[tuple[float, bytes | None]] = deque()
        self._timer: Any = None

    def connectionMade(self) -> None:
        """Let the kernel hold little, so that what is held is held here."""
        handle = self.transport.getHandle()
        for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            handle.setsockopt(socket.SOL_SOCKET, option, _BUFFER)
        self.transport.setTcpNoDelay(True)
        self._way.legs[self] = None
        if self.isUp:
            self.hold(_FULL)
            self._way.dial(self)

    def meet(self, other: Leg) -> None:
        self.other, other.other = other, self
        # Each is the producer of what the other one sends.
        self.transport.registerProducer(other, True)
        other.transport.registerProducer(self, True)
        self.release(_FULL)

    # What comes

    def dataReceived(self, data: bytes) -> None:
        way = self._way
        way.passed += len(data)
        self._send(data)
        if way.moment is not None and way.passed >= way.moment[0]:
            (_, happens), way.moment = way.moment, None
            happens()
        wait = self._way.pace(self.isUp, len(data))
        if wait > 0:
            self.hold(_SLOW)
            self._way.reactor.callLater(wait, self.release, _SLOW)

    def readConnectionLost(self) -> None:
        self._eof = True
        self._send(None)
        self._closeIfThrough()

    def writeConnectionLost(self) -> None:
        """The end is on its way."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.over = True
        self._way.legs.pop(self, None)
        other = self.other
        if other is None or other.over or self._held & _HUNG:
            return
        if not reason.check(ConnectionDone):
            other.transport.abortConnection()

    def _send(self, data: bytes | None) -> None:
        if self._late or self._way.delay:
            due = self._way.reactor.seconds() + self._way.delay
            self._late.append((due, data))
            self._sendLate()
        elif self.other is not None:
            self.other.put(data)

    def _sendLate(self) -> None:
        now = self._way.reactor.seconds()
        while self._late and self._late[0][0] <= now and not self._held & _HUNG:
            _, data = self._late.popleft()
            if self.other is not None:
                self.other.put(data)
        if self._late and (self._timer is None or not self._timer.active()):
            wait = max(self._late[0][0] - now, 0.01)
            self._timer = self._way.reactor.callLater(wait, self._sendLate)

    def put(self, data: bytes | None) -> None:
        if self.over:
            return
        if data is not None:
            self.transport.write(data)
        elif not self._finished:
            self._finished = True
            self.transport.unregisterProducer()
            if self._eof:
                self.transport.loseConnection()
            else:
                self.transport.loseWriteConnection()

    def _closeIfThrough(self) -> None:
        """Twisted does not do so by itself."""
        if self._finished and not self.over:
            self.transport.loseConnection()

    # Holding

    def hold(self, why: int) -> None:
        if not (self._held or self.over or self._eof):
            self.transport.pauseProducing()
        self._held |= why

    def release(self, why: int) -> None:
        if self._held & why:
            self._held &= ~why
            if not (self._held or self.over or self._eof):
                self.transport.resumeProducing()

    @property
    def hung(self) -> bool:
        return bool(self._held & _HUNG)

    def hang(self) -> None:
        """Let nothing pass from this side, not even an end."""
        self.hold(_HUNG)

    def resume(self) -> None:
        self.release(_HUNG)
        if self._late:
            self._sendLate()

    def pauseProducing(self) -> None:
        self.hold(_FULL)

    def resumeProducing(self) -> None:
        self.release(_FULL)

    def stopProducing(self) -> None:
        """It is gone."""

    def abort(self) -> None:
        """Reset this side, and say nothing to the other one."""
        if not self.over:
            self.over = True
            self._way.legs.pop(self, None)
            self.transport.abortConnection()

    def close(self) -> None:
        """
        Close this side in good order, whatever was still to be sent, and say
        nothing to the other one: a machine on the way has ended.
        """
        if not self.over:
            self.over = True
            self._way.legs.pop(self, None)
            self.transport.unregisterProducer()
            self.transport.dataBuffer = b""
            self.transport._tempDataBuffer = []
            self.transport._tempDataLen = 0
            self.transport.loseConnection()


class Link:
    """
    Passes connections on.

    @param reactor: Connects and tells time.
    @param target: The server's port, on the loopback interface.

    @ivar legs: The sides of all connections that pass, oldest first.
    @ivar delay: Seconds that each byte is late.
    @ivar rate: Bytes per second in each direction, of all connections
        together; 0 for any number.
    @ivar refusing: Whether new connections are reset.
    @ivar silent: Whether new connections are accepted and led nowhere.
    @ivar passed: Bytes that passed.
    @ivar moment: How many of them, and what happens when they have.
    """

    def __init__(self, reactor: Any, target: int, rate: float = 0.0) -> None:
        self.reactor = reactor
        self.legs: dict[Leg, None] = {}
        self.delay = 0.0
        self.rate = rate
        self.refusing = False
        self.silent = False
        self.passed = 0
        self.moment: tuple[int, Callable[[], None]] | None = None
        self.target = target
        self._free = {True: 0.0, False: 0.0}
        factory = Factory.forProtocol(lambda: Leg(self, True))
        factory.noisy = False
        self._port = reactor.listenTCP(0, factory, interface="127.0.0.1", backlog=4096)
        address = self._port.getHost()
        assert isinstance(address, IPv4Address)
        self.port: int = address.port

    def stop(self) -> Deferred[None]:
        for leg in list(self.legs):
            leg.abort()
        stopped: Deferred[None] = self._port.stopListening()
        return stopped

    def dial(self, leg: Leg) -> None:
        if self.refusing:
            leg.abort()
            return
        if self.silent:
            leg.hang()
            return
        factory = ClientFactory()
        factory.noisy = False
        factory.buildProtocol = (  # type: ignore[method-assign] # of one factory
            lambda addr: _Down(self, leg)
        )
        factory.clientConnectionFailed = (  # type: ignore[method-assign] # of one factory
            lambda connector, reason: leg.abort()
        )
        self.reactor.connectTCP("127.0.0.1", self.target, factory)

    def pace(self, isUp: bool, size: int) -> float:
        """Count bytes; seconds to wait before more are read."""
        if not self.rate:
            return 0.0
        now = self.reactor.seconds()
        self._free[isUp] = free = max(now, self._free[isUp]) + size / self.rate
        return free - now if free - now > 0.005 else 0.0

    # What is done to it

    def ups(self) -> list[Leg]:
        """The clients' sides of all connections that stand, oldest first."""
        return [leg for leg in self.legs if leg.isUp and leg.other is not None]

    def each(
        self, do: Callable[[Leg], None], up: bool = True, down: bool = True
    ) -> None:
        """
        Do something to the sides of all connections.

        @param up: To the clients' sides.
        @param down: To the server's sides.
        """
        self.some(self.ups(), do, up, down)

    @staticmethod
    def some(
        ups: Iterable[Leg],
        do: Callable[[Leg], None],
        up: bool = True,
        down: bool = True,
    ) -> None:
        """
        Do something to the sides of some connections.

        @param ups: The clients' sides.
        """
        for leg in ups:
            other = leg.other
            if up:
                do(leg)
            if down and other is not None:
                do(other)

    def speak(self) -> None:
        """Be silent no more, and lead on whom that was for."""
        self.silent = False
        for leg in list(self.legs):
            if leg.isUp and leg.other is None and leg.hung:
                leg.resume()
                self.dial(leg)

    def clear(self) -> None:
        """Reset what is still hung: nobody waits for it any more."""
        for leg in list(self.legs):
            if leg.hung or (leg.other is not None and leg.other.hung):
                leg.abort()


class _Down(Leg):
    """The server's side."""

    def __init__(self, way: Link, other: Leg) -> None:
        super().__init__(way, False)
        self._first = other

    def connectionMade(self) -> None:
        super().connectionMade()
        if self._first.over:
            self.transport.abortConnection()
        else:
            self._first.meet(self)
