"""Who asks the tunnel service, and for what; and what the service promises."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from zope.interface import Interface

from tristunnel.errors import TunnelError
from tristunnel.interfaces import End
from tristunnel.model.options import TunnelOptions
from tristunnel.model.permissions import Identity
from tristunnel.model.place import IListener
from tristunnel.model.ports import Reserve
from tristunnel.model.rendezvous import WaitingRoom
from tristunnel.model.tunnel import IClientSide, Tunnel
from tristunnel.service.leases import Lease
from tristunnel.util.hosts import hostAndPort, hostSaid

__all__ = ["Caller", "ITunnelService", "Listeners", "OpensVia", "Via"]


@dataclass(frozen=True)
class Caller:
    """
    Who asks, and how they reached this server.

    @ivar identity: Who it is.
    @ivar host: The name or address that the caller knows this server by, in
        ASCII; what is neither becomes C{localhost}, since URIs are made of it.
    @ivar port: The port through which the caller came; 0 if there is none.
    @ivar clientSide: The session that asks, or C{None} for calls by HTTP or from
        Python.
    @ivar lease: What keeps the session's tunnels open.
    @ivar limitedTo: The one tunnel that the caller may ask about, if it came
        with no more than that tunnel's URI.
    @ivar address: Tells apart callers of whom nothing is known: where they come from,
        or empty for a local socket.
    @ivar secure: Whether the caller came over TLS.
    @ivar certificate: The name in the certificate that it has shown, or empty.
    """

    identity: Identity
    host: str
    port: int = 0
    clientSide: IClientSide | None = None
    lease: Lease | None = None
    limitedTo: Tunnel | None = None
    address: str = ""
    secure: bool = False
    certificate: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "host", hostSaid(self.host) or "localhost")

    @property
    def web(self) -> str:
        """How WebSockets of this server are reached: C{ws://HOST:PORT}."""
        scheme = "wss" if self.secure else "ws"
        return f"{scheme}://{hostAndPort(self.host, self.port)}"

    @property
    def countedAs(self) -> str:
        """Whose tunnels are counted together."""
        if self.identity.anonymous:
            return f"address {self.address}"
        return f"client {self.identity.name}"


class Listeners(Protocol):
    """Opens one kind of public side."""

    def open(
        self,
        options: TunnelOptions,
        arrived: Callable[[End, str], None],
        reserve: Reserve,
    ) -> Awaitable[IListener]:
        """
        Listen for visitors.

        @param options: All that was asked of the tunnel: C{port}, the one to
            listen on, 0 for any; C{prefer}, then the one to take if it is free;
            and others, such as C{name}.
        @param arrived: Called with each visitor's end and address.
        @param reserve: Asked for each port before it is opened, or as soon as it
            is known: two processes of a server may not open the same.
        @raise TunnelError: By the awaitable, with the reason of a refusal.
        """


class OpensVia(Protocol):
    """What a L{Via} needs of the tunnel service."""

    reactor: IReactorTime
    listeners: dict[str, Listeners]
    waiting: WaitingRoom
    clientPort: tuple[int, bool]

    def keepWhile(
        self, tunnel: Tunnel, seconds: float, served: Callable[[], bool]
    ) -> None: ...

    def discard(self, tunnels: list[Tunnel], reason: TunnelError) -> Deferred[None]: ...


Via = Callable[[OpensVia, Tunnel, Caller, TunnelOptions, Reserve], Awaitable[None]]
"""Gives a new tunnel its client side and its URI, or raises L{TunnelError}. What it
opens for the client to connect to, it has reserved."""


class ITunnelService(Interface):
    """
    The Tristero tunnel service, and what grew around it.

    Every method takes the caller first: what somebody may do to a tunnel
    depends on who opened it.
    """

    def openTunnel(caller: Caller, options: Mapping[str, object]) -> Deferred[str]:
        """
        Open a tunnel.

        @param caller: A L{Caller<tristunnel.service.caller.Caller>}.
        @param options: C{port}, C{name}, C{listener} and others, see
            C{docs/reference.rst}.
        @return: The URI where the client's end connects.
        @raise TunnelError: With the reason of a refusal.
        """

    def getTunnelAddress(caller: Caller, uri: str) -> Deferred[str]:
        """
        Tell the address where visitors connect.

        @param uri: What C{openTunnel} returned.
        @raise TunnelError: C{unknown-tunnel}.
        """

    def closeTunnel(caller: Caller, uri: str, finish: bool = False) -> Deferred[None]:
        """
        Close a tunnel, its listener and its streams.

        @param finish: Whether visitors who are here may finish: then the port
            and the name are free, and the tunnel ends with the last of them.
        @raise TunnelError: C{unknown-tunnel}, also for somebody else's.
        """

    def listTunnels(caller: Caller) -> Deferred[list[dict[str, object]]]:
        """Describe the tunnels that the caller may see."""

    def setPolicy(
        caller: Caller, uri: str, policy: Mapping[str, object], endDenied: bool = False
    ) -> Deferred[dict[str, object]]:
        """
        Change the limits on a tunnel's visitors: for those who come from now on, and
        for those who are here as far as bandwidth, age and silence are concerned.

        @param policy: In place of what the caller asked before: C{allow},
            C{deny}, C{maxVisitors} and others, see C{docs/reference.rst}.
        @param endDenied: Whether to end the streams of those whose addresses are no
            longer let in.
        @return: All limits on the tunnel's visitors now, whoever has set them.
        @raise TunnelError: C{unknown-tunnel}, also for somebody else's;
            C{bad-option}, if nobody could come in.
        """
