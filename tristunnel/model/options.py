"""The options of C{openTunnel}, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from tristunnel.errors import badOption, printable
from tristunnel.model.gate import GATE_OPTIONS, GateRules, gateFrom
from tristunnel.model.group import checkBalance
from tristunnel.model.names import isHost, pathWanted
from tristunnel.model.policy import (
    POLICY_OPTIONS,
    VisitorPolicy,
    parseCountries,
    parseNetworks,
)
from tristunnel.util.words import isName, nearest

__all__ = ["TunnelOptions", "policyFrom"]


@dataclass(frozen=True)
class TunnelOptions:
    """
    What a caller may ask for when it opens a tunnel.

    @ivar via: How the client's end connects; empty for the default, which is the
        session that asks, or C{"tcp"} without one.
    @ivar listener: How visitors connect; empty for the server's default.
    @ivar port: Where visitors connect; 0 for any port.
    @ivar prefer: With C{port} 0, the one to take if it is free: what a
        returning client had before.
    @ivar name: A name to find the tunnel by; with a C{listener} of names, the one
        that visitors ask for, which may be a label below a domain of the server.
    @ivar path: With such a listener, the path below which the tunnel's paths are.
    @ivar preferName: With such a listener and no C{name}, the one to take if it is
        free: what a returning client had before.
    @ivar visitors: How many visitors it is for; 0 for the default, which is
        one for raw connections and any number for sessions.
    @ivar ttl: Seconds after which it ends; 0 for never.
    @ivar private: Whether there is no public side.
    @ivar resume: The URI of a tunnel of the caller's lease, to go on with.
    @ivar lookup: Who else may ask for the address of a tunnel whose URI could be
        guessed: names of owners, or C{"*"} for all.
    @ivar scheme: C{"http"} or C{"https"}, if visitors open it in a browser.
    @ivar target: The service, for its owner and the operator to see.
    @ivar openerOnly: Whether connections to the URI must come from where the
        tunnel was opened.
    @ivar firstLine: Whether a connection to the URI must begin with a line that is only
        known from the URI.
    @ivar destination: Whether the client is to learn at which address of the
        server each visitor came.
    @ivar hostHeader: What a web service reads in C{Host}; empty for what visitors send.
    @ivar ownHost: C{HOST:PORT} where its client reaches it, and where it might redirect
        visitors to; empty if that is not known.
    @ivar requestHeaders: C{Name: value} for headers that its requests get, and C{-Name}
        for those that they lose.
    @ivar responseHeaders: The same of its responses.
    @ivar raw: Whether a name's connections pass unchanged after the first request.
    @ivar share: How visitors are divided among this tunnel and others at the same
        place, a key of L{BALANCES}; empty to have the place alone.
    @ivar health: Whether its client tells by C{reportHealth} whether the service is
        well; no visitor comes before it has.
    @ivar policy: The limits on visitors.
    @ivar gate: How visitors of an HTTP name say who they are.
    """

    via: str = ""
    listener: str = ""
    port: int = 0
    prefer: int = 0
    name: str = ""
    path: str = ""
    preferName: str = ""
    visitors: int = 0
    ttl: float = 0.0
    private: bool = False
    resume: str = ""
    lookup: tuple[str, ...] = ()
    scheme: str = ""
    target: str = ""
    openerOnly: bool = False
    firstLine: bool = False
    destination: bool = False
    hostHeader: str = ""
    ownHost: str = ""
    requestHeaders: tuple[str, ...] = ()
    responseHeaders: tuple[str, ...] = ()
    raw: bool = False
    share: str = ""
    health: bool = False
    policy: VisitorPolicy = field(default_factory=VisitorPolicy)
    gate: GateRules = field(default_factory=GateRules)

    @classmethod
    def fromMapping(cls, options: Mapping[str, object]) -> TunnelOptions:
        """
        Check a caller's options.

        @param options: By name; those of the policy and of the gate are among them.
        @raise TunnelError: C{bad-option}, naming the option.
        """
        for name in options:
            if name not in _KNOWN:
                raise badOption(f"unknown option {name[:64]!r}{nearest(name, _KNOWN)}")
        asked = {name: options[name] for name in POLICY_OPTIONS if name in options}
        values = _read({k: v for k, v in options.items() if k not in asked}, _KNOWN)
        gate = {name: values.pop(name) for name in GATE_OPTIONS if name in values}
        for option in ("name", "preferName"):
            name = values.get(option, "")
            if not (isName(name) or isHost(name)):
                raise badOption(
                    "a name has at most 64 letters, digits, hyphens, dots, underscores"
                )
        if "path" in values:
            values["path"] = pathWanted(values["path"])
        if values.get("scheme", "") not in ("", "http", "https"):
            raise badOption("option scheme takes 'http' or 'https'")
        if values.get("share"):
            checkBalance(values["share"])
        if "target" in values:
            values["target"] = printable(values["target"], 200)
        return cls(**values, policy=policyFrom(asked), gate=gateFrom(gate))


_POLICY = {name: type(part.default) for name, part in POLICY_OPTIONS.items()}
_OWN = [part for part in fields(TunnelOptions) if part.name not in ("policy", "gate")]
_KNOWN = {part.name: type(part.default) for part in _OWN} | _POLICY | GATE_OPTIONS


def policyFrom(options: Mapping[str, object]) -> VisitorPolicy:
    """
    Check a caller's limits on a tunnel's visitors: the options of C{openTunnel} that
    are about them.

    @raise TunnelError: C{bad-option}, naming the one that is wrong.
    """
    for name in options:
        if name not in POLICY_OPTIONS:
            raise badOption(
                f"unknown option of a policy, {name[:64]!r}; choose from"
                f" {', '.join(POLICY_OPTIONS)}"
            )
    values = _read(options, _POLICY)
    for name in ("allow", "deny"):
        values[name] = parseNetworks(values.get(name, ()))
    values["countries"] = parseCountries(values.get("countries", ()))
    return VisitorPolicy(**values)


_KINDS = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list of strings",
    dict: "an object",
}

_PORT = (0, 65535, "0 to 65535")
_COUNT = (0, 1_000_000, "0 to 1000000")
_SECONDS = (1, 1e9, "seconds, from 1 up, or 0")
_STAY = (60, 90 * 86400, "seconds, from 60 up to 90 days")
_RANGES: dict[str, tuple[float, float, str]] = {
    "port": _PORT,
    "prefer": _PORT,
    "visitors": _COUNT,
    "maxVisitors": _COUNT,
    "visitorsPerAddress": _COUNT,
    "visitorRate": _COUNT,
    "rate": (0, 10**15, "bytes per second"),
    "idle": _SECONDS,
    "maxAge": _SECONDS,
    "stay": _STAY,
    "knock": _STAY,
    "ttl": (0, 10 * 365 * 86400, "seconds, up to 10 years"),
}
"""The range of an option's values besides 0: the least, the greatest, and both in
words."""


def _read(
    options: Mapping[str, object], known: Mapping[str, type[object]]
) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in options.items():
        kind: Any = known[name]
        if value is None:
            continue
        if kind is tuple:
            value = _texts(value)
        if kind is float and type(value) is int:
            # JSON's integers can be too long for a float.
            value = float(max(-1, min(value, 2**53)))
        if type(value) is not kind:
            raise badOption(f"option {name} takes {_KINDS[kind]}")
        values[name] = value
    for name in values.keys() & _RANGES.keys():
        least, most, words = _RANGES[name]
        if values[name] and not least <= values[name] <= most:
            raise badOption(f"option {name} takes {words}")
    return values


def _texts(value: object) -> object:
    """Read a list of strings, which may be one string with commas between."""
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
        return tuple(value)
    return value
