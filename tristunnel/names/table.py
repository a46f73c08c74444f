"""Which tunnel a name leads to: the routes of all listeners that share ports."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import unquote

from tristunnel.errors import TunnelError
from tristunnel.interfaces import End
from tristunnel.model.gate import GateRules
from tristunnel.model.options import TunnelOptions
from tristunnel.names.heads import UNCHANGED, HeadRules

__all__ = ["NameTable", "Route"]

_UNPLAIN = re.compile(r"[%;\\]|//|/\.\.?(?:/|\Z)")
_PARAMETERS = re.compile(r";[^/]*")
_SLASHES = re.compile(r"/{2,}")


def _readings(path: str) -> Iterator[str]:
    """Find as what different services may read a path."""
    text = unquote(path, "latin-1").replace("\\", "/")
    for each in (text, _PARAMETERS.sub("", text)):
        for spelled in (each, _SLASHES.sub("/", each)):
            parts: list[str] = []
            for part in spelled.split("/")[1:]:
                if part == "..":
                    del parts[-1:]
                elif part != ".":
                    parts.append(part)
            yield "/" + "/".join(parts)


@dataclass(eq=False, slots=True)
class Route:
    """
    A name that leads to a tunnel.

    @ivar kind: The listener's, C{"http"} or others, each of which has its own names.
    @ivar host: In lower case and in ASCII; C{*.example.org} is every host below
        one that has no route of its own.
    @ivar path: The path below which it holds, without a slash at the end; empty for all
        paths.
    @ivar options: All that was asked of the tunnel.
    @ivar arrived: Takes each visitor's end and address.
    @ivar rules: What is changed in the heads of its requests.
    @ivar gate: What visitors are asked for, which its owner may change; C{None} for
        nothing.
    @ivar member: Which other process of this machine has the tunnel, so that whole
        connections may be passed to it; C{None} for none.
    """

    kind: str
    host: str
    path: str
    options: TunnelOptions
    arrived: Callable[[End, str], None]
    rules: HeadRules = UNCHANGED
    gate: GateRules | None = None
    member: int | None = None

    def covers(self, path: str) -> bool:
        """Whether a path is this one or below it."""
        own = self.path
        return path.startswith(own) and path[len(own) : len(own) + 1] in ("", "/", "?")


@dataclass(slots=True)
class _Host:
    """The routes of one host, the longest path first."""

    routes: list[Route] = field(default_factory=list)

    def find(self, path: str) -> Route | None:
        for route in self.routes:
            if not route.path or route.covers(path):
                return route
        return None


class NameTable:
    """
    All routes of a server.

    A look-up takes the same time however many there are; the routes of one host, which
    are at most L{MOST_PATHS}, are searched one by one. Who may have a name is decided
    before, by L{HostRules<tristunnel.service.host_rules.HostRules>}.
    """

    MOST_PATHS = 64

    def __init__(self) -> None:
        self._hosts: dict[tuple[str, str], _Host] = {}
        self._wildcards = 0

    def __len__(self) -> int:
        return sum(len(host.routes) for host in self._hosts.values())

    def __iter__(self) -> Iterator[Route]:
        for host in self._hosts.values():
            yield from host.routes

    def enter(self, route: Route) -> None:
        """
        Add a route. The book has decided whose the name is, so this one replaces one
        that may be there: its tunnel has moved to another member.

        @raise TunnelError: C{limit-reached}.
        """
        host = self._hosts.get((route.kind, route.host)) or _Host()
        before = next((each for each in host.routes if each.path == route.path), None)
        if before is not None:
            host.routes[host.routes.index(before)] = route
            return
        if len(host.routes) >= self.MOST_PATHS:
            raise TunnelError(
                "limit-reached",
                f"{route.host} has {self.MOST_PATHS} paths already; close one of its"
                " tunnels",
            )
        host.routes.append(route)
        host.routes.sort(key=lambda each: -len(each.path))
        if len(host.routes) == 1:
            self._hosts[route.kind, route.host] = host
            self._wildcards += route.host.startswith("*.")

    def remove(self, route: Route) -> bool:
        """
        Remove a route. It may be called twice.

        @return: Whether it was there.
        """
        host = self._hosts.get((route.kind, route.host))
        if host is None or route not in host.routes:
            return False
        host.routes.remove(route)
        if not host.routes:
            del self._hosts[route.kind, route.host]
            self._wildcards -= route.host.startswith("*.")
        return True

    def find(self, kind: str, host: str, path: str = "/") -> Route | None:
        """
        Find the route for a visitor.

        @param host: As L{Route.host}.
        @param path: What is asked for there; a query may follow.
        @return: The route with the longest path, of the host itself before one that
            covers it; C{None} if there is none.
        """
        known = self._hosts.get((kind, host))
        if known is not None:
            return known.find(path)
        rest = host
        while self._wildcards and "." in rest:
            rest = rest.partition(".")[2]
            known = self._hosts.get((kind, f"*.{rest}"))
            if known is not None:
                return known.find(path)
        return None

    def isUnclear(self, route: Route, path: str) -> bool:
        """
        Whether a path leads to a route, but a service might read it as one that leads
        elsewhere: C{/api/../admin} is below C{/api}, and to many it is C{/admin}.

        @param route: As L{find} returned it.
        @param path: What was asked for.
        """
        known = self._hosts.get((route.kind, route.host))
        if known is None or not known.routes[0].path:
            return False
        bare = path.partition("?")[0]
        if not _UNPLAIN.search(bare):
            return False
        return any(known.find(each) is not route for each in _readings(bare))

    def hosts(self, kind: str) -> list[str]:
        """The hosts that have a route, for certificates and lists."""
        return [host for each, host in self._hosts if each == kind]
