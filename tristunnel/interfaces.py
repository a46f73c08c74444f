"""
What the parts promise each other.

A I{dialect} (how a client speaks) never knows which I{listener} a visitor
came from, and a listener never knows the dialect: both see an L{End} of a
stream, and the L{Tunnel<tristunnel.model.tunnel.Tunnel>} joins two of them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from tristunnel.errors import TunnelError

__all__ = ["Closed", "DatagramEnd", "EitherEnd", "End"]

Closed = Callable[[TunnelError | None], None]
"""Told once that an end is over: C{None} after an orderly end."""


class EitherEnd(Protocol):
    """
    What an L{End} and a L{DatagramEnd} have in common: enough to join two of
    a kind, to count and to break them.

    A C{typing.Protocol} and not an C{Interface}, since ends are never adapted
    and these calls are made for every chunk.
    """

    @property
    def received(self) -> int:
        """Bytes read from this end's transport so far."""

    def join(self, peer: Any, closed: Closed) -> None:
        """
        Begin to pass what comes to C{peer}, an end of the same kind.

        @param closed: Called once, when this end is entirely over.
        """

    def passTo(self, peer: Any) -> tuple[Any | None, bool]:
        """
        Pass what comes to something that stands for the peer from now on.

        @return: The peer until now, and whether it has this end paused.
        """

    def whileWaiting(self, left: Closed) -> None:
        """Have C{left} called if this end is over before it is joined."""

    def reset(self, reason: TunnelError) -> None:
        """Break off both directions now and drop what is held."""


class End(EitherEnd, Protocol):
    """
    One end of a stream: a socket, or a stream within a session.

    Two ends are joined to each other. What an end reads from its transport it
    passes to its peer with L{write}; the end of what it reads with L{finish};
    a break with L{reset}. When it holds too much that its transport does not
    take, it tells its peer to L{pauseReading} and later to L{resumeReading}.
    """

    def write(self, data: bytes) -> None:
        """Send bytes by this end's transport."""

    def finish(self) -> None:
        """No more bytes follow in this direction; the other one goes on."""

    def pauseReading(self) -> None:
        """Stop reading from this end's transport."""

    def resumeReading(self) -> None:
        """Read from this end's transport again."""


class DatagramEnd(EitherEnd, Protocol):
    """
    One end of a flow, which carries datagrams: a UDP socket, or a flow within
    a session.

    There is no backpressure and no half-close: a datagram goes now, waits in a
    short queue, or is dropped and counted; the end of one side is the end of
    both.

    @ivar dropped: Datagrams that this end neither sent nor passed on.
    """

    dropped: int

    def send(self, datagram: bytes) -> None:
        """Send a datagram by this end's transport, or drop it; never raises."""

    def finish(self) -> None:
        """The flow is over."""
