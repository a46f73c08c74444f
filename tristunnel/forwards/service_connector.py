"""From a stream to the service that it is for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import (
    ConnectionRefusedError,
    DNSLookupError,
    TCPTimedOutError,
)
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    INegotiated,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import alsoProvides

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.join import join
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.errors import TunnelError
from tristunnel.interfaces import End
from tristunnel.model.observer import ClientObserver, Visit

__all__ = ["CONNECT_TIMEOUT", "ServiceConnector", "VisitorStream"]

CONNECT_TIMEOUT = 10.0
"""Seconds in which a service must accept a connection."""

_NOTHING: Mapping[str, object] = {}

_CODES: tuple[tuple[type[BaseException], str], ...] = (
    (ConnectionRefusedError, "service-refused"),
    (ConnectTimeout, "service-timeout"),
    (TCPTimedOutError, "service-timeout"),
    (DeferredTimeout, "service-timeout"),
    (DNSLookupError, "service-unreachable"),
)


class VisitorStream(End, Protocol):
    """A visitor's stream within a session."""

    @property
    def over(self) -> bool:
        """Whether the visitor has left."""

    def abandon(self) -> None:
        """Be over without a word to the peer: another end takes its place."""


def _refusal(target: str, failure: Failure) -> TunnelError:
    known = (code for kind, code in _CODES if failure.check(kind))
    code = next(known, "service-unreachable")
    if code == "service-refused":
        return TunnelError(
            code, f"nothing listens at {target}; start the service, or fix --forward"
        )
    return TunnelError(code, f"{target} was not reached: {failure.getErrorMessage()}")


def _allowHalfClose(end: SocketEnd) -> None:
    """
    Have C{end} told when only the reading direction is over.

    Twisted's client endpoints put a protocol of their own in between, which
    takes on just the last one of the interfaces that ours provides.
    """
    between = getattr(end.transport, "protocol", None)
    if hasattr(between, "readConnectionLost") and not INegotiated.providedBy(
        end.transport
    ):
        alsoProvides(between, IHalfCloseableProtocol)


@dataclass(eq=False, repr=False)
class ServiceConnector:
    """
    Connects streams to services.

    @param reactor: Tells time.
    @param observer: Told how it went.
    """

    _log = Logger()

    reactor: IReactorTime
    observer: ClientObserver

    def __post_init__(self) -> None:
        self._direct: set[_Visit] = set()

    @property
    def direct(self) -> int:
        """How many streams have a connection of their own."""
        return len(self._direct)

    def connect(
        self,
        stream: VisitorStream | SocketEnd,
        target: str,
        endpoint: IStreamClientEndpoint,
        accept: Callable[[Any], None],
        refuse: Callable[[TunnelError], None] | None = None,
        elsewhere: Callable[[], Deferred[SocketEnd]] | None = None,
        info: Mapping[str, object] = _NOTHING,
    ) -> None:
        """
        Connect C{stream} to a service; what its visitor sends waits meanwhile.

        @param target: The service, as messages name it.
        @param accept: Called when the service was reached.
        @param refuse: Called instead when it was not; by default the stream is
            broken.
        @param elsewhere: Makes another end that may take the stream's place.
        @param info: What the server said of the visitor.
        """

        shown: list[SocketEnd] = []

        def arrived(end: SocketEnd) -> None:
            shown.append(end)
            _allowHalfClose(end)
            if stream.over:
                end.reset(TunnelError("reset", "the visitor has left"))
            elif elsewhere is None:
                passBytes(stream, end)
            else:
                leave(end, elsewhere())

        def passBytes(world: VisitorStream | SocketEnd, end: SocketEnd) -> None:
            if world is stream:
                accept(stream)
            over = _Visit(target, end, world, info, self.observer)
            if isinstance(world, SocketEnd):
                over.among = self._direct
                self._direct.add(over)
            join(world, end, over.ended)

        def leave(end: SocketEnd, dialling: Deferred[SocketEnd]) -> None:
            def left(reason: TunnelError | None) -> None:
                end.reset(reason or TunnelError("reset", "the visitor has left"))
                dialling.cancel()

            def connected(direct: SocketEnd) -> None:
                if stream.over:
                    direct.reset(TunnelError("reset", "the visitor has left"))
                else:
                    if not isinstance(stream, SocketEnd):
                        stream.abandon()
                    passBytes(direct, end)

            def blocked(failure: Failure) -> None:
                if not stream.over:
                    passBytes(stream, end)

            stream.whileWaiting(left)
            dialling.addCallbacks(connected, blocked)
            dialling.addErrback(
                lambda failure: self._log.failure("A direct stream failed", failure)
            )

        def failed(failure: Failure) -> None:
            if failure.check(CancelledError) and stream.over:
                return
            refusal = _refusal(target, failure)
            self.observer.serviceFailed(target, refusal)
            (refuse or stream.reset)(refusal)

        def reached(end: SocketEnd) -> None:
            # Over TLS the handshake is still to come, and may fail.
            if end not in shown:
                end.whileWaiting(notShown)

        def notShown(reason: TunnelError | None) -> None:
            why = "it closed the connection" if reason is None else reason.message
            refusal = TunnelError(
                "service-unreachable", f"{target} was not reached over TLS: {why}"
            )
            if not stream.over:
                self.observer.serviceFailed(target, refusal)
                (refuse or stream.reset)(refusal)

        try:
            RESERVE.checkVisitor()
        except TunnelError as refusal:
            self.observer.serviceFailed(target, refusal)
            (refuse or stream.reset)(refusal)
            return

        def settled(result: Any) -> Any:
            RESERVE.expected -= 1
            return result

        # A visitor that leaves now must not leave a connection attempt behind.
        def left(reason: TunnelError | None) -> None:
            connecting.cancel()

        factory = Factory.forProtocol(lambda: SocketEnd(self.reactor, arrived))
        factory.noisy = False
        connecting: Deferred[Any] = endpoint.connect(factory)
        # One that waits for a name takes its descriptor later.
        RESERVE.expected += 1
        connecting.addBoth(settled)
        if not getattr(endpoint, "limitsTime", False):
            connecting.addTimeout(CONNECT_TIMEOUT, self.reactor)
        connecting.addCallbacks(reached, failed)
        connecting.addErrback(
            lambda failure: self._log.failure("A service's failure failed", failure)
        )
        if not stream.over and not connecting.called:
            stream.whileWaiting(left)


class _Visit(Visit):
    """
    A visit that may be among those with a connection of their own.

    @ivar among: Where it is then.
    """

    __slots__ = ("among",)

    def __init__(self, *arguments: Any) -> None:
        self.among: set[_Visit] | None = None
        super().__init__(*arguments)

    def over(self, reason: TunnelError | None) -> None:
        if self.among is not None:
            self.among.discard(self)
        super().over(reason)
