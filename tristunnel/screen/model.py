"""
What is shown of a client or a server: words and numbers as text, apart from how
they are drawn.

It is made from the answer of C{status} over RPC, so that a client's own screen and
C{tristunnel status} show the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from math import ceil
from typing import Any

from tristunnel.dialects.table import labelOf
from tristunnel.errors import printable
from tristunnel.util.hosts import webAddress, webKind
from tristunnel.util.words import age, amount, count, plural, rate

__all__ = [
    "BAD",
    "GOOD",
    "PLAIN",
    "WARY",
    "EventLine",
    "Fact",
    "Page",
    "Row",
    "Table",
    "clientPage",
    "lately",
    "qrTargets",
    "serverPage",
]

PLAIN, GOOD, WARY, BAD = "plain", "good", "wary", "bad"
"""Moods, which are drawn in colours."""


@dataclass(frozen=True)
class Fact:
    """
    A name and its text.

    @ivar mood: One of the moods.
    @ivar rates: Rates to draw behind the text, oldest first.
    """

    name: str
    text: str
    mood: str = PLAIN
    rates: Sequence[float] = ()


@dataclass(frozen=True)
class EventLine:
    """
    An event.

    @ivar lasts: Whether it stays visible longer than visitors coming and going.
    """

    time: str
    text: str
    mood: str = PLAIN
    lasts: bool = False


@dataclass(frozen=True)
class Row:
    """
    One thing in a table.

    @ivar note: What is wrong with it, below its cells.
    """

    mood: str
    cells: Sequence[str]
    note: str = ""


@dataclass(frozen=True)
class Table:
    """
    A table of things of one kind.

    @ivar title: The kind.
    @ivar columns: The heads. The title is shown in place of the first one. Those after
        the first C{wide} are numbers, which a narrow terminal leaves out from the
        right.
    @ivar rows: The rows.
    @ivar wide: How many columns are text.
    @ivar empty: The text if there are no rows.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Row]
    wide: int
    empty: str


@dataclass(frozen=True)
class Page:
    """
    A page with everything that is shown.

    @ivar events: Newest first; C{None} if events are not known.
    """

    title: str
    facts: Sequence[Fact]
    tables: Sequence[Table]
    events: Sequence[EventLine] | None = None
    hints: Sequence[str] = field(default_factory=tuple)


_STATES = {
    "online": ("online", GOOD),
    "connecting": ("connecting", WARY),
    "waiting": ("waiting", WARY),
    "stopping": ("stopping", WARY),
    "stopped": ("given up", BAD),
}

_MOODS = {"warn": WARY, "error": BAD}


def clientPage(status: Mapping[str, Any], hints: Sequence[str] = ()) -> Page:
    """
    Show a client.

    @param status: The answer of its C{status}.
    @param hints: The keys or commands that can be used.
    """
    servers = status["servers"]
    facts = []
    tunnels = status["tunnels"]
    for server in servers:
        mood, text = _state(server)
        refused = sum(
            bool(tunnel["reason"]) and not tunnel["ready"]
            for tunnel in tunnels
            if tunnel["server"] == server["server"]
        )
        if refused and mood == GOOD:
            mood, text = WARY, f"{text}, {plural(refused, 'tunnel')} refused"
            if server["retryIn"]:
                text += f"; asking again in {ceil(server['retryIn'])} s"
        if servers[1:]:
            facts.append(Fact(_server(server), f"{text}{_trip(server, ', ')}", mood))
            continue
        facts += [Fact("State", text, mood), Fact("Server", _server(server))]
        if server["roundTrip"] is not None:
            facts.append(Fact("Round trip", _trip(server)))
    facts.append(Fact("Visitors", _visitors(status)))
    # What comes from visitors goes down to the service.
    facts += _traffic(status, "down", "up")
    if status.get("page"):
        facts.append(Fact("Requests", f"shown at {printable(status['page'])}"))
    named = any(tunnel.get("name") for tunnel in tunnels)
    names = ("Name",) if named else ()
    columns = ("Address", *names, "Service", "Now", "In all", "Down", "Up")
    rows = [_tunnel(tunnel, named) for tunnel in tunnels]
    table = Table("Tunnels", columns, rows, 2 + named, "no tunnel yet")
    title = f"tristunnel {printable(status['version'])}"
    if "where" in status:
        title += f", client {status['pid']}"
    tables = [table]
    if "requests" in status:
        tables.append(_requests(status["requests"]))
    events = [_event(event) for event in status["events"]]
    return Page(title, facts, tables, events, hints)


