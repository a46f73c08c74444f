"""
What visitors are asked for before the service sees them: visitors of an HTTP name for a
PIN, a login, an account at an OpenID provider, or a link; visitors of a port for a
knock.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from typing import Any
from urllib.parse import urlsplit

from tristunnel.errors import badOption, printable
from tristunnel.util.words import nearest

__all__ = [
    "GATE_OPTIONS",
    "GATE_PATH",
    "STAY",
    "GateRules",
    "ProviderRules",
    "gateFrom",
]

GATE_PATH = "/.tristunnel"
"""The path of a tunnel below which its gate has its own pages."""

STAY = 12 * 3600.0
"""Seconds after which a visitor has to sign in again, by default."""

STAY_AT_PROVIDER = 3600.0
"""The same for visitors with an account at a provider, which may have removed that."""

MOST = 1000
"""Users of one tunnel, or e-mail addresses, domains and groups."""

_HASH = re.compile(r"\$2[aby]\$(?:0[4-9]|1[0-4])\$[./A-Za-z0-9]{53}")
"""A hash of bcrypt's, at a cost that is bearable for a server."""

_TEXTS = ("scopes", "emails", "domains", "groups")
_SCOPES = ("openid", "email", "profile")


@dataclass(frozen=True)
class ProviderRules:
    """
    An OpenID provider, and which of its accounts are let in.

    @ivar issuer: Its URL, as its tokens name it.
    @ivar clientID: What it calls this tunnel.
    @ivar clientSecret: What proves that to it; empty for a public client.
    @ivar scopes: What it is asked for.
    @ivar emails: E-mail addresses that are let in.
    @ivar domains: Domains all of whose addresses are let in. Without either, all
        accounts are.
    @ivar groups: Groups, in one of which an account must be, too; empty for any.
    @ivar groupsClaim: Where its tokens have groups.
    """

    issuer: str = ""
    clientID: str = ""
    clientSecret: str = ""
    scopes: tuple[str, ...] = _SCOPES
    emails: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    groupsClaim: str = "groups"

    @classmethod
    def of(cls, values: Mapping[str, object]) -> ProviderRules:
        """
        Check a caller's rules.

        @raise TunnelError: C{bad-option}.
        """
        known = [each.name for each in fields(cls)]
        read: dict[str, Any] = {}
        for name, value in values.items():
            if name not in known:
                raise badOption(
                    f"oidc has no {printable(name, 60)!r}{nearest(name, known)}"
                )
            if name in _TEXTS:
                if not isinstance(value, (list, tuple)) or not all(
                    isinstance(each, str) and 0 < len(each) <= 300 for each in value
                ):
                    raise badOption(f"{name} of oidc takes a list of strings")
                if len(value) > MOST:
                    raise badOption(f"{name} of oidc takes at most {MOST}")
                value = tuple(value)
            elif not isinstance(value, str) or len(value) > 2000:
                raise badOption(f"{name} of oidc takes a string")
            read[name] = value
        made = cls(**read)
        try:
            url = urlsplit(made.issuer)
        except ValueError:
            url = urlsplit("")
        if (
            not re.fullmatch("[!-~]+", made.issuer)
            or url.scheme not in ("http", "https")
            or not url.netloc
            or url.query
        ):
            raise badOption(
                "oidc needs the issuer of an OpenID provider, such as"
                " https://accounts.example.com"
            )
        if not made.clientID:
            raise badOption("oidc needs a client ID, which the provider gives out")
        if "openid" not in made.scopes:
            raise badOption("the scopes of oidc must include openid")
        return made

    def admits(self, email: str, groups: tuple[str, ...]) -> bool:
        """
        Whether an account is let in.

        @param email: Its address, if the provider has verified that; else empty.
        """
        address = email.lower()
        _, at, domain = address.rpartition("@")
        if (self.emails or self.domains) and not (
            at
            and (
                address in map(str.lower, self.emails)
                or domain in map(str.lower, self.domains)
            )
        ):
            return False
        return not self.groups or not set(groups).isdisjoint(self.groups)


