"""
What the server writes to its log: one line for each thing that happened.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.interfaces import IAddress
from twisted.logger import Logger

from tristunnel.errors import TunnelError
from tristunnel.model.observer import ServerObserver
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.util.hosts import addressText
from tristunnel.util.log_limiter import LogRateLimiter

__all__ = ["LoggingServerObserver"]

FREELY = 20
"""Refused connections in a minute, for each reason, that get a line of their own; the
rest gets one summary a minute."""

LINES = 200
"""Lines in a minute about one client: that it came and went, what it opened,
closed and was refused."""

ALL_LINES = 2000
"""The same for all clients together."""

VISITS = 50
"""Visitors in an interval that get a line of their own."""

VISITS_INTERVAL = 10.0
"""Seconds of that interval."""


class LoggingServerObserver(ServerObserver):
    """
    Writes to the log. What unauthenticated peers, visitors and clients can cause to be
    written is bounded: what happens too often is summed up.

    @param seconds: The clock of streams.
    @param callLater: Has summaries written in time.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(
        self,
        seconds: Callable[[], float],
        callLater: Callable[..., object] | None = None,
    ) -> None:
        self._seconds = seconds
        self._refusals = LogRateLimiter(seconds, callLater)
        self._visits = LogRateLimiter(seconds, callLater, VISITS_INTERVAL)
        self._ofClients = LogRateLimiter(seconds, callLater)
        self._ofAll = LogRateLimiter(seconds, callLater)

    def serverStarted(self, port: str, address: IAddress) -> None:
        self._log.info(
            "Listening for clients on {address} ({port})",
            port=port,
            address=addressText(address),
        )

    def namesPortOpened(self, port: str, address: IAddress) -> None:
        self._log.info(
            "Listening for visitors of names on {address} ({port})",
            port=port,
            address=addressText(address),
        )

    def _about(self, client: Identity, line: str, **fields: object) -> None:
        self._note(client, partial(self._log.info, line, client=client.shown, **fields))

    def _note(self, client: Identity, write: Callable[[], None]) -> None:
        def summary(count: int, seconds: float) -> None:
            self._log.warn(
                "{count} more lines about client {client} in {seconds:.0f} s",
                count=count,
                client=client.shown,
                seconds=seconds,
            )

        def ofAll(count: int, seconds: float) -> None:
            self._log.warn(
                "{count} more lines about clients in {seconds:.0f} s",
                count=count,
                seconds=seconds,
            )

        self._ofClients.log(
            (client.name,),
            lambda: self._ofAll.log((), write, ofAll, ALL_LINES),
            summary,
            LINES,
        )

    def requestNoted(self, identity: Identity, text: str, refused: bool) -> None:
        level = self._log.warn if refused else self._log.info
        self._note(
            identity,
            partial(level, "Client {client} {text}", client=identity.shown, text=text),
        )

    def clientConnected(self, peer: IAddress, identity: Identity, dialect: str) -> None:
        self._about(
            identity,
            "Client {client} connected from {peer} ({dialect})",
            peer=addressText(peer),
            dialect=dialect,
        )

    def clientGone(
        self, peer: IAddress, identity: Identity, reason: TunnelError
    ) -> None:
        self._about(
            identity,
            "Client {client} at {peer} left: {reason}",
            peer=addressText(peer),
            reason=reason,
        )

    def authenticationFailed(self, peer: IAddress, reason: TunnelError) -> None:
        self._refused("Client at {peer} was turned away: {reason}", peer, reason)

    def tunnelCreated(self, tunnel: Tunnel) -> None:
        self._about(
            tunnel.owner,
            "Tunnel {uri} of {client} is open at {address}{service}",
            uri=tunnel.publicURI,
            address=tunnel.address or "no public address",
            service=f", for {tunnel.name}" if tunnel.name else "",
        )

    def tunnelDestroyed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        self._about(
            tunnel.owner,
            "Tunnel {uri} of {client} is closed after {seconds:.3f} s, {visitors}"
            " visitors, {bytesIn} bytes in, {bytesOut} bytes out: {reason}",
            uri=tunnel.publicURI,
            seconds=self._seconds() - tunnel.opened,
            visitors=tunnel.visitorCount,
            bytesIn=tunnel.bytesIn,
            bytesOut=tunnel.bytesOut,
            reason=reason,
        )

    def healthChanged(self, tunnel: Tunnel) -> None:
        health = tunnel.health
        if health is not None:
            self._about(
                tunnel.owner,
                "The service of {uri} of {client} is {state}{why}",
                uri=tunnel.publicURI,
                state="well" if health.isWell else "not well, and gets no visitors",
                why=f": {health.reason}" if health.reason else "",
            )

    def visitorRefused(self, stream: Stream, reason: TunnelError) -> None:
        address = stream.target or stream.tunnel.address or stream.tunnel.publicURI

        def event() -> None:
            self._log.warn(
                "Visitor {visitor} of {address} was turned away: {reason}",
                visitor=stream.visitorAddress,
                address=address,
                reason=reason,
            )

        def summary(count: int, seconds: float) -> None:
            self._log.warn(
                "{count} more visitors of {address} were turned away in {seconds:.0f}"
                " s, the last one from {visitor}: {reason}",
                count=count,
                address=address,
                seconds=seconds,
                visitor=stream.visitorAddress,
                reason=reason,
            )

        kind = ("visitor", stream.tunnel.id, reason.code.name)
        self._refusals.log(kind, event, summary)

    def visitorGone(self, stream: Stream) -> None:
        self._visits.log(
            ("visits",), lambda: self._wholeLife(stream), self._crowd, VISITS
        )

    def _wholeLife(self, stream: Stream) -> None:
        self._log.info(
            "Visitor {visitor} of {address} left after {seconds:.3f} s,"
            " {bytesIn} bytes in, {bytesOut} bytes out{why}",
            visitor=stream.visitorAddress,
            address=stream.target or stream.tunnel.address or stream.tunnel.publicURI,
            seconds=self._seconds() - stream.opened,
            bytesIn=stream.bytesIn,
            bytesOut=stream.bytesOut,
            why=f": {stream.reason}" if stream.reason else "",
        )

    def _crowd(self, count: int, seconds: float) -> None:
        """
        Write how many more have left. A line for each would cost a server more than
        serving them.
        """
        self._log.info(
            "{count} more visitors left in {seconds:.0f} s",
            count=count,
            seconds=seconds,
        )

    def peerRefused(self, peer: IAddress, reason: TunnelError) -> None:
        self._refused("Connection from {peer} closed: {reason}", peer, reason)

    def _refused(self, line: str, peer: IAddress, reason: TunnelError) -> None:
        def event() -> None:
            self._log.warn(line, peer=addressText(peer), reason=reason)

        def summary(count: int, seconds: float) -> None:
            self._log.warn(
                "{count} more connections were refused in {seconds:.0f} s, the last one"
                " from {peer}: {reason}",
                count=count,
                seconds=seconds,
                peer=addressText(peer),
                reason=reason,
            )

        self._refusals.log((line, reason.code.name), event, summary, FREELY)
