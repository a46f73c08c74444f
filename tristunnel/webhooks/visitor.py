"""
A visitor whose requests must be signed.

Each request is held until it is complete and its signature has been found good, and is
then passed on as it came. They are passed on one at a time, each after the answer to
the one before, so that a refusal never overtakes an answer, and is the last thing that
a visitor gets.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from time import time
from typing import Any, ClassVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IHalfCloseableProtocol,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.protocols.policies import TimeoutMixin
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.memory import HeldBytes
from tristunnel.errors import TunnelError
from tristunnel.forwards.service_connector import CONNECT_TIMEOUT
from tristunnel.forwards.verify import Verification
from tristunnel.util.log_limiter import BoundedLog
from tristunnel.webhooks.request import HeldRequest, Refusal
from tristunnel.wire.http import (
    BadMessage,
    Event,
    MessageEnd,
    ResponseHead,
    ResponseReader,
)
from tristunnel.wire.http_answer import wholeResponse

__all__ = ["HELD_REQUESTS", "Rules", "SignedVisitor"]

MOST_HELD = 64 * 1024 * 1024
"""Bytes of all requests that this process holds."""

REQUEST_TIMEOUT = 30.0
"""Seconds in which a request must arrive."""

IDLE_TIMEOUT = 75.0
"""Seconds that a connection may wait for a request."""

LINGER = 2.0
"""Seconds that a visitor has to read why its request was refused."""

_MOST_EARLY = 64 * 1024
"""Bytes that may follow a request and wait for its answer."""


class _HeldRequests(HeldBytes):
    def tell(self, before: int, ended: int) -> None:
        """Each visitor's own refusal is logged."""


HELD_REQUESTS = _HeldRequests(MOST_HELD)
"""The bytes of requests that this process holds. When they are too many, the largest
request that makes no progress is refused."""


@dataclass(eq=False)
class Rules:
    """
    How the requests of a forward must be signed.

    @ivar reactor: Tells time.
    @ivar target: The service, for messages.
    @ivar verification: How they are signed.
    @ivar now: Tells the time of day, in seconds.
    """

    reactor: Any
    target: str
    verification: Verification
    now: Callable[[], float] = time
    bounded: BoundedLog = field(init=False)

    def __post_init__(self) -> None:
        self.bounded = BoundedLog(self.reactor.seconds, self.reactor.callLater)


