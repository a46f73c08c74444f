"""Connecting streams to the services that they are for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import (
    ConnectionRefusedError,
    DNSLookupError,
    TCPTimedOutError,
)
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.glimpse import Speech, glimpsed
from tristunnel.dataplane.join import join
from tristunnel.dataplane.poller import Poller, pollerOf
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.transport_end import Arriving, EndFactory, TransportEnd
from tristunnel.errors import TunnelError
from tristunnel.interfaces import End
from tristunnel.model.observer import ClientObserver, Visit

__all__ = ["CONNECT_TIMEOUT", "ServiceConnector", "VisitorStream"]

CONNECT_TIMEOUT = 10.0
"""Seconds in which a service must accept a connection."""

_AnyEnd = SocketEnd | TransportEnd

_Between = Callable[[Any, Any, Any, Any], tuple[Any, Any]]

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
        """End without a word to the peer, because another end takes its place."""


def _refusal(target: str, failure: Failure) -> TunnelError:
    known = (code for kind, code in _CODES if failure.check(kind))
    code = next(known, "service-unreachable")
    if code == "service-refused":
        return TunnelError(
            code,
            f"nothing listens at {target}; start the service, or correct its address",
        )
    why = _ofService(failure.getErrorMessage())
    return TunnelError(code, f"{target} was not reached: {why}")


def _ofService(cure: str) -> str:
    """What is said of a server's certificate, in words that go for a service's."""
    cure = cure.replace("write --pin ", "add to its target :pin=")
    return cure.replace("--ca FILE", ":trustRoots=FILE")


@dataclass(eq=False, repr=False)
class ServiceConnector:
    """
    Connects streams to services.

    @ivar reactor: Tells time.
    @ivar observer: Told how it went.
    @ivar speeches: What services speak, by their names.
    @ivar poller: Where sockets wait; C{None} without epoll.
    """

    log: ClassVar[Logger] = Logger()

    reactor: IReactorTime
    observer: ClientObserver
    speeches: dict[str, Speech] = field(default_factory=dict)
    poller: Poller | None = field(init=False)

    def __post_init__(self) -> None:
        self.poller = pollerOf(self.reactor)

    def speechOf(self, target: str) -> Speech | None:
        """Find what is known of how a service speaks; C{None} if nobody listens."""
        tell = self.observer.serviceSpeaks
        if getattr(tell, "__func__", None) is ClientObserver.serviceSpeaks:
            return None
        if target not in self.speeches:
            self.speeches[target] = Speech(heard=partial(tell, target))
        return self.speeches[target]

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
        @param endpoint: The service. One that wants to know who comes has a method
            C{forVisitor}, which is given C{info} and makes the visitor's. One whose
            bytes somebody looks at has C{watched}, which is given C{info} and returns
            the service itself, and what makes of the service's end and the visitor's,
            and of what is to be joined for them, what is joined in their place.
        @param accept: Called when the service was reached.
        @param refuse: Called instead when it was not; by default the stream is
            broken.
        @param elsewhere: Makes another end that may take the stream's place.
        @param info: What the server said of the visitor.
        """
        refuse = refuse or stream.reset
        _Attempt(self, stream, target, accept, refuse, elsewhere, info).begin(endpoint)


