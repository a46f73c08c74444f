"""Joining visitors and raw connections of a client, one to one."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, End
from tristunnel.model.tunnel import Stream, Tunnel

__all__ = ["PATIENCE", "WAITING", "Rendezvous", "WaitingRoom"]

PATIENCE = 60.0
"""Seconds that an end waits for its other half."""

WAITING = 128
"""Ends of a kind that may wait at once."""


class WaitingRoom:
    """
    How many ends may wait in several meeting places together.

    An end that has finished sending cannot be told from one that has left, so each one
    that waits costs a descriptor here, and perhaps nothing at the other side.

    @param total: Ends that may wait at once; 0 for any number.

    @ivar taken: How many wait now.
    """

    def __init__(self, total: int = 0) -> None:
        self.taken = 0
        self._total = total

    @property
    def full(self) -> bool:
        """Whether nobody else may wait."""
        return bool(self._total) and self.taken >= self._total


class Rendezvous:
    """
    The L{IClientSide<tristunnel.model.tunnel.IClientSide>} of a tunnel whose
    client's end is a connection for each visitor.

    Whoever comes first waits, in order, and for a limited time.

    @param reactor: Tells time.
    @param patience: Seconds that a visitor waits for a client's connection.
    @param clientPatience: Seconds that a client's connection waits for a
        visitor; C{None} for as long as the tunnel lives.
    @param waiting: Ends of a kind that may wait at once.
    @param met: Called with each stream that was connected.
    @param shared: Shared with other meeting places.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        patience: float = PATIENCE,
        clientPatience: float | None = None,
        waiting: int = WAITING,
        met: Callable[[Stream], None] = lambda stream: None,
        shared: WaitingRoom | None = None,
    ) -> None:
        self._reactor = reactor
        self._patience = patience
        self._clientPatience = clientPatience
        self._room = waiting
        self._met = met
        self._shared = shared or WaitingRoom()
        self._counted = 0
        self._streams: deque[Stream] = deque()
        self._clients: deque[End] = deque()
        self._timers: dict[object, IDelayedCall] = {}
        self._closed: TunnelError | None = None

    @property
    def waitingVisitors(self) -> int:
        """Visitors without a client's connection."""
        return len(self._streams)

    @property
    def waitingClients(self) -> int:
        """Clients' connections without a visitor."""
        return len(self._clients)

    # IClientSide

    def serve(self, stream: Stream) -> None:
        if self._closed is not None:
            stream.refuse(self._closed)
        elif self._clients:
            client = self._clients.popleft()
            self._count()
            self._stopTimer(client)
            self._connect(stream, client)
        elif len(self._streams) >= self._room or self._shared.full:
            stream.refuse(TunnelError("limit-reached", "too many visitors are waiting"))
        else:
            self._streams.append(stream)
            self._visitorWaits(stream)

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        self.close(reason)

    # The client's connections

    def clientArrived(self, client: End) -> None:
        """Take a client's connection."""
        while self._streams and self._streams[0].over:
            # It was sent away while it waited.
            self._stopTimer(self._streams.popleft())
            self._count()
        if self._closed is not None:
            client.reset(self._closed)
        elif self._streams:
            stream = self._streams.popleft()
            self._count()
            self._stopTimer(stream)
            self._connect(stream, client)
        elif len(self._clients) >= self._room or self._shared.full:
            client.reset(
                TunnelError("limit-reached", "too many connections are waiting")
            )
        else:
            self._clients.append(client)
            self._clientWaits(client)

    def _connect(self, stream: Stream, client: End) -> None:
        stream.connect(client)
        self._met(stream)

    # Waiting

    def _visitorWaits(self, stream: Stream) -> None:
        self._count()
        self._startTimer(stream, self._patience, self._visitorLate)
        stream.visitor.whileWaiting(self._forgetter(stream))

    def _clientWaits(self, client: End) -> None:
        self._count()
        if self._clientPatience is not None:
            self._startTimer(client, self._clientPatience, self._clientLate)
        client.whileWaiting(lambda reason: self._clientLeft(client, reason))

    def _forgetter(self, stream: Stream) -> Closed:
        def left(reason: TunnelError | None) -> None:
            if stream in self._streams:
                self._streams.remove(stream)
                self._count()
                self._stopTimer(stream)
                stream.refuse(reason or TunnelError("reset", "the visitor has left"))

        return left

    def _clientLeft(self, client: End, reason: TunnelError | None) -> None:
        if client in self._clients:
            self._clients.remove(client)
            self._count()
            self._stopTimer(client)

    def _visitorLate(self, stream: Stream) -> None:
        self._streams.remove(stream)
        self._count()
        stream.refuse(TunnelError("client-away", "no client connected in time"))

    def _clientLate(self, client: End) -> None:
        self._clients.remove(client)
        self._count()
        client.reset(TunnelError("expired", "no visitor came in time"))

    def _count(self) -> None:
        waiting = self.waitingVisitors + self.waitingClients
        self._shared.taken += waiting - self._counted
        self._counted = waiting

    def _startTimer(
        self, waiting: object, seconds: float, late: Callable[..., None]
    ) -> None:
        def over() -> None:
            del self._timers[waiting]
            late(waiting)

        self._timers[waiting] = self._reactor.callLater(seconds, over)

    def _stopTimer(self, waiting: object) -> None:
        timer = self._timers.pop(waiting, None)
        if timer is not None:
            timer.cancel()

    def close(self, reason: TunnelError) -> None:
        """Turn everybody away, now and from now on."""
        self._closed = reason
        streams, self._streams = self._streams, deque()
        clients, self._clients = self._clients, deque()
        self._count()
        for waiting in list(self._timers):
            self._stopTimer(waiting)
        for stream in streams:
            stream.refuse(reason)
        for client in clients:
            client.reset(reason)
