"""
Looks at the bytes of one stream, in both directions, without touching them.

The two readers are the ones that the server has. When a stream carries something that
is not HTTP, or that could be read in two ways, its inspection ends, and nothing else.
After what is kept of a body, its bytes are only counted.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from sys import maxsize

from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import Forward
from tristunnel.inspect.exchange import Exchange, Part
from tristunnel.inspect.messages import Deflate, MessageTap
from tristunnel.inspect.pipeline import Pipeline
from tristunnel.inspect.record import Record
from tristunnel.wire.http import (
    BadMessage,
    Event,
    Headers,
    MessageEnd,
    RequestHead,
    RequestReader,
    ResponseHead,
    ResponseReader,
)
from tristunnel.wire.websocket import Violation

__all__ = ["Tap"]

_MOST_WAITING = 64 * 1024
"""Bytes after a request for another protocol that may wait for the answer to it."""

_UNTIL_CLOSE = maxsize
_START = b"HTTP/1."
_BLANK = b"\r\n\r\n"


class Tap:
    """
    Looks at one stream.

    @param record: What is kept of it.
    @param forward: Whose stream it is.
    @param info: What the server said of the visitor.
    @param detached: Called once, when inspection has ended and bytes may still pass.
    @param replayOf: As for L{Exchange}, of the requests of this stream.
    @param over: Called with each exchange that is over.
    """

    def __init__(
        self,
        record: Record,
        forward: Forward,
        info: Mapping[str, object],
        detached: Callable[[], None] = lambda: None,
        replayOf: int = 0,
        over: Callable[[Exchange], None] = lambda exchange: None,
    ) -> None:
        self._record = record
        self._forward = forward
        self._detached = detached
        self._requests = RequestReader()
        self._responses = ResponseReader()
        self._pipeline = Pipeline(record, forward, info, replayOf, over)
        # The last bytes of the head of a response to HEAD.
        self._tail = b""
        # Bytes of the present bodies that are only to be counted.
        self._askSkip = self._answerSkip = 0
        self._messages: tuple[MessageTap, MessageTap] | None = None
        self._over = False

    @property
    def isUpgraded(self) -> bool:
        """Whether it has become a WebSocket."""
        return self._messages is not None

    @property
    def askLeft(self) -> int:
        """How many of the next bytes from the visitor need not be looked at."""
        return maxsize if self._over else self._askSkip

    @property
    def answerLeft(self) -> int:
        """How many of the next bytes from the service need not be looked at."""
        return maxsize if self._over else self._answerSkip

    def askedUnseen(self, count: int) -> None:
        """Count bytes from the visitor that have passed without being looked at."""
        if not self._over:
            self._skipRequest(count)

    def answeredUnseen(self, count: int) -> None:
        """Count bytes from the service that have passed without being looked at."""
        if not self._over:
            self._skipResponse(count)

    # What the visitor sends

    def asked(self, data: bytes) -> None:
        """The visitor's bytes."""
        if self._over:
            return
        if self._messages is not None:
            self._passed(self._messages[0], data)
            return
        if self._askSkip:
            data = data[self._skipRequest(len(data)) :]
            if not data:
                return
        self._tookRequests(self._requests.feed(data))
        rest = self._requests.rest
        if rest is not None and len(rest) > _MOST_WAITING:
            self.stop("too much follows a request for another protocol")

    def _skipRequest(self, most: int) -> int:
        """
        Count bytes of a body.

        @param most: How many there are.
        @return: How many of them are the body's.
        """
        asking, skip = self._pipeline.asking, self._askSkip
        assert asking is not None
        count = min(skip, most)
        asking.request.size += count
        self._askSkip -= count
        if not self._askSkip:
            self._pipeline.requestEnded([])
        return count

    def _tookRequests(self, events: list[Event]) -> None:
        pipeline = self._pipeline
        for event in events:
            if isinstance(event, RequestHead):
                if not pipeline.requestBegan(event):
                    self.stop("too many requests wait for their answers")
            elif isinstance(event, MessageEnd):
                pipeline.requestEnded(event.trailers)
            elif isinstance(event, BadMessage):
                self.stop(event.reason)
            elif isinstance(event, bytes) and pipeline.asking is not None:
                asking = pipeline.asking
                self._record.took(asking, asking.request, event)
            if self._over:
                return
        if pipeline.asking is not None:
            asking = pipeline.asking
            self._askSkip = self._rest(asking, asking.request, self._requests)

    def _rest(
        self, exchange: Exchange, part: Part, reader: RequestReader | ResponseReader
    ) -> int:
        """How many bytes of a body are only to be counted from now on."""
        head = part.head
        if head.chunked or not (reader.inBody and self._record.isFull(exchange, part)):
            return 0
        skip = _UNTIL_CLOSE if head.length is None else head.length - part.size
        if skip > 0:
            reader.passOver()
        return skip

    # What the service sends

    def answered(self, data: bytes) -> None:
        """The service's bytes."""
        if self._over:
            return
        if self._messages is not None:
            self._passed(self._messages[1], data)
            return
        if self._answerSkip:
            data = data[self._skipResponse(len(data)) :]
        if not data or self._over:
            return
        front = self._pipeline.front
        if front is not None and front.firstByte is None:
            front.firstByte = self._record.seconds()
        if self._pipeline.heads:
            self._answeredByParts(data)
        else:
            self._tookResponses(self._responses.feed(data))

    def _skipResponse(self, most: int) -> int:
        """As L{_skipRequest}, of a response."""
        front, skip = self._pipeline.front, self._answerSkip
        assert front is not None and front.response is not None
        count = min(skip, most)
        front.response.size += count
        if skip != _UNTIL_CLOSE:
            self._answerSkip -= count
            if not self._answerSkip:
                self._responseEnded([])
        return count

    def _answeredByParts(self, data: bytes) -> None:
        """
        Read responses one by one: when the head of one is complete, it must be known
        whether it answers a C{HEAD}, and then has no body whatever its head says.
        """
        at, end = 0, len(data)
        while at < end and not self._over:
            if self._messages is not None:
                self._passed(self._messages[1], data[at:])
                return
            if self._answerSkip:
                at += self._skipResponse(end - at)
                continue
            front = self._pipeline.front
            toHead = front is not None and front.asked.method == b"HEAD"
            self._responses.toHead = toHead
            if toHead:
                whole = self._tail + data[at:]
                found = whole.find(_BLANK)
                stop = end - (len(whole) - found - len(_BLANK)) if found >= 0 else end
                self._tail = b"" if found >= 0 else whole[-3:]
            else:
                found = data.find(_START, at + 1) if self._pipeline.heads else -1
                stop = found if found >= 0 else end
            self._tookResponses(self._responses.feed(data[at:stop]))
            at = stop

    def _tookResponses(self, events: list[Event]) -> None:
        for event in events:
            if isinstance(event, ResponseHead):
                self._pipeline.responseBegan(event)
            elif isinstance(event, MessageEnd):
                self._responseEnded(event.trailers)
            elif isinstance(event, BadMessage):
                self.stop(event.reason)
            elif isinstance(event, bytes):
                front = self._pipeline.front
                if front is not None and front.response is not None:
                    self._record.took(front, front.response, event)
            if self._over:
                return
        if self._responses.rest is not None:
            self._upgraded(self._responses.rest)
            return
        front = self._pipeline.front
        if front is not None and front.response is not None:
            self._answerSkip = self._rest(front, front.response, self._responses)

    def _responseEnded(self, trailers: Headers) -> None:
        if self._responses.rest is not None and self._agreed is not None:
            return
        isLast = self._pipeline.responseEnded(trailers)
        if isLast and self._requests.rest is not None:
            # The service has not agreed to another protocol.
            self._tookRequests(self._requests.goOn())

    # Another protocol

    @property
    def _agreed(self) -> ResponseHead | None:
        """The present response, if it agrees to another protocol."""
        front = self._pipeline.front
        head = None if front is None else front.answer
        return head if head is not None and head.status == 101 else None

    def _upgraded(self, answered: bytes) -> None:
        """
        The service has agreed to another protocol.

        @param answered: What came after its response.
        """
        front, head = self._pipeline.front, self._agreed
        if front is None or head is None or head.upgrade.lower() != b"websocket":
            self.stop("from here on it is not HTTP")
            return
        asked, self._requests.rest = self._requests.rest, None
        deflate = Deflate(head)
        self._messages = (
            MessageTap(self._record, front, True, deflate),
            MessageTap(self._record, front, False, deflate),
        )
        if front.response is not None:
            self._record.partEnded(front, front.response, [])
        for tap, data in zip(self._messages, (asked, answered), strict=True):
            if data and not self._over:
                self._passed(tap, data)

    def _passed(self, tap: MessageTap, data: bytes) -> None:
        try:
            tap.feed(data)
        except Violation as violation:
            self.stop(f"it is not a WebSocket: {violation}")

    # The end

    def answeringEnded(self) -> None:
        """The service sends no more."""
        if self._over:
            return
        if self._messages is not None:
            self._end("")
            return
        if self._answerSkip == _UNTIL_CLOSE:
            self._answerSkip = 0
            self._responseEnded([])
        else:
            events = self._responses.ended()
            if not any(isinstance(event, BadMessage) for event in events):
                self._tookResponses(events)
        self._end("the service closed the connection before its answer was complete")

    def broken(self, reason: TunnelError | None) -> None:
        """
        Nothing more passes.

        @param reason: Why, or C{None} after an orderly end.
        """
        if self._over:
            return
        if reason is not None:
            self._end(reason.message)
        elif self._messages is not None:
            self._end("")
        else:
            self._end("the connection ended before the answer was complete")

    def stop(self, reason: str) -> None:
        """
        End the inspection, whatever passes.

        @param reason: Why.
        """
        if not self._over:
            self._record.notLookedAt(self._forward, reason)
            self._end(f"not shown from here on: {reason}")
            self._detached()

    def _end(self, problem: str) -> None:
        self._over = True
        self._messages = None
        self._pipeline.end(problem)