@dataclass(eq=False, repr=False, slots=True)
class _Attempt:
    """
    A stream that waits for its service.

    @ivar shown: The service's end, once it is good for bytes: after TCP's
        handshake, or that of TLS.
    """

    connector: ServiceConnector
    stream: VisitorStream | SocketEnd
    target: str
    accept: Callable[[Any], None]
    refuse: Callable[[TunnelError], None]
    elsewhere: Callable[[], Deferred[SocketEnd]] | None
    info: Mapping[str, object]
    shown: _AnyEnd | None = None
    between: _Between | None = None

    def begin(self, endpoint: IStreamClientEndpoint) -> None:
        reactor, stream = self.connector.reactor, self.stream
        try:
            RESERVE.checkVisitor()
        except TunnelError as refusal:
            self._fail(refusal)
            return
        watched = getattr(endpoint, "watched", None)
        if watched is not None:
            endpoint, self.between = watched(self.info)
        forVisitor = getattr(endpoint, "forVisitor", None)
        if forVisitor is not None:
            endpoint = forVisitor(self.info)
        poller = self.connector.poller
        connectNow = getattr(endpoint, "connectNow", None)
        if poller is not None and connectNow is not None:
            made = connectNow()
            if made is not None:
                end = SocketEnd(poller, made)
                try:
                    end.start()
                except OSError as problem:
                    made.close()
                    self._failed(Failure(problem))
                else:
                    self._arrived(end)
                return
        log = self.connector.log
        factory = EndFactory(reactor, self._shown)
        connecting: Deferred[Any] = endpoint.connect(factory)
        # A connection that waits for a name look-up takes its descriptor later.
        RESERVE.expected += 1
        connecting.addBoth(_settled)
        if not getattr(endpoint, "limitsTime", False):
            connecting.addTimeout(CONNECT_TIMEOUT, reactor)
        connecting.addCallbacks(self._reached, self._failed)
        connecting.addErrback(lambda f: log.failure("A service's failure failed", f))
        if not stream.over and not connecting.called:
            # A visitor that leaves now must not leave an attempt behind.
            stream.whileWaiting(lambda reason: connecting.cancel())

    def _shown(self, end: _AnyEnd) -> None:
        self.shown = end
        self._arrived(end)

    def _arrived(self, end: _AnyEnd) -> None:
        if self.stream.over:
            end.reset(_left())
        elif self.elsewhere is None:
            self._passBytes(self.stream, end)
        else:
            self._leave(end, self.elsewhere())

    def _passBytes(self, remote: VisitorStream | SocketEnd, end: _AnyEnd) -> None:
        if remote is self.stream:
            self.accept(remote)
        connector = self.connector
        visit = Visit(self.target, end, remote, self.info, connector.observer)
        speech = connector.speeches.get(self.target) or connector.speechOf(self.target)
        service: Any = end
        visitor: Any = remote
        if speech is not None and not speech.kind:
            service, visitor = glimpsed(speech, end, remote, end, remote)
        if self.between is not None:
            service, visitor = self.between(end, remote, service, visitor)
        join(visitor, service, visit.ended)

    def _leave(self, end: _AnyEnd, dialling: Deferred[SocketEnd]) -> None:
        stream, log = self.stream, self.connector.log

        def left(reason: TunnelError | None) -> None:
            end.reset(reason or _left())
            dialling.cancel()

        def connected(direct: SocketEnd) -> None:
            if stream.over:
                direct.reset(_left())
                return
            if not isinstance(stream, SocketEnd):
                stream.abandon()
            self._passBytes(direct, end)

        def blocked(failure: Failure) -> None:
            if not stream.over:
                self._passBytes(stream, end)

        stream.whileWaiting(left)
        dialling.addCallbacks(connected, blocked)
        dialling.addErrback(lambda f: log.failure("A direct stream failed", f))

    def _reached(self, arriving: Arriving) -> None:
        # Over TLS the handshake is still to come, and may fail.
        end = arriving.end
        if end is None or end is self.shown:
            return
        if end.over:
            # Bytes that are not TLS may have come before we sent anything.
            self._notShown(end.reason)
        else:
            end.whileWaiting(self._notShown)

    def _notShown(self, reason: TunnelError | None) -> None:
        why = "it closed the connection"
        if reason is not None:
            why = _ofService(reason.message)
        if not self.stream.over:
            self._fail(
                TunnelError(
                    "service-unreachable",
                    f"{self.target} was not reached over TLS: {why}",
                )
            )

    def _failed(self, failure: Failure) -> None:
        if not (failure.check(CancelledError) and self.stream.over):
            self._fail(_refusal(self.target, failure))

    def _fail(self, refusal: TunnelError) -> None:
        self.connector.observer.serviceFailed(self.target, refusal)
        self.refuse(refusal)


def _left() -> TunnelError:
    return TunnelError("reset", "the visitor has left")


def _settled(result: Any) -> Any:
    RESERVE.expected -= 1
    return result
