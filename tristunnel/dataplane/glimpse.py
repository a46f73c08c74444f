"""
Which protocol a service speaks, judged by the first bytes of its answer.
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
"""How many streams are looked at: some, such as a scanner's, show nothing."""

_UNANSWERED = 64 * 1024
"""Bytes from a visitor after which we stop waiting for an answer: a busy stream must be
passed on by the fastest way."""

_QUESTION = 2048
"""Bytes from a visitor that are kept until the answer comes."""


@dataclass(eq=False)
class Speech:
    """
    What a service is known to speak.

    @ivar kind: C{"http"}, C{"https"}, C{"other"}, or empty while it is not known.
    @ivar looks: How many more streams will be looked at.
    @ivar heard: Called with the kind once it is known.
    """

    kind: str = ""
    looks: int = LOOKS
    heard: Callable[[str], None] = lambda kind: None


class Stand:
    """
    Stands in for an end while the bytes for it are looked at.

    @param look: Called with bytes before the end gets them.

    @ivar end: The end, or what stands in for it.
    @ivar over: Whether looking has ended.
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
    Stop looking: let an end pass its bytes to the other one directly.

    @param source: The end.
    @param stand: What it passes them to now, itself or through something in between.
    """
    if not stand.over:
        stand.over = True
        before, _ = source.passTo(stand.end)
        if before is not None and before is not stand:
            # A rate limiter has been put in between, and stays there.
            source.passTo(before)


def glimpsed(
    speech: Speech, service: Any, visitor: Any, toService: Any, toVisitor: Any
) -> tuple[Any, Any]:
    """
    Look at a stream until its service answers, if it is not known yet what that speaks.
    Between two sockets the kernel moves the bytes, which nobody sees.

    @param speech: What is known so far; filled in with what is found.
    @param service: The service's end itself.
    @param visitor: The visitor's.
    @param toService: What is to be joined for the service: the end, or what stands in
        for it.
    @param toVisitor: Likewise for the visitor.
    @return: What is to be joined in place of these two.
    """
    if speech.kind or not speech.looks:
        return toService, toVisitor
    if isinstance(service, SocketEnd) and isinstance(visitor, SocketEnd):
        return toService, toVisitor
    speech.looks -= 1
    glimpse = _Glimpse(speech, service, visitor, toService, toVisitor)
    return glimpse.toService, glimpse.toVisitor
