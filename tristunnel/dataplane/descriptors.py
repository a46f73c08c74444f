"""
Descriptors that are kept in reserve, so that a program whose visitors have used
up the rest still answers its operator, and a client still comes back to its
server.

The kernel gives out the lowest descriptors that are free, so the next ones tell
how many are in use at least, whoever has opened them.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable

from tristunnel.errors import TunnelError
from tristunnel.util.descriptor_limit import descriptorLimit

__all__ = ["RESERVE", "Reserve"]

SHARE = 4
"""One part in so many of all descriptors is kept from visitors."""

MOST = 4096
"""Descriptors that are kept at the most."""

EACH = 3
"""Descriptors that a visitor takes at the most: its own, one for the other side,
and one for a moment, when the reactor takes a copy of a socket. That one leaves a
gap, by which alone it would always look as if hardly any were used."""

PLENTY = 128
"""Descriptors that must be left for nobody to look at the next visitor."""

SURE = 8
"""Descriptors beyond those for each further time that nobody looks: twice of what
a visitor takes, and something for the rest of the program."""

MOST_SURE = 64
"""Times, at the most, that nobody looks after there were plenty."""

RETRY_AFTER = 30.0
"""Seconds after which a client that found no descriptor is told to come
back."""


def _next() -> int:
    """
    The last of the descriptors that the next visitor would get, or a very large
    number if there are not so many.
    """
    taken: list[int] = []
    try:
        for _ in range(EACH):
            # The cheapest one to have: this is asked for every visitor.
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

    Visitors get none of the reserve. Half of it is for sessions and
    connections that say who they are, the rest for the operator's.

    @param limit: Tells how many descriptors there may be; 0 for any number.
    @param following: Tells the last one of those that would be given out next.

    @ivar expected: Connections that were asked for and are not there yet; each
        will take a descriptor.
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
        """Whether what is left is not for visitors."""
        return self._isUsed(self.size)

    def checkVisitor(self) -> None:
        """
        @raise TunnelError: C{limit-reached}, if what is left is not for
            visitors.
        """
        if self._sure > 0:
            self._sure -= 1
        else:
            self._check(self.size)

    def checkSession(self) -> None:
        """
        @raise TunnelError: C{limit-reached}, if what is left is for the
            operator alone.
        """
        if self._sure > 0:
            self._sure -= 1
        else:
            self._check(self.size // 2)

    def _isUsed(self, kept: int) -> bool:
        """Whether no more are left than C{kept}."""
        limit = self._limit()
        if not limit:
            return False
        left = limit - kept - self._following() - self.expected
        # So many visitors cannot have taken them all.
        self._sure = min((left - PLENTY) // SURE, MOST_SURE)
        return left <= 0

    def _check(self, kept: int) -> None:
        """
        @raise TunnelError: C{limit-reached}, if no more are left than C{kept}.
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
"""The reserve of this process; it is the process's, as descriptors are."""
