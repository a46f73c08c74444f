"""
Sessions over WebSockets at the client, whatever their dialect.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from tristunnel.connect.address import ServerAddress
from tristunnel.connect.websocket import WebSocketEndpoint
from tristunnel.dialects.base.messages import MessageSession
from tristunnel.errors import TunnelError
from tristunnel.websocket.connection import Receiver
from tristunnel.websocket.roles import ClientConnection

__all__ = ["ClientSession", "openWebSocket"]


async def openWebSocket(
    server: ServerAddress, receiver: Receiver, subprotocols: tuple[str, ...] = ()
) -> ClientConnection:
    """
    Open a WebSocket to a server.

    @raise TunnelError: With why there is none.
    """
    endpoint = server.endpoint
    if not isinstance(endpoint, WebSocketEndpoint):
        raise TunnelError("bad-option", f"{server.where} is no WebSocket URL")
    try:
        return await endpoint.open(receiver, subprotocols)
    except (CancelledError, TunnelError):
        raise
    except Exception as error:
        raise server.notReached(Failure()) from error


class ClientSession(MessageSession):
    """
    A client's session with a server.

    @param reactor: Tells time.

    @ivar leaving: Why the server is about to go, or C{None}.
    @ivar refused: Whether the server did not let us in.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self.leaving: TunnelError | None = None
        self.refused = False
        self.reactor = reactor
        self._timers: set[IDelayedCall] = set()
        self._waitingOver: list[Deferred[TunnelError]] = []

    @property
    def transport(self) -> Any:
        """What a client that stops waits for."""
        return self.connection

    def whenOver(self) -> Deferred[TunnelError]:
        """
        Wait for the end of the session.

        @return: Fires with the reason.
        """
        waiting: Deferred[TunnelError] = Deferred()
        if self._ended and self.lost is not None:
            waiting.callback(self.lost)
        else:
            self._waitingOver.append(waiting)
        return waiting

    def later(
        self, seconds: float, then: Callable[..., object], *args: object
    ) -> IDelayedCall:
        """Have C{then} called, unless the session ends before."""
        self._timers = {timer for timer in self._timers if timer.active()}
        timer: IDelayedCall = self.reactor.callLater(seconds, then, *args)
        self._timers.add(timer)
        return timer

    def goAway(self, reason: TunnelError) -> None:
        """Take no new visitors; there need be no word to tell the server."""

    def close(self) -> None:
        """Leave."""
        self.lost = self.lost or TunnelError("shutting-down", "the client stops")
        if self.connection is not None:
            self.connection.close()
        self.end(self.lost)

    def sessionOver(self, reason: TunnelError) -> None:
        for timer in self._timers:
            if timer.active():
                timer.cancel()
        waiting, self._waitingOver = self._waitingOver, []
        for each in waiting:
            each.callback(reason)