def _requests(requests: Sequence[Mapping[str, Any]]) -> Table:
    columns = ("Requests", "Service", "Status", "Time", "Bytes")
    return Table("Requests", columns, [*map(_request, requests)], 2, "no request yet")


def _request(request: Mapping[str, Any]) -> Row:
    status, seconds = request["status"], request["seconds"]
    shown = "..." if status is None else str(status)
    mood = GOOD
    if not request["over"]:
        mood = PLAIN
    elif request["problem"] or status is None or status >= 500:
        mood, shown = BAD, "none" if status is None else shown
    elif status >= 400:
        mood = WARY
    cells = (
        printable(f"{request['method']} {request['path']}"),
        printable(request["target"]),
        shown,
        "" if seconds is None else f"{seconds * 1000:,.0f} ms",
        amount(request["responseSize"]),
    )
    return Row(mood, cells)


def _tunnel(tunnel: Mapping[str, Any], named: bool) -> Row:
    reason = printable(tunnel["reason"])
    target, name = printable(tunnel["target"]), printable(tunnel.get("name", ""))
    mood, note = GOOD, ""
    if not tunnel["ready"]:
        mood, note = (BAD, f"refused: {reason}") if reason else (WARY, "")
    elif not tunnel.get("listens", True):
        mood, note = WARY, f"nothing listens at {target} yet; start the service"
    elif why := printable(tunnel.get("health", "")):
        mood, note = WARY, f"{target} is not well, and gets no visitors: {why}"
    else:
        said, link = (printable(tunnel.get(key, "")) for key in ("demand", "knockLink"))
        mood = WARY if said else GOOD
        notes = (
            said and f"{target} {said}",
            link and f"visitors have to knock at {link}",
        )
        note = "; ".join(filter(None, notes))
    cells = [_address(tunnel) or tunnel.get("wanted") or "no address", target]
    if named:
        cells.insert(1, name)
    return Row(mood, (*cells, *_numbers(tunnel)), note)


def _address(tunnel: Mapping[str, Any]) -> str:
    """Write a tunnel's address; as a URL if the service is a web site."""
    address = printable(str(tunnel.get("page") or tunnel["address"]))
    target, name = str(tunnel.get("target", "")), str(tunnel.get("name", ""))
    kind = str(tunnel.get("speaks") or webKind(target, name))
    return webAddress(address, kind).removesuffix("/") or address


def _numbers(tunnel: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        *(count(int(tunnel[key])) for key in ("visitors", "visitorsTotal")),
        *(rate(float(tunnel[key])) for key in ("rateIn", "rateOut")),
    )


def _state(server: Mapping[str, Any]) -> tuple[str, str]:
    state = server["state"]
    word, mood = _STATES.get(state, (printable(str(state)), PLAIN))
    reason = printable(server["reason"])
    if state == "online":
        return mood, f"{word} for {age(server['stateSeconds'])}"
    if state == "waiting":
        seconds = max(1, round(server["retryIn"]))
        return mood, f"{word} {seconds} s to try again: {reason}"
    if state == "stopping":
        seconds = ceil(server.get("stopsIn") or 0)
        latest = f", in {seconds} s at the latest" if seconds else ""
        return mood, f"{word} when the visitors have left{latest}"
    return mood, f"{word}: {reason}" if reason else word


def _trip(server: Mapping[str, Any], before: str = "") -> str:
    trip = server["roundTrip"]
    return "" if trip is None else f"{before}{trip * 1000:.1f} ms"


def _server(server: Mapping[str, Any]) -> str:
    where = printable(server["server"])
    dialect = printable(labelOf(server["dialect"]))
    return f"{where} ({dialect})" if dialect else where


def _visitors(status: Mapping[str, Any]) -> str:
    parts = [
        f"{count(status['visitors'])} now",
        f"{count(status['visitorsTotal'])} in all",
    ]
    if status.get("refused"):
        parts.append(f"{count(status['refused'])} turned away")
    return ", ".join(parts)