@dataclass(frozen=True)
class GateRules:
    """
    The ways in which visitors may sign in, of which any will do; without any, nothing
    is asked.

    @ivar pin: The hash of a number or a word, as bcrypt makes it; empty for none.
    @ivar login: C{NAME:HASH} of each user, likewise.
    @ivar oidc: The provider, or C{None}.
    @ivar link: Whether links of C{grantAccess} let visitors in.
    @ivar stay: Seconds after which they are asked again; 0 for the default.
    @ivar knock: Seconds for which an address is let in that has knocked; 0 where
        nobody needs to. C{pin} or C{login} are asked of whoever knocks then.
    """

    pin: str = ""
    login: tuple[str, ...] = ()
    oidc: ProviderRules | None = None
    link: bool = False
    stay: float = 0.0
    knock: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.ways or self.knock)

    @property
    def ways(self) -> tuple[str, ...]:
        """The ways that there are."""
        return tuple(name for name in _WAYS if getattr(self, name))

    @property
    def decoy(self) -> str:
        """A hash that takes as long as those of users; empty for the usual one."""
        return self.login[0].partition(":")[2] if self.login else ""

    def hashOf(self, user: str) -> str:
        """The hash of a user's password; empty for nobody's."""
        mark = f"{user}:"
        found = (each for each in self.login if each.startswith(mark))
        return next(found, mark).removeprefix(mark)

    def stayFor(self, way: str) -> float:
        """Seconds after which a visitor who came in that way is asked again."""
        return self.stay or (STAY_AT_PROVIDER if way == "oidc" else STAY)

    def version(self, way: str, user: str = "") -> str:
        """
        A text that changes whenever visitors who came in that way have to sign in
        again.

        @param user: Who, of a C{login}.
        """
        what: object = self.pin
        if way == "login":
            what = self.hashOf(user)
        elif way == "oidc":
            what = None if self.oidc is None else asdict(self.oidc)
        elif way == "link":
            what = self.link
        if not what:
            return ""
        return sha256(json.dumps([way, user, what]).encode()).hexdigest()[:16]

    def describe(self) -> dict[str, object]:
        """Describe what is asked, without secrets."""
        told: dict[str, object] = {}
        if self.pin:
            told["pin"] = True
        if self.login:
            told["login"] = [each.partition(":")[0] for each in self.login]
        if self.oidc is not None:
            asked = asdict(self.oidc).items()
            told["oidc"] = {
                name: list(value) if isinstance(value, tuple) else value
                for name, value in asked
                if value and name not in ("clientSecret", "scopes", "groupsClaim")
            }
        if self.link:
            told["link"] = True
        if self.stay:
            told["stay"] = self.stay
        if self.knock:
            told["knock"] = self.knock
        return told


_WAYS = ("pin", "login", "oidc", "link")

GATE_OPTIONS: dict[str, type[object]] = {
    **{part.name: type(part.default) for part in fields(GateRules)},
    "oidc": dict,
}
"""The parts of a gate by their names, and what C{openTunnel} takes for each."""


def gateFrom(values: Mapping[str, Any]) -> GateRules:
    """
    Check what an owner asks visitors for.

    @param values: By the names of L{GATE_OPTIONS}, each of its kind.
    @raise TunnelError: C{bad-option}.
    """
    given = dict(values)
    if given.get("oidc"):
        given["oidc"] = ProviderRules.of(given["oidc"])
    elif "oidc" in given:
        given["oidc"] = None
    rules = GateRules(**given)
    if rules.pin and not _HASH.fullmatch(rules.pin):
        raise badOption(
            "option pin takes a hash of bcrypt, such as htpasswd -nB makes, at a cost"
            " of 4 to 14"
        )
    users = set()
    for each in rules.login:
        name, colon, hashed = each.partition(":")
        if not (name and colon and _HASH.fullmatch(hashed)) or len(name) > 128:
            raise badOption(
                "option login takes NAME:HASH of each user, with a hash of bcrypt as"
                " htpasswd -nB makes it, at a cost of 4 to 14"
            )
        users.add(name)
    if len(users) != len(rules.login):
        raise badOption("option login names a user twice")
    if len(users) > MOST:
        raise badOption(f"option login takes at most {MOST} users")
    if rules.stay and (rules.knock or not rules):
        raise badOption("option stay goes with pin, login, oidc or link, without knock")
    if rules.knock and (rules.oidc or rules.link):
        raise badOption(
            "option knock goes with pin and login; oidc and link are for HTTP names"
        )
    return rules
