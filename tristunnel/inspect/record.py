"""The latest exchanges, bounded in number and size whatever visitors do."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from twisted.logger import Logger

from tristunnel.forwards.forward import Forward
from tristunnel.inspect.exchange import Exchange, Frame, Part
from tristunnel.wire.http import Headers, RequestHead, ResponseHead

__all__ = ["Limits", "Note", "Record"]

_PER_EXCHANGE = 1024
"""Bytes that an exchange takes beside what is counted, about."""

_PER_HEADER = 200

_MOST_NOTES = 50
_MOST_INTERIM = 20

_SHARE = 4
"""The messages of one WebSocket may have this part of all bytes."""


@dataclass(frozen=True)
class Limits:
    """
    How much is kept.

    @ivar count: How many exchanges.
    @ivar body: Bytes of each body, and of each message of a WebSocket.
    @ivar total: Bytes of all of them.
    """

    count: int = 500
    body: int = 64 * 1024
    total: int = 32 * 1024 * 1024


@dataclass(eq=False)
class Note:
    """
    Connections that are not inspected.

    @ivar target: Their service.
    @ivar reason: Why.
    @ivar count: How many there were.
    @ivar time: When the last one was, in seconds since the epoch.
    """

    target: str
    reason: str
    count: int
    time: float


def _weigh(headers: Headers) -> int:
    return sum(2 * len(name) + len(value) + _PER_HEADER for _, name, value in headers)


class Record:
    """
    Keeps exchanges. The oldest are dropped first, even unfinished ones, of which no
    more is kept then.

    @param limits: How much.
    @param seconds: The clock.
    @param now: The time of day.

    @ivar exchanges: The exchanges by their numbers, oldest first.
    @ivar version: The latest L{Exchange.version}.
    @ivar size: Bytes that are kept, about.
    @ivar changed: Called when there is something new.
    """

    _log = Logger(namespace="tristunnel.client")

    def __init__(
        self,
        limits: Limits,
        seconds: Callable[[], float],
        now: Callable[[], float] = time.time,
    ) -> None:
        self.limits = limits
        self.seconds = seconds
        self.exchanges: OrderedDict[int, Exchange] = OrderedDict()
        self.version = 0
        self.size = 0
        self.changed: Callable[[], None] = lambda: None
        self._now = now
        self._numbers = 0
        self._notes: OrderedDict[tuple[str, str], Note] = OrderedDict()

    @property
    def notes(self) -> list[Note]:
        """The connections that are not inspected, the latest first."""
        return list(reversed(self._notes.values()))

    def clear(self) -> None:
        """Keep nothing of what has passed so far."""
        while self.exchanges:
            self._evict()
        self._notes.clear()
        self.changed()

    # What passes

    def began(
        self,
        forward: Forward,
        info: Mapping[str, object],
        head: RequestHead,
        replayOf: int = 0,
    ) -> Exchange:
        """
        Enter a request, whose head has come.

        @param info: What the server said of the visitor.
        @param replayOf: As the attribute of L{Exchange}.
        """
        self._numbers += 1
        part = Part(head, self.seconds())
        made = Exchange(
            self._numbers, forward, info, self._now(), part, replayOf=replayOf
        )
        self.exchanges[made.number] = made
        self._hold(made, _PER_EXCHANGE + len(head.target) + _weigh(head.headers))
        self._touch(made)
        return made

    def answered(self, exchange: Exchange, head: ResponseHead) -> Part:
        """Note a response, whose head has come."""
        if exchange.firstByte is None:
            exchange.firstByte = self.seconds()
        exchange.response = part = Part(head, exchange.firstByte)
        self._hold(exchange, len(head.reason) + _weigh(head.headers))
        self._touch(exchange)
        return part

    def answeredFirst(self, exchange: Exchange, status: int) -> None:
        """Note an interim response, which another one follows."""
        if len(exchange.interim) < _MOST_INTERIM:
            exchange.interim.append(status)
        self._touch(exchange)

    def took(self, exchange: Exchange, part: Part, data: bytes) -> None:
        """Keep bytes of a body, as far as may be."""
        part.size += len(data)
        room = self.limits.body - len(part.kept)
        if room > 0 and exchange.isKept:
            piece = data[:room]
            part.kept += piece
            self._hold(exchange, len(piece))

    def isFull(self, exchange: Exchange, part: Part) -> bool:
        """Whether no more of a body is kept."""
        return not exchange.isKept or len(part.kept) >= self.limits.body

    def partEnded(self, exchange: Exchange, part: Part, trailers: Headers) -> None:
        """Note that a request or a response is complete."""
        part.ended = self.seconds()
        if trailers and exchange.isKept:
            part.trailers = trailers
            self._hold(exchange, _weigh(trailers))
        self._touch(exchange)

    def framePassed(self, exchange: Exchange, frame: Frame) -> None:
        """Keep a WebSocket's message."""
        if not exchange.isKept:
            return
        frames = exchange.frames
        frames.append(frame)
        self._hold(exchange, _PER_HEADER + len(frame.kept))
        most = self.limits.total // _SHARE
        while len(frames) > self.limits.count or (
            len(frames) > 1 and exchange.cost > most
        ):
            gone = frames.popleft()
            exchange.framesGone += 1
            self._hold(exchange, -_PER_HEADER - len(gone.kept))
        self._touch(exchange)

    def over(self, exchange: Exchange, problem: str = "") -> None:
        """
        Note that an exchange is over.

        @param problem: Why, if it is not complete.
        """
        exchange.isOver = True
        exchange.problem = exchange.problem or problem
        self._touch(exchange)

    def notLookedAt(self, forward: Forward, reason: str) -> None:
        """Note that a connection, or the rest of it, is not inspected."""
        key = forward.target, reason
        note = self._notes.pop(key, None)
        if note is None:
            note = Note(forward.target, reason, 0, 0.0)
            self._log.info(
                "Some traffic to {target} is not shown: {reason}",
                target=forward.target,
                reason=reason,
            )
        note.count += 1
        note.time = self._now()
        self._notes[key] = note
        while len(self._notes) > _MOST_NOTES:
            self._notes.popitem(last=False)
        self.changed()

    # Bounds

    def _touch(self, exchange: Exchange) -> None:
        self.version += 1
        exchange.version = self.version
        self.changed()

    def _hold(self, exchange: Exchange, amount: int) -> None:
        if not exchange.isKept:
            return
        exchange.cost += amount
        self.size += amount
        limits = self.limits
        while len(self.exchanges) > limits.count or (
            self.size > limits.total and len(self.exchanges) > 1
        ):
            self._evict()

    def _evict(self) -> None:
        _, exchange = self.exchanges.popitem(last=False)
        exchange.isKept = False
        self.size -= exchange.cost
        exchange.request.kept.clear()
        if exchange.response is not None:
            exchange.response.kept.clear()
        exchange.frames.clear()
