"""
The model: a tunnel, and a visitor's stream through it. No I/O.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from tristunnel.errors import TunnelError

if TYPE_CHECKING:
    from tristunnel.auth.realm import Identity
    from tristunnel.interfaces import End, IClientSide, IListener
    from tristunnel.observer import ServerObserver

__all__ = ["Stream", "Tunnel", "hostAndPort"]


def hostAndPort(host: str, port: int) -> str:
    """
    Write a host and a port as a URI does.
    """
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(eq=False)
class Tunnel:
    """
    A meeting place with two ends.

    @ivar id: Short, unique and public.
    @ivar owner: Who opened it.
    @ivar clientSide: Where visitors are served now, or C{None} while the
        client is away.
    @ivar observer: Told of visitors.
    @ivar seconds: The clock.
    @ivar uri: Where the client's end connects.
    @ivar hostname: The name that the caller knows this server by.
    @ivar name: The name that its owner gave it, or empty.
    @ivar listener: Where visitors come in.
    @ivar clientListener: Where raw connections of the client come in.
    @ivar secretHash: SHA-256 of the URI's secret, where it has one.
    @ivar visitorLimit: Visitors after whom the tunnel is over; 0 for none.
    @ivar visitorCount: Visitors so far.
    @ivar served: Visitors who reached a client's end.
    @ivar exhausted: Called when the last visitor has left.
    @ivar bytesIn: Bytes from visitors, of streams that are over.
    @ivar bytesOut: Bytes to visitors, of streams that are over.
    """

    id: str
    owner: Identity
    clientSide: IClientSide | None
    observer: ServerObserver
    seconds: Callable[[], float]
    uri: str = ""
    hostname: str = ""
    name: str = ""
    listener: IListener | None = None
    clientListener: IListener | None = None
    secretHash: bytes = b""
    visitorLimit: int = 0
    visitorCount: int = 0
    served: int = 0
    bytesIn: int = 0
    bytesOut: int = 0
    streams: set[Stream] = field(default_factory=set)
    closed: TunnelError | None = None
    exhausted: Callable[[Tunnel], None] = lambda tunnel: None

    @property
    def publicURI(self) -> str:
        """
        The URI without its secret: for logs and lists.
        """
        return self.uri.partition("#")[0]

    @property
    def address(self) -> str:
        """
        Where visitors connect, as a URI; empty without a listener.
        """
        if self.listener is None:
            return ""
        scheme, _, port = self.listener.address
        return f"{scheme}://{hostAndPort(self.hostname, port)}"

    def visitorArrived(self, visitor: End, address: str) -> None:
        """
        Serve a visitor.

        @param visitor: Its end, not yet joined.
        @param address: Where it came from, as C{HOST:PORT}.
        """
        self.visitorCount += 1
        stream = Stream(self, visitor, address, self.seconds())
        self.streams.add(stream)
        self.observer.visitorConnected(stream)
        waiting = sum(each.client is None for each in self.streams)
        if self.closed is not None:
            stream.refuse(self.closed)
        elif self.visitorLimit and self.served + waiting > self.visitorLimit:
            stream.refuse(TunnelError("limit-reached", "the tunnel's visitors came"))
        elif self.clientSide is None:
            stream.refuse(TunnelError("client-away"))
        else:
            self.clientSide.serve(stream)

    def streamOver(self, stream: Stream) -> None:
        """
        Count a stream that is over.
        """
        self.streams.discard(stream)
        self.bytesIn += stream.bytesIn
        self.bytesOut += stream.bytesOut
        self.observer.visitorGone(stream)
        if self.visitorLimit and self.served >= self.visitorLimit and not self.streams:
            self.exhausted(self)

    def close(self, reason: TunnelError) -> None:
        """
        Break every stream and take no more.
        """
        self.closed = reason
        for stream in list(self.streams):
            stream.reset(reason)


class Stream:
    """
    One visitor's conversation: two byte directions, each with its own end.

    @ivar tunnel: Where it belongs.
    @ivar visitor: The visitor's end.
    @ivar client: The client's end, once there is one.
    @ivar visitorAddress: Where the visitor came from.
    @ivar opened: When, in seconds of the tunnel's clock.
    @ivar reason: Why it broke, or C{None}.
    """

    def __init__(
        self, tunnel: Tunnel, visitor: End, visitorAddress: str, opened: float
    ) -> None:
        self.tunnel = tunnel
        self.visitor = visitor
        self.client: End | None = None
        self.visitorAddress = visitorAddress
        self.opened = opened
        self.reason: TunnelError | None = None
        self._open = 1

    @property
    def bytesIn(self) -> int:
        """
        Bytes that the visitor sent.
        """
        return self.visitor.received

    @property
    def bytesOut(self) -> int:
        """
        Bytes that the client's end sent.
        """
        return 0 if self.client is None else self.client.received

    def connect(self, client: End) -> None:
        """
        Join the visitor's end to the client's.
        """
        self.client = client
        self.tunnel.served += 1
        self._open = 2
        client.join(self.visitor, self._endClosed)
        self.visitor.join(client, self._endClosed)

    def refuse(self, reason: TunnelError) -> None:
        """
        Turn the visitor away; there is no client end for it.
        """
        if self._open:
            self.visitor.whileWaiting(lambda _: None)
            self.visitor.reset(reason)
            self._endClosed(reason)

    def reset(self, reason: TunnelError) -> None:
        """
        Break the stream, wherever it is.
        """
        if self.client is None:
            self.refuse(reason)
        else:
            self.reason = self.reason or reason
            self.client.reset(reason)
            self.visitor.reset(reason)

    def _endClosed(self, reason: TunnelError | None) -> None:
        """
        One end is over; after both, so is the stream.
        """
        self.reason = self.reason or reason
        self._open -= 1
        if self._open == 0:
            self.tunnel.streamOver(self)
