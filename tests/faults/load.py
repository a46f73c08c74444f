"""
Streams whose two ends know what each of them should see.

A visitor says in its first line which stream it is, what it is for, and how
much will be sent. The service behind the tunnel does that, and both note in a
L{Listing} what they sent and saw. So it can be told whether a stream was
complete, failed at both ends, or was taken for complete by somebody although it
was not.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ["Listing", "Service", "Side", "Tale", "Talk", "Visitor"]

_PERIOD = 65521
_CHUNK = 16 * 1024
_LINE = 64
_BLOCK = random.Random(7).randbytes(_PERIOD) * 3


def content(key: int, offset: int, size: int) -> bytes:
    """
    The bytes of a stream.

    @param key: Which direction of which stream.
    @param offset: From where on.
    @param size: How many, at most 65,521.
    """
    start = (offset + key * 7919) % _PERIOD
    return _BLOCK[start : start + size]


@dataclass
class Side:
    """
    What one end of a stream did and saw.

    @ivar total: Bytes that it is to send.
    @ivar sent: Bytes that it has sent so far.
    @ivar finished: Whether it has said that it sends no more.
    @ivar got: Bytes that came.
    @ivar wrong: Whether any of them was not the one that was sent.
    @ivar ended: Whether it saw an orderly end of what comes.
    @ivar closed: Whether it was this end itself that closed both directions.
    @ivar gone: When its connection was over, in seconds.
    @ivar broken: How it was told that the stream broke.
    """

    total: int = 0
    sent: int = 0
    finished: bool = False
    got: int = 0
    wrong: bool = False
    ended: bool = False
    closed: bool = False
    gone: float | None = None
    broken: str = ""


@dataclass
class Tale:
    """
    One stream.

    @ivar kind: C{D} for download, C{U} for upload, C{B} for both at once,
        C{E} for small requests that are echoed.
    @ivar began: When, in seconds.
    @ivar service: What the service saw, if it was reached.
    """

    number: int
    kind: str
    size: int
    began: float
    visitor: Side = field(default_factory=Side)
    service: Side | None = None

    @property
    def over(self) -> bool:
        return self.visitor.gone is not None and (
            self.service is None or self.service.gone is not None
        )

    @property
    def complete(self) -> bool:
        """Whether both ends saw all that was meant for them, and the end."""
        one, other = self.visitor, self.service
        return (
            other is not None
            and one.ended
            and other.ended
            and not self.faults()
            and one.got == other.total
            and other.got == one.total
        )

    @property
    def lasted(self) -> float:
        sides = (self.visitor, self.service)
        ends = [side.gone for side in sides if side is not None]
        return max((end for end in ends if end is not None), default=0.0)

    def faults(self) -> list[str]:
        found = []
        for name, side, other in (
            ("visitor", self.visitor, self.service),
            ("service", self.service, self.visitor),
        ):
            if side is None:
                continue
            if side.wrong:
                found.append(f"{name} got bytes that nobody sent")
            if side.ended and not (
                other is not None
                and (other.finished or side.closed)
                and side.got == other.total
            ):
                total = "?" if other is None else other.total
                found.append(f"{name} saw the end after {side.got} of {total} bytes")
        return found

    def __str__(self) -> str:
        return (
            f"stream {self.number} {self.kind}{self.size}:"
            f" visitor {self.visitor}, service {self.service}"
        )


class Listing:
    """
    All streams of a run.

    @param seconds: The clock.
    """

    def __init__(self, seconds: Callable[[], float]) -> None:
        self.seconds = seconds
        self.tales: dict[int, Tale] = {}
        self.changed: list[Callable[[], None]] = []

    def begin(self, kind: str, size: int) -> Tale:
        number = len(self.tales) + 1
        tale = self.tales[number] = Tale(number, kind, size, self.seconds())
        return tale

    def look(self) -> None:
        """Somebody has changed something that is waited for."""
        for changed in list(self.changed):
            changed()


@implementer(IPushProducer)
class Talk:
    """
    One end of a stream, whatever carries it.

    @param ledger: Where it notes what it sees.
    @param carrier: C{send(bytes)}, C{finish()} and C{produce(producer)}.
    """

    def __init__(self, ledger: Listing, carrier: Any) -> None:
        self.ledger = ledger
        self.carrier = carrier
        self.tale: Tale | None = None
        self.side = Side()
        self._key = 0
        self._otherKey = 0
        self._bulk = 0
        self._paused = False
        self._sending = False

    def began(self, tale: Tale, key: int) -> None:
        self.tale = tale
        self._key, self._otherKey = tale.number * 2 + key, tale.number * 2 + 1 - key

    def sendBulk(self, size: int) -> None:
        """Send so many bytes of the stream's content, as fast as they are taken."""
        self._bulk = size
        self.carrier.produce(self)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        self._paused = False
        if self._sending:
            return
        self._sending = True
        try:
            while not self._paused and self._bulk and not self.side.broken:
                size = min(_CHUNK, self._bulk)
                self._bulk -= size
                data = content(self._key, self.side.sent, size)
                self.side.sent += size
                self.carrier.send(data)
        finally:
            self._sending = False
        if not self._bulk:
            self.bulkSent()

    def pauseProducing(self) -> None:
        self._paused = True

    def stopProducing(self) -> None:
        self._bulk = 0

    def bulkSent(self) -> None:
        """All of it was handed over."""

    def say(self, size: int) -> None:
        data = content(self._key, self.side.sent, size)
        self.side.sent += size
        self.carrier.send(data)

    def finish(self) -> None:
        if not self.side.finished:
            self.side.finished = True
            self.carrier.finish()

    def came(self, data: bytes) -> None:
        """Compare what came with what should have come."""
        side = self.side
        for at in range(0, len(data), _PERIOD):
            piece = data[at : at + _PERIOD]
            if piece != content(self._otherKey, side.got, len(piece)):
                side.wrong = True
            side.got += len(piece)

    def eof(self) -> None:
        self.side.ended = True

    def gone(self, broken: str) -> None:
        """
        The connection is over.

        @param broken: How it broke; empty if it was an orderly end.
        """
        if self.side.gone is None:
            self.side.gone = self.ledger.seconds()
            self.side.broken = broken
            if not broken and not self.side.ended:
                # Where a close ends both directions, it may be our own.
                self.side.closed = self.side.finished
                self.eof()
            self._bulk = 0
            self.ledger.look()


