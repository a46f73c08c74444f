"""The control channel of the framed protocol: each side calls the other's methods."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from tristunnel.dataplane.answers import Answers
from tristunnel.dataplane.pieces import NOTHING
from tristunnel.dialects.base.multiplexer import Multiplexer
from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.dispatcher import Dispatcher, errorResponse
from tristunnel.jsonrpc.pending import PendingCalls
from tristunnel.util.repeating import stopTimer
from tristunnel.wire.framed import MAX_CONTROL, FrameType, decodeObject, encodeObject

__all__ = ["ControlChannel"]

MOST_CALLS = 64
"""Calls of the peer that are answered at the same time."""

CALLS_AT_ONCE = 16
"""Calls that are begun before others have their turn."""


class ControlChannel:
    """
    The calls of one session.

    @param reactor: Has calls answered later.
    @param caller: Says as whom the peer calls.
    @param dispatcher: Answers the peer's calls; C{None} if it may make none.

    @ivar dispatcher: Likewise.
    """

    _log = Logger()

    __slots__ = (
        "_answering",
        "_answers",
        "_asked",
        "_caller",
        "_calls",
        "_multiplexer",
        "_next",
        "_reactor",
        "dispatcher",
    )

    def __init__(
        self,
        reactor: IReactorTime,
        caller: Callable[[], object],
        dispatcher: Dispatcher | None,
    ) -> None:
        self.dispatcher = dispatcher
        self._reactor = reactor
        self._caller = caller
        self._calls = PendingCalls()
        self._asked: deque[dict[str, object]] = NOTHING
        self._answering = 0
        self._next: IDelayedCall | None = None
        self._multiplexer: Multiplexer | None = None
        self._answers: Answers | None = None

    def open(self, multiplexer: Multiplexer, answers: Answers) -> None:
        """
        Begin.

        @param multiplexer: Sends the frames.
        @param answers: Whether the peer takes answers.
        """
        self._multiplexer, self._answers = multiplexer, answers
        answers.taken = self._answer

    def call(self, method: str, params: dict[str, object]) -> Deferred[object]:
        """
        Call a method of the peer.

        @return: Its result; fails with L{TunnelError} or
            L{RemoteError<tristunnel.jsonrpc.pending.RemoteError>}, also when the
            session ends first.
        """
        request, result = self._calls.call(method, params)
        self._send(request)
        return result

    def notify(self, method: str, params: dict[str, object]) -> None:
        """Tell the peer something, without an answer."""
        self._send({"jsonrpc": "2.0", "method": method, "params": params})

    def _send(self, message: object) -> None:
        if self._multiplexer is None or not isinstance(message, dict):
            return
        payload = encodeObject(message)
        if len(payload) > MAX_CONTROL:
            refusal = TunnelError(
                "limit-reached", "the answer is too long for a frame; call over HTTP"
            )
            payload = encodeObject(errorResponse(message.get("id"), refusal))
        self._multiplexer.sendFrame(0, FrameType.CONTROL, payload)

    def arrived(self, payload: bytes) -> None:
        """A control frame came: an answer to us, or a call."""
        message = decodeObject(payload)
        if "method" not in message:
            self._calls.answered(message)
        elif self.dispatcher is not None:
            if self._asked is NOTHING:
                self._asked = deque()
            self._asked.append(message)
            if len(self._asked) > MOST_CALLS and self._multiplexer is not None:
                self._multiplexer.holds.hold("calls")
            if self._next is None:
                self._answer()

    def _answer(self) -> None:
        """
        Answer the calls that came, as far as their answers are taken: one read
        may hold a thousand calls, whose answers are long.
        """
        stopTimer(self._next)
        self._next = None
        begun = 0
        while (
            self._asked
            and begun < CALLS_AT_ONCE
            and self._answering < MOST_CALLS
            and self.dispatcher is not None
            and self._answers is not None
            and self._answers.room
        ):
            begun += 1
            self._answering += 1
            message = self._asked.popleft()
            answer = self.dispatcher.dispatchObject(self._caller(), message)
            answer.addCallback(self._send)
            answer.addErrback(
                lambda failure: self._log.failure("A call failed", failure)
            )
            if answer.called:
                self._answering -= 1
            else:
                answer.addBoth(self._answeredLate)
        if not self._asked:
            self._asked = NOTHING
        elif begun == CALLS_AT_ONCE and self.dispatcher is not None:
            self._next = self._reactor.callLater(0, self._answer)
        if len(self._asked) <= MOST_CALLS and self._multiplexer is not None:
            self._multiplexer.holds.release("calls")

    def _answeredLate(self, result: object) -> None:
        """A call was answered that had to wait."""
        self._answering -= 1
        if self._next is None:
            self._answer()

    def close(self, reason: TunnelError) -> None:
        """The session is over: nobody calls any more."""
        self.dispatcher = None
        self._calls.abandon(reason)
        stopTimer(self._next)
        self._next = None
