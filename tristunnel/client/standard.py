"""
A visit through this process's own standard input and output: C{tristunnel connect}.
"""

from __future__ import annotations

import os
import socket
import stat
from collections.abc import Callable
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.protocol import connectionDone
from twisted.internet.stdio import StandardIO
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dataplane.dial import adopted
from tristunnel.dataplane.join import join
from tristunnel.dataplane.transport_end import EndFactory, TransportEnd
from tristunnel.dialects.base.dialect import GaveUp, Route
from tristunnel.errors import TunnelError
from tristunnel.model.observer import ClientObserver, Visit

__all__ = ["StandardEnd", "StandardVisit"]

IN, OUT = 0, 1


class StandardEnd(TransportEnd):
    """
    The L{End<tristunnel.interfaces.End>} that is a program's input and its output,
    each of which ends by itself.

    @param output: The descriptor of the output.

    @ivar unread: Whether the output's reader left before the output had ended.
    """

    def __init__(
        self, reactor: Any, arrived: Callable[[Any], None], output: int = OUT
    ) -> None:
        super().__init__(reactor, arrived)
        self.unread = False
        self._output = output
        self._outputOver = False

    def writeConnectionLost(self) -> None:
        """
        Note that the output is closed: all of it was written, or its reader has left.
        """
        self._endOutput()
        if not self._finished:
            self.unread = True
            self.evict(TunnelError("reset", "nobody reads the output any more"))
        elif self._eof:
            self._gone(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not (self._outputOver or self._over):
            self._endOutput()
        super().connectionLost(reason)

    def _endOutput(self) -> None:
        self._outputOver = True
        # C{StandardIO} leaves it open, and its reader would see no end before that of
        # the process. The number must not become somebody else's.
        with open(os.devnull, "wb") as nowhere:
            os.dup2(nowhere.fileno(), self._output)

    def _closeBoth(self) -> None:
        # There is no deadline, since a pager may read on tomorrow. And C{StandardIO}
        # does not tell when both have ended one after the other.
        if self._outputOver:
            self._gone(None)
        elif not self._over:
            self.transport.loseConnection()


def _isOneSocket() -> bool:
    """Whether input and output are the two directions of one connection."""
    first, second = os.fstat(IN), os.fstat(OUT)
    return stat.S_ISSOCK(first.st_mode) and os.path.samestat(first, second)


def openStandard(reactor: Any, arrived: Callable[[Any], None]) -> None:
    """
    Make an end of this process's standard input and output.

    @param arrived: Called with it.
    """
    if _isOneSocket():
        made = socket.socket(fileno=os.dup(IN))
        adopted(reactor, made, EndFactory(reactor, arrived))
    else:
        # The stubs only know the class for Windows, which has no descriptors.
        StandardIO(StandardEnd(reactor, arrived), IN, OUT, reactor)  # type: ignore[call-arg] # as said


class StandardVisit(MultiService):
    """
    Connects to a server once, visits one service, and ends then.

    @param reactor: Tells time.
    @param over: Called once: with C{None} after an orderly end of both directions,
        else with the reason; and whether it is that nobody reads the output.
    @param open: Makes an end of standard input and output, and passes it to its
        argument.
    """

    _log = Logger(namespace="tristunnel.client")

    def __init__(
        self,
        reactor: Any,
        over: Callable[[TunnelError | None, bool], None],
        open: Callable[[Any, Callable[[Any], None]], None] = openStandard,
    ) -> None:
        super().__init__()
        self._reactor = reactor
        self._told = over
        self._open = open
        self._client: Any = None
        self._route: Route | None = None
        self._what = ""
        self._begun = self._isOver = False
        self._ends: list[Any] = []

    def lead(
        self, makeRoute: Callable[[ClientObserver, GaveUp], tuple[Any, Route, str]]
    ) -> None:
        """
        Find the way to the service.

        @param makeRoute: The dialect's, with its other parameters.
        """
        observer = ClientObserver()
        observer.acknowledged = (  # type: ignore[method-assign] # of one object
            # The client has the session only after everybody has been told of it.
            lambda dialect: self._reactor.callLater(0, self._begin)
        )
        observer.disconnected = self._lost  # type: ignore[method-assign] # likewise
        self._client, self._route, self._what = makeRoute(observer, self._lost)
        if self._client is not None:
            self._client.setServiceParent(self)

    def startService(self) -> None:
        super().startService()
        if self._client is None:
            self._begin()

    def _begin(self) -> None:
        if not self._begun and self.running and self._route is not None:
            self._begun = True
            finding = maybeDeferred(self._route, None)
            finding.addCallbacks(self._found, self._failed)
            finding.addErrback(
                lambda failure: self._log.failure("The visit failed", failure)
            )

    def _found(self, far: Any) -> None:
        def arrived(end: Any) -> None:
            self._ends += [far, end]
            visit = _Visit(self._what, far, end, {}, ClientObserver())
            visit.whenOver = lambda reason: self._end(
                reason, getattr(end, "unread", False)
            )
            join(far, end, visit.ended)

        self._open(self._reactor, arrived)

    def _failed(self, failure: Failure) -> None:
        error = failure.value
        if not isinstance(error, TunnelError):
            self._log.failure("The service was not reached", failure)
            error = TunnelError("internal")
        self._end(error)

    def _lost(self, reason: TunnelError) -> None:
        """
        Handle that there is no session, or no longer; the visit itself tells of its
        end.
        """
        if not self._begun:
            self._end(reason)

    def _end(self, reason: TunnelError | None, unread: bool = False) -> None:
        if not self._isOver:
            self._isOver = True
            self._told(reason, unread)

    def stopService(self) -> Deferred[Any]:
        self._isOver = True
        for end in self._ends:
            end.reset(TunnelError("shutting-down", "the client stops"))
        stopping: Deferred[Any] = super().stopService()
        return stopping

    def stopNow(self) -> None:
        """Stop waiting."""
        if self._client is not None:
            self._client.stopNow()


class _Visit(Visit):
    __slots__ = ("whenOver",)

    whenOver: Callable[[TunnelError | None], None]

    def over(self, reason: TunnelError | None) -> None:
        super().over(reason)
        self.whenOver(reason)
