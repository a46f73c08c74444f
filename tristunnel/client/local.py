"""
From a stream to the service that it is for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import (
    ConnectionRefusedError,
    DNSLookupError,
    TCPTimedOutError,
)
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.errors import TunnelError
from tristunnel.observer import ClientObserver
from tristunnel.relay.sockets import SocketEnd

if TYPE_CHECKING:
    from tristunnel.sessions.stream import SessionStream

__all__ = ["CONNECT_TIMEOUT", "ServiceConnector"]

CONNECT_TIMEOUT = 10.0
"""Seconds in which a service must accept a connection."""

_CODES: tuple[tuple[type[BaseException], str], ...] = (
    (ConnectionRefusedError, "service-refused"),
    (ConnectTimeout, "service-timeout"),
    (TCPTimedOutError, "service-timeout"),
    (DeferredTimeout, "service-timeout"),
    (DNSLookupError, "service-unreachable"),
)


def _refusal(target: str, failure: Failure) -> TunnelError:
    """
    Say why a service was not reached.
    """
    known = (code for kind, code in _CODES if failure.check(kind))
    code = next(known, "service-unreachable")
    if code == "service-refused":
        return TunnelError(
            code, f"nothing listens at {target}; start the service, or mend --forward"
        )
    return TunnelError(code, f"{target} was not reached: {failure.getErrorMessage()}")


class ServiceConnector:
    """
    Connects streams to services.

    @param reactor: Tells time.
    @param observer: Told how it went.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime, observer: ClientObserver) -> None:
        self._reactor = reactor
        self._observer = observer

    def connect(
        self,
        stream: SessionStream,
        target: str,
        endpoint: IStreamClientEndpoint,
        accept: Callable[[SessionStream], None],
    ) -> None:
        """
        Connect C{stream} to a service; what its visitor sends waits meanwhile.

        @param target: The service, as messages name it.
        @param accept: Called when the service was reached.
        """

        def arrived(end: SocketEnd) -> None:
            if stream.over:
                end.reset(TunnelError("reset", "the visitor has left"))
                return
            accept(stream)
            self._observer.serviceConnected(target)
            over = _Over(end, stream, target, self._observer)
            stream.join(end, over.ended)
            end.join(stream, over.ended)

        def failed(failure: Failure) -> None:
            if failure.check(CancelledError) and stream.over:
                return
            refusal = _refusal(target, failure)
            self._observer.serviceFailed(target, refusal)
            stream.reset(refusal)

        # A visitor that leaves now must not leave a connection attempt behind.
        def left(reason: TunnelError | None) -> None:
            connecting.cancel()

        factory = Factory.forProtocol(lambda: SocketEnd(self._reactor, arrived))
        factory.noisy = False
        connecting: Deferred[Any] = endpoint.connect(factory)
        connecting.addTimeout(CONNECT_TIMEOUT, self._reactor)
        connecting.addErrback(failed)
        connecting.addErrback(
            lambda failure: self._log.failure("A service's failure failed", failure)
        )
        if not stream.over and not connecting.called:
            stream.whileWaiting(left)


class _Over:
    """
    Waits for both ends of a stream, to tell how it went.
    """

    def __init__(
        self,
        service: SocketEnd,
        stream: SessionStream,
        target: str,
        observer: ClientObserver,
    ) -> None:
        self._service = service
        self._stream = stream
        self._target = target
        self._observer = observer
        self._reason: TunnelError | None = None
        self._open = 2

    def ended(self, reason: TunnelError | None) -> None:
        """
        One end is over.
        """
        self._reason = self._reason or reason
        self._open -= 1
        if not self._open:
            self._observer.serviceGone(
                self._target,
                self._service.received,
                self._stream.received,
                self._reason,
            )
