"""
A port with TLS, some of whose clients come without it, since their protocol encrypts by
itself: their first bytes are not a TLS hello.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twisted.internet.interfaces import IProtocolFactory

from tristunnel.server.sorting import Sorting, SortingFactory

__all__ = ["BareOrTLSFactory"]


class _Sorting(Sorting):
    """Waits for the first bytes."""

    awaited = "hello"

    def sort(self, data: bytes) -> int:
        parent = self._parent
        if any(map(data.startswith, parent.beginnings)):
            self.handOn(parent.bare.buildProtocol(self._address))
        elif any(beginning.startswith(data) for beginning in parent.beginnings):
            return len(data) + 1
        else:
            self.handOn(parent.secure.buildProtocol(self._address))
        return 0


@dataclass(eq=False, kw_only=True)
class BareOrTLSFactory(SortingFactory):
    """
    Serves such a port.

    @ivar beginnings: How connections without TLS begin.
    @ivar bare: Serves these.
    @ivar secure: Serves all others, and begins TLS.
    """

    sorting = _Sorting

    beginnings: Sequence[bytes]
    bare: IProtocolFactory
    secure: IProtocolFactory
