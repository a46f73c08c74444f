"""
A request at a gate, and who makes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, quote

from tristunnel.model.gate import GATE_PATH, GateRules
from tristunnel.model.record import reservedFor
from tristunnel.names.exchange import Exchange
from tristunnel.wire.http import RequestHead

__all__ = ["Account", "GateVisit", "fieldsOf"]

_NEXT = re.compile(r"/(?![/\\])[!-\[\]-~]{0,2000}")
_FIELDS = 20
_GROUPS = 1500
"""Bytes of groups that a cookie has room for."""


@dataclass(frozen=True, slots=True)
class Account:
    """
    Who has signed in.

    @ivar way: How: C{pin}, C{login}, C{oidc} or C{link}.
    @ivar user: Who; empty where nobody has a name.
    @ivar email: The e-mail address, if a provider has verified it.
    @ivar groups: The groups that a provider knows.
    @ivar access: The link, by its id.
    """

    way: str
    user: str = ""
    email: str = ""
    groups: tuple[str, ...] = ()
    access: str = ""

    def claims(self, rules: GateRules) -> dict[str, object]:
        """
        What a cookie says.

        @param rules: What was asked; those groups are kept first that matter to it.
        """
        wanted = rules.oidc.groups if rules.oidc is not None else ()
        kept: list[str] = []
        size = 0
        for group in sorted(self.groups, key=lambda each: each not in wanted):
            size += len(group.encode()) + 4
            if size <= _GROUPS:
                kept.append(group)
        told = {
            "way": self.way,
            "sub": self.user,
            "email": self.email,
            "groups": kept,
            "access": self.access,
            "ver": rules.version(self.way, self.user),
        }
        return {name: value for name, value in told.items() if value}

    @classmethod
    def of(cls, claims: dict[str, Any], rules: GateRules) -> Account | None:
        """
        Read what a cookie says.

        @return: C{None}, if visitors are asked for something else by now.
        """
        made = cls(
            claims.get("way", ""),
            claims.get("sub", ""),
            claims.get("email", ""),
            tuple(claims.get("groups", ())),
            claims.get("access", ""),
        )
        version = rules.version(made.way, made.user)
        return made if version and claims.get("ver") == version else None

    @property
    def lines(self) -> bytes:
        """
        The headers that tell a service who has signed in; no visitor can send them.
        """
        told = {
            b"X-Forwarded-User": _plain(self.user),
            b"X-Forwarded-Email": _plain(self.email),
            b"X-Forwarded-Groups": ",".join(map(_plain, self.groups)),
        }
        return b"".join(
            b"%b: %b\r\n" % (name, text.encode("ascii"))
            for name, text in told.items()
            if text
        )


def _plain(text: str) -> str:
    """Make a text fit for a header's list, between commas."""
    return quote(text, safe=" !#$&'()*+-./:;<=>?@[]^_`{|}~")


def fieldsOf(text: str) -> dict[str, str]:
    """
    Read a query, or a form.

    @return: The first value of each name; nothing, if there are too many.
    """
    try:
        said = parse_qs(text, keep_blank_values=True, max_num_fields=_FIELDS)
    except ValueError:
        return {}
    return {name: values[0] for name, values in said.items()}


class GateVisit:
    """
    A request at a gate.

    @param exchange: The request, with its route.

    @ivar rules: What is asked of visitors.
    @ivar head: The request's head.
    @ivar host: The name that it is for.
    @ivar secure: Whether it comes over TLS.
    @ivar address: Where it comes from.
    @ivar path: Below which path the tunnel is.
    @ivar place: What cookies are good for: the name and the path.
    @ivar service: What a link has to be for, as the book calls it.
    @ivar own: Which of the gate's own pages it is for, or C{None}.
    @ivar query: What it says behind the path of that.
    """

    def __init__(self, exchange: Exchange) -> None:
        route = exchange.route
        assert route is not None
        self.rules = route.gate or GateRules()
        self.head: RequestHead = exchange.head
        self.host = exchange.host
        self.secure = exchange.origin.scheme == b"https"
        self.address = exchange.origin.address
        self.path = route.path
        self.place = f"{exchange.host}{route.path}"
        self.service = reservedFor(route.kind, f"{route.host}{route.path}")
        path, _, query = self.head.target.decode("ascii").partition("?")
        self.own: str | None = None
        self.query = ""
        if path.startswith(f"{self.base}/"):
            self.own, self.query = path.removeprefix(f"{self.base}/"), query
            # What follows is secret, and not for a log.
            self.head.target = path.encode("ascii")

    @property
    def base(self) -> str:
        """Where the gate's own pages are."""
        return f"{self.path}{GATE_PATH}"

    @property
    def isBrowser(self) -> bool:
        """Whether it comes from a browser, also from a script of a page."""
        return b"text/html" in self.head.get(b"accept") or bool(
            self.head.get(b"sec-fetch-mode")
        )

    @property
    def wantsPage(self) -> bool:
        """Whether a page can be shown."""
        return b"text/html" in self.head.get(b"accept")

    @property
    def target(self) -> str:
        """Where to go on once somebody has signed in."""
        isPage = self.own is None and self.head.method in (b"GET", b"HEAD")
        return self.next(self.head.target.decode("ascii") if isPage else "")

    def next(self, wanted: str) -> str:
        """
        Make sure that a path is one of this tunnel's.

        @param wanted: Anything.
        @return: It, or the tunnel's first page.
        """
        route = f"{self.path}/"
        isOurs = _NEXT.fullmatch(wanted) and f"{wanted}/".startswith(route)
        return wanted if isOurs and not wanted.startswith(self.base) else route

    @property
    def said(self) -> dict[str, str]:
        """What the query of one of the gate's own pages says."""
        return fieldsOf(self.query)

    def values(self, name: str) -> list[str]:
        """The values of the headers of a name."""
        found = self.head.all(name.lower().encode("ascii"))
        return [value.decode("latin-1") for value in found]
