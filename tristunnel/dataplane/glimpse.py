"""
What a service speaks, seen in passing: by the first bytes that it answers.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.interfaces import Closed
from tristunnel.wire.first_bytes import spokenBy

__all__ = ["LOOKS", "Speech", "Stand", "glimpsed", "passDirectly"]

LOOKS = 4
"""Streams that are looked at: of some, such as a scanner's, nothing comes."""

_UNANSWERED = 64 * 1024
"""Bytes from a visitor after which no answer is waited for: what is busy has to go
by the fastest way."""

_QUESTION = 2048
"""Bytes of a visitor that are kept until the answer."""


@dataclass(eq=False)
class Speech:
    """
    What a service is known to speak.

    @ivar kind: C{"http"}, C{"https"}, C{"other"}, or empty while nobody knows.
    @ivar looks: How many more streams will be looked at.
    @ivar heard: Called with the kind, once it is known.
    """

    kind: str = ""
    looks: int = LOOKS
    heard: Callable[[str], None] = lambda kind: None


class Stand:
    """
    Stands for an end, for as long as somebody looks at what it is given.

    @param look: Called with bytes before the end gets them.

    @ivar end: The end, or what stands for it.
    @ivar over: Whether nobody looks any more.
    """

    def __init__(self, end: Any, look: Callable[[bytes], None]) -> None:
        self.end = end
        self.over = False
        self._look = look

    def __getattr__(self, name: str) -> Any:
        return getattr(self.end, name)

    def join(self, peer: Stand, closed: Closed) -> None:
        self.end.join(peer.end if peer.over else peer, closed)

    def write(self, data: bytes) -> None:
        if not self.over:
            self._look(data)
        self.end.write(data)


class _Glimpse:
    def __init__(
        self, speech: Speech, service: Any, visitor: Any, toService: Any, toVisitor: Any
    ) -> None:
        self.toService = Stand(toService, self._asked)
        self.toVisitor = Stand(toVisitor, self._answered)
        self._speech = speech
        self._service, self._visitor = service, visitor
        self._question = b""
        self._size = 0

    def _asked(self, data: bytes) -> None:
        self._question += data[: _QUESTION - len(self._question)]
        self._size += len(data)
        if self._size > _UNANSWERED:
            self._leave()

    def _answered(self, data: bytes) -> None:
        self._leave()
        if not self._speech.kind:
            self._speech.kind = spokenBy(data, self._question)
            self._speech.heard(self._speech.kind)

    def _leave(self) -> None:
        passDirectly(self._service, self.toVisitor)
        passDirectly(self._visitor, self.toService)


def passDirectly(source: Any, stand: Stand) -> None:
    """
    Look no more: have an end pass its bytes to the other one itself.

    @param source: The end.
    @param stand: What it passes them to, or something between does.
    """
    if not stand.over:
        stand.over = True
        before, _ = source.passTo(stand.end)
        if before is not None and before is not stand:
            # A rate limiter has come between, and remains.
            source.passTo(before)


def glimpsed(
    speech: Speech, service: Any, visitor: Any, toService: Any, toVisitor: Any
) -> tuple[Any, Any]:
    """
    Have a stream looked at until its service answers, if nobody knows yet what
    that speaks. Two sockets go by the kernel, unseen.

    @param speech: What is known, and will be.
    @param service: The service's end itself.
    @param visitor: The visitor's.
    @param toService: What is to be joined for the service: the end, or what stands
        for it.
    @param toVisitor: Likewise for the visitor.
    @return: What is to be joined in the place of these two.
    """
    if speech.kind or not speech.looks:
        return toService, toVisitor
    if isinstance(service, SocketEnd) and isinstance(visitor, SocketEnd):
        return toService, toVisitor
    speech.looks -= 1
    glimpse = _Glimpse(speech, service, visitor, toService, toVisitor)
    return glimpse.toService, glimpse.toVisitor
