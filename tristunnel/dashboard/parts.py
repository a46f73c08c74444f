"""
What each process of a server shows, as numbers that can be added up, and the view that
is made from all of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import zip_longest
from typing import Any, TypedDict

from tristunnel.util.words import age, amount, count, rate

__all__ = ["Part", "Row", "joined", "memberRow", "refusalRows", "totalsOf"]

Row = dict[str, str]
"""One line of a table, or one event: text by name; C{id} is always there."""

_SHARED = ("access", "tokens")
"""Lists that are the same in all processes."""


class Part(TypedDict):
    """
    What one process shows, in a form for JSON.

    @ivar sums: Numbers to add up, by name; for C{up}, the highest counts.
    @ivar graph: Rates in and out, oldest first; the last ones are current.
    @ivar lists: Rows by list.
    @ivar numbers: The full length of each list, with the rows that are not shown.
    @ivar refusals: The number of refusals, by kind and code.
    @ivar sessions: The number of sessions by token.
    """

    sums: dict[str, float]
    graph: list[list[float]]
    lists: dict[str, list[Row]]
    numbers: dict[str, int]
    refusals: list[list[str | int]]
    sessions: dict[str, int]


def joined(parts: Sequence[Part], events: int) -> Part:
    """
    Make one part of several.

    @param events: How many events are shown.
    """
    if len(parts) == 1:
        return parts[0]
    first = parts[0]
    sums: Counter[str] = Counter()
    sessions: Counter[str] = Counter()
    refusals: Counter[tuple[str, str]] = Counter()
    for part in parts:
        sums.update(part["sums"])
        sessions.update(part["sessions"])
        for who, code, number in part["refusals"]:
            refusals[str(who), str(code)] += int(number)
    lists = {
        name: rows
        if name in _SHARED
        else [row for part in parts for row in part["lists"][name]]
        for name, rows in first["lists"].items()
    }
    lists["events"] = _events(parts, events)
    return {
        "sums": {**sums, "up": max(part["sums"]["up"] for part in parts)},
        "graph": _added([part["graph"] for part in parts]),
        "lists": lists,
        "numbers": {
            name: number
            if name in _SHARED
            else sum(part["numbers"][name] for part in parts)
            for name, number in first["numbers"].items()
        },
        "refusals": [[*who, number] for who, number in refusals.most_common()],
        "sessions": sessions,
    }


def _events(parts: Sequence[Part], most: int) -> list[Row]:
    """The latest events; prefixed with its process, an event's id is unique."""
    rows = [
        {**row, "id": f"{index}.{row['id']}"}
        for index, part in enumerate(parts)
        for row in part["lists"]["events"]
    ]
    return sorted(rows, key=lambda row: row["datetime"], reverse=True)[:most]


def _added(graphs: Iterable[list[list[float]]]) -> list[list[float]]:
    turned = zip_longest(*(reversed(graph) for graph in graphs), fillvalue=[0.0, 0.0])
    added = [
        [sum(each[0] for each in now), sum(each[1] for each in now)] for now in turned
    ]
    return added[::-1]


def totalsOf(part: Part) -> Row:
    """Write the numbers."""
    sums = part["sums"]
    return {
        **{
            name: count(int(sums[name]))
            for name in ("tunnels", "clients", "visitors", "visitorsTotal")
        },
        **{name: rate(sums[name]) for name in ("rateIn", "rateOut")},
        **{name: amount(int(sums[name])) for name in ("bytesIn", "bytesOut")},
        "up": age(sums["up"]),
    }


def refusalRows(part: Part) -> list[Row]:
    """Write who was refused."""
    return [
        {
            "id": f"{who}.{code}",
            "who": str(who),
            "code": str(code),
            "count": count(int(n)),
        }
        for who, code, n in part["refusals"]
    ]


def memberRow(member: Mapping[str, Any]) -> Row:
    """Make the row of a member of the cluster, from what it says about itself."""
    name, state = str(member["member"]), str(member["state"])
    if member.get("engine") == "away":
        state += ", without the book"
    seconds = member.get("seconds")
    return {
        "id": f"member:{name}",
        "name": name,
        "state": state,
        "address": str(member.get("clientAddress") or member.get("address", "")),
        "version": str(member.get("version", "")),
        **{
            key: str(member.get(key, ""))
            for key in ("clients", "tunnels", "streams", "load")
        },
        "up": "" if seconds is None else age(float(seconds)),
    }
