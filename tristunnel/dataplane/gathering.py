"""
Sending once what comes to be sent in one turn.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["GATHERED", "Gathered"]


class _Holder(Protocol):
    """
    Holds what is to be sent when the turn ends.
    """

    def turnOver(self) -> None:
        """
        Send it.
        """


class Gathered:
    """
    Those who hold something back until the end of the turn.

    @ivar active: Whether there is an end to wait for.
    """

    __slots__ = ("_holders", "active")

    def __init__(self) -> None:
        self.active = False
        self._holders: list[_Holder] = []

    def begin(self) -> None:
        """
        A turn begins.
        """
        self.active = True

    def add(self, holder: _Holder) -> None:
        """
        Tell C{holder} when the turn ends.
        """
        self._holders.append(holder)

    def end(self) -> None:
        """
        The turn is over.
        """
        self.active = False
        if self._holders:
            holders, self._holders = self._holders, []
            for holder in holders:
                holder.turnOver()


GATHERED = Gathered()
"""The turn that this process is in; a process has one reactor."""
