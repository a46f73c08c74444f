"""
Streams and flows that share a connection, and must not break it for each other.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from twisted.logger import Logger

from tristunnel.errors import TunnelError

__all__ = ["Guarded"]


class Guarded(ABC):
    """
    One of the many that share a connection. An error in the code of its local end
    breaks it alone, and reaches neither the session nor the stream that happened to
    cause the call.
    """

    __slots__ = ()

    id: int
    _peer: Any
    _log = Logger()

    @property
    @abstractmethod
    def over(self) -> bool:
        """Whether it has ended."""

    @abstractmethod
    def reset(self, reason: TunnelError) -> None:
        """Break off and tell the far side why."""

    def guarded(self, call: Callable[..., object], *arguments: object) -> None:
        """Call code of this one's alone."""
        try:
            call(*arguments)
        except Exception:
            self.faulted()

    def faulted(self) -> None:
        """
        Break off at both sides, because of the error that is being handled. The local
        end may be in any state, so what it raises from now on means nothing.
        """
        peer, self._peer = self._peer, None
        if peer is not None or not self.over:
            self._log.failure("An error ended stream {id}", id=self.id)
        reason = TunnelError("internal", "an error ended the stream")
        with suppress(Exception):
            self.reset(reason)
        if peer is not None:
            with suppress(Exception):
                peer.reset(reason)
