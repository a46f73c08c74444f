"""On-demand access: a visitor's session with a time limit."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from tristunnel.client.visitor import LocalPort, VisitorService
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.errors import TunnelError, badOption
from tristunnel.util.hosts import addressText
from tristunnel.util.quantities import formatDuration
from tristunnel.util.repeating import stopTimer

__all__ = ["AccessService"]


class AccessService(VisitorService):
    """
    A client and a local port, for a limited time.

    @param reactor: Tells time.
    @param client: Stays connected to the server.
    @param port: The local port.
    @param where: The server, as messages name it.
    @param ttl: Seconds, from the start.
    @param ended: Called once with the reason when it ends before it was
        stopped.
    @param now: The time of day, in seconds.

    @ivar id: Its name in lists and commands.
    @ivar methods: What can be called about it, by name; each takes the caller
        and its own parameters.
    """

    _log = Logger(namespace="tristunnel.client")

    def __init__(
        self,
        reactor: Any,
        client: TunnelClientService,
        port: LocalPort,
        where: str,
        ttl: float,
        ended: Callable[[TunnelError], None] = lambda reason: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(client, port)
        self.id = "a" + secrets.token_hex(4)
        self.methods: dict[str, Callable[..., object]] = {
            "listSessions": lambda caller: self.describe(),
            "closeSession": self._closeLater,
        }
        self._reactor = reactor
        self._where = where
        self._ttl = ttl
        self._ended = ended
        self._now = now
        self._began = 0.0
        self._timer: IDelayedCall | None = None

    def startService(self) -> None:
        self._began = self._reactor.seconds()
        self._timer = self._reactor.callLater(self._ttl, self._timeUp)
        self._log.info(
            "Access {id} to {service} at {where} ends in {ttl}",
            id=self.id,
            service=self.port.what,
            where=self._where,
            ttl=formatDuration(self._ttl),
        )
        super().startService()

    def _timeUp(self) -> None:
        self._timer = None
        ttl = formatDuration(self._ttl)
        self.end(TunnelError("expired", f"the {ttl} of access have passed"))

    def end(self, reason: TunnelError) -> None:
        """End it now, with its streams."""
        self._log.info("Access {id} ended: {reason}", id=self.id, reason=reason)
        self._stopTimer()
        self.port.sendAway(reason)
        self._ended(reason)

    def _stopTimer(self) -> None:
        stopTimer(self._timer)
        self._timer = None

    async def _stop(self) -> None:
        self._stopTimer()
        await super()._stop()

    # For whoever asks

    def describe(self) -> list[dict[str, object]]:
        """List the access and its visitors, in the terms of C{listSessions}."""
        port, now = self.port, self._reactor.seconds()
        left = None
        if self._timer is not None:
            left = round(max(0.0, self._timer.getTime() - now), 3)
        visits = list(port.visits.values())

        def entry(since: float, bytesIn: int, bytesOut: int) -> dict[str, object]:
            return {
                "bytesIn": bytesIn,
                "bytesOut": bytesOut,
                "opened": round(self._now() - (now - since), 3),
                "seconds": round(now - since, 3),
                "timeLeft": left,
            }

        listening = port.listening
        own = {
            "id": self.id,
            "kind": "access",
            "service": port.what,
            "server": self._where,
            "listen": "" if listening is None else addressText(listening.getHost()),
            "connected": self.client.session is not None,
            "visitors": len(visits),
            "visitorsTotal": port.total,
            **entry(
                self._began,
                port.bytesIn + sum(visit.bytesIn for visit in visits),
                port.bytesOut + sum(visit.bytesOut for visit in visits),
            ),
        }
        return [own] + [
            {
                "id": f"{self.id}.{visit.place}",
                "kind": "visitor",
                "from": visit.visitor,
                **entry(visit.since, visit.bytesIn, visit.bytesOut),
            }
            for visit in visits
        ]

    def close(self, identifier: str) -> None:
        """
        End the access, or one visitor.

        @raise TunnelError: C{unknown-session}.
        """
        reason = TunnelError("closed", "it was closed on request")
        if identifier == self.id:
            self.end(reason)
            return
        for number, visit in list(self.port.visits.items()):
            if identifier == f"{self.id}.{number}":
                visit.reset(reason)
                return
        raise TunnelError("unknown-session")

    def _closeLater(self, caller: object, id: str) -> None:
        if not isinstance(id, str):
            raise badOption("id takes a string")
        if id not in {entry["id"] for entry in self.describe()}:
            raise TunnelError("unknown-session")

        def close() -> None:
            with suppress(TunnelError):
                self.close(id)

        # The answer goes out first.
        self._reactor.callLater(0, close)
