"""
What a stream asks of the session that carries it.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Generic, TypeVar

from tristunnel.errors import TunnelError

__all__ = ["StreamCarrier"]

_Stream = TypeVar("_Stream", contravariant=True)
"""The kind of stream that it carries."""


class StreamCarrier(ABC, Generic[_Stream]):
    """What streams need of the session that carries them."""

    __slots__ = ()

    @abstractmethod
    def now(self) -> float:
        """The time, in seconds."""

    @abstractmethod
    def accept(self, stream: _Stream) -> None:
        """Tell the peer that the stream it opened has reached its service."""

    @abstractmethod
    def sendNow(self, stream: _Stream, data: bytes) -> bool:
        """
        Send bytes of C{stream}, in which none wait, if nothing is before them.

        @return: Whether they were sent.
        """

    @abstractmethod
    def wantsToSend(self, stream: _Stream) -> None:
        """C{stream} has bytes to send, or its end, or has got credit."""

    @abstractmethod
    def sendEnd(self, stream: _Stream) -> None:
        """Say that C{stream} sends no more, after all that it had to send."""

    @abstractmethod
    def sendReset(self, stream: _Stream, reason: TunnelError) -> None:
        """Say that C{stream} is broken, and why."""

    @abstractmethod
    def drained(self, stream: _Stream, amount: int) -> None:
        """C{stream}'s local end took bytes."""

    @abstractmethod
    def emptied(self, stream: _Stream) -> None:
        """C{stream} held bytes for its local end, and now holds none."""

    @abstractmethod
    def streamOver(self, stream: _Stream, held: int) -> None:
        """
        Forget C{stream}.

        @param held: Bytes that its local end never took.
        """
