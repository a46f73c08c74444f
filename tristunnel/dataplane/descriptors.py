"""
File descriptors that are kept in reserve. When visitors have used up all others, the
server still answers its operator, and a client can still come back to its server.

The kernel always gives out the lowest free descriptor. So the number of the next one
tells how many are in use at least, whoever has opened them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from tristunnel.errors import TunnelError
from tristunnel.util.descriptor_limit import descriptorLimit

__all__ = ["RESERVE", "Reserve"]

SHARE = 4
"""The reserve is one part in this many of all descriptors."""

MOST = 4096
"""The most descriptors that are kept in reserve."""

EACH = 3
"""The most descriptors that a visitor takes: its own, one for the other side, and one
for a moment while the reactor duplicates a socket. The last one leaves a gap; judging
by that alone, hardly any descriptors would ever seem to be in use."""

PLENTY = 128
"""Descriptors that must be free for the check to be skipped at the next visitor."""

SURE = 8
"""Further free descriptors for each further check that is skipped: twice what a visitor
takes, and some for the rest of the program."""

MOST_SURE = 64
"""The most checks in a row that are skipped after plenty were free."""

RETRY_AFTER = 30.0
"""Seconds after which a client that found no descriptor is told to come
back."""


def _next() -> int:
    """
    Find the highest of the descriptors that the next visitor would get.

    @return: A very large number if there are not that many.
    """
    taken: list[int] = []
    try:
        for _ in range(EACH):
            # The cheapest descriptor to make: this is called for every visitor.
            taken.append(os.dup(0))
    except OSError as error:
        if error.errno in (errno.EMFILE, errno.ENFILE):
            return 1 << 30
        taken.append(os.open(os.devnull, os.O_RDONLY))
    finally:
        for descriptor in taken:
            os.close(descriptor)
    return taken[-1]


class Reserve:
    """
    Knows whether there are descriptors left.

    Visitors get none of the reserve. Half of it is for sessions, and for connections
    that are still to authenticate; the rest is for the operator's connections.

    @param limit: Tells how many descriptors there may be; 0 for any number.
    @param following: Tells the highest of those that would be given out next.

    @ivar expected: Connections that were asked for and are not there yet; each will
        take a descriptor.
    """

    def __init__(
        self,
        limit: Callable[[], int] = descriptorLimit,
        following: Callable[[], int] = _next,
    ) -> None:
        self.expected = 0
        self._sure = 0
        self._limit = limit
        self._following = following

    @property
    def size(self) -> int:
        """How many descriptors are kept from visitors."""
        return min(self._limit() // SHARE, MOST)

    @property
    def forVisitors(self) -> int:
        """How many descriptors visitors may have; 0 for any number."""
        return self._limit() - self.size

    @property
    def isLow(self) -> bool:
        """Whether only the reserve is left."""
        return self._isUsed(self.size)

    def checkVisitor(self) -> None:
        """
        @raise TunnelError: C{limit-reached}, if only the reserve is left.
        """
        if self._sure > 0:
            self._sure -= 1
        else:
            self._check(self.size)

    def checkSession(self) -> None:
        """
        @raise TunnelError: C{limit-reached}, if only the operator's part of the reserve
            is left.
        """
        if self._sure > 0:
            self._sure -= 1
        else:
            self._check(self.size // 2)

    def _isUsed(self, kept: int) -> bool:
        """Whether no more than C{kept} descriptors are left."""
        limit = self._limit()
        if not limit:
            return False
        left = limit - kept - self._following() - self.expected
        # The visitors since the last check cannot have taken them all.
        self._sure = min((left - PLENTY) // SURE, MOST_SURE)
        return left <= 0

    def _check(self, kept: int) -> None:
        """
        @raise TunnelError: C{limit-reached}, if no more than C{kept} are left.
        """
        if self._isUsed(kept):
            limit = self._limit()
            raise TunnelError(
                "limit-reached",
                f"{limit - kept} of {limit} file descriptors are used; raise this"
                " program's"
                " limit (ulimit -n)",
                RETRY_AFTER,
            )


RESERVE = Reserve()
"""The reserve of this process; it is global because descriptors are."""
