"""
What the dashboard shows to somebody: plain data, with all numbers as text.

The page is made from it when it is asked for, and what changes is sent to the
page once a second; both say the same, since both come from here.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from heapq import nlargest
from typing import TYPE_CHECKING, TypedDict
from urllib.parse import quote

from tristunnel.auth.tokens_format import permitted, stateOf
from tristunnel.dashboard.events import ServerEvents, titleOf
from tristunnel.dashboard.history import INTERVAL, KEPT, RateHistory, Series, path
from tristunnel.service.counters import RateMeter
from tristunnel.service.listing import mayEnd
from tristunnel.service.rights import isAdmin
from tristunnel.util.events import Event
from tristunnel.util.words import age, amount, count, rate

if TYPE_CHECKING:
    from tristunnel.auth.tokens import TokenFile
    from tristunnel.auth.tokens_format import Token
    from tristunnel.model.tunnel import Stream, Tunnel
    from tristunnel.service.access import Access
    from tristunnel.service.caller import Caller
    from tristunnel.service.clients import ConnectedClient
    from tristunnel.service.counters import Counters
    from tristunnel.service.tunnel_service import TunnelService

__all__ = ["SLOTS", "Board", "Row", "View"]

Row = dict[str, str]
"""One line of a table, or one event: text by name; C{id} is always there."""

SLOTS: dict[str, str] = {
    "tunnels": "id title address owner state visitors visitorsTotal rateIn rateOut"
    " bytesIn bytesOut age left in out end grant",
    "clients": "id owner from dialect tunnels bytesIn bytesOut trip age end",
    "visitors": "id from title state rateIn rateOut bytesIn bytesOut age end",
    "access": "id service owner to from uses left end",
    "tokens": "id link name state may sessions end",
    "refusals": "id who code count",
    "events": "id time datetime kind text times",
}
"""The lists, and what the rows of each consist of."""

SHOWN = 200
"""Tunnels, clients, grants of access and tokens that are shown."""

VISITORS = 100
"""Visitors that are shown: those who have moved the most."""

EVENTS = 30
"""Events that are shown."""

_GRAPH = (600, 120)
_SMALL = (120, 24)


class View(TypedDict):
    """
    What somebody sees.

    @ivar totals: Single numbers by name.
    @ivar paths: What the great graph is drawn with.
    @ivar lists: The rows of each of L{SLOTS}.
    @ivar notes: What is to be said about a list, by the list's name.
    """

    totals: dict[str, str]
    paths: dict[str, str]
    lists: dict[str, list[Row]]
    notes: dict[str, str]


@dataclass(eq=False)
class Board:
    """
    Looks at a server on behalf of somebody.

    @ivar service: Who is here.
    @ivar counted: What was counted.
    @ivar events: What happened lately.
    @ivar history: What passed lately.
    @ivar asked: Whether callers are asked who they are; if not, everybody
        sees everything.
    @ivar now: The time of day.
    @ivar files: The tokens that are taken.
    """

    service: TunnelService
    counted: Counters
    events: ServerEvents
    history: RateHistory
    asked: bool
    now: Callable[[], float] = time.time
    files: Sequence[TokenFile] = ()

    def __post_init__(self) -> None:
        self._meter = RateMeter(self.service.reactor.seconds)
        self._began = self.service.reactor.seconds()

    def seesAll(self, caller: Caller) -> bool:
        """
        Whether somebody may see what is nobody's in particular, such as
        refused connections.
        """
        return not self.asked or isAdmin(caller.identity)

    def viewer(self, caller: Caller) -> tuple[str, bool, bool]:
        """What two callers have in common who see the same."""
        identity = caller.identity
        return identity.name, identity.anonymous, self.seesAll(caller)

    async def view(self, caller: Caller) -> View:
        """Say what somebody sees now."""
        service = self.service
        tunnels: list[Tunnel] = [
            tunnel
            for tunnel in await service.registry.tunnels()
            if service.mayControl(caller, tunnel)
        ]
        clients = [client for client in service.clients if mayEnd(caller, client)]
        streams = [stream for tunnel in tunnels for stream in tunnel.streams]
        everything = self.seesAll(caller)
        name = caller.identity.name
        series = self.history.total if everything else self.history.ofOwner(name)
        events = self.events.latest(EVENTS, None if everything else name)
        grants = service.access.of(None if everything else caller.identity)
        tokens = [token for _, token in self.tokens(caller)]
        paths, most = _graph(series)
        return {
            "totals": self._totals(tunnels, clients, streams, series, most),
            "paths": paths,
            "lists": {
                "tunnels": self._tunnels(tunnels),
                "clients": self._clients(clients, tunnels),
                "visitors": self._visitors(streams),
                "access": [self._access(each) for each in grants[:SHOWN]],
                "tokens": [self._token(each) for each in tokens[:SHOWN]],
                "refusals": self._refusals(tunnels, everything),
                "events": [_event(event) for event in events],
            },
            "notes": dict.fromkeys(SLOTS, "")
            | {
                name: f"{count(shown)} of {count(number)} are shown: {which}."
                for name, number, shown, which in (
                    ("tunnels", len(tunnels), SHOWN, "the ones with most visitors"),
                    ("clients", len(clients), SHOWN, "the newest ones"),
                    ("visitors", len(streams), VISITORS, "those that have moved most"),
                    ("access", len(grants), SHOWN, "the oldest ones"),
                    ("tokens", len(tokens), SHOWN, "the first ones"),
                )
                if number > shown
            },
        }

    def _totals(
        self,
        tunnels: Sequence[Tunnel],
        clients: Sequence[ConnectedClient],
        streams: Sequence[Stream],
        series: Series,
        most: float,
    ) -> Row:
        counts = [tunnel.countsNow() for tunnel in tunnels]
        return {
            "tunnels": count(len(tunnels)),
            "clients": count(len(clients)),
            "visitors": count(len(streams)),
            "visitorsTotal": count(sum(tunnel.visitorCount for tunnel in tunnels)),
            **_rates(series[-1] if series else (0.0, 0.0)),
            **_amounts(
                sum(each[0] for each in counts), sum(each[1] for each in counts)
            ),
            "most": rate(most),
            "up": self._since(self._began),
        }

    def _since(self, moment: float) -> str:
        return age(self.service.reactor.seconds() - moment)

    def _tunnels(self, tunnels: Sequence[Tunnel]) -> list[Row]:
        shown = nlargest(SHOWN, tunnels, key=lambda tunnel: len(tunnel.streams))
        shown.sort(key=lambda tunnel: tunnel.opened)
        return [self._tunnel(tunnel) for tunnel in shown]

    def _tunnel(self, tunnel: Tunnel) -> Row:
        series = self.history.of(tunnel)
        paths, _ = _graph(series, _SMALL)
        title = titleOf(tunnel)
        return {
            "id": tunnel.id,
            "title": title,
            "address": tunnel.address if title != tunnel.address else "",
            "owner": tunnel.owner.name,
            "state": "" if tunnel.clientSide is not None else "client away",
            "visitors": count(len(tunnel.streams)),
            "visitorsTotal": count(tunnel.visitorCount),
            **_rates(series[-1] if series else (0.0, 0.0)),
            **_amounts(*tunnel.countsNow()),
            "age": self._since(tunnel.opened),
            "left": self._left(tunnel),
            "in": paths["in"],
            "out": paths["out"],
            "end": f"Close tunnel {title}",
            "grant": f"Grant access to {title}" if tunnel.name else "",
        }

    def _left(self, tunnel: Tunnel) -> str:
        """How long a tunnel may stay."""
        left = []
        if tunnel.until is not None:
            left.append(tunnel.until - self.service.reactor.seconds())
        grant = tunnel.owner.grant
        if grant is not None and grant.timeLeft is not None:
            left.append(grant.timeLeft)
        return f"{age(min(left))} left" if left else ""

    def _clients(
        self, clients: Sequence[ConnectedClient], tunnels: Sequence[Tunnel]
    ) -> list[Row]:
        shown = sorted(clients, key=lambda client: client.opened)[-SHOWN:]
        # Tunnels, bytes in and bytes out by the side that serves them.
        served: dict[object, tuple[int, int, int]] = {}
        for tunnel in tunnels:
            number, bytesIn, bytesOut = served.get(tunnel.clientSide, (0, 0, 0))
            more = tunnel.countsNow()
            sums = (number + 1, bytesIn + more[0], bytesOut + more[1])
            served[tunnel.clientSide] = sums
        served.pop(None, None)
        return [
            {
                "id": client.id,
                "owner": client.identity.name,
                "from": client.peer,
                "dialect": client.dialect,
                "tunnels": count(sums[0]),
                **_amounts(*sums[1:]),
                "trip": _trip(client),
                "age": self._since(client.opened),
                "end": f"Disconnect client {client.identity.name} at {client.peer}",
            }
            for client in shown
            for sums in (served.get(client.side, (0, 0, 0)),)
        ]

    def _visitors(self, streams: Sequence[Stream]) -> list[Row]:
        shown = nlargest(
            VISITORS, streams, key=lambda stream: stream.bytesIn + stream.bytesOut
        )
        shown.sort(key=lambda stream: (stream.opened, stream.number))
        return [self._visitor(stream) for stream in shown]

    def _visitor(self, stream: Stream) -> Row:
        bytesIn, bytesOut = stream.bytesIn, stream.bytesOut
        rates = self._meter.measure(stream, stream.opened, bytesIn, bytesOut)
        title = titleOf(stream.tunnel)
        return {
            "id": stream.id,
            "from": stream.visitorAddress,
            "title": title,
            "state": "" if stream.client is not None else "waiting",
            **_rates(rates),
            **_amounts(bytesIn, bytesOut),
            "age": self._since(stream.opened),
            "end": f"Send visitor {stream.visitorAddress} of {title} away",
        }

    def _refusals(self, tunnels: Sequence[Tunnel], everything: bool) -> list[Row]:
        counts: Counter[tuple[str, str]] = Counter()
        if everything:
            # Also for tunnels that are over.
            for totals in self.counted.byLabel().values():
                for code, number in totals.refusals.items():
                    counts["Visitor", code] += number
            for code, number in self.counted.loginsRefused.items():
                counts["Client", code] += number
            for code, number in self.counted.peersRefused.items():
                counts["Connection", code] += number
        else:
            for tunnel in tunnels:
                for code, number in tunnel.refusals.items():
                    counts["Visitor", code] += number
        return [
            {"id": f"{who}.{code}", "who": who, "code": code, "count": count(number)}
            for (who, code), number in counts.most_common()
        ]

    def _access(self, access: Access) -> Row:
        uses = access.usesLeft
        return {
            "id": f"access:{access.id}",
            "service": access.service,
            "owner": access.owner.name,
            "to": access.token or "whoever has the address",
            "from": f"from {access.address}" if access.address else "",
            "uses": "any number" if uses is None else count(uses),
            "left": age(max(0.0, access.until - self.service.reactor.seconds())),
            "end": f"Take access to {access.service} back",
        }

    def tokens(self, caller: Caller) -> list[tuple[TokenFile, Token]]:
        """
        The tokens that somebody may see and revoke: all, for an admin; those
        that are revoked already last.
        """
        if not isAdmin(caller.identity):
            return []
        pairs = [(file, token) for file in self.files for token in file.tokens()]
        return sorted(pairs, key=lambda pair: pair[1].revoked is not None)

    def _token(self, token: Token) -> Row:
        sessions = sum(
            client.identity.name == token.name for client in self.service.clients
        )
        good = token.revoked is None
        return {
            "id": f"token:{token.name}",
            "link": quote(f"token:{token.name}", safe=""),
            "name": token.name,
            "state": stateOf(token, self.now()),
            "may": permitted(token.permissions),
            "sessions": count(sessions),
            "end": f"Revoke the token of {token.name}" if good else "",
        }


def _trip(client: ConnectedClient) -> str:
    multiplexer = getattr(client.side, "multiplexer", None)
    seconds = getattr(multiplexer, "roundTrip", 0.0)
    return f"{seconds * 1000:.1f} ms" if seconds else ""


def _rates(rates: tuple[float, float]) -> Row:
    return {"rateIn": rate(rates[0]), "rateOut": rate(rates[1])}


def _amounts(bytesIn: int, bytesOut: int) -> Row:
    return {"bytesIn": amount(bytesIn), "bytesOut": amount(bytesOut)}


def _event(event: Event) -> Row:
    when = time.gmtime(event.time)
    return {
        "id": str(event.number),
        "time": time.strftime("%H:%M:%S", when),
        "datetime": time.strftime("%Y-%m-%dT%H:%M:%SZ", when),
        "kind": event.level,
        "text": event.line(),
        "times": f"{count(event.count)} times" if event.count > 1 else "",
    }


def _graph(
    series: Series, size: tuple[int, int] = _GRAPH
) -> tuple[dict[str, str], float]:
    """
    Draw what passed.

    @return: The paths, and the rate at their top.
    """
    values = list(series)
    most = max((max(pair) for pair in values), default=0.0)
    if size == _SMALL:
        most = max(most, 1000.0)
    width, height = size
    paths = {}
    for name, which in (("in", 0), ("out", 1)):
        rates = [pair[which] for pair in values]
        paths[name] = path(rates, most, width, height, KEPT)
        if size == _GRAPH:
            paths[f"{name}Area"] = path(rates, most, width, height, KEPT, True)
    return paths, most


SPAN = f"{INTERVAL * KEPT / 60:g} minutes"
"""How long the graphs look back."""
