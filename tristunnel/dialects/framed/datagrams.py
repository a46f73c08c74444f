"""
Datagrams within an extended session.

The frames are specified in C{docs/protocol-udp.rst}.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

from twisted.logger import Logger

from tristunnel.dataplane.datagrams import FlowEnd
from tristunnel.dataplane.pieces import NOTHING
from tristunnel.dialects.base.guarded import Guarded
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import (
    MAX_DATAGRAM,
    FrameType,
    decodeObject,
    encodeCredit,
    encodeObject,
    frameHeader,
)

if TYPE_CHECKING:
    from tristunnel.dialects.framed.datagram_path import UDPPath

__all__ = [
    "DATAGRAMS",
    "QUEUE",
    "STALE",
    "DatagramFlows",
    "FrameSender",
    "SessionFlow",
    "largestDatagram",
]

DATAGRAMS = "datagrams"
"""The handshake's key for the largest datagram that a side takes, in bytes; a
side that does not say it takes none."""

QUEUE = 512 * 1024
"""Bytes that may wait for a connection that is backed up, for all flows of a
session together. One flow gets half of what is free, so there is always room
for the next."""

STALE = 1.0
"""Seconds after which a datagram that waits is worth nothing any more."""

_OVERHEAD = 64
"""Bytes that anything in the queue is taken to cost besides its payload."""

_DATAGRAM = int(FrameType.DATAGRAM)
_OPEN = int(FrameType.OPEN)


def largestDatagram(offer: dict[str, object]) -> int:
    """
    Read from the peer's handshake how large a datagram it takes.

    @return: Bytes; 0 if it takes none.
    @raise TunnelError: C{protocol-error}.
    """
    value = offer.get(DATAGRAMS, 0)
    if type(value) is not int or value < 0:
        raise TunnelError(
            "protocol-error", f"the handshake's {DATAGRAMS} is not a size"
        )
    return min(value, MAX_DATAGRAM)


class FrameSender(Protocol):
    """
    What flows need of the session that carries them.

    @ivar lateFrames: Frames for what is over, which flows count here, too.
    """

    lateFrames: int

    @property
    def backedUp(self) -> bool:
        """Whether the connection takes nothing now."""

    def now(self) -> float:
        """The time, in seconds."""

    def isPeers(self, streamId: int) -> bool:
        """Whether a stream or flow of this number is the peer's to open."""

    def sendFrame(self, streamId: int, kind: int, payload: bytes = b"") -> None:
        """Send a frame ahead of all data that waits."""

    def sendReason(self, streamId: int, kind: int, reason: TunnelError) -> None:
        """Send a frame whose payload is a code and a message."""

    def writePieces(self, *pieces: bytes) -> None:
        """Send a frame that is in pieces, now."""


class SessionFlow(FlowEnd, Guarded):
    """
    A L{DatagramEnd<tristunnel.interfaces.DatagramEnd>} whose remote is the far
    side of a session.

    @ivar id: The flow's number in the session.
    @ivar queue: What waits to be sent: frame type, payload and since when.
    @ivar queued: Bytes that it counts for.
    @ivar answered: Whether the far side has accepted it, or we have.
    @ivar announced: Whether the far side was told of it.
    """

    __slots__ = ("_flows", "announced", "answered", "id", "queue", "queued")

    def __init__(self, flows: DatagramFlows, number: int, ours: bool) -> None:
        super().__init__()
        self.id = number
        self.queue: deque[tuple[int, bytes, float]] = deque()
        self.queued = 0
        self.answered = False
        self.announced = not ours
        self._flows = flows

    def __repr__(self) -> str:
        return f"<SessionFlow {self.id}>"

    def send(self, datagram: bytes) -> None:
        """Send a datagram to the far side, unless the connection holds too much."""
        if self._over or not self._flows.send(self, datagram):
            self.dropped += 1

    def finish(self) -> None:
        if not self._over:
            self._flows.sendEnd(self, None)
            self._end(None)

    def reset(self, reason: TunnelError) -> None:
        if not self._over:
            self._flows.sendEnd(self, reason)
            self._end(reason)

    def flowOver(self, reason: TunnelError | None) -> None:
        """Give the number and the queue's room back."""
        self._flows.forget(self)


