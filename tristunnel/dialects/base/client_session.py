"""
A client's session with a server, whatever its dialect.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall

from tristunnel.dialects.base.messages import EndsOnce, MessageSession
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import Forward
from tristunnel.forwards.service_connector import ServiceConnector
from tristunnel.model.observer import ClientObserver
from tristunnel.util.hosts import hostAndPort
from tristunnel.util.repeating import stopTimer

__all__ = ["ASK_AGAIN", "ClientSession", "MessageClientSession"]

ASK_AGAIN = 15.0
"""Seconds after which a client asks again for what it was refused."""


class ClientSession(EndsOnce, ABC):
    """
    A client's session with a server.

    @param reactor: Tells time.
    @param observer: Told what happens.

    @ivar leaving: Why the server is about to go, or C{None}.
    @ivar refused: Whether the server did not let us in.
    """

    leaving: TunnelError | None = None
    refused = False

    def __init__(self, reactor: Any, observer: ClientObserver | None = None) -> None:
        super().__init__()
        self.reactor = reactor
        self._observer = observer or ClientObserver()
        self._connector = ServiceConnector(reactor, self._observer)
        self._waitingOver: list[Deferred[TunnelError]] = []

    def whenOver(self) -> Deferred[TunnelError]:
        """
        Wait for the end of the session, or until the server sends us to another
        member of its cluster.

        @return: Fires with the reason.
        """
        waiting: Deferred[TunnelError] = Deferred()
        if self._ended and self.lost is not None:
            waiting.callback(self.lost)
        elif self.leaving is not None and self.leaving.elsewhere:
            waiting.callback(self.leaving)
        else:
            self._waitingOver.append(waiting)
        return waiting

    def _tellOver(self, reason: TunnelError) -> None:
        waiting, self._waitingOver = self._waitingOver, []
        for each in waiting:
            each.callback(reason)

    @property
    @abstractmethod
    def transport(self) -> Any:
        """The transport, which a client that stops waits for."""

    @property
    @abstractmethod
    def multiplexer(self) -> object:
        """What carries the visitors' streams; C{None} before there can be any."""

    @abstractmethod
    def streams(self) -> int:
        """How many visitors there are."""

    @abstractmethod
    def goAway(self, reason: TunnelError) -> None:
        """Take no new visitors, and tell the server, if there is a message for that."""

    @abstractmethod
    def close(self) -> None:
        """Leave."""

    def sessionOver(self, reason: TunnelError) -> None:
        super().sessionOver(reason)
        self._tellOver(reason)


class MessageClientSession(MessageSession, ClientSession):
    """
    A client's session on a WebSocket.

    @param forwards: What to offer.
    @param host: The server, in tunnels' addresses.
    """

    def __init__(
        self,
        reactor: Any,
        forwards: Sequence[Forward],
        observer: ClientObserver | None = None,
        host: str = "localhost",
    ) -> None:
        super().__init__(reactor, observer)
        self._forwards = list(forwards)
        self._host = host
        self._timers: set[IDelayedCall] = set()

    @property
    def transport(self) -> Any:
        return self.connection

    def later(
        self, seconds: float, then: Callable[..., object], *args: object
    ) -> IDelayedCall:
        """Have C{then} called, unless the session ends before."""
        self._timers = {timer for timer in self._timers if timer.active()}
        timer: IDelayedCall = self.reactor.callLater(seconds, then, *args)
        self._timers.add(timer)
        return timer

    def ready(self, forward: Forward, address: str = "") -> None:
        """
        Tell that a tunnel is open.

        @param address: Its address, if that is not the port that was asked for.
        """
        if not address:
            kind = "udp" if forward.isUDP else "tcp"
            address = f"{kind}://{hostAndPort(self._host, forward.port)}"
        self._observer.tunnelReady(forward.addressFor(address), forward.target)

    def goAway(self, reason: TunnelError) -> None:
        """There is nothing to be told."""

    def close(self) -> None:
        self.lost = self.lost or TunnelError("shutting-down", "the client stops")
        if self.connection is not None:
            self.connection.close()
        self.end(self.lost)

    def sessionOver(self, reason: TunnelError) -> None:
        for timer in self._timers:
            stopTimer(timer)
        super().sessionOver(reason)