class _Answer(Talk):
    """The service's end."""

    def __init__(self, ledger: Listing, carrier: Any) -> None:
        super().__init__(ledger, carrier)
        self._head = b""
        self._halfCloses = True

    def came(self, data: bytes) -> None:
        if self.tale is None:
            self._head += data
            if len(self._head) < _LINE:
                return
            line, data = self._head[:_LINE], self._head[_LINE:]
            self._start(line)
            if not data:
                return
        super().came(data)
        self._arrived(len(data))

    def _start(self, line: bytes) -> None:
        number, halfCloses = map(int, line.split()[:2])
        tale = self.ledger.tales[number]
        self._halfCloses = bool(halfCloses)
        tale.service = self.side
        self.began(tale, 1)
        self.side.total = tale.size if tale.kind in "DBE" else _LINE
        if tale.kind in "DB":
            self.sendBulk(tale.size)

    def bulkSent(self) -> None:
        """A download, or our half of both, is through."""
        self.finish()

    def _arrived(self, size: int) -> None:
        assert self.tale is not None
        if self.tale.kind == "E":
            self.say(size)
        elif (
            self.tale.kind == "U"
            and not self._halfCloses
            and self.side.got == self.tale.size
        ):
            self.say(_LINE)
            self.finish()

    def eof(self) -> None:
        super().eof()
        if self.tale is not None and self.tale.kind == "U" and self._halfCloses:
            if not self.side.finished and self.side.got == self.tale.size:
                self.say(_LINE)
            self.finish()
        elif self.tale is None or self.tale.kind == "E":
            self.finish()


class Visitor(Talk):
    """
    The visitor's end.

    @param halfCloses: Whether what carries it can end in one direction.
    @param request: Of how many bytes each small request is.
    """

    def __init__(
        self,
        ledger: Listing,
        carrier: Any,
        tale: Tale,
        halfCloses: bool = True,
        request: int = 200,
    ) -> None:
        super().__init__(ledger, carrier)
        self.side = tale.visitor
        self.began(tale, 0)
        self.halfCloses = halfCloses
        self._request = request
        self.side.total = {"D": 0}.get(tale.kind, tale.size)

    def start(self) -> None:
        tale = self.tale
        assert tale is not None
        self.carrier.send(
            f"{tale.number} {int(self.halfCloses)} ".encode().ljust(_LINE)
        )
        if tale.kind in "UB":
            self.sendBulk(tale.size)
        elif tale.kind == "E":
            self.say(min(self._request, tale.size))
        elif self.halfCloses and tale.number % 2:
            # Some say at once that they say no more.
            self.finish()

    def bulkSent(self) -> None:
        """An upload, or our half of both, is through."""
        if self.halfCloses:
            self.finish()

    def came(self, data: bytes) -> None:
        """Ask the next thing once the last one was answered."""
        super().came(data)
        tale = self.tale
        assert tale is not None
        if tale.kind == "E" and self.side.got == self.side.sent:
            if self.side.sent < tale.size:
                self.say(min(self._request, tale.size - self.side.sent))
            else:
                self.finish()

    def eof(self) -> None:
        super().eof()
        self.finish()


@implementer(IHalfCloseableProtocol)
class SocketCarrier(Protocol):
    """
    Carries an end on a TCP or TLS connection.

    @param halfCloses: Whether the connection can end in one direction.
    """

    transport: Any

    def __init__(self, halfCloses: bool = True) -> None:
        self.talk: Any = None
        self._halfCloses = halfCloses
        self._eof = False
        self._finished = False
        self._over = False

    def connectionMade(self) -> None:
        self.transport.setTcpNoDelay(True)
        if isinstance(self.talk, Visitor):
            self.talk.start()

    def dataReceived(self, data: bytes) -> None:
        self.talk.came(data)

    def readConnectionLost(self) -> None:
        self._eof = True
        self.talk.eof()
        if self._finished:
            self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """Our end is said."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._over = True
        clean = reason.check(ConnectionDone) is not None
        self.talk.gone("" if clean else str(reason.value) or "broken")

    def produce(self, producer: Any) -> None:
        if not self._over:
            self.transport.registerProducer(producer, True)

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def finish(self) -> None:
        if self._over or self._finished:
            return
        self._finished = True
        self.transport.unregisterProducer()
        if self._eof or not self._halfCloses:
            self.transport.loseConnection()
        else:
            self.transport.loseWriteConnection()


class Service(Factory):
    """
    The service behind the tunnels.

    @ivar open: Its connections.
    """

    noisy = False

    def __init__(self, ledger: Listing) -> None:
        self.ledger = ledger
        self.open: set[Any] = set()

    def buildProtocol(self, addr: object) -> Protocol:
        carrier = _Served(self)
        carrier.talk = _Answer(self.ledger, carrier)
        return carrier


class _Served(SocketCarrier):
    """Counts itself."""

    def __init__(self, service: Service) -> None:
        super().__init__()
        self._service = service

    def connectionMade(self) -> None:
        self._service.open.add(self)
        super().connectionMade()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._service.open.discard(self)
        super().connectionLost(reason)
