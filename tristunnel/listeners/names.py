"""
Names as public sides: a tunnel has no port of its own, but a host at the ports that all
names share.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from twisted.internet.defer import succeed

from tristunnel.errors import badOption
from tristunnel.interfaces import End
from tristunnel.model.options import TunnelOptions
from tristunnel.model.ports import Reserve
from tristunnel.names.heads import HeadRules
from tristunnel.names.public import PublicNames
from tristunnel.names.table import Route
from tristunnel.util.deferreds import returnsDeferred

__all__ = ["NameListener", "NameListeners"]


@dataclass(eq=False)
class NameListener:
    """
    An L{IListener<tristunnel.model.place.IListener>} that is a route.

    @ivar route: What leads to the tunnel.
    """

    names: PublicNames
    scheme: str
    route: Route
    certified: bool

    @property
    def needsCertificate(self) -> bool:
        """Whether its TLS ends here."""
        return not self.scheme

    @property
    def host(self) -> str:
        """The name that visitors ask for."""
        return self.route.host

    @property
    def called(self) -> str:
        """The name with its path."""
        return f"{self.route.host}{self.route.path}"

    @property
    def address(self) -> tuple[str, str, int]:
        """The kind, no interface, and no port."""
        return self.route.kind, "", 0

    @property
    def uri(self) -> str:
        """The address as visitors open it."""
        route = self.route
        scheme = self.scheme or self.names.schemeFor(route.host)
        return self.names.address(scheme, route.host, route.path)

    def changed(self, options: TunnelOptions) -> None:
        """Take what the tunnel's owner asks visitors for now."""
        self.route.gate = options.gate or None

    def close(self) -> Awaitable[object]:
        """Take the route away."""
        self.names.table.remove(self.route)
        if self.certified:
            self.certified = False
            self.names.left(self.route.host)
        return succeed(None)


class NameListeners:
    """
    Gives tunnels names.

    @param kind: What C{openTunnel} calls this listener.
    @param names: Where the routes are.
    @param scheme: What addresses begin with; empty where that depends on the host's
        certificate.
    @param certified: Whether TLS ends here, so that a host wants a certificate; by
        default if no scheme is given.

    @cvar named: Whether a tunnel's C{name} is what visitors ask for.
    @ivar hasGate: Whether visitors can be asked who they are.
    """

    named = True

    def __init__(
        self,
        kind: str,
        names: PublicNames,
        scheme: str = "",
        certified: bool | None = None,
    ) -> None:
        self._kind = kind
        self._names = names
        self._scheme = scheme
        self._certified = not scheme if certified is None else certified
        self.hasGate = not scheme

    @returnsDeferred
    async def open(
        self,
        options: TunnelOptions,
        arrived: Callable[[End, str], None],
        reserve: Reserve,
    ) -> NameListener:
        """
        Listen for visitors of a name.

        @param options: All that was asked of the tunnel; here its C{name}, in full,
            and its C{path} count.
        @param arrived: Called with each visitor's end and address.
        @param reserve: Reserves the name.
        @raise TunnelError: C{name-taken}, C{limit-reached} or C{bad-option}.
        """
        rules = HeadRules.of(options)
        if options.raw and options.path:
            raise badOption(
                "option raw joins whole connections, which have requests for all paths;"
                " leave out the path"
            )
        if options.path and self._scheme:
            raise badOption(f"only HTTP names have paths; leave out {options.path}")
        route = Route(
            self._kind,
            options.name,
            options.path,
            options,
            arrived,
            rules,
            options.gate or None,
        )
        await reserve(self._kind, f"{options.name}{options.path}")
        self._names.table.enter(route)
        if self._certified:
            # Its TLS ends here, and wants a certificate.
            self._names.held(route.host)
        return NameListener(self._names, self._scheme, route, self._certified)
