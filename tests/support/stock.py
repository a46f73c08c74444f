"""
A reactor without epoll, as far as our code can see: its sockets are Twisted's own.
"""

from __future__ import annotations

from typing import Any

from zope.interface import directlyProvides, providedBy

__all__ = ["StockReactor"]


class StockReactor:
    """
    A reactor that has no poller.

    @param reactor: What it is made of.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        directlyProvides(self, providedBy(reactor))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)
