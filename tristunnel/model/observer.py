"""
What an embedding program is told, in the terms of W3P's events.

Subclass and override what is of interest; every method does nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, TypeVar

from twisted.internet.interfaces import IAddress

from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Tunnel, VisitorObserver

__all__ = ["ClientObserver", "Counted", "ServerObserver", "Visit", "severalObservers"]


class ServerObserver(VisitorObserver):
    """Told what happens at a server."""

    def serverStarted(self, port: str, address: IAddress) -> None:
        """
        A port is open for clients.

        @param port: The endpoint string it was asked for by.
        """

    def namesPortOpened(self, port: str, address: IAddress) -> None:
        """
        A port is open for visitors of names, and for nobody else.

        @param port: The endpoint string it was asked for by.
        """

    def clientConnected(self, peer: IAddress, identity: Identity, dialect: str) -> None:
        """A client has been let in."""

    def clientGone(
        self, peer: IAddress, identity: Identity, reason: TunnelError
    ) -> None:
        """A client's session is over."""

    def authenticationFailed(self, peer: IAddress, reason: TunnelError) -> None:
        """A client was not let in."""

    def tunnelCreated(self, tunnel: Tunnel) -> None:
        """A tunnel is open for visitors."""

    def tunnelDestroyed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """A tunnel is over."""

    def healthChanged(self, tunnel: Tunnel) -> None:
        """A tunnel's service is well now, or is not any more."""

    def roundTripMeasured(self, seconds: float) -> None:
        """A client has answered a ping, so many seconds after it was sent."""

    def requestNoted(self, identity: Identity, text: str, refused: bool) -> None:
        """
        A client has changed something, or was refused something in a dialect that can
        hardly tell it so, and no other method here is about that.

        @param text: What has happened, in one line.
        """

    def peerRefused(self, peer: IAddress, reason: TunnelError) -> None:
        """
        A connection was closed before its peer was known: because of wrong first bytes,
        a broken handshake, or silence.
        """


class ClientObserver:
    """Told what happens at a client."""

    def connected(self, peer: IAddress) -> None:
        """The connection to the server has been made."""

    def credentialsSent(self, peer: IAddress) -> None:
        """The handshake is under way."""

    def acknowledged(self, dialect: str) -> None:
        """The server has admitted this client."""

    def tunnelReady(self, address: str, target: str) -> None:
        """Visitors can connect to C{address} now."""

    def tunnelFailed(self, wanted: str, reason: TunnelError) -> None:
        """The server did not open a tunnel, or closed it."""

    def openingQueued(self, delay: float) -> None:
        """Tunnels that were refused are asked for again after C{delay} seconds."""

    def tunnelOpened(self, spec: str, uri: str, address: str, target: str) -> None:
        """
        A tunnel of a forward is open; C{tunnelReady} follows.

        @param spec: The forward, as the user wrote it.
        """

    def knockLinkMade(self, address: str, link: str) -> None:
        """
        Visitors of a tunnel have to knock; C{tunnelReady} was told before.

        @param address: Where they connect, as C{tunnelReady} has told it.
        @param link: Where they knock.
        """

    def tunnelClosed(self, uri: str) -> None:
        """A tunnel that was open is closed."""

    def forwardWithdrawn(self, spec: str) -> None:
        """
        A forward is no longer offered, or leads elsewhere and has another text
        from now on.

        @param spec: The forward, as C{tunnelOpened} has told it.
        """

    def disconnected(self, reason: TunnelError) -> None:
        """The session is over, or never began."""

    def reconnectQueued(self, delay: float) -> None:
        """The next attempt comes after C{delay} seconds."""

    def gaveUp(self, reason: TunnelError) -> None:
        """No attempt follows, since trying again would be of no use."""

    def serviceConnected(self, target: str) -> None:
        """A stream has reached its service."""

    def serviceSpeaks(self, target: str, kind: str) -> None:
        """
        A service has answered for the first time.

        @param kind: What it speaks: C{"http"}, C{"https"} or C{"other"}.
        """

    def serviceMissing(self, target: str) -> None:
        """A tunnel is open, but nothing listens at its service's address yet."""

    def serviceFound(self, target: str) -> None:
        """A service that was missing has appeared."""

    def serviceHealth(self, target: str, isWell: bool, reason: str) -> None:
        """
        A check has found out that a service is well, or that it is not.

        @param reason: Why it is not.
        """

    def serviceOnDemand(self, target: str, state: str, said: str) -> None:
        """
        A service that is started for its visitors has changed.

        @param state: C{"starting"}, C{"up"}, C{"asleep"} or C{"failed"}.
        @param said: The same in words, to follow its name.
        """

    def serviceProven(self, target: str) -> None:
        """A service has passed a check, as at each of them while it is well."""

    def serviceFailed(self, target: str, reason: TunnelError) -> None:
        """A stream did not reach its service."""

    def serviceGone(
        self, target: str, received: int, sent: int, reason: TunnelError | None
    ) -> None:
        """
        A stream is over.

        @param received: Bytes from the service.
        @param sent: Bytes to the service.
        """

    def portReady(self, address: str, what: str) -> None:
        """A port of this machine is open for visitors of what a server offers."""

    def visitorRefused(self, target: str, reason: TunnelError) -> None:
        """A visitor of such a port was turned away."""

    def roundTripMeasured(self, seconds: float) -> None:
        """The way to the server and back took C{seconds}."""

    def stopped(self) -> None:
        """The client has stopped, as it was told to."""

    def visitorConnected(self, visit: Visit) -> None:
        """
        The same as C{serviceConnected}, with all that is known: C{visit} counts
        while it lasts.
        """

    def visitorGone(self, visit: Visit, reason: TunnelError | None) -> None:
        """The same as C{serviceGone}, with all that is known."""


