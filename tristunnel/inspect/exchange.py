"""
A request and its response as they passed, and as much of them as is kept.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field

from tristunnel.forwards.forward import Forward
from tristunnel.wire.http import Headers, RequestHead, ResponseHead

__all__ = ["Exchange", "Frame", "Part"]


@dataclass(eq=False, slots=True)
class Part:
    """
    A request or a response.

    @ivar head: Its head.
    @ivar began: When its first byte came, in seconds of the client's clock.
    @ivar kept: The beginning of its body.
    @ivar size: Bytes of its body so far.
    @ivar ended: When its last byte came; C{None} if it has not.
    @ivar trailers: The headers behind its body.
    """

    head: RequestHead | ResponseHead
    began: float
    kept: bytearray = field(default_factory=bytearray)
    size: int = 0
    ended: float | None = None
    trailers: Headers = field(default_factory=list)

    @property
    def isWhole(self) -> bool:
        """Whether all of it came, and all of that is kept."""
        return self.ended is not None and self.size == len(self.kept)


@dataclass(eq=False, slots=True)
class Frame:
    """
    A message of a WebSocket, or a control frame.

    @ivar time: When it was whole, in seconds of the client's clock.
    @ivar fromVisitor: Who sent it.
    @ivar opcode: What it is.
    @ivar kept: The beginning of its payload.
    @ivar size: Bytes of the payload.
    @ivar note: What there is to say of it, or empty.
    """

    time: float
    fromVisitor: bool
    opcode: int
    kept: bytes
    size: int
    note: str = ""


@dataclass(eq=False, slots=True)
class Exchange:
    """
    A request and its response.

    @ivar number: Which of all it is, from 1.
    @ivar forward: Whose it is.
    @ivar info: What the server said of the visitor.
    @ivar time: When it began, in seconds since the epoch.
    @ivar request: The request.
    @ivar replayOf: The number of the one that this is sent again of; 0 for none.
    @ivar firstByte: When the first byte of an answer came, or C{None}.
    @ivar interim: The statuses of what came before the response.
    @ivar response: The response, once there is one.
    @ivar isOver: Whether nothing more comes.
    @ivar problem: Why it is not complete, or empty.
    @ivar frames: The latest messages, if it has become a WebSocket.
    @ivar framesGone: How many more there were.
    @ivar version: Grows over all exchanges with each change of one.
    @ivar cost: Bytes that are kept for it, about.
    @ivar isKept: Whether it is still among those that can be looked at.
    """

    number: int
    forward: Forward
    info: Mapping[str, object]
    time: float
    request: Part
    replayOf: int = 0
    firstByte: float | None = None
    interim: list[int] = field(default_factory=list)
    response: Part | None = None
    isOver: bool = False
    problem: str = ""
    frames: deque[Frame] = field(default_factory=deque)
    framesGone: int = 0
    version: int = 0
    cost: int = 0
    isKept: bool = True

    @property
    def asked(self) -> RequestHead:
        """The request's head."""
        head = self.request.head
        assert isinstance(head, RequestHead)
        return head

    @property
    def answer(self) -> ResponseHead | None:
        """The response's head, once it has come."""
        head = None if self.response is None else self.response.head
        assert head is None or isinstance(head, ResponseHead)
        return head

    @property
    def ended(self) -> float | None:
        """When the last byte of the response came, or C{None}."""
        return None if self.response is None else self.response.ended

    @property
    def visitor(self) -> str:
        """Where the visitor came from, if the server said it."""
        said = self.info.get("visitor")
        return said[:200] if isinstance(said, str) else ""
