"""
The server as a service: listen, and stop without cutting anybody off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dialects.base.server import ServerSessions
from tristunnel.errors import TunnelError
from tristunnel.forwards.destinations import isOurs
from tristunnel.names.public import PublicNames
from tristunnel.server.draining import AT_ONCE, Draining
from tristunnel.server.ports import ServerPort
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.util.endpoints import cannotListen
from tristunnel.util.process import FAREWELL, GRACE, Drain

__all__ = ["TunnelServerService"]

RETRY_AFTER = 1.0
"""Seconds after which clients are told to come back when the server stops."""

UNKNOWN = 1.0
"""Seconds for which a process that others take the place of waits for the first bytes
of connections that it has accepted."""

ELSEWHERE = 5.0
"""Seconds for which a stopping server lets visitors wait whose clients go to another
process."""


class TunnelServerService(Service):
    """
    A tunnel server.

    @param reactor: Tells time.
    @param ports: Where to listen, and what serves there.
    @param sessions: The clients' sessions.
    @param tunnels: The clients' tunnels.
    @param grace: Seconds that streams get to finish when the service stops.
    @param failed: Called with the reason if a port cannot be had.

    @ivar listening: The ports that are open.
    @ivar numbers: Their numbers, by what was asked for.
    @ivar grace: Seconds that streams get to finish.
    @ivar names: Told of the ports that names share.
    @ivar before: Waited for before it listens, or C{None}.
    @ivar draining: Sends clients elsewhere before it stops, if there are other members;
        or C{None}.
    @ivar leaving: Called when it stops, to have others accept connections in its place;
        waited for.
    @ivar isLast: Whether there are no such others.
    @ivar unknown: How many connections it has whose first bytes have not come.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        ports: Sequence[tuple[ServerPort, Any]],
        sessions: ServerSessions,
        tunnels: TunnelService,
        grace: float = GRACE,
        failed: Callable[[TunnelError], None] = lambda reason: None,
    ) -> None:
        self.listening: list[IListeningPort] = []
        self.numbers: dict[str, int] = {}
        self.tunnels = tunnels
        self._reactor = reactor
        self._ports = list(ports)
        self._sessions = sessions
        self.grace = grace
        self.names = PublicNames()
        self.before: Deferred[None] | None = None
        self.draining: Draining | None = None
        self.leaving: Callable[[], Deferred[None]] = lambda: succeed(None)
        self.isLast: Callable[[], bool] = lambda: True
        self.unknown: Callable[[], int] = lambda: 0
        self._failed = failed
        self._drain: Drain | None = None
        self._begun = False

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        super().startService()
        self._listen()

    def _listen(self) -> None:
        if self._begun:
            return
        self._begun = True
        if self.before is None:
            self._openPorts(None)
        else:
            self.before.addCallback(self._openPorts)

    def _openPorts(self, result: None) -> None:
        for port, factory in self._ports:
            opening = maybeDeferred(port.listening.listen, factory)
            opening.addCallback(self._opened, port)
            opening.addErrback(self._notOpened, port)

    def _opened(self, listening: IListeningPort, port: ServerPort) -> None:
        self.listening.append(listening)
        isOurs(listening)
        here: Any = listening.getHost()
        number = self.numbers[port.description] = getattr(here, "port", 0)
        for kind, listeners in self.tunnels.listeners.items():
            # Also at addresses where the server does not listen: a client that connects
            # there with its credentials means the server, and not some tunnel's owner.
            own = getattr(listeners, "own", None)
            if own is not None and (kind != "udp" or self._sessions.paths is not None):
                own.add(number)
        for scheme in port.schemes:
            self.names.opened(scheme, number)
        if not self.tunnels.clientPort[0] and port.option == "--port":
            self.tunnels.clientPort = (number, port.secure)
            if self._sessions.paths is not None:
                self._sessions.paths.port(number)
        observer = self.tunnels.observer
        told = observer.namesPortOpened if port.onlyNames else observer.serverStarted
        told(port.description, listening.getHost())

    def _notOpened(self, failure: Failure, port: ServerPort) -> None:
        self._failed(cannotListen(f"{port.option} {port.description}", failure))

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        listening, self.listening = self.listening, []
        for port in listening:
            isOurs(port, False)
            await maybeDeferred(port.stopListening)
        await self.leaving()
        if self.draining is not None:
            await self.draining.moved()
        # Only now: the others may have been told meanwhile to stop, too.
        hint = RETRY_AFTER if self.isLast() else AT_ONCE
        reason = TunnelError("shutting-down", retryAfter=hint)
        self.names.isLeaving = True
        await self.tunnels.leave(reason)
        self._sessions.leave(reason)
        unknown = Drain(self._reactor, self._unknown, UNKNOWN).wait()
        await self._drained(self._streams, self.grace)
        await unknown
        await self.tunnels.close(reason)
        self._sessions.close(reason)
        # Their clients will be at other processes in a moment.
        kept = self.tunnels.kept
        if self._waiting():
            await self._drained(self._waiting, ELSEWHERE)
            await self._drained(kept.streams, self.grace)
        await Drain(
            self._reactor, lambda: len(self._sessions.webSockets), FAREWELL
        ).wait()
        self._begun = False

    async def _drained(self, streams: Callable[[], int], seconds: float) -> None:
        self._drain = Drain(self._reactor, streams, seconds)
        await self._drain.wait()

    def _unknown(self) -> int:
        return 0 if self.isLast() else self.unknown()

    def _waiting(self) -> int:
        return 0 if self.isLast() else self.tunnels.kept.waiting()

    def _streams(self) -> int:
        return max(self._sessions.streams(), self.tunnels.streams())

    def hurry(self) -> None:
        """Stop waiting for streams."""
        if self.draining is not None:
            self.draining.hurry()
        if self._drain is not None:
            self._drain.hurry()
