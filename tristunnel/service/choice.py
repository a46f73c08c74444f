"""What is chosen for a tunnel by its options: the client's side and the public one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tristunnel.errors import badOption
from tristunnel.listeners.table import EITHER
from tristunnel.model.options import TunnelOptions
from tristunnel.model.ports import Reserve
from tristunnel.model.record import TunnelRecord
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.caller import Caller, Listeners, OpensVia, Via
from tristunnel.util.hosts import hostAndPort

__all__ = [
    "SESSION",
    "checkDatagrams",
    "checkGate",
    "inItsPlace",
    "isNamed",
    "listenersFor",
    "viaFor",
    "viaSession",
]

SESSION = "session"
"""How a session's own tunnels are served."""


async def viaSession(
    service: OpensVia,
    tunnel: Tunnel,
    caller: Caller,
    options: TunnelOptions,
    reserve: Reserve,
) -> None:
    """Serve the tunnel by the session that asks for it."""
    if caller.clientSide is None:
        raise badOption("a tunnel via 'session' must be opened on the session itself")
    tunnel.clientSide = caller.clientSide
    tunnel.visitorLimit = options.visitors
    port = caller.port or service.clientPort[0]
    where = hostAndPort(tunnel.hostname, port) if port else tunnel.hostname
    tunnel.uri = f"w3p://{where}/{tunnel.id}"


def checkDatagrams(via: str, caller: Caller) -> None:
    """
    @param via: What L{viaFor} has chosen.
    @raise TunnelError: C{bad-option}, if the tunnel's client side would carry
        bytes only.
    """
    if via not in (SESSION, "w3p"):
        raise badOption(
            f"a tunnel via {via[:64]!r} cannot carry UDP: open it on a session"
            " (tunnel-client --forward udp/PORT=HOST:PORT), or via 'w3p'"
        )
    if via == SESSION and not getattr(caller.clientSide, "carriesDatagrams", False):
        raise badOption("this client's protocol cannot carry UDP; update the client")


def viaFor(
    known: Mapping[str, Via], wanted: TunnelOptions, caller: Caller
) -> tuple[str, Via]:
    """
    Choose how a tunnel's client connects.

    @param known: What there is.
    @return: Its name, and what makes it.
    @raise TunnelError: C{bad-option}.
    """
    name = wanted.via or ("tcp" if caller.clientSide is None else SESSION)
    via = known.get(name)
    if via is None:
        raise badOption(
            f"via {name[:64]!r} is not known here; choose from {', '.join(known)}"
        )
    for option in ("lookup", "openerOnly", "firstLine"):
        if getattr(wanted, option) and name not in ("tcp", "tls"):
            raise badOption(f"option {option} only works via 'tcp' or 'tls'")
    return name, via


def listenersFor(
    known: Mapping[str, Listeners], wanted: TunnelOptions
) -> tuple[str, Listeners]:
    """
    Choose how a tunnel's visitors connect.

    @param known: What there is; the first one is the default.
    @return: Its name, and what opens it.
    @raise TunnelError: C{bad-option}.
    """
    default = next(iter(known))
    name = wanted.listener or default
    if name in EITHER:
        name = next((each for each in EITHER[name] if each in known), default)
    listeners = known.get(name)
    if listeners is None:
        choices = ", ".join((*known, *EITHER))
        raise badOption(
            f"listener {name[:64]!r} is not known here; choose from {choices}"
        )
    return name, listeners


def isNamed(known: Mapping[str, Listeners], wanted: TunnelOptions) -> bool:
    """Whether visitors ask for a tunnel by its name."""
    listeners = known.get(wanted.listener)
    return not wanted.private and getattr(listeners, "named", False)


def checkGate(known: Mapping[str, Listeners], wanted: TunnelOptions) -> None:
    """
    @raise TunnelError: C{bad-option}, if visitors are to sign in where there is no way
        to ask them.
    """
    if not wanted.gate:
        return
    listeners = None if wanted.private else known.get(wanted.listener)
    if wanted.gate.knock:
        if wanted.share or not listeners or getattr(listeners, "hasGate", False):
            raise badOption(
                "visitors knock at a port of one client; ask those of an HTTP name by"
                " pin, login, oidc or link, and leave knock out with share or private"
            )
        return
    if wanted.raw or not getattr(listeners, "hasGate", False):
        ways = ", ".join(wanted.gate.ways)
        raise badOption(
            f"visitors can be asked for {ways} at HTTP names only, without raw; other"
            " tunnels have allow, deny and countries"
        )


def inItsPlace(
    wanted: TunnelOptions, record: TunnelRecord, isNamed: bool
) -> TunnelOptions:
    """
    Ask for the port or the host that a tunnel has, even if any would have done.

    @param record: What the book says of it.
    @param isNamed: Whether visitors ask for it by its name.
    """
    for _, _, what in (each.partition(":") for each in record.reserved):
        if isNamed:
            wanted = replace(wanted, name=what.partition("/")[0])
        elif what.isdecimal():
            wanted = replace(wanted, port=int(what))
    return wanted
