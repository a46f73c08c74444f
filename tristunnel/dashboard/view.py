"""
What the dashboard shows to a caller: plain data, with all numbers as text.

Pages are rendered from it, and changes are sent to open pages once a second; both
agree, since both come from here.
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
from tristunnel.dashboard.certificates import certificateRow, certificateWords, stateFor
from tristunnel.dashboard.events import ServerEvents, titleOf
from tristunnel.dashboard.history import KEPT, SPANS, RateHistory, Series, path, top
from tristunnel.dashboard.parts import (
    Part,
    Row,
    joined,
    memberRow,
    refusalRows,
    totalsOf,
)
from tristunnel.dashboard.policies import gateWords, policyWords
from tristunnel.service.counters import RateMeter
from tristunnel.service.listing import mayEnd
from tristunnel.service.rights import isAdmin
from tristunnel.util.events import Event
from tristunnel.util.hosts import hostAndPort
from tristunnel.util.words import age, amount, count, plural, rate

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

SLOTS: dict[str, str] = {
    "tunnels": "id title detail page address copy owner state visitors visitorsTotal"
    " rateIn rateOut bytesIn bytesOut age left in out end endLink grant grantLink",
    "clients": "id owner claim about from dialect tunnels bytesIn bytesOut trip age end"
    " endLink",
    "visitors": "id from title state rateIn rateOut bytesIn bytesOut age end endLink",
    "access": "id service owner to from uses left end endLink",
    "certificates": "id names since left next trouble",
    "members": "id name state address version clients tunnels streams load up",
    "tokens": "id name state may sessions end endLink",
    "refusals": "id who code count",
    "events": "id time datetime kind text times",
}
"""The lists, and the fields of their rows."""

_MISSING = "Part of the server has not answered; what is on {} is missing here."

SHOWN = 200
"""The most tunnels, clients, grants of access and tokens that are shown."""

VISITORS = 100
"""The most visitors that are shown: those with the most traffic."""

EVENTS = 30
"""The most events that are shown."""

FIRST = next(iter(SPANS))
"""The span that graphs have by default."""

_GRAPH = (600, 120)
_SMALL = (120, 24)

_SPEECH = {
    "http": "a web site",
    "https": "a web site over TLS",
    "other": "not HTTP",
    "": "not known before the first answer",
}


class View(TypedDict):
    """
    What a caller sees.

    @ivar totals: Single texts by name, and the data of the main graph.
    @ivar lists: The rows of some of L{SLOTS}.
    @ivar notes: The notes about lists, by the lists' names.
    """

    totals: dict[str, str]
    lists: dict[str, list[Row]]
    notes: dict[str, str]


@dataclass(eq=False)
class Board:
    """
    Looks at a server on behalf of a caller.

    @ivar service: The tunnels and the clients.
    @ivar counted: What was counted.
    @ivar events: The latest events.
    @ivar history: The recent traffic.
    @ivar asked: Whether callers have to log in; if not, everybody sees everything.
    @ivar now: The time of day.
    @ivar files: The tokens that are taken.
    @ivar open: Whether clients are admitted without credentials.
    """

    service: TunnelService
    counted: Counters
    events: ServerEvents
    history: RateHistory
    asked: bool
    now: Callable[[], float] = time.time
    files: Sequence[TokenFile] = ()
    open: bool = False

    def __post_init__(self) -> None:
        self._meter = RateMeter(self.service.reactor.seconds)
        self._began = self.service.reactor.seconds()
        if self.service.siblings is not None:
            self.service.siblings.publish("dashboard", self.part)
            self.service.siblings.publish("tunnel", self.tunnelPart)

    def seesAll(self, caller: Caller) -> bool:
        """Whether a caller may see what has no owner, such as refused connections."""
        return not self.asked or isAdmin(caller.identity)

    def viewer(self, caller: Caller) -> tuple[str, bool, bool]:
        """Make a key that is the same for callers who see the same."""
        identity = caller.identity
        return identity.name, identity.anonymous, self.seesAll(caller)

    async def view(self, caller: Caller, span: str = FIRST) -> View:
        """
        Make the view of a caller.

        @param span: One of L{SPANS<tristunnel.dashboard.history.SPANS>}: the span of
            the graph.
        """
        parts = [self.part(caller, span)]
        cluster, describing = self.service.cluster, None
        if cluster is not None and self.seesAll(caller):
            # At the same time: waiting for a lost member then costs its timeout only
            # once.
            describing = cluster.describe(caller)
        siblings, missing = self.service.siblings, ""
        if siblings is not None:
            others = await siblings.gather("dashboard", caller, span)
            parts += [part for _, part in others.answers]
            if others.missing:
                missing = _MISSING.format(", ".join(others.missing))
        part = joined(parts, EVENTS)
        for row in part["lists"]["tokens"]:
            row["sessions"] = count(part["sessions"].get(row["name"], 0))
        shown = (
            ("tunnels", SHOWN, "the ones with the most visitors"),
            ("clients", SHOWN, "the newest ones"),
            ("visitors", VISITORS, "the ones with the most traffic"),
            ("access", SHOWN, "the oldest ones"),
            ("tokens", SHOWN, "the first ones"),
        )
        notes = {
            name: f"{count(len(part['lists'][name]))} of"
            f" {count(part['numbers'][name])} are shown: {which}."
            for name, most, which in shown
            if part["numbers"][name] > most
        }
        if missing:
            notes["tunnels"] = " ".join(filter(None, (missing, notes.get("tunnels"))))
        found = [] if describing is None else await describing
        members = [memberRow(each) for each in found[:SHOWN]]
        lists = {**part["lists"], "refusals": refusalRows(part), "members": members}
        return {
            "totals": totalsOf(part) | _graph(part["graph"]),
            "lists": lists,
            "notes": dict.fromkeys(SLOTS, "") | notes,
        }

    def part(self, caller: Caller, span: str) -> Part:
        """Make a caller's view of this process."""
        service = self.service
        tunnels: list[Tunnel] = [
            tunnel for tunnel in service.here if service.mayControl(caller, tunnel)
        ]
        clients = [client for client in service.clients if mayEnd(caller, client)]
        dialled = [t for t in service.here.dialled if service.mayControl(caller, t)]
        streams = [s for tunnel in (*tunnels, *dialled) for s in tunnel.streams]
        everything = self.seesAll(caller)
        name = caller.identity.name
        series = self.history.total if everything else self.history.ofOwner(name)
        events = self.events.latest(EVENTS, None if everything else name)
        grants = service.access.of(None if everything else caller.identity)
        tokens = [token for _, token in self.tokens(caller)]
        counts = [tunnel.countsNow() for tunnel in tunnels]
        return {
            "sums": {
                "tunnels": len(tunnels),
                "clients": len(clients),
                "visitors": len(streams),
                "visitorsTotal": sum(tunnel.visitorCount for tunnel in tunnels),
                "rateIn": series.last[0],
                "rateOut": series.last[1],
                "bytesIn": sum(each[0] for each in counts),
                "bytesOut": sum(each[1] for each in counts),
                "up": service.reactor.seconds() - self._began,
            },
            "graph": [list(rates) for rates in series.over(span)],
            "lists": {
                "tunnels": self._tunnels(tunnels),
                "clients": self._clients(clients, tunnels),
                "visitors": self._visitors(streams),
                "access": [self._access(each) for each in grants[:SHOWN]],
                "certificates": self._certificates() if everything else [],
                "tokens": [self._token(each) for each in tokens[:SHOWN]],
                "events": [_event(event) for event in events],
            },
            "numbers": {
                "tunnels": len(tunnels),
                "clients": len(clients),
                "visitors": len(streams),
                "access": len(grants),
                "tokens": len(tokens),
            },
            "refusals": self._refusals(tunnels, everything),
            "sessions": Counter(client.identity.name for client in service.clients)
            if tokens
            else {},
        }

    def warnings(self, caller: Caller) -> list[str]:
        """Find what is wrong with the server as a whole."""
        found = []
        if self.open:
            found.append(
                "Anybody who reaches this server may connect, open tunnels and use this"
                " page. Start it with 'tristunnel server' to have it ask for tokens."
            )
        if not (caller.secure or self.service.clientPort[1]):
            found.append(
                "There is no TLS: anybody on the network path can read and change"
                " everything, including passwords. Start the server with 'tristunnel"
                " server' to have it."
            )
        return found

    def commands(self, caller: Caller) -> list[tuple[str, str]]:
        """
        Make the commands to run on the machine with a service, and describe their
        effects.
        """
        host = hostAndPort(caller.host, caller.port) if caller.port else caller.host
        where = host if self.service.clientPort[1] else f"tcp:{host}"
        offer = "To offer a web site on port 3000 of that machine, for example, run:"
        if self.open:
            mine = offer.replace("that", "your")
            return [(mine, f"tristunnel http 3000 --to {where}")]
        invitation = "Accept the invitation that you were sent"
        if isAdmin(caller.identity) and self.files:
            invitation = "Create an invitation with 'Add a client' below, and accept it"
        join = f"{invitation}, once, on the machine with the service:"
        return [(join, "tristunnel join INVITATION"), (offer, "tristunnel http 3000")]

    def _since(self, moment: float) -> str:
        return age(self.service.reactor.seconds() - moment)

    def _tunnels(self, tunnels: Sequence[Tunnel]) -> list[Row]:
        shown = nlargest(SHOWN, tunnels, key=lambda tunnel: len(tunnel.streams))
        shown.sort(key=lambda tunnel: tunnel.opened)
        return [self._tunnel(tunnel) for tunnel in shown]

    def _tunnel(self, tunnel: Tunnel) -> Row:
        series = self.history.of(tunnel)
        title = titleOf(tunnel)
        port = tunnel.address.rpartition(":")[2]
        numbered = f"port {port}" if port.isdecimal() else title
        grants = bool(tunnel.name or tunnel.gate.link)
        return {
            "id": tunnel.id,
            "title": tunnel.called or numbered,
            "detail": f"./?tunnel={tunnel.id}",
            "page": tunnel.page,
            "address": "" if tunnel.page else tunnel.address,
            "copy": tunnel.page or tunnel.address,
            "owner": tunnel.owner.shown,
            "state": self._state(tunnel),
            "visitors": count(len(tunnel.streams)),
            "visitorsTotal": count(tunnel.visitorCount),
            **_rates(series.last),
            **_amounts(*tunnel.countsNow()),
            "age": self._since(tunnel.opened),
            "left": self._left(tunnel),
            **_small(series),
            "end": f"Close tunnel {title}",
            "endLink": _endLink(tunnel.id),
            "grant": f"Grant access to {title}" if grants else "",
            "grantLink": f"dashboard/grant?id={tunnel.id}" if grants else "",
        }

    def _state(self, tunnel: Tunnel) -> str:
        """
        Describe whether a tunnel's visitors are served, and by how many other sessions.
        """
        words = []
        if tunnel.clientSide is None:
            words.append("client away")
        if tunnel.group is not None:
            words.append(f"shared by {plural(len(tunnel.group.tunnels), 'client')}")
        health = tunnel.health
        if health is not None and not health.isWell:
            words.append(f"not well: {health.reason}")
        elif health is not None and health.proven is not None:
            words.append(f"proven {self._since(health.proven)} ago")
        return ", ".join(words)

    def _clientOf(self, tunnel: Tunnel) -> ConnectedClient | None:
        for client in self.service.clients:
            if client.side is not None and client.side is tunnel.clientSide:
                return client
        return None

    async def tunnelView(
        self, caller: Caller, identifier: str, span: str = FIRST
    ) -> View | None:
        """
        Make a caller's view of one tunnel.

        @return: C{None} if there is no such tunnel for this caller.
        """
        found = self.tunnelPart(caller, identifier, span)
        siblings = self.service.siblings
        if found is None and siblings is not None:
            others = await siblings.gather("tunnel", caller, identifier, span)
            found = next((view for _, view in others.answers if view), None)
        return found

    def tunnelPart(self, caller: Caller, identifier: str, span: str) -> View | None:
        """Make a caller's view of one tunnel, if this process has it."""
        for tunnel in self.service.here:
            if tunnel.id == identifier and self.service.mayControl(caller, tunnel):
                return self._oneTunnel(tunnel, span)
        return None

    def _oneTunnel(self, tunnel: Tunnel, span: str) -> View:
        streams = list(tunnel.streams)
        client = self._clientOf(tunnel)
        facts = {} if client is None else client.facts.asDict()
        about = (facts.get("host"), facts.get("program"), getattr(client, "peer", ""))
        refused = [
            {"id": f"Visitor.{code}", "who": "Visitor", "code": code, "count": count(n)}
            for code, n in tunnel.refusals.most_common()
        ]
        number = count(len(streams))
        note = f"{VISITORS} of {number} are shown: the ones with the most traffic."
        return {
            "totals": self._tunnel(tunnel)
            | _graph(self.history.of(tunnel).over(span))
            | {
                "target": tunnel.target or "not told",
                "client": ", ".join(each for each in about if each) or "not connected",
                "policy": policyWords(tunnel.policy),
                "gate": gateWords(tunnel.gate),
                "knockLink": tunnel.knockLink,
                "certificate": self._certificateOf(tunnel),
                "speaks": _SPEECH.get(tunnel.speech.kind if tunnel.speech else "", ""),
            },
            "lists": {"visitors": self._visitors(streams), "refusals": refused},
            "notes": {"visitors": note if len(streams) > VISITORS else ""},
        }

    def _certificates(self) -> list[Row]:
        states = self.service.certificates()[:SHOWN]
        return [certificateRow(state, self.now()) for state in states]

    def _certificateOf(self, tunnel: Tunnel) -> str:
        host = getattr(tunnel.listener, "host", "")
        if not host or not getattr(tunnel.listener, "needsCertificate", False):
            return "not needed"
        state = stateFor(self.service.certificates(), host)
        return certificateWords(state, self.now())

    def _left(self, tunnel: Tunnel) -> str:
        """Describe how long a tunnel may stay."""
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
                "owner": client.facts.name or client.identity.name,
                "claim": "unproven" if client.facts.name else "",
                "about": ", ".join(
                    each for each in (client.facts.host, client.facts.program) if each
                ),
                "from": client.peer,
                "dialect": client.dialect,
                "tunnels": count(sums[0]),
                **_amounts(*sums[1:]),
                "trip": _trip(client),
                "age": self._since(client.opened),
                "end": f"Disconnect client {client.identity.shown} at {client.peer}",
                "endLink": _endLink(client.id),
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
        title = stream.target or titleOf(stream.tunnel)
        return {
            "id": stream.id,
            "from": stream.visitorAddress,
            "title": title,
            "state": "" if stream.client is not None else "waiting",
            **_rates(rates),
            **_amounts(bytesIn, bytesOut),
            "age": self._since(stream.opened),
            "end": f"Disconnect visitor {stream.visitorAddress} of {title}",
            "endLink": _endLink(stream.id),
        }

    def _refusals(
        self, tunnels: Sequence[Tunnel], everything: bool
    ) -> list[list[str | int]]:
        counts: Counter[tuple[str, str]] = Counter()
        if everything:
            # Also for tunnels that are closed.
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
        return [[who, code, number] for (who, code), number in counts.most_common()]

    def _access(self, access: Access) -> Row:
        uses, record = access.usesLeft, access.record
        return {
            "id": f"access:{access.id}",
            "service": record.service,
            "owner": access.owner.name,
            "to": record.token or "anybody with the address",
            "from": f"from {record.networks}" if record.networks else "",
            "uses": "any number" if uses is None else count(uses),
            "left": age(max(0.0, access.until - self.service.reactor.seconds())),
            "end": f"Revoke access to {record.service}",
            "endLink": _endLink(f"access:{access.id}"),
        }

    def tokens(self, caller: Caller) -> list[tuple[TokenFile, Token]]:
        """
        The tokens that a caller may see and revoke: all, for an admin; revoked ones
        last.
        """
        if not isAdmin(caller.identity):
            return []
        pairs = [(file, token) for file in self.files for token in file.tokens()]
        return sorted(pairs, key=lambda pair: pair[1].revoked is not None)

    def _token(self, token: Token) -> Row:
        good = token.revoked is None
        return {
            "id": f"token:{token.name}",
            "name": token.name,
            "state": stateOf(token, self.now()),
            "may": permitted(token.permissions),
            "sessions": "",
            "end": f"Revoke the token of {token.name}" if good else "",
            "endLink": _endLink(f"token:{token.name}") if good else "",
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


def _endLink(identifier: str) -> str:
    return f"dashboard/end?id={quote(identifier, safe='')}"


def _small(series: Series) -> Row:
    """Draw the traffic of one of many tunnels."""
    values = series.over(FIRST)
    most = max((max(pair) for pair in values), default=0.0)
    most = max(most, 1000.0)
    return {
        name: path([pair[which] for pair in values], most, *_SMALL, KEPT)
        for name, which in (("in", 0), ("out", 1))
    }


def _graph(values: Sequence[Sequence[float]]) -> Row:
    """Draw the traffic: the paths, and the labels of the axes."""
    # An empty graph has a scale, too.
    most = top(max((max(pair) for pair in values), default=0.0) or 1000.0)
    drawn = {"most": rate(most), "half": rate(most / 2)}
    for name, which in (("graphIn", 0), ("graphOut", 1)):
        rates = [pair[which] for pair in values]
        drawn[name] = path(rates, most, *_GRAPH, KEPT)
        drawn[f"{name}Area"] = path(rates, most, *_GRAPH, KEPT, True)
    return drawn
