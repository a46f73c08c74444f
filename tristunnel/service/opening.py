"""Opening a tunnel: the order in which its parts are made."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Protocol

from tristunnel.dataplane.glimpse import Speech
from tristunnel.errors import TunnelError, badOption
from tristunnel.model.decisions import Decisions
from tristunnel.model.health import Health
from tristunnel.model.kept_ports import PortsKept
from tristunnel.model.observer import ServerObserver
from tristunnel.model.options import TunnelOptions
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.caller import Caller, OpensVia, Via
from tristunnel.service.choice import (
    SESSION,
    checkDatagrams,
    isNamed,
    listenersFor,
    viaFor,
)
from tristunnel.service.entries import BookEntries
from tristunnel.service.here import Held, Here
from tristunnel.service.host_rules import HostRules, holderIn
from tristunnel.service.leases import Lease
from tristunnel.service.rights import TunnelRights
from tristunnel.service.sharing import Sharing
from tristunnel.service.siblings import Siblings

__all__ = ["SHOWN", "Opens", "askedAgain", "build", "made", "shown"]

SHOWN = 0.5
"""Seconds in which other members of a server let visitors of a new tunnel in."""


class Opens(OpensVia, Protocol):
    """What L{made} and L{build} need of the tunnel service."""

    hostname: str
    observer: ServerObserver
    looksAtAnswers: bool
    decisions: Decisions | None
    via: dict[str, Via]
    entries: BookEntries
    here: Here
    hosts: HostRules
    rights: TunnelRights
    sharing: Sharing
    kept: PortsKept
    processes: Siblings | None
    siblings: Siblings | None


def made(
    service: Opens, identifier: str, caller: Caller, wanted: TunnelOptions
) -> Tunnel:
    """
    Make a tunnel, of which nothing is open yet.

    @param service: Has the parts.
    @param identifier: Its id.
    """
    tunnel = Tunnel(
        id=identifier,
        owner=caller.identity,
        clientSide=None,
        observer=service.observer,
        seconds=service.reactor.seconds,
        hostname=service.hostname or caller.host,
        name="" if isNamed(service.listeners, wanted) else wanted.name,
        scheme=wanted.scheme,
        target=wanted.target,
        tellsDestination=wanted.destination,
        health=Health() if wanted.health else None,
        speech=Speech() if service.looksAtAnswers else None,
        web=caller.web,
        gate=wanted.gate,
    )
    if wanted.ttl:
        tunnel.until = service.reactor.seconds() + wanted.ttl
    if service.decisions is not None:
        tunnel.ask = service.decisions.visitor
    return tunnel


async def build(
    service: Opens,
    tunnel: Tunnel,
    caller: Caller,
    wanted: TunnelOptions,
    enter: Callable[[Lease | None], Awaitable[Held]],
    uri: str,
) -> None:
    """
    Reserve in the book, listen, announce. Meanwhile the client may have left, or
    come back elsewhere.

    @param service: Has the parts.
    @param enter: Enters it in the book.
    @param uri: The URI that it has already, or empty.
    @raise TunnelError: With the reason of a refusal; then the caller must take down
        what there is of the tunnel.
    """
    name, via = viaFor(service.via, wanted, caller)
    if wanted.listener == "udp":
        tunnel.protocol = "udp"
        checkDatagrams(name, caller)
    if wanted.health and name != SESSION:
        raise badOption(
            "option health is for a session, whose client tells how its service is"
        )
    if wanted.share and service.processes is not None:
        raise badOption(
            "the tunnels of a group are in one process, and this server has several:"
            " leave out share, or have its operator leave out --processes"
        )
    group = service.sharing.find(caller.identity, wanted) if wanted.share else None
    if group is not None:
        # The group has its name.
        tunnel.name = ""
        if any(it.gate.describe() != wanted.gate.describe() for it in group.tunnels):
            raise badOption(
                "clients that share a name ask the same of its visitors: give all of"
                " them the same pin, login, oidc, link and stay"
            )
    lease = caller.lease if name == SESSION else None
    held = await enter(lease)
    _checkWanted(tunnel, caller)
    reserve = partial(service.entries.reserve, held)
    await via(service, tunnel, caller, wanted, partial(reserve, "uri"))
    tunnel.uri = uri or tunnel.uri
    _checkWanted(tunnel, caller)
    joins = group is not None and bool(group.tunnels)
    if isNamed(service.listeners, wanted) and joins:
        service.hosts.join(tunnel, caller.identity, wanted.name)
    elif isNamed(service.listeners, wanted):
        wanted = service.hosts.claim(tunnel, caller, wanted)
        if service.siblings is not None:
            await _haveHost(service, held, wanted.name)
    if group is not None and joins:
        tunnel.listener = service.sharing.join(group, tunnel, wanted.share)
    elif not wanted.private:
        kind, listeners = listenersFor(service.listeners, wanted)
        tunnel.listener = await service.rights.openListener(
            caller.identity,
            kind,
            listeners,
            wanted,
            tunnel.visitorArrived,
            partial(reserve, "visitors"),
        )
        _checkWanted(tunnel, caller)
    await service.entries.announce(held)
    _checkWanted(tunnel, caller)
    if lease is not None:
        lease.tunnels.append(tunnel)
        service.kept.keep(tunnel.id, lease.id, tunnel.listener)


async def _haveHost(service: Opens, held: Held, host: str) -> None:
    """
    Make sure that no other process gives a host, with another path or for another kind
    of visitors, to somebody else in the same moment.

    @raise TunnelError: C{name-taken}.
    """
    try:
        await service.entries.reserve(held, "host", "host", host)
    except TunnelError:
        other = await service.entries.holder(f"host:{host}")
        if other is None or holderIn(other) != holderIn(held.record):
            raise


def askedAgain(tunnel: Tunnel, wanted: TunnelOptions) -> bool:
    """
    Take the wishes of an owner who asks for a tunnel once more; they may have changed.

    @return: Whether other processes have to be told.
    """
    tunnel.scheme, tunnel.target = wanted.scheme, wanted.target
    tunnel.tellsDestination = wanted.destination
    tunnel.setChecked(wanted.health)
    if tunnel.gate == wanted.gate:
        return False
    tunnel.gate = wanted.gate
    changed = getattr(tunnel.listener, "changed", None)
    if changed is not None:
        changed(wanted)
    return True


async def shown(service: Opens, tunnel: Tunnel) -> Tunnel:
    """
    Wait until visitors can come in at the other members of the server, too: whoever
    opened the tunnel is about to tell its address. A member that does not answer in
    time follows later.

    @return: The same tunnel.
    """
    held = service.here.of(tunnel)
    if (
        service.siblings is not None
        and held is not None
        and service.kept.isShown(held.record)
    ):
        await service.siblings.heed("show", tunnel.id, patience=SHOWN)
    return tunnel


def _checkWanted(tunnel: Tunnel, caller: Caller) -> None:
    """
    @raise TunnelError: Why nobody waits for a tunnel any more, while it is made.
    """
    if tunnel.closed is not None:
        raise tunnel.closed
    if caller.lease is not None and caller.lease.holder is not caller.clientSide:
        # The answer would reach nobody, so nobody would know of the tunnel.
        raise TunnelError("session-lost")