class _Service(Protocol):
    """The connection to the service."""

    transport: Any

    def __init__(self, visitor: SignedVisitor) -> None:
        self._visitor = visitor

    def connectionMade(self) -> None:
        self._visitor.reached(self.transport)

    def dataReceived(self, data: bytes) -> None:
        self._visitor.answered(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._visitor.serviceGone()


@implementer(IHalfCloseableProtocol)
class SignedVisitor(Protocol, TimeoutMixin):
    """
    A visitor's connection.

    @param rules: What its requests must be like.
    @param endpoint: The service, for this visitor.
    @param info: What the server said of it.
    """

    _log: ClassVar[Logger] = Logger(namespace="tristunnel.client")
    transport: Any

    def __init__(
        self, rules: Rules, endpoint: IStreamClientEndpoint, info: Mapping[str, object]
    ) -> None:
        visitor = info.get("visitor")
        self._who = visitor[:200] if isinstance(visitor, str) else "a visitor"
        self._rules = rules
        self._endpoint = endpoint
        self._responses = ResponseReader()
        # The request that is arriving, or that waits for its answer.
        self._request = HeldRequest(rules.verification, rules.now)
        # What came after it.
        self._early = b""
        self._isHeld = self._isBusy = self._hasEnded = self._isOver = False
        self._answer: ResponseHead | None = None
        self._service: Any = None
        self._dialling: Deferred[Any] | None = None

    def callLater(
        self, period: float, call: Callable[..., object], *passed: object
    ) -> IDelayedCall:
        """As C{TimeoutMixin} wants it."""
        made: IDelayedCall = self._rules.reactor.callLater(period, call, *passed)
        return made

    def connectionMade(self) -> None:
        self.setTimeout(IDLE_TIMEOUT)

    # What the visitor sends

    def dataReceived(self, data: bytes) -> None:
        if self._isOver:
            return
        if not self._isBusy:
            self._read(data)
            return
        self._early += data
        HELD_REQUESTS.hold(self, len(data), self._evict)
        if len(self._early) > _MOST_EARLY and not self._isHeld:
            self._isHeld = True
            self.transport.pauseProducing()

    def _read(self, data: bytes) -> None:
        """Read until a request is complete; what follows it waits."""
        start = 0
        while start < len(data) and not (self._isBusy or self._isOver):
            end = self._request.end(data, start)
            self._took(data[start:end])
            start = end
        self._early = b"" if self._isOver else data[start:]

    def _took(self, piece: bytes) -> None:
        request = self._request
        if not request.hasBegun:
            self.setTimeout(REQUEST_TIMEOUT)
        HELD_REQUESTS.hold(self, len(piece), self._evict)
        if self._isOver:
            return
        try:
            request.take(piece)
        except Refusal as refusal:
            self._refuse(refusal.status, refusal.why)
            return
        if request.asksToGoOn:
            # The service is sent the request only when that is complete.
            self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        if request.isGood:
            self._complete(request)

    def _complete(self, request: HeldRequest) -> None:
        assert request.head is not None
        self.setTimeout(None)
        self._isBusy = True
        self._responses.toHead = request.head.method == b"HEAD"
        if self._service is None:
            self._dial()
        else:
            self._service.write(request.taken())

    def readConnectionLost(self) -> None:
        """The visitor sends no more, but may wait for an answer."""
        self._hasEnded = True
        if self._isOver:
            self.transport.loseConnection()
        elif not self._isBusy:
            self._leave()

    def writeConnectionLost(self) -> None:
        """What was said last has come."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._isOver = True
        self.setTimeout(None)
        self._release()

    def timeoutConnection(self) -> None:
        if self._isOver:
            self.transport.loseConnection()
        elif self._request.hasBegun:
            self._refuse(
                HTTPStatus.REQUEST_TIMEOUT,
                f"the request did not arrive within {REQUEST_TIMEOUT:.0f} seconds",
            )
        else:
            self._leave()

    # The service

    def _dial(self) -> None:
        try:
            RESERVE.checkVisitor()
        except TunnelError as refusal:
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, refusal.message)
            return
        factory = Factory.forProtocol(lambda: _Service(self))
        factory.noisy = False
        dialling = self._dialling = self._endpoint.connect(factory)
        if not getattr(self._endpoint, "limitsTime", False):
            dialling.addTimeout(CONNECT_TIMEOUT, self._rules.reactor)
        dialling.addErrback(self._notReached)

    def _notReached(self, failure: Failure) -> None:
        if self._isOver and failure.check(CancelledError):
            return
        self._refuse(
            HTTPStatus.BAD_GATEWAY,
            "the service was not reached",
            failure.getErrorMessage(),
        )

    def reached(self, transport: Any) -> None:
        """
        Take the connection to the service.

        @param transport: Its transport.
        """
        if self._isOver:
            transport.abortConnection()
            return
        self._service = transport
        self.transport.registerProducer(transport, True)
        transport.write(self._request.taken())

    def answered(self, data: bytes) -> None:
        """
        Pass on what the service answers.

        @param data: Some bytes, which are passed on as they are.
        """
        if self._isOver:
            return
        if not self._isBusy:
            # There is no request for that.
            self._leave()
            return
        self.transport.write(data)
        self._heard(self._responses.feed(data))

    def _heard(self, events: list[Event]) -> None:
        isDone = False
        for event in events:
            if isinstance(event, ResponseHead):
                self._answer = event
            elif isinstance(event, BadMessage):
                # Where it ends cannot be told, so it is the last answer.
                self._hasEnded = True
                return
            elif isinstance(event, MessageEnd):
                isDone = self._answer is not None and not self._answer.isInterim
        if isDone:
            self._answeredAll()

    def _answeredAll(self) -> None:
        head, answer = self._request.head, self._answer
        assert head is not None and answer is not None
        HELD_REQUESTS.releaseAll(self)
        self._request.forget()
        self._answer = None
        self._isBusy = False
        if not (head.keepAlive and answer.keepAlive) or answer.status == 101:
            self._leave()
            return
        early, self._early = self._early, b""
        self.setTimeout(IDLE_TIMEOUT)
        self._read(early)
        if self._isBusy or self._isOver:
            return
        if self._hasEnded:
            self._leave()
        elif self._isHeld:
            self._isHeld = False
            self.transport.resumeProducing()

    def serviceGone(self) -> None:
        """The service has closed the connection."""
        if self._isOver:
            return
        if self._isBusy and self._answer is None and not self._hasEnded:
            self._service = None
            self._refuse(
                HTTPStatus.BAD_GATEWAY, "the service closed the connection too early"
            )
            return
        self._leave()

    # The end

    def _evict(self, reason: TunnelError) -> None:
        self._refuse(
            HTTPStatus.SERVICE_UNAVAILABLE, "too many other requests are being held"
        )

    def _refuse(self, status: HTTPStatus, why: str, cause: str = "") -> None:
        """Answer why a request is refused, and take no other."""
        if self._isOver:
            return
        self._rules.bounded(
            self._log.warn,
            "{target}: a request from {visitor} was refused ({status}): {why}",
            self._rules.target,
            target=self._rules.target,
            visitor=self._who,
            status=status.value,
            why=f"{why}: {cause}" if cause else why,
        )
        if self._answer is not None:
            # In the middle of an answer, another one cannot be sent.
            self._isOver = True
            self._release()
            self.transport.abortConnection()
            return
        challenge = b""
        if status is HTTPStatus.UNAUTHORIZED:
            challenge = b'WWW-Authenticate: Signature realm="webhooks"\r\n'
        head = self._request.head
        toHead = head is not None and head.method == b"HEAD"
        body = f"{why}\n".encode()
        said = wholeResponse(status, body, challenge, withBody=not toHead)
        self.transport.write(said)
        self._leave()

    def _leave(self) -> None:
        """
        Send no more. For a while, what still comes is read and dropped: if the
        connection were closed at once, the kernel would drop what was sent.
        """
        self._isOver = True
        self._release()
        if self._hasEnded:
            self.transport.loseConnection()
            return
        self.setTimeout(LINGER)
        if self._isHeld:
            self.transport.resumeProducing()
        self.transport.loseWriteConnection()

    def _release(self) -> None:
        HELD_REQUESTS.releaseAll(self)
        self._request.forget()
        self._early = b""
        service, self._service = self._service, None
        if service is not None:
            self.transport.unregisterProducer()
            service.loseConnection()
        if self._dialling is not None:
            self._dialling.cancel()
