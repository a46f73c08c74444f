"""
One request and its response, as far as they have come.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from tristunnel.errors import TunnelError
from tristunnel.names.heads import responseBytes, trailerBytes
from tristunnel.names.origin import Origin
from tristunnel.names.table import Route
from tristunnel.wire.http import (
    BadMessage,
    Event,
    MessageEnd,
    RequestHead,
    ResponseHead,
)

__all__ = ["Connection", "Exchange", "Reception"]

_REPEATABLE = frozenset((b"GET", b"HEAD", b"OPTIONS"))


class Reception(Protocol):
    """What waits for a gate to decide on a request."""

    def take(self, event: Event) -> bool:
        """
        Take what comes behind the head.

        @return: Whether it was its turn.
        """

    def cancel(self) -> None:
        """The visitor has left, or was answered."""


class Connection(Protocol):
    """A visitor's connection."""

    def breakOff(self) -> None:
        """Close it at once."""


@dataclass(eq=False, slots=True)
class Exchange:
    """
    A request and its response.

    @ivar head: The request's head.
    @ivar host: The name that it is for.
    @ivar origin: Where it comes from.
    @ivar began: When its head was there, in seconds.
    @ivar route: Where it goes, or C{None}.
    @ivar written: Its head as the service gets it.
    @ivar reused: Whether it goes by a connection that had requests before.
    @ivar keepAlive: Whether the visitor may send another one on its connection.
    @ivar came: Bytes of its body so far.
    @ivar isWatched: Whether the rest of that is to come in time.
    @ivar requestDone: Whether all of it has come.
    @ivar response: The response's head, once there is one.
    @ivar responseDone: Whether all of that has come.
    @ivar chunks: Whether the visitor gets the response in chunks.
    @ivar isInterim: Whether what the service sends now is followed by a response.
    @ivar isUpgraded: Whether the service has agreed to another protocol.
    @ivar sent: Bytes of the response's body so far.
    @ivar reception: Where it waits for a gate, or C{None}.
    @ivar connection: The visitor's connection, for a gate; else C{None}.
    """

    head: RequestHead
    host: str
    origin: Origin
    began: float
    route: Route | None = None
    written: bytes = b""
    reused: bool = False
    keepAlive: bool = True
    came: int = 0
    isWatched: bool = False
    requestDone: bool = False
    response: ResponseHead | None = None
    responseDone: bool = False
    chunks: bool = False
    isInterim: bool = False
    isUpgraded: bool = False
    sent: int = 0
    reception: Reception | None = None
    connection: Connection | None = None

    @property
    def isRepeatable(self) -> bool:
        """
        Whether it can be sent again if the connection to the service has gone in the
        meantime (RFC 9110, section 9.2.2), and all of it is still here.
        """
        return self.head.method in _REPEATABLE and not self.head.hasBody

    @property
    def mayRepeat(self) -> bool:
        """Whether it is to be sent again, since nothing of a response has come."""
        return (
            self.reused
            and self.isRepeatable
            and self.response is None
            and not self.isInterim
        )

    def answered(self, event: Event) -> bytes:
        """
        Take the next part of what the service answers.

        @param event: What a L{ResponseReader<tristunnel.wire.http.ResponseReader>} has
            read of it.
        @return: The same as the visitor gets it; empty for nothing.
        @raise TunnelError: C{protocol-error}, if it is no answer to this request.
        """
        if self.responseDone:
            raise TunnelError("protocol-error", "an answer too many")
        if isinstance(event, bytes):
            self.sent += len(event)
            return b"%x\r\n%b\r\n" % (len(event), event) if self.chunks else event
        if isinstance(event, MessageEnd):
            if self.isInterim:
                self.isInterim = False
                return b""
            self.responseDone = True
            return trailerBytes(event.trailers, False) if self.chunks else b""
        if isinstance(event, BadMessage):
            raise TunnelError("protocol-error", event.reason)
        assert isinstance(event, ResponseHead)
        return self._begun(event)

    def _begun(self, head: ResponseHead) -> bytes:
        assert self.route is not None
        framing = b""
        if head.status == 101:
            if not (head.upgrade and self.head.upgrade):
                why = "the service has upgraded without being asked"
                raise TunnelError("protocol-error", why)
            self.response, self.isUpgraded = head, True
        elif head.isInterim:
            self.isInterim = True
            if self.head.version == "1.0":
                # HTTP/1.0 does not have that.
                return b""
        else:
            framing = self._framed(head)
        scheme = self.origin.scheme
        return responseBytes(head, self.route.rules, self.head, scheme, framing)

    def _framed(self, head: ResponseHead) -> bytes:
        """
        Decide how the visitor learns where the response ends.

        @param head: The response's.
        @return: The lines that say so.
        """
        self.response = head
        old = self.head.version == "1.0"
        bodiless = head.status in (204, 304) or self.head.method == b"HEAD"
        lines = b""
        if head.length is not None and head.status != 204:
            lines = b"Content-Length: %d\r\n" % head.length
        elif not bodiless:
            if old:
                self.keepAlive = False
            else:
                self.chunks = True
                lines = b"Transfer-Encoding: chunked\r\n"
        if not self.keepAlive:
            return lines + b"Connection: close\r\n"
        return lines + b"Connection: keep-alive\r\n" if old else lines
