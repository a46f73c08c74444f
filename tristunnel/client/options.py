"""What a client is told, whatever command line or file it comes from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, ClassVar

from tristunnel.client.control import ControlPort
from tristunnel.client.dials import Dial
from tristunnel.client.service_options import demandOf, healthOf
from tristunnel.config.keys import FLAG, TEXT, WHOLE, Key, keysOf
from tristunnel.config.options import ConfiguredOptions
from tristunnel.config.policy_options import PolicyOptionsMixin, policyOf
from tristunnel.connect.address import ServerAddress
from tristunnel.errors import badOption
from tristunnel.forwards.consent import Consent
from tristunnel.forwards.dialling import dialDestinations
from tristunnel.forwards.forward import Forward, cannotAsk, parseForward
from tristunnel.forwards.options import ForwardOptions
from tristunnel.inspect.options import InspectSettings
from tristunnel.model.names import HOSTS
from tristunnel.model.policy import VisitorPolicy
from tristunnel.util.port_ranges import expandedForward, pairedPorts

__all__ = ["FORWARD_FIELDS", "ClientOptions", "checkForwards", "expanded", "forwardOf"]

FORWARD_FIELDS: Mapping[str, Key] = {
    "to": Key("to"),
    "port": Key("port", WHOLE),
    "ports": Key("ports"),
    "name": Key("name"),
    "udp": Key("udp", FLAG),
    **{kind: Key(kind) for kind in HOSTS},
    "private": Key("private", FLAG),
    **{
        part.name: Key(
            part.name, FLAG if part.default is False else TEXT, many=part.default == ()
        )
        for part in fields(ForwardOptions)
    },
    **keysOf(PolicyOptionsMixin),
}
"""The keys of such a table. Limits on visitors are those of the whole client, except
for what the table says itself."""


class ClientOptions(ConfiguredOptions):
    """
    Options of a client, and what their check has made of them.

    @ivar each: One for each client of the process; the same, if there is one.
    @ivar server: Where it connects.
    @ivar forwards: What it offers.
    @ivar policy: The limits on the visitors of all forwards.
    @ivar localEndpoint: Where it listens for local visitors, or C{None}.
    @ivar stateDirectory: Its state directory.
    @ivar dials: Local ports whose visitors are connected by others.
    @ivar destinations: What it dials for others.
    @ivar managed: What the server may ask for, or C{None} for nothing.
    @ivar exposed: Secrets on the command line, which others of this machine can read.
    @ivar control: Where calls about it are answered; C{None} for its state directory.
    @ivar inspection: What is kept of requests, and where it is shown, or C{None}.
    """

    processWide: ClassVar[frozenset[str]] = frozenset(
        (
            *("check", "check-idle", "event-secret-file", "log-format"),
            *("inspect", "inspect-body", "inspect-memory", "inspect-remote"),
            *("inspect-requests", "no-screen", "on-event", "rpc"),
        )
    )
    """Options that are about the whole process, and not about one of its clients."""

    def __init__(self) -> None:
        super().__init__()
        self.each: list[ClientOptions] = [self]
        self.server: ServerAddress
        self.forwards: list[Forward] = []
        self.policy = VisitorPolicy()
        self.localEndpoint: Any = None
        self.stateDirectory = Path()
        self.control: ControlPort | None = None
        self.inspection: InspectSettings | None = None
        self.managed: Consent | None = None
        self.exposed: dict[str, tuple[str, list[str]]] = {}
        self.dials: list[Dial] = []
        self.destinations = dialDestinations(())


def forwardOf(
    reactor: Any, wanted: str | Mapping[str, Any], options: Mapping[str, Any]
) -> Forward:
    """
    Make a forward.

    @param wanted: C{--forward}, or a table.
    @param options: The options for all forwards of the client.
    @raise TunnelError: C{bad-option}.
    """
    if isinstance(wanted, str):
        forward = parseForward(reactor, wanted)
        own: Mapping[str, Any] = {}
    else:
        forward, own = _fromTable(reactor, wanted), wanted
    policy = policyOf({**options, **own, **forward.options.policy})
    # A port has no use for it, and may be given beside a name. A short command has it
    # as an option.
    name = forward.name or options.get("name")
    private = bool(own.get("private", options["private"] and name))
    inner = forward.inner
    if inner is not None and inner.gateway is not None and not private:
        inner.gateway.checkPublic(policy)
    health = None if forward.isUDP else healthOf(options, forward.options.health)
    made = replace(forward, private=private, policy=policy, health=health)
    return replace(made, demand=demandOf(options, made))


def expanded(wanted: str | Mapping[str, Any]) -> Sequence[str | Mapping[str, Any]]:
    """
    Read a forward that may be for a range of ports.

    @param wanted: As for L{forwardOf}.
    @return: One for each port.
    @raise TunnelError: C{bad-option}.
    """
    if isinstance(wanted, str):
        return expandedForward(wanted)
    if not (ports := wanted.get("ports")):
        return [wanted]
    if wanted.keys() & {"port", "name"}:
        raise badOption("a forward with ports has no port and no name")
    pairs = pairedPorts(ports, wanted.get("to", ""))
    return [{**wanted, "port": port, "to": target} for port, target in pairs]


def _fromTable(reactor: Any, table: Mapping[str, Any]) -> Forward:
    target, name = table.get("to", ""), table.get("name", "")
    port = table.get("port", 0)
    if not target:
        raise badOption('a forward needs a target: to = "localhost:3000"')
    if port < 0:
        raise badOption(f"{port} is not a valid port")
    if name.isdecimal():
        raise badOption(f"the name {name!r} looks like a port")
    kind = "udp/" if table.get("udp") else ""
    hosts = [each for each in HOSTS if each in table]
    if hosts:
        if len(hosts) > 1 or kind or name or port:
            raise badOption(f"a forward with {hosts[0]} has no other name and no port")
        kind, name = f"{hosts[0]}/", table[hosts[0]]
    own = {
        part.name: tuple(said) if isinstance(said, list) else said
        for part in fields(ForwardOptions)
        if (said := table.get(part.name))
    }
    text = ForwardOptions.fromMapping(own).text
    wanted = name if hosts else name or port
    forward = parseForward(reactor, f"{kind}{wanted}={target}{text}")
    return forward.asked(port, name) if name and port else forward


def checkForwards(forwards: Iterable[Forward]) -> None:
    """
    @raise TunnelError: C{bad-option}, if two want the same.
    """
    seen: set[str] = set()
    taken: set[object] = set()
    for forward in forwards:
        if forward.spec in seen:
            raise badOption(f"--forward {forward.spec} is given twice")
        seen.add(forward.spec)
        if forward.gate and not (forward.gate.knock or forward.listener):
            raise cannotAsk(forward.spec)
        port = (forward.isUDP, forward.port) if forward.port else None
        name: object = forward.place if forward.hasHost else forward.name
        wants = {port, name if forward.name else ""} - {None, ""}
        if wants & taken:
            cure = "0= takes any port"
            if name in taken:
                cure = "give each a name of its own"
            raise badOption(f"two --forward ask for {forward.wanted}; {cure}")
        taken |= wants
