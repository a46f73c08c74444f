"""The options after a forward's target: C{localhost:25565,proxy=v2}."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from tristunnel.errors import badOption
from tristunnel.forwards.health import parseHealth
from tristunnel.model.group import LEAST_BUSY, checkBalance
from tristunnel.util.words import nearest
from tristunnel.wire.proxy_header import PROXY_HEADERS

__all__ = ["ForwardOptions", "splitOptions"]

_ALONE = {"share": LEAST_BUSY, "knock": "8h"}
"""The values of options that stand without one."""


@dataclass(frozen=True)
class ForwardOptions:
    """
    The options of one forward; their names are those that users write.

    @ivar proxy: The version of the PROXY protocol that the service expects, or
        empty.
    @ivar host: What C{Host} says to a web service, or empty for what visitors send.
    @ivar request: What is changed in the heads of its requests: C{Name: value} sets a
        header, C{-Name} leaves one out.
    @ivar response: The same of its responses.
    @ivar raw: Whether connections of its name pass unchanged after the first request.
    @ivar share: How visitors are divided among clients at the same place: a key of
        L{BALANCES}; empty to have the place alone.
    @ivar health: How the service's health is checked, as
        L{parseHealth<tristunnel.forwards.health.parseHealth>} reads it; empty for what
        the client's own option says, C{none} for no checks.
    @ivar allow: Networks that visitors may come from, besides the client's own limits.
    @ivar deny: Networks that they may not come from.
    @ivar countries: Countries that they may come from.
    @ivar pin: The file of a PIN that visitors of an HTTP name have to know, or empty.
    @ivar login: The file of their names and passwords, or empty.
    @ivar oidc: The file about a provider at which they have accounts, or empty.
    @ivar link: Whether links let them in.
    @ivar stay: How long they are not asked again, such as C{8h}; empty for the default.
    @ivar start: The command that starts the service for a visitor, or empty.
    @ivar stop: The command that stops it, or empty.
    @ivar wake: What wakes its machine: C{MAC[@ADDRESS[:PORT]]}, or empty.
    @ivar knock: How long an address is let in that has knocked, such as C{8h}; empty
        where nobody needs to.
    @ivar verify: How its requests are signed, and the file of the secrets, as
        L{readVerification<tristunnel.forwards.verify.readVerification>} reads it;
        empty for requests that need no signature.
    """

    proxy: str = ""
    host: str = ""
    request: tuple[str, ...] = ()
    response: tuple[str, ...] = ()
    raw: bool = False
    share: str = ""
    health: str = ""
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    pin: str = ""
    login: str = ""
    oidc: str = ""
    link: bool = False
    stay: str = ""
    start: str = ""
    stop: str = ""
    wake: str = ""
    knock: str = ""
    verify: str = ""

    @classmethod
    def fromMapping(cls, values: Mapping[str, Any]) -> ForwardOptions:
        """
        Check options.

        @param values: By name: texts, or C{True} for one that stands alone.
        @raise TunnelError: C{bad-option}.
        """
        given: dict[str, Any] = {
            name: _ALONE.get(name, True) if value is True else value
            for name, value in values.items()
        }
        known = {part.name: type(part.default) for part in fields(cls)}
        for name, value in given.items():
            kind = known.get(name)
            if kind is None and name.isdecimal():
                raise badOption("separate services by spaces, not by commas")
            if name == "networks":
                raise badOption("write allow=NETWORK or deny=NETWORK, not networks=")
            if kind is None:
                raise badOption(
                    f"a forward has no option {name[:60]!r}{nearest(name, known)}"
                )
            _checkKind(name, kind, value)
        made = cls(**given)
        if made.proxy and made.proxy not in PROXY_HEADERS:
            raise badOption(
                f"proxy={made.proxy[:60]} is unknown; write"
                f" {' or '.join('proxy=' + each for each in PROXY_HEADERS)}"
            )
        if made.share:
            checkBalance(made.share)
        if made.health not in ("", "none"):
            parseHealth(made.health)
        return made

    @property
    def policy(self) -> dict[str, list[str]]:
        """The limits on where visitors come from, by the names of options."""
        told = {"allow": self.allow, "deny": self.deny, "countries": self.countries}
        return {name: list(value) for name, value in told.items() if value}

    @property
    def text(self) -> str:
        """The same as L{splitOptions} reads it."""
        said: list[str] = []
        for each in fields(self):
            value = getattr(self, each.name)
            several = value if isinstance(value, tuple) else (value,) if value else ()
            said += [
                f",{each.name}"
                if one in (True, _ALONE.get(each.name))
                else f",{each.name}={_escaped(one)}"
                for one in several
            ]
        return "".join(said)

    @property
    def asked(self) -> dict[str, object]:
        """Those that the server has to know, as C{openTunnel} takes them."""
        told = {
            "hostHeader": self.host,
            "requestHeaders": list(self.request),
            "responseHeaders": list(self.response),
            "raw": self.raw,
            "destination": bool(self.proxy),
            "share": self.share,
        }
        return {name: value for name, value in told.items() if value}


def _checkKind(name: str, kind: type, value: object) -> None:
    several = value if isinstance(value, tuple) else (value,)
    if type(value) is not kind or (kind is tuple and True in several):
        form = name if kind is bool else f"{name}=VALUE"
        raise badOption(f"the option {name} of a forward is written {form}")
    if "" in several:
        # Perhaps a variable was not set: its limit must not be left out silently.
        raise badOption(
            f"the option {name} of a forward is empty; give it a value, or leave it out"
        )


def _escaped(value: str) -> str:
    return value.replace(",", "\\,")


def splitOptions(text: str) -> tuple[str, ForwardOptions]:
    """
    Split a target from the options after it.

    @param text: C{TARGET[,OPTION[=VALUE]]...}; a comma of the target's own has a
        backslash before it.
    @raise TunnelError: C{bad-option}, for an unknown option.
    """
    target, *said = re.split(r"(?<!\\),", text)
    values: dict[str, Any] = {}
    several = {part.name for part in fields(ForwardOptions) if part.default == ()}
    for each in said:
        name, equals, text = (part.strip() for part in each.partition("="))
        value = text.replace("\\,", ",") if equals else True
        if name in several:
            values[name] = (*values.get(name, ()), value)
        elif name in values:
            raise badOption(f"the option {name[:60]} of a forward is given twice")
        else:
            values[name] = value
    return target, ForwardOptions.fromMapping(values)
