"""The remote calls about requests, for the page and for C{tristunnel requests}."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from tristunnel.errors import TunnelError, badOption
from tristunnel.inspect.exchange import Exchange
from tristunnel.inspect.filters import parseFilter
from tristunnel.inspect.har import harOf
from tristunnel.inspect.record import Record
from tristunnel.inspect.replay import Edits, Replays
from tristunnel.inspect.shown import detailOf, summaryOf

__all__ = ["callsOf", "matching"]


def matching(record: Record, text: object) -> list[Exchange]:
    """
    Find exchanges, oldest first.

    @param text: A filter, as L{parseFilter} reads it.
    @raise TunnelError: C{bad-option}.
    """
    if not isinstance(text, str):
        raise badOption("filter takes text")
    matches = parseFilter(text)
    return [each for each in record.exchanges.values() if matches(each)]


def callsOf(
    record: Record, replays: Replays, url: Callable[[], str]
) -> dict[str, Callable[..., object]]:
    """
    Make the calls, by name. Each takes who calls, which is everybody who may.

    @param url: Says where the page is, with its token.
    """

    def find(id: object) -> Exchange:
        found = record.exchanges.get(id) if type(id) is int else None
        if found is None:
            raise TunnelError("unknown-session", "this request is no longer kept")
        return found

    def listRequests(
        caller: object, since: int = 0, filter: str = "", reveal: bool = False
    ) -> dict[str, Any]:
        if type(since) is not int:
            raise badOption("since takes a number")
        found = matching(record, filter)
        return {
            "version": record.version,
            # Exchanges that are not named here are gone, or do not match any more.
            "ids": [each.number for each in found],
            "requests": [
                summaryOf(each, reveal is True)
                for each in found
                if each.version > since
            ],
            "notes": [
                {
                    "target": note.target,
                    "reason": note.reason,
                    "count": note.count,
                    "time": round(note.time, 3),
                }
                for note in record.notes
            ],
        }

    def getRequest(caller: object, id: int, reveal: bool = False) -> dict[str, Any]:
        return detailOf(find(id), reveal is True)

    def replayRequest(
        caller: object,
        id: int,
        method: str | None = None,
        path: str | None = None,
        headers: list[list[str]] | None = None,
        body: str | None = None,
    ) -> Deferred[dict[str, Any]]:
        edits = Edits.of(method, path, headers, body)
        return replays.send(find(id), edits).addCallback(summaryOf)

    def exportRequests(
        caller: object, filter: str = "", reveal: bool = False
    ) -> dict[str, Any]:
        return harOf(matching(record, filter), reveal is True)

    def clearRequests(caller: object) -> None:
        record.clear()

    def requestsPage(caller: object) -> str:
        return url()

    return {
        "listRequests": listRequests,
        "getRequest": getRequest,
        "replayRequest": replayRequest,
        "exportRequests": exportRequests,
        "clearRequests": clearRequests,
        "requestsPage": requestsPage,
    }
