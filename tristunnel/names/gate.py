"""
Requests to tunnels whose owners do not let in everybody: what a gate answers, and what
becomes of a request until then.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dataplane.deadlines import Key, deadlinesOf
from tristunnel.names.exchange import Exchange
from tristunnel.names.heads import Guest
from tristunnel.wire.http import Event, MessageEnd
from tristunnel.wire.http_answer import wholeResponse

__all__ = ["Answer", "Asked", "AtGate", "Closed", "Form", "Gate"]

FORM_TIME = 30.0
"""Seconds in which a form must arrive."""

_log = Logger()


@dataclass(frozen=True, slots=True)
class Answer:
    """
    What the visitor is answered in the service's place.

    @ivar status: For the log.
    @ivar data: The whole response.
    """

    status: int
    data: bytes


@dataclass(frozen=True, slots=True)
class Form:
    """
    The gate has to read the request's body first.

    @ivar most: Bytes that it may have.
    @ivar otherwise: The answer if there are more, or if they do not arrive.
    @ivar then: Takes it.
    """

    most: int
    otherwise: Answer
    then: Callable[[bytes], Answer | Deferred[Answer]]


Asked = Guest | Answer | Form | Deferred[Guest | Answer]
"""What a gate says of a request: now, when it has read more, or later."""


class Gate(Protocol):
    """Decides on requests to tunnels whose owners ask visitors to sign in."""

    def ask(self, exchange: Exchange) -> Asked | Deferred[Answer]:
        """Decide on a request, of which only the head is there."""


class Closed:
    """The gate of a program without one: nobody comes in."""

    def ask(self, exchange: Exchange) -> Asked:
        body = b"503 Service Unavailable: this server has no sign-in for visitors\n"
        return Answer(503, wholeResponse(503, body))


class AtGate:
    """
    A L{Reception<tristunnel.names.exchange.Reception>}: a request at a gate.

    @param reactor: Tells time.
    @param done: Called with the gate's decision; with C{None} if it failed.
    """

    __slots__ = ("_asking", "_body", "_deadline", "_done", "_form", "_reactor", "_size")

    def __init__(
        self, reactor: Any, done: Callable[[Guest | Answer | None], object]
    ) -> None:
        self._reactor = reactor
        self._done = done
        self._form: Form | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._asking: Deferred[Any] | None = None
        self._deadline: Key | None = None

    def begin(self, asked: Asked | Deferred[Answer]) -> None:
        """Go on as the gate says."""
        if isinstance(asked, Deferred):
            self._asking = asked
            asked.addCallbacks(self._decided, self._failed)
        elif isinstance(asked, Form):
            self._form = asked
            deadlines = deadlinesOf(self._reactor)
            self._deadline = deadlines.add(FORM_TIME, self._tooLate)
        else:
            self._decided(asked)

    def take(self, event: Event) -> bool:
        form = self._form
        if form is None:
            return False
        if type(event) is bytes:
            self._size += len(event)
            self._body.append(event)
        if type(event) is MessageEnd:
            self._stop()
            self.begin(form.then(b"".join(self._body)))
        elif type(event) is not bytes or self._size > form.most:
            self._decided(form.otherwise)
        return True

    def _tooLate(self) -> None:
        self._deadline = None
        if self._form is not None:
            self._decided(self._form.otherwise)

    def _decided(self, said: Guest | Answer) -> None:
        self._asking = None
        self._stop()
        self._done(said)

    def _failed(self, failure: Failure) -> None:
        self._asking = None
        if failure.check(CancelledError):
            return
        _log.failure("The gate of a name failed", failure)
        self._done(None)

    def _stop(self) -> None:
        self._form = None
        if self._deadline is not None:
            deadlinesOf(self._reactor).cancel(self._deadline)
            self._deadline = None

    def cancel(self) -> None:
        """Give up: the visitor has left, or was answered."""
        self._stop()
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
