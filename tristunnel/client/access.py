"""
On-demand access: a local port to somebody's service, for a while.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import urlsplit

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import quoteStringArgument
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from tristunnel.client.visitor import LocalPort
from tristunnel.connect.address import ServerAddress, Trust, parseConnect
from tristunnel.connect.route import ConnectOptions
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dialects.base.client_service import TunnelClientService
from tristunnel.errors import TunnelError
from tristunnel.util.hosts import addressText
from tristunnel.util.quantities import formatDuration

__all__ = ["AccessPort", "AccessService", "parseAccessURI"]


def parseAccessURI(
    reactor: Any,
    uri: str,
    trust: Trust,
    connect: str = "",
    way: ConnectOptions | None = None,
) -> ServerAddress:
    """
    Read C{--access}: C{w3p://HOST:PORT/access/ID#SECRET}, or C{w3ps:} over
    TLS.

    @param connect: Another place of the server than the URI says, or empty.
    @param way: How to get there.
    @raise TunnelError: C{bad-option}, without the secret.
    """
    try:
        parts = urlsplit(uri)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    prefix, _, identifier = parts.path.removeprefix("/").partition("/")
    if (
        parts.scheme not in ("w3p", "w3ps")
        or prefix != "access"
        or not (host and port and identifier and parts.fragment)
    ):
        raise TunnelError(
            "bad-option",
            "--access takes the URI that grantAccess returned,"
            " w3p://HOST:PORT/access/ID#SECRET",
        )
    kind = "tls" if parts.scheme == "w3ps" else "tcp"
    # A colon in an IPv6 address would separate arguments.
    default = f"{kind}:{quoteStringArgument(host)}:{port}"
    address = parseConnect(reactor, connect or default, trust, way)
    return replace(address, access={"id": identifier, "secret": parts.fragment})


@dataclass(eq=False)
class _Guest:
    number: int
    visitor: SocketEnd
    far: Any
    origin: str
    since: float


class AccessPort(LocalPort):
    """
    A local port that remembers who is there.
    """

    _log = Logger(namespace="tristunnel.service.access")

    def __init__(self, *args: Any, **named: Any) -> None:
        super().__init__(*args, **named)
        self.guests: dict[SocketEnd, _Guest] = {}
        self.total = 0
        self.bytesIn = 0
        self.bytesOut = 0

    def joined(self, visitor: SocketEnd, far: Any) -> None:
        """
        Somebody came.
        """
        self.total += 1
        origin = addressText(visitor.transport.getPeer())
        now = self._reactor.seconds()
        self.guests[visitor] = _Guest(self.total, visitor, far, origin, now)

    def left(self, visitor: SocketEnd, reason: TunnelError | None) -> None:
        """
        Somebody left.
        """
        guest = self.guests.pop(visitor, None)
        if guest is None:
            return
        self.bytesIn += visitor.received
        self.bytesOut += guest.far.received
        self._log.info(
            "Visitor {number} from {origin} left after {seconds:.3f} s, {bytesIn}"
            " bytes to the service, {bytesOut} bytes from it{why}",
            number=guest.number,
            origin=guest.origin,
            seconds=self._reactor.seconds() - guest.since,
            bytesIn=visitor.received,
            bytesOut=guest.far.received,
            why=f": {reason}" if reason else "",
        )

    def sendAway(self, reason: TunnelError, number: int | None = None) -> bool:
        """
        End visitors now.

        @param number: Which one; C{None} for all.
        @return: Whether there was one.
        """
        found = False
        for guest in list(self.guests.values()):
            if number in (None, guest.number):
                found = True
                guest.far.reset(reason)
                guest.visitor.reset(reason)
        return found


class AccessService(MultiService):
    """
    A client and a local port, for a limited time.

    @param reactor: Tells time.
    @param client: Stays connected to the server.
    @param port: The local port.
    @param service: What is reached there, as people call it.
    @param where: The server, so, too.
    @param ttl: Seconds, from the start.
    @param over: Called once with the reason when it is over before it was
        stopped.
    @param now: The time of day, in seconds.

    @ivar id: What lists and commands call it.
    """

    _log = Logger(namespace="tristunnel.service.access")

    def __init__(
        self,
        reactor: Any,
        client: TunnelClientService,
        port: AccessPort,
        service: str,
        where: str,
        ttl: float,
        over: Callable[[TunnelError], None] = lambda reason: None,
        now: Callable[[], float] = time.time,
    ) -> None:
        super().__init__()
        self.id = "a" + secrets.token_hex(4)
        self._reactor = reactor
        self._client = client
        self._port = port
        self._service = service
        self._where = where
        self._ttl = ttl
        self._over = over
        self._now = now
        self._began = 0.0
        self._timer: IDelayedCall | None = None
        client.setServiceParent(self)
        port.setServiceParent(self)

    def startService(self) -> None:
        self._began = self._reactor.seconds()
        self._timer = self._reactor.callLater(self._ttl, self._timeUp)
        self._log.info(
            "Access {id} to {service} at {where} ends in {ttl}",
            id=self.id,
            service=self._service,
            where=self._where,
            ttl=formatDuration(self._ttl),
        )
        super().startService()

    def _timeUp(self) -> None:
        self._timer = None
        self.end(
            TunnelError(
                "expired", f"the {formatDuration(self._ttl)} of access are over"
            )
        )

    def end(self, reason: TunnelError) -> None:
        """
        End it now, mid-stream.
        """
        self._log.info("Access {id} is over: {reason}", id=self.id, reason=reason)
        self._stopTimer()
        self._port.sendAway(reason)
        self._over(reason)

    def _stopTimer(self) -> None:
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
        self._timer = None

    def stopService(self) -> Deferred[None]:
        self.running = False
        self._stopTimer()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await self._port.stopService()
        await self._client.stopService()

    def stopNow(self) -> None:
        """
        Wait for nobody any longer.
        """
        self._port.stopNow()
        self._client.stopNow()

    # For whoever asks

    def describe(self) -> list[dict[str, object]]:
        """
        List the access and its visitors, in the terms of C{listSessions}.
        """
        port, now = self._port, self._reactor.seconds()
        left = None
        if self._timer is not None:
            left = round(max(0.0, self._timer.getTime() - now), 3)
        listening = port.listening
        guests = list(port.guests.values())

        def entry(since: float) -> dict[str, object]:
            return {
                "opened": round(self._now() - (now - since), 3),
                "seconds": round(now - since, 3),
                "timeLeft": left,
            }

        return [
            {
                "id": self.id,
                "kind": "access",
                "service": self._service,
                "server": self._where,
                "listen": "" if listening is None else addressText(listening.getHost()),
                "connected": self._client.session is not None,
                "visitors": len(guests),
                "visitorsTotal": port.total,
                "bytesIn": port.bytesIn + sum(g.visitor.received for g in guests),
                "bytesOut": port.bytesOut + sum(g.far.received for g in guests),
                **entry(self._began),
            },
            *(
                {
                    "id": f"{self.id}.{guest.number}",
                    "kind": "visitor",
                    "from": guest.origin,
                    "bytesIn": guest.visitor.received,
                    "bytesOut": guest.far.received,
                    **entry(guest.since),
                }
                for guest in guests
            ),
        ]

    def close(self, identifier: str) -> None:
        """
        End the access, or one visitor.

        @raise TunnelError: C{unknown-session}.
        """
        own, _, number = identifier.partition(".")
        reason = TunnelError("closed", "it was closed on request")
        if own == self.id and not number:
            self.end(reason)
        elif not (
            own == self.id
            and number.isdecimal()
            and len(number) < 18
            and self._port.sendAway(reason, int(number))
        ):
            raise TunnelError("unknown-session")