_Observer = TypeVar("_Observer", ServerObserver, ClientObserver)


def severalObservers(kind: type[_Observer], *observers: _Observer) -> _Observer:
    """
    Make an observer that passes on all that it is told.

    @param kind: L{ServerObserver} or L{ClientObserver}.
    @param observers: To whom, in this order.
    """

    several = kind()
    for name in dir(kind):
        if name.startswith("_"):
            continue
        # Most observers ignore most methods, some of which are called for every
        # visitor.
        methods = [
            getattr(observer, name)
            for observer in observers
            if getattr(type(observer), name, None) is not getattr(kind, name)
            or name in getattr(observer, "__dict__", ())
        ]
        if methods:
            several.__dict__[name] = _passOn(methods)
    return several


def _passOn(methods: list[Callable[..., None]]) -> Callable[..., None]:
    """Make of several methods one that calls them all."""
    if len(methods) == 1:
        return methods[0]

    def tell(*arguments: Any) -> None:
        for method in methods:
            method(*arguments)

    return tell


class Counted(Protocol):
    """An end that counts bytes."""

    @property
    def received(self) -> int:
        """Bytes read so far."""


class Visit:
    """
    Two ends that are joined: tells the observer of the beginning, and of the
    end once both are over.

    @param target: The service, as messages name it.
    @param service: The service's end.
    @param stream: The visitor's.
    @param info: What the server said of the visitor.
    @param observer: Told of it.

    @ivar number: Tells it from others, once somebody has numbered it; 0 before that.
    @ivar visitor: The visitor's address, or empty if the server did not say.
    @ivar tunnel: The tunnel's URI, or empty likewise.
    """

    __slots__ = (
        "__weakref__",
        "_observer",
        "_open",
        "_reason",
        "_service",
        "_stream",
        "number",
        "target",
        "tunnel",
        "visitor",
    )

    def __init__(
        self,
        target: str,
        service: Counted,
        stream: Counted,
        info: Mapping[str, object],
        observer: ClientObserver,
    ) -> None:
        visitor, tunnel = info.get("visitor"), info.get("tunnel")
        self.target = target
        self.number = 0
        self.visitor = visitor[:200] if isinstance(visitor, str) else ""
        self.tunnel = tunnel if isinstance(tunnel, str) else ""
        self._service = service
        self._stream = stream
        self._observer = observer
        self._reason: TunnelError | None = None
        self._open = 2
        observer.serviceConnected(target)
        observer.visitorConnected(self)

    @property
    def bytesIn(self) -> int:
        """Bytes from the visitor."""
        return self._stream.received

    @property
    def bytesOut(self) -> int:
        """Bytes to the visitor."""
        return self._service.received

    def ended(self, reason: TunnelError | None) -> None:
        """Note that one end is over."""
        self._reason = self._reason or reason
        self._open -= 1
        if not self._open:
            self.over(self._reason)

    def over(self, reason: TunnelError | None) -> None:
        """Note that both ends are over."""
        received, sent = self._service.received, self._stream.received
        self._observer.serviceGone(self.target, received, sent, reason)
        self._observer.visitorGone(self, reason)
