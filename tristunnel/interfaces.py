"""
What the parts promise each other.

A I{dialect} (how a client speaks) never knows which I{listener} a visitor
came from, and a listener never knows the dialect: both see an L{End} of a
stream, and the L{Tunnel<tristunnel.model.tunnel.Tunnel>} joins two of them.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

from twisted.internet.defer import Deferred
from zope.interface import Interface

if TYPE_CHECKING:
    from tristunnel.errors import TunnelError
    from tristunnel.model.tunnel import Stream, Tunnel
    from tristunnel.service.tunnel_service import Caller

__all__ = [
    "Closed",
    "DatagramEnd",
    "EitherEnd",
    "End",
    "IClientSide",
    "IListener",
    "ITunnelRegistry",
    "ITunnelService",
    "VisitorFilter",
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

    def passTo(self, peer: End) -> tuple[End | None, bool]:
        """
        Pass bytes to something that stands for the peer from now on.

        @return: The peer until now, and whether it has this end paused.
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


class DatagramEnd(Protocol):
    """
    One end of a flow, which carries datagrams: a UDP socket, or a flow within
    a session.

    There is no backpressure and no half-close: a datagram goes now, waits in a
    short queue, or is dropped and counted; the end of one side is the end of
    both.

    @ivar received: Bytes of datagrams that came from this end's world so far.
    @ivar dropped: Datagrams that this end neither sent nor passed on.
    """

    received: int
    dropped: int

    def join(self, peer: DatagramEnd, closed: Closed) -> None:
        """
        Begin to pass datagrams to C{peer}.

        @param closed: Called once, when this end is over.
        """

    def passTo(self, peer: DatagramEnd) -> tuple[DatagramEnd | None, bool]:
        """
        Pass datagrams to something that stands for the peer from now on.

        @return: The peer until now, and whether it has this end paused.
        """

    def whileWaiting(self, left: Closed) -> None:
        """
        Have C{left} called if this end is over before it is joined.
        """

    def send(self, datagram: bytes) -> None:
        """
        Send a datagram to this end's world, or drop it; never raises.
        """

    def finish(self) -> None:
        """
        The flow is over.
        """

    def reset(self, reason: TunnelError) -> None:
        """
        The flow is over because of C{reason}.
        """


class EitherEnd(Protocol):
    """
    What an L{End} and a L{DatagramEnd} have in common: enough to join two of
    a kind, to count and to break them.
    """

    received: int

    def join(self, peer: Any, closed: Closed) -> None:
        """
        Begin to pass what comes to C{peer}, an end of the same kind.
        """

    def passTo(self, peer: Any) -> tuple[Any | None, bool]:
        """
        Pass what comes to something that stands for the peer from now on.

        @return: The peer until now, and whether it has this end paused.
        """

    def whileWaiting(self, left: Closed) -> None:
        """
        Have C{left} called if this end is over before it is joined.
        """

    def reset(self, reason: TunnelError) -> None:
        """
        Break off and drop what is held.
        """


class VisitorFilter(Protocol):
    """
    Who decides on a tunnel's visitors. A tunnel asks all of its keepers.
    """

    def enter(self, stream: Stream) -> None:
        """
        Let a visitor in; its stream is among the tunnel's already.

        @raise TunnelError: Why it is turned away.
        """

    def leave(self, stream: Stream) -> None:
        """
        A visitor that this keeper has let in is gone, or was turned away by
        another one.
        """


class IClientSide(Protocol):
    """
    Where a tunnel's visitors are served: a session, or raw connections.

    It may also have C{isThere}, which returns a Deferred of whether its client
    still answers (without it, it is taken to be there), and C{placeFree}, see
    L{tristunnel.service.claims}.
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

        @param caller: A L{Caller<tristunnel.service.tunnel_service.Caller>}.
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
        """
        Describe the tunnels that the caller may see.
        """

    def setPolicy(
        caller: Caller,
        uri: str,
        policy: Mapping[str, object],
        endDenied: bool = False,
    ) -> Deferred[dict[str, object]]:
        """
        Ask something else of a tunnel's visitors: of those who come from now
        on, and of those who are here as far as their bandwidth, age and silence
        go.

        @param policy: In place of what the caller asked before: C{allow},
            C{deny}, C{maxVisitors} and others, see C{docs/reference.rst}.
        @param endDenied: Whether to end the streams of those who could not come
            in any more from where they are.
        @return: All that is asked of the tunnel's visitors now, by anybody.
        @raise TunnelError: C{unknown-tunnel}, also for somebody else's;
            C{bad-option}, if nobody could come in.
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

    def findNamed(name: str) -> Deferred[Tunnel]:
        """
        Look a tunnel up by the name that its owner gave it.

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
