"""
A web site that bounds what its visitors can make it hold: the size of a body,
checked before the body is read, and the time that a request may take to come.

Twisted's own Site spools a body of any length to disk before the resource is
asked, waits for as long as a byte comes now and then, names its version, and
writes every request to the log.
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Protocol, cast

from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.error import UnsupportedMethod
from twisted.web.http import RESPONSES, HTTPChannel
from twisted.web.http_headers import Headers
from twisted.web.iweb import IRequest
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from tristunnel.errors import TunnelError
from tristunnel.rpc.plain import ErrorText, errorText

__all__ = ["MAX_BODY", "LimitedSite", "limitedSite"]

MAX_BODY = 2**20
"""Bytes of the longest body that is accepted."""

IDLE = 60.0
"""Seconds a connection may be silent while no request is being answered."""

REQUEST_TIME = 60.0
"""Seconds a whole request, body included, may take to come."""

LINGER = 2.0
"""Seconds for which we still read, and drop, what a refused visitor sends: to
close with unread bytes would reset the connection, and take the answer away
from the visitor."""

_LENGTH_DIGITS = 18

_LONGEST_NAME = 256
"""Bytes of a header's name. Twisted keeps the first 10,000 names that it meets for
ever, twice, and takes names of up to 16 KiB: 300 MiB for whoever asks."""

_UnknownChild = type(Resource().getChild(b"", cast(Request, None)))
"""The page of HTML that a Twisted resource answers for an unknown child."""


@implementer(IResource)
class _PlainSpoken:
    """
    A resource whose refusal of a method is a line of text, not HTML.
    """

    isLeaf = True

    def __init__(self, resource: IResource) -> None:
        self._resource = resource

    def getChildWithDefault(self, name: bytes, request: IRequest) -> IResource:
        """
        Never called, since this wraps what was found in the end.
        """
        raise NotImplementedError

    def putChild(self, path: bytes, child: IResource) -> None:
        """
        Never called, as above.
        """
        raise NotImplementedError

    def render(self, request: Request) -> bytes | int:
        """
        Render the resource.
        """
        try:
            return cast("bytes | int", self._resource.render(request))
        except UnsupportedMethod as error:
            if request.method == b"HEAD" and b"GET" in error.allowedMethods:
                raise  # Twisted answers it with a GET whose body it drops.
            allowed = b", ".join(error.allowedMethods)
            request.setHeader(b"Allow", allowed)
            return errorText(
                request, 405, f"Use {allowed.decode('latin-1')} here, nothing else."
            )


class LimitedRequest(Request):
    """
    A request with a body that is counted while it comes.
    """

    def handleContentChunk(self, data: bytes) -> None:
        """
        Take in a piece of the body.
        """
        channel = cast(LimitedChannel, self.channel)
        if channel.refused:
            return
        held = 0 if self.content is None else self.content.tell()
        if held + len(data) > channel.site.maxBody:
            channel.refuseBody()
            return
        super().handleContentChunk(data)

    def render(self, resrc: IResource) -> None:
        """
        Let a resource answer.
        """
        super().render(_PlainSpoken(resrc))

    def processingFailed(self, reason: Failure) -> Failure:
        """
        A resource raised an exception: log it, and tell the visitor nothing.
        """
        self._log.failure("A web resource failed", failure=reason)
        if not self.startedWriting:
            body = errorText(self, 500, "Internal error")
            self.setHeader(b"Content-Length", b"%d" % len(body))
            self.write(body)
        self.finish()
        return reason


class Waiting(Protocol):
    """
    Whoever counts connections from which nothing is to be done.
    """

    def known(self) -> None:
        """
        A request is there, or the connection is gone.
        """

    def again(self) -> None:
        """
        The request was answered, and another is waited for.

        @raise TunnelError: If the connection has to go.
        """


class LimitedChannel(HTTPChannel):
    """
    An HTTP/1 connection that refuses bodies which are too long, and visitors
    who are too slow.

    @ivar site: The site that is visited.
    @ivar refused: Whether all that still comes is dropped.
    @ivar stranger: Told when a whole request is there, and when the next one
        is waited for; may be C{None}.
    """

    requestFactory = LimitedRequest
    site: LimitedSite
    refused = False
    stranger: Waiting | None = None
    _answering = False
    _deadline: IDelayedCall | None = None

    def dataReceived(self, data: bytes) -> None:
        """
        Bytes came from the visitor.
        """
        if self.refused:
            return
        if self._deadline is None and not self._answering:
            self._startClock(self.site.requestTime, self._tooSlow)
        super().dataReceived(data)

    def lineReceived(self, line: bytes) -> None:
        """
        A line of the head came.
        """
        if not self.refused:
            super().lineReceived(line)

    def rawDataReceived(self, data: bytes) -> None:
        """
        A piece of the body came, or of the next request.
        """
        if not self.refused:
            super().rawDataReceived(data)

    def headerReceived(self, line: bytes) -> bool:
        """
        A header came.

        @return: Whether to go on.
        """
        name, _, value = line.partition(b":")
        if len(name) > _LONGEST_NAME:
            self._refuse(400, "The name of a header is too long.")
            return False
        if name.lower() == b"content-length" and len(value.strip()) > _LENGTH_DIGITS:
            # Python would not even turn thousands of digits into a number.
            self.refuseBody()
            return False
        return cast(
            bool,
            super().headerReceived(line),
        )

    def allHeadersReceived(self) -> None:
        """
        The head is complete: judge the announced length before any of the body
        is read, and before a client that waits for C{100 Continue} sends it.
        """
        if self.length is not None and self.length > self.site.maxBody:
            self.refuseBody()
        else:
            super().allHeadersReceived()

    def allContentReceived(self) -> None:
        """
        The request is complete.
        """
        if self.refused:
            return
        self._stopClock()
        self._answering = True
        if self.stranger is not None:
            self.stranger.known()
        super().allContentReceived()

    def requestDone(self, request: Request) -> None:
        """
        A request was answered; the next one may begin, if there is room for
        one more that waits.
        """
        self._answering = False
        if self.stranger is not None and self.persistent:
            try:
                self.stranger.again()
            except TunnelError:
                self.persistent = False
        super().requestDone(request)

    def writeHeaders(
        self, version: bytes, code: bytes, reason: bytes, headers: Headers
    ) -> None:
        """
        Write the head of an answer, without telling which versions we run.
        """
        headers.removeHeader(b"Server")
        super().writeHeaders(version, code, reason, headers)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """
        The connection is gone.
        """
        self._stopClock()
        super().connectionLost(reason)

    def refuseBody(self) -> None:
        """
        Answer that the body is too long, and close.
        """
        self._refuse(413, f"A body may have {self.site.maxBody} bytes, not more.")

    def _tooSlow(self) -> None:
        """
        The request did not come in time.
        """
        self._deadline = None
        self._refuse(408, "The request took too long to come.")

    def _refuse(self, code: int, message: str) -> None:
        """
        Answer with an error before the request is complete, and close.
        """
        if self.refused:
            return
        self.refused = True
        self._stopClock()
        self.setTimeout(None)
        body = message.encode("utf-8") + b"\n"
        transport = self.transport
        assert transport is not None
        transport.write(
            b"HTTP/1.1 %d %s\r\n"
            b"Content-Type: text/plain; charset=utf-8\r\n"
            b"Content-Length: %d\r\n"
            b"Connection: close\r\n\r\n%s" % (code, RESPONSES[code], len(body), body)
        )
        if ITCPTransport.providedBy(transport) and not ISSLTransport.providedBy(
            transport
        ):
            transport.loseWriteConnection()
        self._startClock(self.site.linger, self._lingered)

    def _lingered(self) -> None:
        """
        The visitor had time to read why it was refused.
        """
        self._deadline = None
        self.loseConnection()

    def _startClock(self, seconds: float, then: Callable[[], None]) -> None:
        """
        Have C{then} called, unless the clock is stopped before.
        """
        self._deadline = self.callLater(seconds, then)

    def _stopClock(self) -> None:
        """
        Stop whatever clock runs.
        """
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class LimitedSite(Site):
    """
    A site with limits.

    @ivar maxBody: Bytes that a body may have.
    @ivar requestTime: Seconds that a request may take to come.
    @ivar linger: Seconds for which a refused visitor is still listened to.
    """

    protocol = LimitedChannel  # type: ignore[assignment]
    displayTracebacks = False

    def __init__(
        self,
        resource: IResource,
        *,
        reactor: IReactorTime,
        maxBody: int = MAX_BODY,
        idle: float = IDLE,
        requestTime: float = REQUEST_TIME,
        linger: float = LINGER,
    ) -> None:
        """
        @param resource: The root.
        @param reactor: The clock.
        @param maxBody: Bytes that a body may have.
        @param idle: Seconds that a connection may be silent.
        @param requestTime: Seconds that a request may take to come.
        @param linger: Seconds for which a refused visitor is still read from.
        """
        super().__init__(
            resource,
            requestFactory=LimitedRequest,
            parsePOSTFormSubmission=False,
            reactor=reactor,
            timeout=idle,
        )
        self.maxBody = maxBody
        self.requestTime = requestTime
        self.linger = linger

    def getContentFile(self, length: int | None) -> BytesIO:
        """
        Where a body is kept: in memory, since it is short, and not in a file,
        which would cost a descriptor.
        """
        return BytesIO()

    def getResourceFor(self, request: Request) -> IResource:
        """
        Find the resource that answers a request.
        """
        found: IResource = super().getResourceFor(request)
        if isinstance(found, _UnknownChild):
            return ErrorText(404, "There is nothing at this address.")
        return found

    def startFactory(self) -> None:
        """
        Open no access log, nor start the clock that Twisted keeps for it.
        """

    def stopFactory(self) -> None:
        """
        There is nothing to stop.
        """

    def log(self, request: Request) -> None:  # type: ignore[override]
        """
        Write nothing about a request.
        """


def limitedSite(
    resource: IResource, *, reactor: IReactorTime, maxBody: int = MAX_BODY
) -> LimitedSite:
    """
    Make a site with limits.

    @param resource: The root.
    @param reactor: The clock.
    @param maxBody: Bytes that a body may have.
    """
    return LimitedSite(resource, reactor=reactor, maxBody=maxBody)
