"""
An end of a stream that does nothing, for fakes to inherit.
"""

from __future__ import annotations

from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, End

__all__ = ["SilentEnd"]


class SilentEnd(End):
    """An L{End<tristunnel.interfaces.End>} that says nothing and takes nothing."""

    received = 0

    def join(self, peer: End, closed: Closed) -> None:
        pass

    def passTo(self, peer: End) -> tuple[End | None, bool]:
        raise AssertionError("nobody has this end pass bytes to something else")

    def whileWaiting(self, left: Closed) -> None:
        pass

    def write(self, data: bytes) -> None:
        pass

    def finish(self) -> None:
        pass

    def reset(self, reason: TunnelError) -> None:
        pass

    def pauseReading(self) -> None:
        pass

    def resumeReading(self) -> None:
        pass
