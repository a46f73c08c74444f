"""
Counting requests by name.
"""

from __future__ import annotations

from collections import Counter, OrderedDict

from tristunnel.names.exchange import Exchange

__all__ = ["MOST_COUNTED", "OTHERS", "REQUESTS", "NameCounters"]

MOST_COUNTED = 200
"""Names that are counted by themselves: each costs a monitoring system several series,
forever."""

OTHERS = "others"
"""The name of all others."""


_CLASSES = ("raw", "1xx", "2xx", "3xx", "4xx", "5xx")


class NameCounters:
    """
    Counts requests by their names and the first digit of their status.

    Only names that led to a tunnel are counted by themselves, the first L{MOST_COUNTED}
    of them; names that visitors make up are counted as others.

    @ivar requests: How many there were, by name and class: C{"2xx"}.
    @ivar sent: Bytes of bodies of responses, by name.
    """

    def __init__(self) -> None:
        self.requests: OrderedDict[str, Counter[str]] = OrderedDict()
        self.sent: Counter[str] = Counter()

    def count(self, exchange: Exchange, status: int) -> None:
        """
        Count a request.

        @param status: How it was answered; 0 if nobody looked.
        """
        route = exchange.route
        name = OTHERS if route is None else route.host
        known = self.requests.get(name)
        if known is None:
            if name != OTHERS and len(self.requests) > MOST_COUNTED:
                name = OTHERS
            known = self.requests.setdefault(name, Counter())
        known[_CLASSES[status // 100]] += 1
        self.sent[name] += exchange.sent


REQUESTS = NameCounters()
"""What this process has served."""
