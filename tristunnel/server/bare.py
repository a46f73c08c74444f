"""
A port with TLS, some of whose clients come without it, since what they speak encrypts
by itself: their first bytes are no hello.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IProtocolFactory

from tristunnel.dialects.base.unauthenticated import HANDSHAKE_TIMEOUT
from tristunnel.model.observer import ServerObserver
from tristunnel.server.sorting import Sorting, SortingFactory
from tristunnel.service.preauth import PreauthLimiter

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


@dataclass(eq=False)
class BareOrTLSFactory(SortingFactory):
    """
    Serves such a port.

    @ivar reactor: Tells time.
    @ivar beginnings: How connections without TLS begin.
    @ivar bare: Serves those.
    @ivar secure: Serves all others, and begins TLS.
    @ivar observer: Told of peers that are turned away.
    @ivar limiter: Counts connections of which nothing is known.
    @ivar timeout: Seconds in which the first bytes must be there.
    @ivar proxied: Whether a balancer's address is seen before the peer's own.
    """

    sorting = _Sorting

    reactor: Any
    beginnings: Sequence[bytes]
    bare: IProtocolFactory
    secure: IProtocolFactory
    observer: ServerObserver
    limiter: PreauthLimiter
    timeout: float = HANDSHAKE_TIMEOUT
    proxied: bool = False
