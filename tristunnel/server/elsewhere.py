"""
Which of several processes of a server a request is for.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote

from tristunnel.dialects.table import DIALECTS
from tristunnel.processes.passing import Passing
from tristunnel.server.detector import HERE

__all__ = ["LONGEST_LINE", "PageOwners"]

LONGEST_LINE = 8192
"""Bytes of a request's first line; a longer one is refused here."""


class PageOwners:
    """
    Decides by the first line of a request; everything else belongs to this process.

    @param passing: Passes connections to others.
    @param index: Which process this is.
    @param count: How many there are.
    """

    def __init__(self, passing: Passing, index: int, count: int) -> None:
        self._index, self._count = index, count
        self.mayPass = passing.mayPass
        self.give = passing.give

    def whose(self, began: bytes) -> int | None:
        """
        Find out whose a connection is from what was read of it.

        @return: The index of a process, L{HERE}, or C{None} if more must be read.
        """
        if not b"GET ".startswith(began[:4]):
            return HERE
        line, end, _ = began.partition(b"\n")
        if not end:
            return None if len(line) < LONGEST_LINE else HERE
        target = line[4:].partition(b" ")[0].partition(b"?")[0]
        path = unquote(target.decode("latin-1"))
        owners: Any = (each.memberOf(path, self._count) for each in DIALECTS.values())
        found = next((owner for owner in owners if owner is not None), HERE)
        return HERE if found == self._index else found