class DatagramFlows:
    """
    The flows of a session, at either side.

    @param multiplexer: The session's streams; datagrams take turns with them.

    @ivar largest: The largest datagram that the peer takes, in bytes; 0 if it
        takes none.
    @ivar opened: Called with a flow that the peer opened, and what it said of
        it.
    @ivar path: Where datagrams can go past the session, or C{None}.
    @ivar flows: All that are open, by number.
    @ivar dropped: Datagrams that were not sent.
    @ivar queued: Bytes that wait.
    """

    _log = Logger()

    __slots__ = (
        "_multiplexer",
        "_told",
        "_waiting",
        "dropped",
        "flows",
        "largest",
        "opened",
        "path",
        "queued",
    )

    def __init__(self, multiplexer: FrameSender) -> None:
        self.largest = 0
        self.flows: dict[int, SessionFlow] = {}
        self.dropped = 0
        self.queued = 0
        self.opened: Callable[[SessionFlow, dict[str, object]], None] = _refuse
        self.path: UDPPath | None = None
        self._multiplexer = multiplexer
        self._waiting: deque[SessionFlow] = NOTHING
        self._told = 0

    @property
    def waiting(self) -> bool:
        """Whether there is something to send."""
        return bool(self._waiting)

    # Opening

    def open(self, number: int, info: dict[str, object]) -> SessionFlow:
        """
        Open a flow to the peer; datagrams may be sent at once.

        @param number: Its number.
        @param info: What the peer is told of it.
        @raise TunnelError: C{not-permitted}, where the peer takes no datagrams,
            or C{limit-reached}.
        """
        if not self.largest:
            raise TunnelError(
                "not-permitted", "the other side does not support UDP; update it"
            )
        flow = SessionFlow(self, number, ours=True)
        payload = encodeCredit(0) + encodeObject({**info, "protocol": "udp"})
        # Like a datagram, since visitors that are made up cost as little.
        if not self._sendOrQueue(flow, _OPEN, payload):
            raise TunnelError("limit-reached", "the session is congested")
        self.flows[number] = flow
        self._wakePath()
        return flow

    def openedByPeer(self, number: int, info: dict[str, object]) -> None:
        """The peer opens a flow."""
        flow = self.flows[number] = SessionFlow(self, number, ours=False)
        self._wakePath()
        flow.guarded(self.opened, flow, info)

    def _wakePath(self) -> None:
        """There is a flow that a path could be for."""
        if self.path is not None:
            self.path.wake()

    def pathArrived(self, number: int, datagram: bytes) -> None:
        """A datagram came past the session."""
        if len(datagram) <= MAX_DATAGRAM:
            self.datagramArrived(number, datagram)

    def accept(self, flow: SessionFlow) -> None:
        """Tell the peer that the flow it opened has reached its service."""
        if not (flow.over or flow.answered):
            flow.answered = True
            self._multiplexer.sendFrame(flow.id, FrameType.OPENED, encodeCredit(0))

    # What goes

    def send(self, flow: SessionFlow, datagram: bytes) -> bool:
        """
        Send a datagram now, or when the connection takes more.

        @return: Whether it was not dropped.
        """
        # Not before the peer knows of the flow, which it hears in the session.
        path = self.path if flow.answered else None
        if len(datagram) <= self.largest and (
            (path is not None and path.send(flow.id, datagram))
            or self._sendOrQueue(flow, _DATAGRAM, datagram)
        ):
            return True
        self.dropped += 1
        return False

    def _sendOrQueue(self, flow: SessionFlow, kind: int, payload: bytes) -> bool:
        """Send a frame in its flow's order."""
        multiplexer = self._multiplexer
        if not (multiplexer.backedUp or self._waiting):
            flow.announced = True
            multiplexer.writePieces(frameHeader(flow.id, kind, len(payload)), payload)
            return True
        cost = len(payload) + _OVERHEAD
        if flow.queued + cost > QUEUE - self.queued:
            return False
        if not flow.queue:
            if self._waiting is NOTHING:
                self._waiting = deque()
            self._waiting.append(flow)
        flow.queue.append((kind, payload, multiplexer.now()))
        flow.queued += cost
        self.queued += cost
        return True

    def pump(self, allowance: int) -> None:
        """
        Send what waits, one datagram of each flow in turn, until the connection
        holds enough.

        @param allowance: Bytes after which streams get their turn.
        """
        multiplexer, waiting = self._multiplexer, self._waiting
        stale = multiplexer.now() - STALE
        while waiting and allowance > 0 and not multiplexer.backedUp:
            flow = waiting.popleft()
            if not flow.queue:
                continue
            kind, payload, since = flow.queue.popleft()
            size = len(payload)
            flow.queued -= size + _OVERHEAD
            self.queued -= size + _OVERHEAD
            if flow.queue:
                waiting.append(flow)
            if since < stale and kind == _DATAGRAM:
                flow.dropped += 1
                self.dropped += 1
                continue
            flow.announced = True
            allowance -= size
            multiplexer.writePieces(frameHeader(flow.id, kind, size), payload)

    def sendEnd(self, flow: SessionFlow, reason: TunnelError | None) -> None:
        """
        Tell the peer that a flow is over, if it knows of the flow.

        @param reason: Why, or C{None} if nothing is wrong.
        """
        if not flow.announced:
            return
        multiplexer = self._multiplexer
        if reason is None:
            multiplexer.sendFrame(flow.id, FrameType.CLOSE)
            return
        refusing = multiplexer.isPeers(flow.id) and not flow.answered
        kind = FrameType.REFUSED if refusing else FrameType.ERROR
        multiplexer.sendReason(flow.id, kind, reason)

    def forget(self, flow: SessionFlow) -> None:
        """A flow is over. It may still be in the round, where it is passed over."""
        self.flows.pop(flow.id, None)
        self.queued -= flow.queued
        flow.queued = 0
        flow.queue.clear()

    # What comes

    def arrived(self, number: int, kind: int, payload: bytes) -> bool:
        """
        Take a frame, other than a datagram, that is for no stream.

        @return: Whether it is for a flow.
        """
        flow = self.flows.get(number)
        if flow is None:
            return False
        if kind == FrameType.OPENED:
            flow.answered = True
        elif kind == FrameType.CLOSE:
            flow.guarded(flow.remoteOver, None)
        else:
            usual = "reset" if kind == FrameType.ERROR else "service-refused"
            message = decodeObject(payload) if payload else {}
            flow.guarded(flow.remoteOver, TunnelError.fromDict(message, usual))
        return True

    def datagramArrived(self, number: int, payload: bytes) -> None:
        """A datagram came."""
        if len(payload) > MAX_DATAGRAM:
            raise TunnelError(
                "protocol-error",
                f"a datagram of {len(payload)} bytes is too long for UDP",
            )
        flow = self.flows.get(number)
        if flow is None:
            # Under way when the flow ended here.
            self._multiplexer.lateFrames += 1
        else:
            flow.guarded(flow.passOn, payload)

    # The session's life

    def tick(self) -> None:
        """Say how much was dropped since the last time."""
        more, self._told = self.dropped - self._told, self.dropped
        if more:
            self._log.info(
                "{count} datagrams were dropped: more arrived than the connection can"
                " carry",
                count=more,
            )

    def close(self, reason: TunnelError) -> None:
        """Break all flows; the connection is gone."""
        if self.path is not None:
            self.path.close()
        for flow in list(self.flows.values()):
            flow.guarded(flow.remoteOver, reason)
        self._waiting = NOTHING


def _refuse(flow: SessionFlow, info: dict[str, object]) -> None:
    """This side offers nothing."""
    flow.reset(TunnelError("not-permitted", "flows cannot be opened to this side"))
