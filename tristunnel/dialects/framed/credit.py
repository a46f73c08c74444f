"""
Streams that are held back by credit, each by its own and all by the session's.

What waits for readers is bounded so. But readers that stand still would keep the
session's credit, and nobody else would get any: whoever holds most is broken then.

The frames are specified in C{docs/protocol.rst}.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any, ClassVar

from tristunnel.dialects.base.multiplexer import FrameTable, Limits, Multiplexer, Sink
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.errors import TunnelError
from tristunnel.util.repeating import stopTimer
from tristunnel.wire.framed import FrameType, decodeCredit, encodeCredit
from tristunnel.wire.windows import ReceiveWindow, SendWindow, WindowBudget

__all__ = ["PAUSE", "STALL", "STALLS", "CreditedStreams"]

PAUSE = 1.0
"""Seconds that readers who stand still may hold up a whole session."""

STALL = 10.0
"""The same for readers who move, but too slowly."""

STALLS: Counter[str] = Counter({"stream": 0, "session": 0})
"""How often, in this process, a stream or a whole session had bytes to send and
no credit for them, until it came. Counted when it comes, which is rare."""


class CreditedStreams(Multiplexer):
    """
    The streams of a session in which both sides give credit.

    @param peerSessionWindow: Credit that the session begins with.

    @ivar roundTrip: What the way takes, there and back, in seconds; 0 before a measure.
    @ivar callLater: Has something called later; without it deadlines are looked
        at by L{tick} alone.
    """

    __slots__ = (
        "_budget",
        "_crowd",
        "_fullSince",
        "_look",
        "_receiveWindow",
        "callLater",
        "roundTrip",
    )

    def __init__(
        self,
        sink: Sink,
        seconds: Callable[[], float],
        opened: Callable[[SessionStream, dict[str, object]], None],
        limits: Limits,
        peerSessionWindow: int,
    ) -> None:
        super().__init__(sink, seconds, opened, limits)
        self.roundTrip = 0.0
        self.sendWindow = SendWindow(peerSessionWindow)
        # Renewed from a quarter on: readers that stand still may hold up to
        # three quarters before L{tick} breaks one, and must not block others.
        self._receiveWindow = ReceiveWindow(limits.sessionWindow, share=4)
        self._crowd = limits.sessionWindow // 4 * 3
        self._budget = WindowBudget(self._crowd)
        self._fullSince: float | None = None
        self.callLater: Callable[..., Any] | None = None
        self._look: Any = None

    def _data(self, streamId: int, payload: bytes) -> None:
        # Windows are counted in place here: this is for each piece of each stream.
        size, session = len(payload), self._receiveWindow
        session.received += size
        if session.received > session.limit:
            raise TunnelError("protocol-error", "the session's credit was exceeded")
        stream = self.streams.get(streamId)
        if stream is None:
            # Under way when the stream ended here.
            self.lateFrames += 1
            self._drainSession(size)
            return
        window = stream.receiveWindow
        window.received += size
        if stream.eof or window.received > window.limit:
            raise TunnelError(
                "protocol-error",
                f"stream {streamId} sent past its "
                + ("end" if stream.eof else "credit"),
            )
        if size:
            stream.dataArrived(payload)
            if session.received - session.drained >= self._crowd and self._look is None:
                self._lookLater()

    def drained(self, stream: SessionStream, amount: int) -> None:
        """A reader took bytes: renew credit, once enough is used up."""
        # A stream that is over has given its window back and must not grow it.
        window, session = stream.receiveWindow, self._receiveWindow
        window.drained += amount
        if window.limit - window.drained <= window.low and not stream.over:
            credit = window.renew(self._seconds(), self.roundTrip)
            if not stream.eof:
                self.sendFrame(stream.id, FrameType.WINDOW, encodeCredit(credit))
        session.drained += amount
        if session.limit - session.drained <= session.low:
            self._drainSession(0)

    def _drainSession(self, amount: int) -> None:
        """Renew the session's credit."""
        window = self._receiveWindow
        if window.take(amount):
            self.sendFrame(0, FrameType.WINDOW, encodeCredit(window.renew(0.0, 0.0)))

    def _window(self, streamId: int, payload: bytes) -> None:
        credit = decodeCredit(payload)
        if streamId == 0:
            if self._ready and self.sendWindow.available <= 0:
                STALLS["session"] += 1
            if self.sendWindow.grant(credit) and not (self._paused or self._pumping):
                self._pump()
            return
        stream = self.streams.get(streamId)
        if stream is None:
            self.lateFrames += 1
            return
        if stream.outgoing and stream.sendWindow.available <= 0:
            STALLS["stream"] += 1
        if stream.sendWindow.grant(credit):
            self.wantsToSend(stream)

    def streamOver(self, stream: SessionStream, held: int) -> None:
        if self.streams.get(stream.id) is not stream:
            # It has left the session before it was over.
            return
        del self.streams[stream.id]
        if stream.receiveWindow.grown:
            stream.receiveWindow.close()
        if held:
            self._drainSession(held)

    frames: ClassVar[FrameTable] = {
        FrameType.DATA: _data,
        FrameType.WINDOW: _window,
    }

    # Readers that hold up the session

    def tick(self) -> None:
        """Give up on the greediest streams if they hold up the session."""
        now = self._seconds()
        if not self._isCrowded():
            self._fullSince = None
        elif self._fullSince is None:
            self._fullSince = now
        elif now - self._fullSince > STALL:
            self._makeRoom(list(self.streams.values()))

    def _isCrowded(self) -> bool:
        """
        Whether what waits for readers has taken so much of the session's window
        that nobody will soon get anything.
        """
        return self._receiveWindow.waiting >= self._crowd

    def _lookLater(self) -> None:
        """See in a moment whose readers have taken nothing."""
        if self.callLater is not None and not self._over:
            before = {
                stream: stream.receiveWindow.drained
                for stream in self.streams.values()
                if stream.holding
            }
            self._look = self.callLater(PAUSE, self._lookNow, before)

    def _lookNow(self, before: dict[SessionStream, int]) -> None:
        """
        Break those that stood still, if it is still as crowded.

        @param before: What the readers had taken a moment ago, in bytes.
        """
        self._look = None
        if self._isCrowded():
            self._makeRoom(
                [
                    stream
                    for stream, drained in before.items()
                    if not stream.over and stream.receiveWindow.drained == drained
                ]
            )
        if self._isCrowded():
            self._lookLater()

    def _makeRoom(self, among: list[SessionStream]) -> None:
        """
        Break the greediest streams until half of the session's window is free.

        @param among: Those that may go.
        """
        held = sorted(among, key=lambda stream: stream.holding, reverse=True)
        for stream in held:
            if self._receiveWindow.waiting <= self.limits.sessionWindow // 2:
                break
            stream.breakOff(TunnelError("stalled"))

    def close(self, reason: TunnelError) -> None:
        super().close(reason)
        stopTimer(self._look)
