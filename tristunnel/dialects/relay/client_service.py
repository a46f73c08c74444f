"""
The host's side of a relay: raw WebSockets, each for one visitor.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tristunnel.dialects.base.client import SETTLED, ClientService, openWebSocket
from tristunnel.errors import TunnelError
from tristunnel.forwards.service_connector import ServiceConnector
from tristunnel.util.process import FAREWELL, Drain
from tristunnel.websocket.end import RELAY_SUBPROTOCOL, WebSocketEnd

__all__ = ["RelayHostService", "visitorsURL"]


def visitorsURL(url: str) -> str:
    """Find where visitors connect to a relay, from where its hosts do."""
    head, slash, tail = url.rpartition("/host")
    return f"{head}/client{tail}" if slash else url


class _HostEnd(WebSocketEnd):
    """
    A host's connection.

    @ivar met: Fires when a visitor is there, as far as the relay tells.
    @ivar gone: Fires with the reason when the connection is over.
    """

    def __init__(self) -> None:
        super().__init__()
        self.met: Deferred[None] = Deferred()
        self.gone: Deferred[TunnelError] = Deferred()

    def bytesReceived(self, data: bytes) -> None:
        if not self.met.called:
            self.met.callback(None)
        super().bytesReceived(data)

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        super().connectionLost(reason, failure)
        self.gone.callback(reason or TunnelError("closed", "the relay closed it"))


class RelayHostService(ClientService[Any]):
    """
    Keeps a connection waiting at a relay for the next visitor.

    One of our own relays tells when a visitor has come; then the service is
    connected, and another connection takes its place at the relay. Other
    relays do not tell: with those there is one connection at a time, and the
    service is connected at once, lest one that speaks first is never heard.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self._connector = ServiceConnector(self._reactor, self.observer)
        self._ends: set[_HostEnd] = set()
        self._waiting: _HostEnd | None = None

    async def _oneSession(self) -> tuple[TunnelError, bool]:
        told = False
        while True:
            end = _HostEnd()
            try:
                connection = await openWebSocket(
                    self._server, end, (RELAY_SUBPROTOCOL,)
                )
            except TunnelError as refusal:
                return refusal, True
            began = self._reactor.seconds()
            if not told:
                told = True
                self.observer.acknowledged("relay")
                self.observer.tunnelReady(
                    visitorsURL(self._server.where), self._forwards[0].target
                )
            why = await self._wait(end, connection.chosen == RELAY_SUBPROTOCOL)
            if why is None or self._reactor.seconds() - began > SETTLED:
                self._failures = 0
                self._refusals.passed()
            if why is not None:
                return why, True

    async def _wait(self, end: _HostEnd, tells: bool) -> TunnelError | None:
        """
        Wait until C{end} has a visitor, or with another relay, had one.

        @return: C{None} if there was one, else why not.
        """
        self._ends.add(end)
        gone: Deferred[TunnelError] = Deferred()

        def over(reason: TunnelError) -> None:
            self._ends.discard(end)
            gone.callback(reason)

        end.gone.addCallback(over)
        if not tells:
            self._connect(end)
            why = await gone
            return None if end.met.called else why
        self._waiting = end
        first: Deferred[TunnelError | None] = Deferred()

        def settle(reason: TunnelError | None) -> None:
            if not first.called:
                first.callback(reason)

        end.met.addCallback(settle)
        gone.addCallback(settle)
        try:
            reason = await first
        finally:
            self._waiting = None
        if reason is None:
            self._connect(end)
        return reason

    def _connect(self, end: Any) -> None:
        endpoint: Any = self._forwards[0].endpoint
        self._connector.connect(
            end, self._forwards[0].target, endpoint, lambda accepted: None
        )

    async def _stop(self) -> None:
        if self._waiting is not None:
            self._waiting.finish()
        await super()._stop()
        self._drain = Drain(
            self._reactor,
            lambda: sum(end.met.called for end in self._ends),
            self._grace,
        )
        await self._drain.wait()
        for end in list(self._ends):
            end.reset(TunnelError("shutting-down", "the client stops"))
        await Drain(self._reactor, lambda: len(self._ends), FAREWELL).wait()
        self.observer.stopped()
