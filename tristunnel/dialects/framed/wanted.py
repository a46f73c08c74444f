"""What C{openTunnel} is told for a forward, and what a plain W3P server cannot have."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tristunnel.connect.endpoints import EndpointParts, isKind
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import Forward
from tristunnel.model.observer import ClientObserver
from tristunnel.util.hosts import hostAndPort, parsePlace

__all__ = ["beyondW3P", "servePlain", "wantedFor"]

_WEB = ("http", "web")
"""Listeners whose visitors may be sent to what a service takes for its own address."""


def wantedFor(
    forward: Forward, lease: ClientLease, rules: Mapping[str, object]
) -> dict[str, Any]:
    """
    Make the options of a forward's tunnel.

    @param lease: What is remembered of the tunnel that it had before.
    @param rules: What is asked of the visitors of all forwards that say nothing of
        their own.
    """
    policy = forward.policy
    options: dict[str, Any] = {
        **(rules if policy is None else policy.describe()),
        "port": forward.port,
        "name": forward.name,
    }
    if forward.scheme:
        options["scheme"] = forward.scheme
    options |= forward.options.asked
    if forward.gate:
        options |= forward.gate.asked(lease.salt, forward.wanted)
    if forward.health is not None:
        options["health"] = True
    if forward.isUDP:
        options["listener"] = "udp"
    if not forward.port:
        options["prefer"] = lease.ports.get(forward.spec, 0)
    if forward.listener and not forward.isUDP:
        options["listener"] = forward.listener
        options["path"] = forward.path
        options["preferName"] = lease.names.get(forward.spec, "")
    if forward.listener in _WEB and (own := _placeOf(forward.target)):
        options["ownHost"] = own
    if forward.private:
        options["private"] = True
    if forward.spec in lease.uris:
        options["resume"] = lease.uris[forward.spec]
    return options


def _placeOf(target: str) -> str:
    """The host and the port that a service is at; empty for one that has none."""
    try:
        if isKind(target):
            parts = EndpointParts(target)
            return hostAndPort(parts.host, parts.port) if parts.host else ""
        parsePlace(target)
    except ValueError:
        return ""
    return target


def beyondW3P(forward: Forward, rules: Mapping[str, object]) -> str:
    """
    Say why a plain W3P server cannot have a forward.

    @param rules: As for L{wantedFor}.
    @return: Nothing if it can.
    """
    if forward.isUDP:
        return "a W3P server does not support UDP"
    if forward.private:
        return "a W3P server has no private services: its ports are public"
    if forward.hasHost:
        return "a W3P server gives out ports, and no names"
    if forward.options.share or forward.health:
        return "a W3P server has no health checks, and gives a port to one client"
    if forward.options.proxy:
        return "a W3P server does not say where visitors come from"
    if forward.gate or (rules if forward.policy is None else forward.policy.describe()):
        return (
            "a W3P server cannot limit visitors: it would admit those that"
            " --allow and the like exclude"
        )
    return ""


def servePlain(
    forwards: Sequence[Forward],
    rules: Mapping[str, object],
    host: str,
    port: int,
    observer: ClientObserver,
) -> None:
    """
    Tell what a plain W3P server has opened: one tunnel, on a port of its own choice.

    @param rules: As for L{wantedFor}.
    @param host: By which name the server is known.
    @param port: The port.
    """
    served = [f for f in forwards if not beyondW3P(f, rules)]
    for forward in forwards:
        why = beyondW3P(forward, rules)
        if not why and forward is not served[0]:
            why = (
                "a W3P server opens one tunnel per client; start another client"
                f" for {forward.spec}"
            )
        if why:
            refusal = TunnelError("not-permitted", why)
            observer.tunnelFailed(forward.wanted, refusal)
    if not served:
        return
    first = served[0]
    if first.name or first.port not in (0, port):
        why = f"a W3P server chooses the port, and chose {port}"
        refusal = TunnelError("not-permitted", why)
        observer.tunnelFailed(first.wanted, refusal)
    address = first.addressFor(f"tcp://{hostAndPort(host, port)}")
    observer.tunnelReady(address, first.target)
