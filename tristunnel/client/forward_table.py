"""A forward as a table of a configuration file: C{[[forward]]}."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from tristunnel.config.keys import FLAG, WHOLE, Key, keysOf
from tristunnel.config.policy_options import PolicyOptionsMixin, policyOf
from tristunnel.errors import badOption
from tristunnel.forwards.forward import Forward, parseForward

__all__ = ["FORWARD_FIELDS", "checkForwards", "forwardOf"]

FORWARD_FIELDS: Mapping[str, Key] = {
    "to": Key("to"),
    "port": Key("port", WHOLE),
    "name": Key("name"),
    "udp": Key("udp", FLAG),
    "private": Key("private", FLAG),
    **keysOf(PolicyOptionsMixin),
}
"""What such a table may have. Of visitors it asks what the whole client asks,
except for what it says itself."""


def forwardOf(
    reactor: Any, wanted: str | Mapping[str, Any], options: Mapping[str, Any]
) -> Forward:
    """
    Make a forward.

    @param wanted: C{--forward}, or a table.
    @param options: What holds for all forwards of the client.
    @raise TunnelError: C{bad-option}.
    """
    if isinstance(wanted, str):
        forward = parseForward(reactor, wanted)
        own: Mapping[str, Any] = {}
    else:
        forward, own = _fromTable(reactor, wanted), wanted
    policy = policyOf({**options, **own})
    private = bool(own.get("private", options["private"]))
    return replace(forward, private=private, policy=policy)


def _fromTable(reactor: Any, table: Mapping[str, Any]) -> Forward:
    target, name = table.get("to", ""), table.get("name", "")
    port = table.get("port", 0)
    if not target:
        raise badOption('a forward needs a target: to = "localhost:3000"')
    if port < 0:
        raise badOption(f"no port is {port}")
    if name.isdecimal():
        raise badOption(f"the name {name!r} would be a port")
    kind = "udp/" if table.get("udp") else ""
    forward = parseForward(reactor, f"{kind}{name or port}={target}")
    if name and port:
        # The command line has no way to say both.
        spec = f"{kind}{port}:{name}={target}"
        numbered = parseForward(reactor, f"{kind}{port}={target}")
        forward = replace(numbered, name=name, spec=spec)
    return forward


def checkForwards(forwards: Iterable[Forward]) -> None:
    """
    @raise TunnelError: C{bad-option}, if two want the same.
    """
    seen: set[str] = set()
    taken: set[object] = set()
    for forward in forwards:
        if forward.spec in seen:
            raise badOption(f"--forward {forward.spec} is there twice")
        seen.add(forward.spec)
        port = (forward.isUDP, forward.port) if forward.port else None
        wants = {port, forward.name} - {None, ""}
        if wants & taken:
            raise badOption(
                f"two --forward ask for {forward.wanted}; 0= takes any port"
            )
        taken |= wants
