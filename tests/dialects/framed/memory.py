"""
Two multiplexers joined in memory, and stream ends that remember.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from twisted.internet.task import Clock

from tests.support.ends import SilentEnd
from tristunnel.dialects.base.multiplexer import Limits, Multiplexer
from tristunnel.dialects.base.plain import PlainClientSide, PlainServerSide
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import Frame, FrameDecoder, FrameType, encodeFrame

__all__ = [
    "MemorySink",
    "Pair",
    "RecordingEnd",
    "extendedPair",
    "frameBytes",
    "plainPair",
]


class MemorySink:
    """
    A connection that keeps what is written to it.

    @ivar held: Bytes written that nobody fetched yet.
    @ivar reading: Whether the multiplexer wants to read.
    """

    def __init__(self) -> None:
        self.held = bytearray()
        self.reading = True
        self._decoder = FrameDecoder()

    def write(self, data: bytes) -> None:
        self.held += data

    def writeSequence(self, data: Iterable[bytes | memoryview]) -> None:
        self.held += b"".join(data)

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        self.reading = True

    def fetch(self, amount: int | None = None) -> bytes:
        data = bytes(self.held[:amount])
        del self.held[: len(data)]
        return data

    def frames(self) -> list[Frame]:
        """Take all bytes out, as frames."""
        return self._decoder.feed(self.fetch())


class RecordingEnd(SilentEnd):
    """
    An L{End<tristunnel.interfaces.End>} whose remote is the test.

    @ivar taken: Bytes that came to it.
    @ivar said: Bytes that it sent.
    @ivar finishes: How often the peer's end came.
    @ivar broken: Why it was reset, or C{None}.
    @ivar closings: What L{closed} was told, of the far stream's life.
    @ivar paused: Whether it may not send.
    @ivar ended: Whether it has finished or reset.
    @ivar reset_: Whether it has reset.
    @ivar fragile: Whether it resets when bytes come, as a connection does
        that is gone.
    @ivar slow: Whether it reads no more after each piece.
    """

    def __init__(self) -> None:
        self.received = 0
        self.taken = bytearray()
        self.said = bytearray()
        self.finishes = 0
        self.broken: TunnelError | None = None
        self.closings: list[TunnelError | None] = []
        self.paused = False
        self.ended = False
        self.reset_ = False
        self.fragile = False
        self.slow = False
        self.stream: SessionStream | None = None

    def meet(self, stream: SessionStream) -> None:
        """Join this end to a session's stream, as a tunnel does."""
        self.stream = stream
        stream.join(self, self.closings.append)

    def say(self, data: bytes) -> None:
        assert self.stream is not None
        self.received += len(data)
        self.said += data
        self.stream.write(data)

    def end(self) -> None:
        assert self.stream is not None
        self.ended = True
        self.stream.finish()

    def crash(self) -> None:
        assert self.stream is not None
        self.ended = self.reset_ = True
        self.stream.reset(TunnelError("reset"))

    def write(self, data: bytes) -> None:
        """Take bytes; none may come after the end."""
        assert not self.finishes, "bytes after the end"
        assert self.broken is None, "bytes after a reset"
        self.taken += data
        if self.fragile and not self.reset_:
            self.crash()
        if self.slow and self.stream is not None:
            self.stream.pauseReading()

    def finish(self) -> None:
        self.finishes += 1

    def reset(self, reason: TunnelError) -> None:
        self.broken = reason

    def pauseReading(self) -> None:
        self.paused = True

    def resumeReading(self) -> None:
        self.paused = False


class CreditAudit:
    """
    Watches what one side sends against the credit that it was told of.

    @param credit: What each of its own streams begins with.
    @param session: What the session begins with.
    """

    def __init__(self, credit: int, session: int) -> None:
        self._credit = credit
        self._limits: dict[int, int] = {0: session}
        self._sent: dict[int, int] = {0: 0}
        self._ended: set[int] = set()
        self._decoder = FrameDecoder()

    def sent(self, data: bytes) -> None:
        for stream, kind, payload in self._decoder.feed(data):
            if kind == FrameType.OPEN:
                self._limits.setdefault(stream, self._credit)
            elif kind in (FrameType.EOF, FrameType.ERROR, FrameType.REFUSED):
                self._ended.add(stream)
            elif kind == FrameType.DATA:
                assert stream not in self._ended, "data after the end"
                for number in (0, stream):
                    total = self._sent.get(number, 0) + len(payload)
                    self._sent[number] = total
                    assert total <= self._limits[number], "credit is overdrawn"

    def told(self, frames: Iterable[Frame]) -> None:
        for stream, kind, payload in frames:
            if kind in (FrameType.OPEN, FrameType.OPENED, FrameType.WINDOW):
                limit = int.from_bytes(payload[:8], "big")
                self._limits[stream] = max(limit, self._limits.get(stream, 0))


