"""
A web site that bounds what its visitors can make it hold: the size of a body,
checked before the body is read, and the time that a request may take to come.

Twisted's own Site spools a body of any length to disk before the resource is
asked, waits for as long as a byte comes now and then, names its version, and
writes every request to the log.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from io import BytesIO
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.error import UnsupportedMethod
from twisted.web.http import HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

from tristunnel.dataplane.closing import WriteDeadline
from tristunnel.dataplane.memory import HELD, HeldBytes
from tristunnel.errors import TunnelError
from tristunnel.http.plain import ErrorText, errorText, refusalOf
from tristunnel.service.preauth import PendingConnection
from tristunnel.wire.http_answer import wholeResponse

__all__ = ["MAX_BODY", "Admit", "LimitedSite", "requestKnown"]

MAX_BODY = 2**20
"""Bytes of the longest body that is accepted."""

IDLE = 50.0
"""Seconds a connection may be silent while no request is being answered."""

REQUEST_TIME = 50.0
"""Seconds a whole request, body included, may take to come."""

ANSWER_TIME = 30.0
"""Seconds in which a visitor must take an answer: all of it if the visitor is unknown,
else some of it."""

LINGER = 2.0
"""Seconds for which we still read, and drop, what a refused visitor sends: to
close with unread bytes would reset the connection, and take the answer away
from the visitor."""

UNKNOWN_BODIES = 16 * 2**20
"""Bytes of the bodies that are kept for all unauthenticated senders."""

_LENGTH_DIGITS = 18

_LONGEST_NAME = 256
"""Bytes of a header's name. Twisted keeps the first 10,000 names that it meets forever,
twice, and accepts names of up to 16 KiB: that is 300 MiB for anybody who wants."""

_UnknownChild = type(Resource().getChild(b"", cast(Request, None)))
"""The HTML page that a Twisted resource gives for an unknown child."""


Admit = Callable[[Request], object]
"""Finds out who sent a request, or raises L{TunnelError}, also by a Deferred."""


class _BodyBudget(HeldBytes):
    """
    Bounds the bodies of unauthenticated connections: when they are too much, those that
    make no progress have to go, the longest first.
    """

    def tell(self, before: int, ended: int) -> None:
        """Log nothing: a crowd could cause a line with each of its bytes."""


BODIES = _BodyBudget(UNKNOWN_BODIES)
"""The bodies that this process keeps for unauthenticated senders."""


class _PlainSpoken(Resource):
    """A resource whose refusal of a method is a line of text, not HTML."""

    def __init__(self, resource: IResource) -> None:
        super().__init__()
        self._resource = resource

    def render(self, request: Request) -> bytes | int:
        try:
            return cast("bytes | int", self._resource.render(request))
        except UnsupportedMethod as error:
            if request.method == b"HEAD" and b"GET" in error.allowedMethods:
                raise  # Twisted answers it with a GET whose body it drops.
            allowed = b", ".join(error.allowedMethods)
            request.setHeader(b"Allow", allowed)
            return errorText(request, 405, f"Use {allowed.decode('latin-1')} here.")


class LimitedRequest(Request):
    """
    A request with a body that is counted while it comes.

    @ivar sender: What L{LimitedSite.admit} has said of its sender; C{None} if it
        was not asked.
    """

    sender: object = None

    def handleContentChunk(self, data: bytes) -> None:
        channel = cast(LimitedChannel, self.channel)
        if channel.refused:
            return
        held = 0 if self.content is None else self.content.tell()
        if held + len(data) > channel.site.maxBody:
            channel.refuseBody()
            return
        # This comes first, since it may be the one that has to go.
        channel.holdBody(len(data))
        if not channel.refused:
            super().handleContentChunk(data)

    def render(self, resrc: IResource) -> None:
        super().render(_PlainSpoken(resrc))

    def processingFailed(self, reason: Failure) -> Failure:
        self._log.failure("A web resource failed", failure=reason)
        if not self.startedWriting:
            body = errorText(self, 500, "Internal error")
            self.setHeader(b"Content-Length", b"%d" % len(body))
            self.write(body)
        self.finish()
        return reason


def requestKnown(request: Request, isKnown: bool = True) -> None:
    """
    Note that a request does not wait for a login any more: its sender was let in, or
    somebody else takes care of the connection from now on.

    @param isKnown: Whether the sender has authenticated.
    """
    channel = request.channel
    if isinstance(channel, LimitedChannel):
        channel.isKnown = isKnown
        if channel.pending is not None:
            channel.pending.known()


class LimitedChannel(HTTPChannel):
    """
    An HTTP/1 connection that refuses bodies which are too long, and visitors
    who are too slow.

    @ivar site: The site that is visited.
    @ivar refused: Whether all that still comes is dropped.
    @ivar pending: Counts this connection while it is not known who it is; may be
        C{None}.
    @ivar isKnown: Whether the sender of the latest request has authenticated.
    """

    requestFactory = LimitedRequest
    site: LimitedSite
    refused = False
    pending: PendingConnection | None = None
    isKnown = False
    _answering = False
    _closing = False
    _deadline: IDelayedCall | None = None
    _writing: WriteDeadline | None = None
    _asking: Deferred[object] | None = None
    _turn: IDelayedCall | None = None
    _continues = False

    def dataReceived(self, data: bytes) -> None:
        if self.refused or self._closing:
            return
        if self._deadline is None and not self._answering:
            self._startClock(self.site.requestTime, self._tooSlow)
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        if not self.refused:
            super().lineReceived(line)

    def rawDataReceived(self, data: bytes) -> None:
        if self.refused:
            return
        super().rawDataReceived(data)
        if self._handlingRequest and self._waitingForTransport:
            # Twisted would go on reading, without a bound.
            self._networkProducer.pauseProducing()

    def headerReceived(self, line: bytes) -> bool:
        name, _, value = line.partition(b":")
        if len(name) > _LONGEST_NAME:
            self._refuse(400, "The name of a header is too long.")
            return False
        if name.lower() == b"content-length" and len(value.strip()) > _LENGTH_DIGITS:
            # Python would not even turn thousands of digits into a number.
            self.refuseBody()
            return False
        return cast(bool, super().headerReceived(line))

    def allHeadersReceived(self) -> None:
        # The announced length and the sender are judged before any of the body is
        # read, and before a client that waits for 100 Continue sends it.
        self.isKnown = False
        if self.length is not None and self.length > self.site.maxBody:
            self.refuseBody()
            return
        super().allHeadersReceived()
        if self.length != 0 and self.site.admit is not None:
            self._ask(self.requests[-1], self.site.admit)

    def _ask(self, request: LimitedRequest, admit: Admit) -> None:
        def admitted(sender: object) -> None:
            request.sender = sender

        def refused(failure: Failure) -> None:
            if failure.check(TunnelError):
                refusal = cast(TunnelError, failure.value)
                status, headers = refusalOf(refusal)
                self._refuse(status, refusal.message, headers)
            elif not failure.check(CancelledError):
                request.processingFailed(failure)

        def done(result: object) -> None:
            self._asking = None
            if self.refused or self.transport is None:
                return
            if self._continues:
                self._continues = False
                HTTPChannel._send100Continue(self)
            self._readOn()

        asking = self._asking = maybeDeferred(admit, request)
        asking.addCallbacks(admitted, refused).addBoth(done)
        if self._asking is not None:
            self._pauseReading()

    def _send100Continue(self) -> None:
        if self.site.admit is None:
            super()._send100Continue()
        else:
            self._continues = True

    def allContentReceived(self) -> None:
        if self.refused:
            return
        self._stopClock()
        self._answering = True
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        # The next one may begin when there is room for one more that waits, and most of
        # the answer was taken.
        self._answering = False
        self._releaseBody()
        if self.pending is not None and (self.persistent or not self.isKnown):
            try:
                self.pending.again()
            except TunnelError:
                self.persistent = False
        behind = self.persistent and (self._buffer or any(self._dataBuffer))
        if self._waitingForTransport or behind:
            # Twisted goes on with what it has read: hundreds of requests, each
            # with an answer to hold, while everybody else waits.
            self._pauseReading()
        if behind and self._turn is None:
            self._turn = self.callLater(0, self._nextTurn)
        super().requestDone(request)
        if self._turn is not None:
            # Twisted has let the kernel read again.
            self._pauseReading()

    def _nextTurn(self) -> None:
        """Take the next pipelined request, now that others have had their turn."""
        self._turn = None
        self._readOn()

    # What the visitor does not take

    def pauseProducing(self) -> None:
        super().pauseProducing()
        if self._writing is None:
            self._writing = self._writeDeadline()

    def _writeDeadline(self) -> WriteDeadline:
        return WriteDeadline(
            self.site.reactor, self.transport, self.site.answerTime, self.isKnown
        )

    def resumeProducing(self) -> None:
        super().resumeProducing()
        self._stopWriting()
        if not self._handlingRequest:
            self._readOn()

    def _pauseReading(self) -> None:
        self.paused = True
        self._networkProducer.pauseProducing()

    def _readOn(self) -> None:
        waits = self._asking is not None or self._turn is not None
        if waits or self._waitingForTransport:
            self._networkProducer.pauseProducing()
        elif self.paused:
            self.paused = False
            self._networkProducer.resumeProducing()
            if self._buffer:
                self.dataReceived(b"")

    def loseConnection(self) -> None:
        if self._closing:
            return
        self._closing = True
        self._stopClock()
        self._stopTurn()
        self._stopWriting()
        self.setTimeout(None)
        network: Any = self._networkProducer
        network.unregisterProducer()
        self._writing = self._writeDeadline()
        self._writing.close()

    def timeoutConnection(self) -> None:
        self.loseConnection()

    def lineLengthExceeded(self, line: bytes) -> None:
        self._refuse(400, "A line of the request is too long.")

    def writeHeaders(
        self, version: bytes, code: bytes, reason: bytes, headers: Headers
    ) -> None:
        headers.removeHeader(b"Server")
        super().writeHeaders(version, code, reason, headers)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._stopClock()
        self._stopTurn()
        self._stopWriting()
        self._releaseBody()
        if self._asking is not None:
            self._asking.cancel()
        super().connectionLost(reason)

    def holdBody(self, size: int) -> None:
        """Count bytes of a body until its request is answered."""
        # Those of authenticated senders count for --max-memory.
        budget = HELD if self.isKnown else self.site.bodies
        budget.hold(self, size, self._evicted)

    def _releaseBody(self) -> None:
        HELD.releaseAll(self)
        self.site.bodies.releaseAll(self)

    def _evicted(self, reason: TunnelError) -> None:
        if self._answering:
            transport: Any = self.transport
            transport.abortConnection()
        else:
            self._refuse(503, "The server is out of memory for requests at the moment.")

    def refuseBody(self) -> None:
        """Answer that the body is too long, and close."""
        self._refuse(413, f"A body may have {self.site.maxBody} bytes at most.")

    def _tooSlow(self) -> None:
        self._deadline = None
        self._refuse(408, "The request took too long to arrive.")

    def _refuse(
        self, code: int, message: str, headers: Sequence[tuple[str, str]] = ()
    ) -> None:
        if self.refused or self._closing:
            return
        self.refused = True
        self._stopClock()
        self._releaseBody()
        for request in self.requests:
            # It would be kept as long as the visitor goes on.
            request.content = None
        self.setTimeout(None)
        transport = self.transport
        assert transport is not None
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers)
        body = message.encode("utf-8") + b"\n"
        transport.write(wholeResponse(code, body, lines.encode("ascii")))
        isTLS = ISSLTransport.providedBy(transport)
        if ITCPTransport.providedBy(transport) and not isTLS:
            transport.loseWriteConnection()
        self._startClock(self.site.linger, self._lingered)

    def _lingered(self) -> None:
        self._deadline = None
        self.loseConnection()

    def _startClock(self, seconds: float, then: Callable[[], None]) -> None:
        self._deadline = self.callLater(seconds, then)

    def _stopClock(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _stopTurn(self) -> None:
        if self._turn is not None:
            self._turn.cancel()
            self._turn = None

    def _stopWriting(self) -> None:
        if self._writing is not None:
            self._writing.cancel()
            self._writing = None


class LimitedSite(Site):
    """
    A site with limits.

    @param resource: The root.
    @param reactor: The clock.
    @param admit: See the attribute.

    @ivar maxBody: Bytes that a body may have.
    @ivar requestTime: Seconds that a request may take to come.
    @ivar linger: Seconds for which a refused visitor is still listened to.
    @ivar answerTime: Seconds in which a visitor must take an answer.
    @ivar admit: Finds out who sends a request with a body, before the body is read;
        L{LimitedRequest.sender} is what it says. May be C{None}.
    @ivar bodies: Counts the bodies of unauthenticated senders.
    """

    protocol = LimitedChannel  # type: ignore[assignment] # the base class names a private type
    displayTracebacks = False
    maxBody = MAX_BODY
    requestTime = REQUEST_TIME
    linger = LINGER
    answerTime = ANSWER_TIME
    bodies = BODIES

    def __init__(
        self, resource: IResource, *, reactor: IReactorTime, admit: Admit | None = None
    ) -> None:
        super().__init__(
            resource,
            requestFactory=LimitedRequest,
            parsePOSTFormSubmission=False,
            reactor=reactor,
            timeout=IDLE,
        )
        self.admit = admit

    def getContentFile(self, length: int | None) -> BytesIO:
        return BytesIO()

    def getResourceFor(self, request: Request) -> IResource:
        found: IResource = super().getResourceFor(request)
        if isinstance(found, _UnknownChild):
            return ErrorText(404, "There is nothing at this address.")
        return found

    # No access log, and no clock that Twisted keeps for it.

    def startFactory(self) -> None:
        pass

    def stopFactory(self) -> None:
        pass

    def log(self, request: Request) -> None:  # type: ignore[override] # the base class's is another Request
        pass
