"""What servers and clients tell hooks."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IAddress

from tristunnel.errors import TunnelError
from tristunnel.hooks.delivery import Hooks
from tristunnel.model.observer import ClientObserver, ServerObserver, Visit
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.util.hosts import addressText
from tristunnel.util.words import amount

__all__ = ["HookedClient", "HookedServer"]

_LIMITS = ("limit-reached", "ports-exhausted")


def _code(reason: TunnelError | None) -> str | None:
    return None if reason is None else reason.code.name


class HookedServer(ServerObserver):
    """
    Tells what happens at a server.

    @param hooks: Whom.
    @param seconds: The clock of streams.
    """

    def __init__(self, hooks: Hooks, seconds: Callable[[], float]) -> None:
        self._hooks = hooks
        self._seconds = seconds

    def clientConnected(self, peer: IAddress, identity: Identity, dialect: str) -> None:
        self._hooks.tell(
            "client-up",
            f"Client {identity.shown} connected from {addressText(peer)}",
            client=identity.name,
            address=addressText(peer),
            dialect=dialect,
        )

    def clientGone(
        self, peer: IAddress, identity: Identity, reason: TunnelError
    ) -> None:
        self._hooks.tell(
            "client-down",
            f"Client {identity.shown} at {addressText(peer)} left: {reason.message}",
            client=identity.name,
            address=addressText(peer),
            reason=reason.message,
            code=_code(reason),
        )

    def authenticationFailed(self, peer: IAddress, reason: TunnelError) -> None:
        where = addressText(peer)
        self._refused("client-refused", f"Client at {where}", reason, address=where)

    def requestNoted(self, identity: Identity, text: str, refused: bool) -> None:
        if refused:
            self._hooks.tell(
                "tunnel-refused",
                f"Client {identity.shown} {text}",
                client=identity.name,
                reason=text,
            )

    def tunnelCreated(self, tunnel: Tunnel) -> None:
        where = tunnel.page or tunnel.address or tunnel.name
        text = f"Tunnel of {tunnel.owner.shown} is open at {where}"
        self._hooks.tell("tunnel-opened", text, **_of(tunnel))

    def tunnelDestroyed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        where = tunnel.address or tunnel.name
        self._hooks.tell(
            "tunnel-closed",
            f"Tunnel of {tunnel.owner.shown} at {where} is closed: {reason.message}",
            **_of(tunnel),
            visitors=tunnel.visitorCount,
            bytes_in=tunnel.bytesIn,
            bytes_out=tunnel.bytesOut,
            reason=reason.message,
            code=_code(reason),
        )

    def healthChanged(self, tunnel: Tunnel) -> None:
        health = tunnel.health
        if health is None:
            return
        where = tunnel.address or tunnel.name
        kind, state = "service-unwell", f"is not well: {health.reason}"
        if health.isWell:
            kind, state = "service-well", "is well"
        self._hooks.tell(
            kind,
            f"The service of {tunnel.owner.shown} at {where} {state}",
            **_of(tunnel),
            reason=health.reason or None,
        )

    def visitorConnected(self, stream: Stream) -> None:
        if self._hooks.wants("visitor-came"):
            self._hooks.tell(
                "visitor-came",
                f"Visitor {stream.visitorAddress} came to {stream.tunnel.address}",
                visitor=stream.visitorAddress,
                **_of(stream.tunnel),
            )

    def visitorGone(self, stream: Stream) -> None:
        if self._hooks.wants("visitor-left"):
            age = round(self._seconds() - stream.opened, 3)
            self._hooks.tell(
                "visitor-left",
                f"Visitor {stream.visitorAddress} of {stream.tunnel.address} left after"
                f" {age} s, {amount(stream.bytesIn)} in, {amount(stream.bytesOut)} out",
                visitor=stream.visitorAddress,
                **_of(stream.tunnel),
                seconds=age,
                bytes_in=stream.bytesIn,
                bytes_out=stream.bytesOut,
                code=_code(stream.reason),
            )

    def visitorRefused(self, stream: Stream, reason: TunnelError) -> None:
        visitor = stream.visitorAddress
        what = f"Visitor {visitor} of {stream.tunnel.address}"
        known = {"visitor": visitor, **_of(stream.tunnel)}
        self._refused("visitor-refused", what, reason, **known)

    def peerRefused(self, peer: IAddress, reason: TunnelError) -> None:
        if reason.code.name in _LIMITS:
            where = addressText(peer)
            self._limit(f"Connection from {where}", reason, address=where)

    def _refused(
        self, kind: str, what: str, reason: TunnelError, **known: object
    ) -> None:
        self._hooks.tell(
            kind,
            f"{what} was turned away: {reason.message}",
            **known,
            reason=reason.message,
            code=_code(reason),
        )
        if reason.code.name in _LIMITS:
            self._limit(what, reason, **known)

    def _limit(self, what: str, reason: TunnelError, **known: object) -> None:
        self._hooks.tell(
            "limit-reached",
            f"{what} met a limit: {reason.message}",
            **known,
            reason=reason.message,
        )


def _of(tunnel: Tunnel) -> dict[str, object]:
    return {
        "client": tunnel.owner.name,
        "tunnel": tunnel.id,
        "name": tunnel.name or None,
        "tunnel_address": tunnel.address or None,
    }


class HookedClient(ClientObserver):
    """
    Tells what happens at a client.

    @param hooks: Whom.
    @param server: The server, as messages name it.
    """

    def __init__(self, hooks: Hooks, server: str) -> None:
        self._hooks = hooks
        self._server = server
        self._isUp = False
        self._isTrouble = False

    def _tell(self, kind: str, text: str, **fields: object) -> None:
        self._hooks.tell(kind, text, server=self._server, **fields)

    def acknowledged(self, dialect: str) -> None:
        self._isUp, self._isTrouble = True, False
        self._tell("client-up", f"Connected to {self._server}", dialect=dialect)

    def disconnected(self, reason: TunnelError) -> None:
        # Not for each attempt to reconnect.
        if reason.code.name == "bad-pin" and not self._isTrouble:
            self._isTrouble = True
            self._down("certificate-trouble", f"{self._server} is not trusted", reason)
        if self._isUp:
            self._isUp = False
            self._down("client-down", f"Disconnected from {self._server}", reason)

    def stopped(self) -> None:
        if self._isUp:
            self._isUp = False
            self._tell("client-down", f"This client of {self._server} was stopped")

    def gaveUp(self, reason: TunnelError) -> None:
        self._down("client-refused", f"{self._server} has refused this client", reason)

    def _down(
        self, kind: str, text: str, reason: TunnelError, **fields: object
    ) -> None:
        known = {**fields, "reason": reason.message, "code": _code(reason)}
        self._tell(kind, f"{text}: {reason.message}", **known)
        if reason.code.name in _LIMITS:
            self._tell("limit-reached", f"{text}: {reason.message}", **known)

    def tunnelReady(self, address: str, target: str) -> None:
        text = f"{address} leads to {target}"
        self._tell("tunnel-opened", text, tunnel_address=address, target=target)

    def tunnelFailed(self, wanted: str, reason: TunnelError) -> None:
        self._down("tunnel-refused", f"No tunnel at {wanted}", reason, wanted=wanted)

    def tunnelClosed(self, uri: str) -> None:
        self._tell("tunnel-closed", "The server has closed a tunnel")

    def serviceHealth(self, target: str, isWell: bool, reason: str) -> None:
        kind, state = "service-unwell", f"is not well: {reason}"
        if isWell:
            kind, state = "service-well", "is well"
        self._tell(kind, f"{target} {state}", target=target, reason=reason or None)

    def serviceFailed(self, target: str, reason: TunnelError) -> None:
        text = f"A visitor of {target} was turned away"
        self._down("visitor-refused", text, reason, target=target)

    def visitorConnected(self, visit: Visit) -> None:
        if self._hooks.wants("visitor-came"):
            text = f"Visitor {visit.visitor} came to {visit.target}"
            known = {"visitor": visit.visitor, "target": visit.target}
            self._tell("visitor-came", text, **known)

    def visitorGone(self, visit: Visit, reason: TunnelError | None) -> None:
        if self._hooks.wants("visitor-left"):
            self._tell(
                "visitor-left",
                f"Visitor {visit.visitor} of {visit.target} left,"
                f" {amount(visit.bytesIn)} in, {amount(visit.bytesOut)} out",
                visitor=visit.visitor,
                target=visit.target,
                bytes_in=visit.bytesIn,
                bytes_out=visit.bytesOut,
                code=_code(reason),
            )
