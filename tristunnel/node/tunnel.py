"""A tunnel between this server and another, kept up for as long as this one runs."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from tristunnel.client.local import makeLocalPort
from tristunnel.client.visitor import LocalPort
from tristunnel.dialects.base.client import backoff
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.dialects.framed.dialect import bySession
from tristunnel.errors import TunnelError
from tristunnel.model.observer import ClientObserver
from tristunnel.node.spec import NodeSpec
from tristunnel.util.process import GRACE
from tristunnel.util.repeating import stopTimer

__all__ = ["CONNECTED", "FAILED", "RECONNECTING", "RETRY", "NodeTunnel"]

CONNECTED, RECONNECTING, FAILED = "connected", "reconnecting", "failed"
"""The states of a tunnel."""

RETRY = 300.0
"""Seconds after which a tunnel that was refused for good is tried again: the other
side's operator may have corrected something, and nobody would tell us."""


@dataclass(eq=False, repr=False)
class NodeTunnel(Service, ClientObserver):
    """
    One tunnel: a service at one server, a port at the other. It observes its own
    client.

    @ivar reactor: Tells time.
    @ivar spec: Its specification.
    @ivar lease: What is remembered of former sessions.
    @ivar grace: Seconds that streams get to finish at a stop.
    @ivar delay: Makes the delay of failures and the server's hint.
    @ivar now: The time of day, in seconds.

    @ivar forGood: Whether it stops for good, so that its port is given up.
    @ivar state: L{CONNECTED}, L{RECONNECTING} or L{FAILED}.
    @ivar reason: Why it is not connected, or C{None}.
    @ivar connects: How often it was connected.
    @ivar visitors: The visitors who are there now; counted where the service is.
    @ivar visitorsTotal: All visitors so far.
    @ivar bytesIn: Bytes from visitors who have left.
    @ivar bytesOut: Bytes to visitors who have left.
    """

    _log = Logger(namespace="tristunnel.node")

    reactor: Any
    spec: NodeSpec
    lease: Callable[[], ClientLease] = ClientLease
    grace: float = GRACE
    delay: Callable[[int, float | None], float] = backoff
    now: Callable[[], float] = time.time

    def __post_init__(self) -> None:
        self.forGood = False
        self.state = RECONNECTING
        self.reason: TunnelError | None = None
        self.connects = 0
        self.visitors = self.visitorsTotal = self.bytesIn = self.bytesOut = 0
        self._since = self.reactor.seconds()
        self._address = ""
        self._client: TunnelClientService | None = None
        self._port: LocalPort | None = None
        self._retry: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()
        self._since = self.reactor.seconds()
        self.spec.server.route.log(self.spec.server.where)
        self._connect()
        if self.spec.endpoint is not None:
            self._port = makeLocalPort(
                self.reactor,
                self.spec.endpoint,
                self.spec.listen,
                lambda visitor: bySession(self._theClient(), self.spec.service)(
                    visitor
                ),
                f"{self.spec.service} at {self.spec.server.where}",
                self.grace,
                lambda reason: self.become(FAILED, reason),
                True,
            )
            self._port.startService()

    def _connect(self) -> None:
        self._retry = None
        spec = self.spec
        self._client = TunnelClientService(
            self.reactor,
            spec.server,
            [] if spec.forward is None else [spec.forward],
            spec.credentials,
            self,
            self.lease(),
            self.grace,
            self._gaveUp,
            self.delay,
        )
        self._client.startService()

    def _theClient(self) -> TunnelClientService:
        assert self._client is not None
        return self._client

    def _gaveUp(self, reason: TunnelError) -> None:
        if self.running:
            self._retry = self.reactor.callLater(RETRY, self._again)

    def _again(self) -> None:
        previous = self._theClient()
        stopping = previous.stopService()
        stopping.addErrback(
            lambda failure: self._log.failure("A client did not stop", failure)
        )
        stopping.addBoth(lambda result: self._connect() if self.running else None)

    def stopService(self) -> Deferred[None]:
        super().stopService()
        stopTimer(self._retry)
        self._retry = None
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        port, self._port = self._port, None
        if port is not None:
            await port.stopService()
        client, self._client = self._client, None
        if client is not None and client.running:
            client.forGood = self.forGood
            await client.stopService()

    def stopNow(self) -> None:
        """Stop waiting for visitors."""
        for each in (self._port, self._client):
            if each is not None:
                each.stopNow()

    # How it fares

    def acknowledged(self, dialect: str) -> None:
        # A port of this side needs nothing but the session.
        if self.spec.forward is None and (
            self._port is None or self._port.listening is not None
        ):
            self.tunnelReady("", "")

    def tunnelReady(self, address: str, target: str) -> None:
        self._address = address
        self.connects += 1
        self.become(CONNECTED, None)

    def tunnelFailed(self, wanted: str, reason: TunnelError) -> None:
        self.become(FAILED, reason)

    def disconnected(self, reason: TunnelError) -> None:
        self.become(RECONNECTING, reason)

    def gaveUp(self, reason: TunnelError) -> None:
        self.become(FAILED, reason)

    def serviceConnected(self, target: str) -> None:
        self.visitors += 1
        self.visitorsTotal += 1

    def serviceGone(
        self, target: str, received: int, sent: int, reason: TunnelError | None
    ) -> None:
        self.visitors -= 1
        self.bytesIn += sent
        self.bytesOut += received

    def become(self, state: str, reason: TunnelError | None) -> None:
        """Note a state, and log a new one."""
        if state == RECONNECTING and self.state == FAILED and self._retry is not None:
            # This is the end of the session that was refused.
            return
        changed = state != self.state or (reason is None) != (self.reason is None)
        self.reason = reason
        if not changed:
            return
        self.state = state
        self._since = self.reactor.seconds()
        level = self._log.info if state == CONNECTED else self._log.warn
        level(
            "Node tunnel {name} to {server} is {state}{why}",
            name=self.spec.name,
            server=self.spec.server.where,
            state=state,
            why=f": {reason}" if reason is not None else "",
        )

    def describe(self) -> dict[str, object]:
        """Its entry in C{listNodeTunnels}."""
        spec, port = self.spec, self._port
        total, count = self.visitorsTotal, self.visitors
        bytesIn, bytesOut = self.bytesIn, self.bytesOut
        if spec.forward is not None:
            here, there = spec.forward.target, self._address or spec.forward.wanted
        else:
            here, there = spec.listen, spec.service
            if port is not None:
                total, count = port.total, len(port.visits)
                bytesIn, bytesOut = port.bytesIn, port.bytesOut
        return {
            "name": spec.name,
            "server": spec.server.where,
            "offers": spec.forward is not None,
            "local": here,
            "remote": there,
            "state": self.state,
            "reason": "" if self.reason is None else str(self.reason),
            "since": round(self.now() - (self.reactor.seconds() - self._since), 3),
            "connects": self.connects,
            "visitors": count,
            "visitorsTotal": total,
            "bytesIn": bytesIn,
            "bytesOut": bytesOut,
        }