class Side:
    """
    One multiplexer of a pair.

    @ivar ends: The local ends of its streams, by number.
    """

    def __init__(self, make: Callable[[Side], Multiplexer]) -> None:
        self.sink = MemorySink()
        self.ends: dict[int, RecordingEnd] = {}
        self.decoder = FrameDecoder()
        self.audit: CreditAudit | None = None
        self.accepting = True
        self.multiplexer = make(self)

    def opened(self, stream: SessionStream, info: dict[str, object]) -> None:
        """The peer opened a stream: accept it."""
        end = self.ends[stream.id] = RecordingEnd()
        end.meet(stream)
        accept = getattr(self.multiplexer, "accept", None)
        if accept is not None and self.accepting:
            accept(stream)

    def open(self) -> RecordingEnd:
        multiplexer = self.multiplexer
        assert isinstance(multiplexer, (ExtendedMultiplexer, PlainServerSide))
        stream = multiplexer.open({})
        end = self.ends[stream.id] = RecordingEnd()
        end.meet(stream)
        return end


class Pair:
    """
    Two multiplexers, and what is under way between them.

    @ivar clock: Tells both the time.
    """

    def __init__(self, server: Side, client: Side, clock: Clock) -> None:
        self.server = server
        self.client = client
        self.clock = clock
        self._wires = {id(server): bytearray(), id(client): bytearray()}

    def other(self, side: Side) -> Side:
        return self.client if side is self.server else self.server

    def carry(self, source: Side, amount: int | None = None) -> bool:
        """
        Deliver bytes that C{source} has sent, unless the other side does not
        read now.

        @param amount: Bytes at the most; all by default.
        @return: Whether there were any.
        """
        wire = self._wires[id(source)]
        sent = source.sink.fetch()
        if source.audit is not None:
            source.audit.sent(sent)
        wire += sent
        target = self.other(source)
        if not (wire and target.sink.reading):
            return False
        data = bytes(wire[:amount])
        del wire[: len(data)]
        frames = target.decoder.feed(data)
        if target.audit is not None:
            target.audit.told(frames)
        target.multiplexer.framesArrived(frames)
        return True

    def settle(self) -> None:
        """Deliver everything until nothing more comes."""
        for side in (self.server, self.client):
            side.multiplexer.resumeProducing()
        moving = True
        while moving:
            moving = False
            for side in (self.server, self.client):
                moving = self.carry(side) or moving


def extendedPair(server: Limits | None = None, client: Limits | None = None) -> Pair:
    """Make two extended multiplexers that talk to each other."""
    clock = Clock()
    server, client = server or Limits(), client or Limits()

    def make(own: Limits, peer: Limits, isServer: bool) -> Side:
        side = Side(
            lambda side: ExtendedMultiplexer(
                side.sink,
                clock.seconds,
                side.opened,
                own,
                isServer,
                peer.streamWindow,
                peer.sessionWindow,
            )
        )
        side.audit = CreditAudit(peer.streamWindow, peer.sessionWindow)
        return side

    return Pair(make(server, client, True), make(client, server, False), clock)


def plainPair() -> Pair:
    """Make two plain multiplexers that talk to each other."""
    clock = Clock()
    return Pair(
        Side(
            lambda side: PlainServerSide(
                side.sink, clock.seconds, side.opened, None, clock.callLater
            )
        ),
        Side(
            lambda side: PlainClientSide(
                side.sink, clock.seconds, side.opened, None, clock.callLater
            )
        ),
        clock,
    )


def frameBytes(*frames: tuple[int, int, bytes]) -> bytes:
    return b"".join(encodeFrame(*frame) for frame in frames)
