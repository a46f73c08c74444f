"""Ends of streams: one that does nothing, for fakes to inherit, and two that note."""

from __future__ import annotations

from typing import Any

from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed, End

__all__ = ["KeepingEnd", "NotingEnd", "SilentEnd"]


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


class NotingEnd(SilentEnd):
    """
    Notes what it is told.

    @ivar told: Bytes; C{"finish"}, C{"pause"} and C{"resume"}; and the code of a reset.
    """

    def __init__(self) -> None:
        self.told: list[Any] = []

    def write(self, data: bytes) -> None:
        self.told.append(data)

    def finish(self) -> None:
        self.told.append("finish")

    def reset(self, reason: TunnelError) -> None:
        self.told.append(reason.code.name)

    def pauseReading(self) -> None:
        self.told.append("pause")

    def resumeReading(self) -> None:
        self.told.append("resume")


class KeepingEnd(NotingEnd):
    """
    Knows its peer as well, and passes bytes to it.

    @param early: What it passes as soon as it is joined.
    """

    peer: Any = None

    def __init__(self, *early: bytes) -> None:
        super().__init__()
        self._early = early

    def join(self, peer: End, closed: Closed) -> None:
        self.peer = peer
        for data in self._early:
            peer.write(data)

    def passTo(self, peer: End) -> tuple[End | None, bool]:
        before, self.peer = self.peer, peer
        return before, False
