"""
Ending a tunnel: when it ends by itself, and the order in which its parts are closed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from tristunnel.errors import TunnelError
from tristunnel.model.kept_ports import PortsKept
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.claims import Claims
from tristunnel.service.entries import BookEntries
from tristunnel.service.here import Held, Here
from tristunnel.service.host_rules import HostRules
from tristunnel.service.leases import Leases
from tristunnel.service.patience import leftUndone
from tristunnel.service.policies import VisitorPolicies
from tristunnel.service.rights import TunnelRights
from tristunnel.service.sharing import Sharing
from tristunnel.util.deferreds import doAll
from tristunnel.util.repeating import stopTimer

__all__ = ["Ends", "Expiries", "dismantle", "retire"]

_log = Logger(namespace="tristunnel.server")


class Expiries:
    """
    Ends tunnels by timers, of which each tunnel has one at most.

    @param reactor: Tells time.
    @param discard: Ends tunnels.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        discard: Callable[[list[Tunnel], TunnelError], object],
    ) -> None:
        self._reactor = reactor
        self._discard = discard
        self._timers: dict[Tunnel, IDelayedCall] = {}

    def after(self, tunnel: Tunnel, seconds: float, until: float) -> None:
        """
        End a tunnel.

        @param seconds: For how long it was opened, to be said.
        @param until: When, in seconds of the reactor's clock.
        """
        tunnel.until = until
        self._timers[tunnel] = self._reactor.callLater(
            max(0.0, until - self._reactor.seconds()),
            self._discard,
            [tunnel],
            TunnelError(
                "expired", f"the {seconds:g} s that it was opened for have passed"
            ),
        )

    def keepWhile(
        self, tunnel: Tunnel, seconds: float, served: Callable[[], bool]
    ) -> None:
        """
        Look at a tunnel now and then, and end it if nobody serves it.

        @param seconds: From one look to the next.
        """
        self.forget(tunnel)

        def look() -> None:
            if served():
                self.keepWhile(tunnel, seconds, served)
            else:
                reason = f"no client connected to its URI for {seconds:g} s"
                self._discard([tunnel], TunnelError("expired", reason))

        self._timers[tunnel] = self._reactor.callLater(seconds, look)

    def forget(self, tunnel: Tunnel) -> None:
        """Stop the timer of a tunnel that is over, if it has one."""
        stopTimer(self._timers.pop(tunnel, None))


class Ends(Protocol):
    """What L{dismantle} and L{retire} need of the tunnel service."""

    here: Here
    entries: BookEntries
    leases: Leases
    hosts: HostRules
    rights: TunnelRights
    policies: VisitorPolicies
    claims: Claims
    sharing: Sharing
    kept: PortsKept
    expiries: Expiries


async def dismantle(service: Ends, tunnel: Tunnel, reason: TunnelError) -> None:
    """
    Close all parts of a tunnel. All of them begin to close before any is waited for, so
    that one that fails or does not answer does not keep others open.

    @param service: Has the parts.
    """
    service.expiries.forget(tunnel)
    service.policies.forget(tunnel)
    parts: list[Callable[[], Awaitable[object] | None]] = [
        partial(service.rights.forget, tunnel),
        partial(service.hosts.release, tunnel),
        partial(tunnel.close, reason),
    ]
    if tunnel.clientSide is not None:
        parts.append(partial(tunnel.clientSide.tunnelClosed, tunnel, reason))
    for listener in (tunnel.listener, tunnel.clientListener):
        if listener is not None:
            parts.append(listener.close)
    held = service.here.of(tunnel)
    if held is not None:
        service.leases.drop(held.record.lease, tunnel)
        # Last: nobody else may get what is still open here.
        parts.append(partial(service.entries.forget, tunnel.id))
    what = "A part of {uri} did not close"
    await doAll(parts, leftUndone(_log, what, uri=tunnel.publicURI))
    await _passOn(service, tunnel, held)


async def retire(service: Ends, tunnel: Tunnel) -> None:
    """
    Free a tunnel's port and name; it ends with the last of its visitors.

    @param service: Has the parts.
    """
    held = service.here.get(tunnel.id)
    if held is None:
        return
    tunnel.visitorLimit = max(1, tunnel.served)
    tunnel.leaveSoon()
    # The last visitor may leave meanwhile, and a port is closed only once.
    listener, tunnel.listener = tunnel.listener, None
    service.kept.drop(tunnel.id)
    if listener is not None:
        await listener.close()
    service.hosts.release(tunnel)
    await _passOn(service, tunnel, held)
    port, name, tunnel.name = held.port("visitors"), tunnel.name, ""
    held.reserved = {use: it for use, it in held.reserved.items() if use == "uri"}
    if tunnel.closed is None:
        await service.entries.announce(held)
    service.claims.freed(tunnel, port, name)


async def _passOn(service: Ends, tunnel: Tunnel, held: Held | None) -> None:
    """Pass on what a tunnel had reserved for its group."""
    heir = service.sharing.left(tunnel)
    heirs = None if heir is None else service.here.get(heir.id)
    if held is None or heirs is None:
        return
    try:
        await service.entries.inherit(heirs, held)
    except TunnelError as refusal:
        _log.warn(
            "A name was not passed on to another client: {reason}", reason=refusal
        )
