"""A visitor of a service that is being started."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IProtocol, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dataplane.join import join
from tristunnel.dataplane.memory import HeldBytes
from tristunnel.dataplane.transport_end import EndFactory
from tristunnel.errors import TunnelError
from tristunnel.forwards.early import MOST_EARLY, reasonOf
from tristunnel.forwards.inner_transport import InnerTransport
from tristunnel.util.repeating import stopTimer
from tristunnel.wire.http import BadMessage, Event, RequestHead, RequestReader
from tristunnel.wire.http_answer import HTML, htmlPage, wholeResponse

__all__ = ["HELD_BACK", "WaitingVisitor"]

ENOUGH = 16 * 1024
"""Bytes that are taken of a visitor once it has shown what it speaks: less than half of
L{STREAM_WINDOW<tristunnel.forwards.demand.STREAM_WINDOW>}, so that it may send no more
until the service is up."""

HELD_BACK = 250
"""Visitors with more to send than that who may wait at once."""

MOST_KEPT = 32 * 1024 * 1024
"""Bytes of all who wait that are kept."""

SILENCE = 2.0
"""Seconds in which a visitor who cannot be served must show what it speaks."""

LINGER = 10.0
"""Seconds in which a visitor has to leave who was answered."""

_REFRESH = 2
"""Seconds after which a browser asks again."""

_STYLE = "body { text-align: center }\nprogress { width: 60% }\n"

_STARTING = htmlPage(
    "Starting…",
    "<p>Nobody has been here for a while, so this service is being started for you."
    '</p>\n<progress aria-label="starting"></progress>\n<p>This page opens it as soon'
    " as it is ready.</p>",
    _STYLE,
)
_FAILED = htmlPage(
    "It did not start",
    "<p>This service could not be started. Its owner can find the reason in the"
    " client's log.</p>",
    _STYLE,
)

_HEADERS = (
    b"Content-Security-Policy: default-src 'none'; style-src 'unsafe-inline'\r\n"
    b"Retry-After: %d\r\n" % _REFRESH
)


class _KeptBytes(HeldBytes):
    def tell(self, before: int, ended: int) -> None:
        self._log.warn(
            "{before} bytes of visitors who wait for services were held: the {ended}"
            " with the most were refused",
            before=before,
            ended=ended,
        )


KEPT = _KeptBytes(MOST_KEPT)
"""What this process keeps of them."""


class WaitingVisitor:
    """
    Lets browsers know, and has others wait. What these have to send is not read any
    further, so that it waits with them.

    It is a L{Taker<tristunnel.forwards.inner_transport.Taker>}, until the service is.

    @param reactor: Tells time.
    @param begin: Starts the service.
    @param endpoint: The service, once it is up.
    @param crowd: All who are held back.
    """

    _log: ClassVar[Logger] = Logger(namespace="tristunnel.client")

    def __init__(
        self,
        reactor: Any,
        begin: Callable[[], Deferred[None]],
        endpoint: IStreamClientEndpoint,
        crowd: set[WaitingVisitor],
    ) -> None:
        self._reactor = reactor
        self._begin = begin
        self._endpoint = endpoint
        self._crowd = crowd
        self._early = b""
        # What it speaks: nothing is known while there is a reader.
        self._reader: RequestReader | None = RequestReader()
        self._speaksHTTP = False
        self._hasFinished = self._isOver = False
        self._problem: TunnelError | None = None
        self._transport: InnerTransport | None = None
        # What it waits for: the start, or then the connection.
        self._awaited: Deferred[Any] | None = None
        self._later: IDelayedCall | None = None

    def wait(self, protocol: IProtocol) -> None:
        """
        Begin.

        @param protocol: What reads and writes in the visitor's place.
        """
        transport = self._transport = InnerTransport(protocol, self)
        self._awaited = starting = self._begin()
        # What the visitor has sent by now comes at once.
        transport.begin()
        starting.addCallbacks(self._isUp, self._isNot)
        starting.addErrback(self._failed)

    def _failed(self, failure: Failure) -> None:
        self._log.failure("A waiting visitor failed", failure)

    # What the visitor says

    def write(self, data: bytes) -> None:
        if self._isOver:
            return
        self._early += data
        KEPT.hold(self, len(data), self._evict)
        if self._reader is not None and not self._isOver:
            self._hear(self._reader.feed(data)[:1])
        most = MOST_EARLY if self._reader is not None else ENOUGH
        if len(self._early) > most and not (self._isOver or self in self._crowd):
            self._holdBack()

    def _hear(self, events: list[Event]) -> None:
        first = events[0] if events else None
        if isinstance(first, RequestHead):
            self._reader = None
            self._speaksHTTP = True
            self._heard(first)
        elif isinstance(first, BadMessage):
            self._reader = None
        if self._problem is not None and self._reader is None:
            self._refuse(self._problem)

    def _heard(self, head: RequestHead) -> None:
        wantsPage = b"text/html" in head.get(b"accept").lower()
        if not (head.method in (b"GET", b"HEAD") and wantsPage and not head.upgrade):
            return
        failed = self._problem is not None
        page = _FAILED if failed else _STARTING
        refresh = b"" if failed else b"Refresh: %d\r\n" % _REFRESH
        withBody = head.method != b"HEAD"
        self._answer(wholeResponse(503, page, _HEADERS + refresh, HTML, withBody))

    def _holdBack(self) -> None:
        if len(self._crowd) < HELD_BACK:
            self._crowd.add(self)
            self._to.hold(True)
        else:
            self._evict(TunnelError("limit-reached"))

    def _evict(self, reason: TunnelError) -> None:
        text = "too many others wait for this service, which is being started"
        self._refuse(TunnelError("limit-reached", text))

    def finish(self) -> None:
        self._hasFinished = True
        if self._isOver:
            self._leave()

    def reset(self, reason: TunnelError) -> None:
        self._leave()

    def pauseReading(self) -> None:
        """One page is all that is said here."""

    resumeReading = pauseReading

    # What it is told

    @property
    def _to(self) -> InnerTransport:
        assert self._transport is not None
        return self._transport

    def _isUp(self, result: None) -> None:
        self._awaited = None
        if self._isOver:
            return
        factory = EndFactory(self._reactor, self._arrived)
        dialling = self._endpoint.connect(factory)
        if not self._isOver:
            self._awaited = dialling
        dialling.addErrback(self._notReached)
        dialling.addErrback(self._failed)

    def _arrived(self, far: Any) -> None:
        if self._isOver:
            far.reset(TunnelError("reset", "the visitor has left"))
            return
        self._awaited = None
        self._leave()
        join(self._to.end, far, lambda reason: None)
        early, self._early = self._early, b""
        if early:
            far.write(early)
        if self._hasFinished:
            far.finish()
        self._to.hold(False)

    def _notReached(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._refuse(reasonOf(failure))

    def _isNot(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            return
        failure.trap(TunnelError)
        error: Any = failure.value
        if self._reader is None:
            self._refuse(error)
        else:
            self._problem = error
            self._later = self._reactor.callLater(SILENCE, self._refuse, error)

    def _refuse(self, error: TunnelError) -> None:
        if self._isOver:
            return
        if self._speaksHTTP:
            text = "the service could not be started; try again later"
            if error.code.name == "limit-reached":
                text = error.message
            self._answer(wholeResponse(503, f"{text}\n".encode(), _HEADERS))
        else:
            self._leave()
            self._to.end.reset(error)

    def _answer(self, response: bytes) -> None:
        self._leave()
        self._early = b""
        self._to.hold(False)
        end = self._to.end
        end.write(response)
        end.finish()
        if not self._hasFinished:
            # Whoever does not leave by itself would count as a visitor for good.
            left = TunnelError("expired", "it was answered, and did not leave")
            self._later = self._reactor.callLater(LINGER, end.reset, left)

    def _leave(self) -> None:
        self._isOver = True
        self._crowd.discard(self)
        KEPT.releaseAll(self)
        awaited, self._awaited = self._awaited, None
        if awaited is not None:
            awaited.cancel()
        stopTimer(self._later)
