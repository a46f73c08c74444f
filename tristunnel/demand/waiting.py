"""A visitor of a service that is being started."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from tristunnel.errors import TunnelError
from tristunnel.forwards.early import EarlyProtocol
from tristunnel.wire.http import BadMessage, RequestHead, RequestReader
from tristunnel.wire.http_answer import HTML, htmlPage, wholeResponse

__all__ = ["WaitingVisitor"]

SILENCE = 2.0
"""Seconds in which a visitor who cannot be served has to show what it speaks."""

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


class WaitingVisitor(EarlyProtocol):
    """
    Lets browsers know, and has others wait.

    @param reactor: Tells time.
    @param begin: Starts the service.
    @param endpoint: The service, once it is up.
    """

    def __init__(
        self,
        reactor: Any,
        begin: Callable[[], Deferred[None]],
        endpoint: IStreamClientEndpoint,
    ) -> None:
        super().__init__(reactor)
        self._begin = begin
        self._endpoint = endpoint
        self._starting: Deferred[None] | None = None
        # What it speaks: nothing is known while there is a reader.
        self._reader: RequestReader | None = RequestReader()
        self._speaksHTTP = False
        self._problem: TunnelError | None = None
        self._later: IDelayedCall | None = None

    def connectionMade(self) -> None:
        starting = self._starting = self._begin()
        starting.addCallbacks(self._isUp, self._isNot)
        starting.addErrback(
            lambda failure: self._log.failure("A waiting visitor failed", failure)
        )

    def dataReceived(self, data: bytes) -> None:
        self.keep(data)
        if self._reader is not None:
            events = self._reader.feed(data)
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

    def _answer(self, response: bytes) -> None:
        self._problem = None
        self._forget()
        self.early = b""
        transport, self.transport = self.transport, None
        transport.write(response)
        transport.loseConnection()

    def _isUp(self, result: None) -> None:
        self._starting = None
        self.dial(self._endpoint, lambda: b"", self._refuse)

    def _isNot(self, failure: Failure) -> None:
        self._starting = None
        if failure.check(CancelledError) or self.transport is None:
            return
        failure.trap(TunnelError)
        error: Any = failure.value
        if self._reader is None:
            self._refuse(error)
        else:
            self._problem = error
            self._later = self.reactor.callLater(SILENCE, self._refuse, error)

    def _refuse(self, error: TunnelError) -> None:
        if self.transport is None:
            return
        if self._speaksHTTP:
            text = b"the service could not be started; try again later\n"
            self._answer(wholeResponse(503, text, _HEADERS))
        else:
            self.transport.abortConnection()

    def _forget(self) -> None:
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.cancel()
        if self._later is not None and self._later.active():
            self._later.cancel()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self._forget()
