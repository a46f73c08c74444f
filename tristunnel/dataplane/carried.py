"""
Datagrams between two processes: a flow that is carried by a stream, in which each
datagram is preceded by its length (u16, big-endian).
"""

from __future__ import annotations

from tristunnel.dataplane.datagrams import FlowEnd
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, DatagramEnd, End

__all__ = ["CarriedFlow"]

_LENGTH = 2
_LONGEST = 0xFFFF


class CarriedFlow(FlowEnd):
    """
    The L{DatagramEnd<tristunnel.interfaces.DatagramEnd>} that sends and receives by a
    stream. Datagrams that the stream does not take at once are dropped.

    @param way: The stream's end.
    """

    __slots__ = ("_began", "_full", "_way")

    def __init__(self, way: End) -> None:
        super().__init__()
        self._way = way
        self._began = b""
        self._full = False

    def join(self, peer: DatagramEnd, closed: Closed) -> None:
        super().join(peer, closed)
        if not self._over:
            self._way.join(_Bytes(self), lambda reason: None)

    def send(self, datagram: bytes) -> None:
        if self._over or self._full or len(datagram) > _LONGEST:
            self.dropped += 1
        else:
            self._way.write(len(datagram).to_bytes(_LENGTH) + datagram)

    def flowOver(self, reason: TunnelError | None) -> None:
        if reason is None:
            self._way.finish()
        else:
            self._way.reset(reason)

    def whileWaiting(self, left: Closed) -> None:
        super().whileWaiting(left)
        if self._peer is None:
            self._way.whileWaiting(self._leftEarly)

    def _leftEarly(self, reason: TunnelError | None) -> None:
        self.remoteOver(reason)

    def took(self, data: bytes) -> None:
        """Take bytes of the stream."""
        self._began += data
        at = 0
        while len(self._began) - at >= _LENGTH:
            end = at + _LENGTH + int.from_bytes(self._began[at : at + _LENGTH])
            if len(self._began) < end:
                break
            self.passOn(self._began[at + _LENGTH : end])
            at = end
        self._began = self._began[at:]

    def fill(self, isFull: bool) -> None:
        """Set whether the stream takes nothing more for now."""
        self._full = isFull


class _Bytes:
    """
    What the stream's end is joined to.

    @param flow: The flow that it carries.
    """

    received = 0

    def __init__(self, flow: CarriedFlow) -> None:
        self._flow = flow

    def join(self, peer: End, closed: Closed) -> None:
        """It is joined by the flow."""

    def passTo(self, peer: End) -> tuple[End | None, bool]:
        return None, False

    def whileWaiting(self, left: Closed) -> None:
        """It does not wait."""

    def write(self, data: bytes) -> None:
        self._flow.took(data)

    def finish(self) -> None:
        self._flow.remoteOver(None)

    def reset(self, reason: TunnelError) -> None:
        self._flow.remoteOver(reason)

    def pauseReading(self) -> None:
        self._flow.fill(True)

    def resumeReading(self) -> None:
        self._flow.fill(False)
