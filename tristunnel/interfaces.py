"""
What the parts promise each other.

A I{dialect} (how a client speaks) never knows which I{listener} a visitor
came from, and a listener never knows the dialect: both see an L{End} of a
stream, and the L{Tunnel<tristunnel.tunnel.Tunnel>} joins two of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Protocol

from twisted.internet.defer import Deferred
from zope.interface import Interface

if TYPE_CHECKING:
    from tristunnel.errors import TunnelError
    from tristunnel.service import Caller
    from tristunnel.tunnel import Stream, Tunnel

__all__ = [
    "Closed",
    "End",
    "IClientSide",
    "IListener",
    "ITunnelRegistry",
    "ITunnelService",
]

Closed = Callable[["TunnelError | None"], None]
"""Told once that an end is over: C{None} after an orderly end."""


class End(Protocol):
    """
    One end of a stream: a socket, or a stream within a session.

    Two ends are joined to each other. What an end reads from its world it
    passes to its peer with L{write}; the end of what it reads with L{finish};
    a break with L{reset}. When it holds too much that its world does not take,
    it tells its peer to L{pauseReading} and later to L{resumeReading}.

    A C{typing.Protocol} and not an C{Interface}, since ends are never adapted
    and these calls are made for every chunk.

    @ivar received: Bytes read from this end's world so far.
    """

    received: int

    def join(self, peer: End, closed: Closed) -> None:
        """
        Begin to pass bytes to C{peer}.

        @param closed: Called once, when this end is entirely over.
        """

    def whileWaiting(self, left: Closed) -> None:
        """
        Have C{left} called if this end is over before it is joined.
        """

    def write(self, data: bytes) -> None:
        """
        Send bytes to this end's world.
        """

    def finish(self) -> None:
        """
        No more bytes follow in this direction; the other one goes on.
        """

    def reset(self, reason: TunnelError) -> None:
        """
        Break off both directions now and drop what is held.
        """

    def pauseReading(self) -> None:
        """
        Stop reading from this end's world.
        """

    def resumeReading(self) -> None:
        """
        Read from this end's world again.
        """


class IClientSide(Protocol):
    """
    Where a tunnel's visitors are served: a session, or raw connections.
    """

    def serve(self, stream: Stream) -> None:
        """
        Find a client end for C{stream}: call its C{connect} or C{refuse}, now
        or later.
        """

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """
        C{tunnel} is over, and not because this side said so.
        """


class IListener(Protocol):
    """
    A tunnel's public side, open until it is closed.
    """

    @property
    def address(self) -> tuple[str, str, int]:
        """
        The scheme, the interface (empty for all) and the port.
        """

    def close(self) -> Awaitable[object]:
        """
        Let nobody in any more.
        """


class ITunnelService(Interface):
    """
    The Tristero tunnel service, and what grew around it.

    Every method takes the caller first: what somebody may do to a tunnel
    depends on who opened it.
    """

    def openTunnel(caller: Caller, options: Mapping[str, object]) -> Deferred[str]:
        """
        Open a tunnel.

        @param caller: A L{Caller<tristunnel.service.Caller>}.
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

    def closeTunnel(caller: Caller, uri: str) -> Deferred[None]:
        """
        Close a tunnel, its listener and its streams.

        @raise TunnelError: C{unknown-tunnel}, also for somebody else's.
        """

    def listTunnels(caller: Caller) -> Deferred[list[dict[str, object]]]:
        """
        Describe the tunnels that the caller may see.
        """


class ITunnelRegistry(Interface):
    """
    Which tunnels exist.

    Answers are Deferreds, since several processes may come to share one
    registry; nothing outside it assumes that a tunnel lives in this process.
    """

    def add(tunnel: Tunnel) -> Deferred[None]:
        """
        Take in a tunnel.

        @raise TunnelError: C{name-taken}.
        """

    def find(uri: str) -> Deferred[Tunnel]:
        """
        Look a tunnel up by its URI or its id.

        @raise TunnelError: C{unknown-tunnel}.
        """

    def remove(tunnel: Tunnel) -> Deferred[None]:
        """
        Forget a tunnel; doing it twice is no error.
        """

    def tunnels() -> Deferred[list[Tunnel]]:
        """
        All tunnels, oldest first.
        """