def _traffic(status: Mapping[str, Any], fro: str, to: str) -> list[Fact]:
    """
    Write the traffic; C{fro} and C{to} are the words for the directions from and to the
    visitors.
    """
    now = f"{rate(status['rateIn'])} {fro}, {rate(status['rateOut'])} {to}"
    total = f"{amount(status['bytesIn'])} {fro}, {amount(status['bytesOut'])} {to}"
    rates = [one + other for one, other in status.get("rates", ())]
    return [Fact("Traffic", now, PLAIN, rates), Fact("In all", total)]


def _event(event: Mapping[str, Any]) -> EventLine:
    clock = datetime.fromtimestamp(event["time"]).strftime("%H:%M:%S")
    text = printable(event["text"])
    if event["count"] > 1:
        text = f"{text} ({count(event['count'])} times)"
    mood = _MOODS.get(event["level"], PLAIN)
    return EventLine(clock, text, mood, event["kind"] != "visitor")


def lately(events: Sequence[EventLine], most: int) -> list[EventLine]:
    """
    Choose the newest events. Up to half of them are lasting ones, however many visitors
    have come and gone since.
    """
    lasting = sum(event.lasts for event in events)
    passing = most - min(lasting, most // 2)
    lasting = most - min(len(events) - lasting, passing)
    chosen = []
    for event in events:
        if event.lasts:
            lasting -= 1
        else:
            passing -= 1
        if (lasting if event.lasts else passing) >= 0:
            chosen.append(event)
    return chosen


def serverPage(status: Mapping[str, Any], hints: Sequence[str] = ()) -> Page:
    """
    Show a server.

    @param status: Its C{tunnels} and C{clients}, as C{listSessions} has them, the
        sums of their numbers, and C{where} it was asked.
    @param hints: The keys or commands that can be used.
    """
    named = any(tunnel.get("name") for tunnel in status["tunnels"])
    names = ("Name",) if named else ()
    said = {client["from"]: _who(client) for client in status["clients"]}
    offered = []
    for tunnel in status["tunnels"]:
        name = printable(str(tunnel.get("name", "")))
        address = _address(tunnel) or "no port"
        cells = (address, *((name,) if named else ()), _owner(tunnel, said))
        mood = GOOD if tunnel["from"] else WARY
        offered.append(Row(mood, (*cells, *_numbers(tunnel))))
    here = []
    for client in status["clients"]:
        session = (
            printable(str(client["from"])),
            _who(client),
            printable(str(client["dialect"])),
            count(len(client["tunnels"])),
            age(float(client["seconds"])),
        )
        here.append(Row(GOOD, session))
    tunnels = ("Address", *names, "Client", "Now", "In all", "In", "Out")
    clients = ("From", "Who", "Dialect", "Tunnels", "Connected for")
    tables = [
        Table("Tunnels", tunnels, offered, 2 + named, "no tunnel is open"),
        Table("Clients", clients, here, 3, "no client is here"),
    ]
    facts = [
        Fact("Server", printable(status["where"])),
        Fact("Visitors", _visitors(status)),
        *_traffic(status, "in", "out"),
    ]
    return Page("tristunnel server", facts, tables, None, hints)


def _who(client: Mapping[str, Any]) -> str:
    said = client.get("client") or {}
    name = str(said.get("name") or client["owner"])
    host = str(said.get("host", ""))
    return printable(f"{name} on {host}" if host else name) or "anybody"


def _owner(tunnel: Mapping[str, Any], said: Mapping[str, str]) -> str:
    origin = printable(str(tunnel["from"]))
    owner = said.get(origin) or printable(str(tunnel["owner"])) or "somebody"
    return f"{owner} at {origin}" if origin else f"{owner}, not here"


# Addresses as QR codes


def qrTargets(status: Mapping[str, Any]) -> list[str]:
    """
    The addresses of a client's tunnels that a phone could open. Some may have no web
    page behind them; users have to know that themselves.
    """
    found = [
        webAddress(str(tunnel["address"]), str(tunnel.get("speaks") or "http"))
        for tunnel in status["tunnels"]
    ]
    return [address for address in found if address]
