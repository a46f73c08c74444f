"""
The host's side of a relay: raw WebSockets, each for one visitor.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.connect.address import ServerAddress
from tristunnel.dialects.base.client import openWebSocket
from tristunnel.dialects.base.refusals import STEADY, Refusals
from tristunnel.dialects.framed.client_service import SETTLED, backoff
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import Forward
from tristunnel.forwards.service_connector import ServiceConnector
from tristunnel.model.observer import ClientObserver
from tristunnel.util.process import FAREWELL, GRACE, Drain
from tristunnel.websocket.end import RELAY_SUBPROTOCOL, WebSocketEnd

__all__ = ["RelayHostService", "visitorsURL"]


def visitorsURL(url: str) -> str:
    """Where visitors connect to a relay, by where its hosts do."""
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


class RelayHostService(Service):
    """
    Keeps a connection waiting at a relay for the next visitor.

    One of our own relays tells when a visitor has come; then the service is
    connected, and another connection takes its place at the relay. Other
    relays do not tell: with those there is one connection at a time, and the
    service is connected at once, lest one that speaks first is never heard.

    @param reactor: Tells time.
    @param server: The relay.
    @param forward: The service.
    @param observer: Told what happens.
    @param grace: Seconds that visitors get when the service stops.
    @param gaveUp: Called with the reason when no attempt follows.
    @param delay: Makes the delay of failures and the server's hint.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        server: ServerAddress,
        forward: Forward,
        observer: ClientObserver | None = None,
        grace: float = GRACE,
        gaveUp: Callable[[TunnelError], None] = lambda reason: None,
        delay: Callable[[int, float | None], float] = backoff,
    ) -> None:
        self.observer = observer or ClientObserver()
        self._reactor = reactor
        self._server = server
        self._forward = forward
        self._grace = grace
        self._gaveUp = gaveUp
        self._delay = delay
        self._connector = ServiceConnector(reactor, self.observer)
        self._ends: set[_HostEnd] = set()
        self._waiting: _HostEnd | None = None
        self._work: Deferred[None] | None = None
        self._drain: Drain | None = None

    def startService(self) -> None:
        super().startService()
        self._work = Deferred.fromCoroutine(self._serve())
        self._work.addErrback(self._broken)

    def _broken(self, failure: Failure) -> None:
        if not failure.check(CancelledError):
            self._log.failure("The client failed", failure)
            self._gaveUp(TunnelError("internal"))

    async def _serve(self) -> None:
        failures, told, refusals = 0, False, Refusals()
        while self.running:
            began = self._reactor.seconds()
            end = _HostEnd()
            try:
                connection = await openWebSocket(
                    self._server, end, (RELAY_SUBPROTOCOL,)
                )
            except TunnelError as refusal:
                reason = refusal
            else:
                if not told:
                    told = True
                    self.observer.acknowledged("relay")
                    self.observer.tunnelReady(
                        visitorsURL(self._server.where), self._forward.target
                    )
                met = await self._wait(end, connection.chosen == RELAY_SUBPROTOCOL)
                if met is None or self._reactor.seconds() - began > SETTLED:
                    failures = 0
                    refusals.passed()
                if met is None:
                    continue
                reason = met
            if not self.running:
                return
            judged = refusals.judge(reason, self._server)
            self.observer.disconnected(judged or reason)
            if judged is None:
                self.observer.gaveUp(reason)
                self._gaveUp(reason)
                return
            told = False
            delay = self._delay(
                failures if judged is reason else STEADY, reason.retryAfter
            )
            failures += 1
            self.observer.reconnectQueued(delay)
            await deferLater(self._reactor, delay)

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

    def _connect(self, end: _HostEnd) -> None:
        endpoint: Any = self._forward.endpoint
        self._connector.connect(
            end,  # type: ignore[arg-type]
            self._forward.target,
            endpoint,
            lambda accepted: None,
        )

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        if self._waiting is not None:
            self._waiting.finish()
        if self._work is not None:
            self._work.cancel()
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

    def stopNow(self) -> None:
        if self._drain is not None:
            self._drain.hurry()
