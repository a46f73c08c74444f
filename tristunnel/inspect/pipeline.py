"""The exchanges of an inspected stream, which are answered in the order of requests."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping

from tristunnel.forwards.forward import Forward
from tristunnel.inspect.exchange import Exchange
from tristunnel.inspect.record import Record
from tristunnel.wire.http import Headers, RequestHead, ResponseHead

__all__ = ["MOST_PIPELINED", "Pipeline"]

MOST_PIPELINED = 100
"""Requests of an inspected connection that may wait for their responses."""


class Pipeline:
    """
    Requests that wait for the end of their responses.

    @param record: Where they are kept.
    @param forward: Whose stream it is.
    @param info: What the server said of the visitor.
    @param replayOf: As for L{Exchange}.
    @param over: Called with each exchange that is over.

    @ivar asking: The one whose request still comes, or C{None}.
    @ivar front: The one that is answered next, or C{None}.
    @ivar heads: How many of them are a C{HEAD}, whose responses have no body.
    """

    def __init__(
        self,
        record: Record,
        forward: Forward,
        info: Mapping[str, object],
        replayOf: int,
        over: Callable[[Exchange], None],
    ) -> None:
        self._record = record
        self._forward = forward
        self._info = info
        self._replayOf = replayOf
        self._over = over
        self._open: deque[Exchange] = deque()
        self._isInterim = False
        self.asking: Exchange | None = None
        self.front: Exchange | None = None
        self.heads = 0

    def requestBegan(self, head: RequestHead) -> bool:
        """
        Add a request.

        @return: Whether there is room for it.
        """
        if len(self._open) >= MOST_PIPELINED:
            return False
        made = self._record.began(self._forward, self._info, head, self._replayOf)
        self.asking = made
        self._open.append(made)
        self.front = self._open[0]
        self.heads += head.method == b"HEAD"
        return True

    def requestEnded(self, trailers: Headers) -> None:
        """Note that the request is complete."""
        asking, self.asking = self.asking, None
        if asking is not None:
            self._record.partEnded(asking, asking.request, trailers)

    def responseBegan(self, head: ResponseHead) -> None:
        """Note the head of a response, or of an interim one."""
        front = self.front
        self._isInterim = head.isInterim
        if front is None:
            # Such as a 408 that answers no request.
            return
        if head.isInterim:
            self._record.answeredFirst(front, head.status)
        else:
            self._record.answered(front, head)

    def responseEnded(self, trailers: Headers) -> bool:
        """
        Note that a response is complete, or an interim one.

        @return: Whether that was the last response that was waited for.
        """
        if self._isInterim:
            self._isInterim = False
            return False
        front = self.front
        if front is None:
            return False
        self._open.popleft()
        self.front = self._open[0] if self._open else None
        self.heads -= front.asked.method == b"HEAD"
        if front.response is not None:
            self._record.partEnded(front, front.response, trailers)
        self._finished(front, "")
        return self.front is None

    def end(self, problem: str) -> None:
        """
        Wait for no more responses.

        @param problem: Why those that are missing do not come.
        """
        left, self._open = self._open, deque()
        self.front = None
        for exchange in left:
            self._finished(exchange, problem)

    def _finished(self, exchange: Exchange, problem: str) -> None:
        self._record.over(exchange, problem)
        self._over(exchange)
