"""A request that is held until it is complete and known to be signed."""

from __future__ import annotations

from collections.abc import Callable
from http import HTTPStatus

from tristunnel.forwards.verify import Verification
from tristunnel.webhooks.cutter import RequestCutter
from tristunnel.wire.http import (
    MOST_HEAD_BYTES,
    BadMessage,
    Event,
    MessageEnd,
    RequestHead,
)
from tristunnel.wire.signatures import BadSignature, SignatureCheck

__all__ = ["MOST_BODY", "HeldRequest", "Refusal"]

MOST_BODY = 25 * 1024 * 1024
"""Bytes of a request's body; GitHub sends no more."""


class Refusal(Exception):
    """
    A request that is not passed on, and is the last one.

    @ivar status: What the visitor is answered.
    @ivar why: What is wrong, in a few words.
    """

    def __init__(self, status: HTTPStatus, why: str) -> None:
        super().__init__(status, why)
        self.status, self.why = status, why


class HeldRequest:
    """
    The present request of a connection, as far as it has come.

    @param verification: How it must be signed.
    @param now: Tells the time of day, in seconds.

    @ivar head: Its head, once that has come.
    @ivar asksToGoOn: Whether the head, which was the last piece, says that the visitor
        waits for a word before it sends the body.
    @ivar isGood: Whether all of it has come, and its signature is good.
    """

    def __init__(self, verification: Verification, now: Callable[[], float]) -> None:
        self._verification = verification
        self._now = now
        self._cutter = RequestCutter()
        self.forget()

    def forget(self) -> None:
        """Have nothing of it any more; another one may come behind it."""
        self._pieces: list[bytes] = []
        self._size = 0
        self._check: SignatureCheck | None = None
        self.head: RequestHead | None = None
        self.asksToGoOn = self.isGood = False

    @property
    def hasBegun(self) -> bool:
        """Whether some of it is here."""
        return bool(self._pieces)

    def end(self, data: bytes, start: int) -> int:
        """As L{RequestCutter.end}: find where the next piece ends."""
        return self._cutter.end(data, start)

    def take(self, piece: bytes) -> None:
        """
        Take a piece.

        @raise Refusal: If the request is not good.
        """
        self._pieces.append(piece)
        self._size += len(piece)
        self.asksToGoOn = False
        events = self._cutter.feed(piece)
        if self._cutter.isUpgrade or self._cutter.isTorn:
            what = "asks for another protocol" if self._cutter.isUpgrade else "is torn"
            raise Refusal(HTTPStatus.BAD_REQUEST, f"the request {what}")
        if self._size > MOST_BODY + MOST_HEAD_BYTES:
            raise _tooLarge()
        for event in events:
            self._heardOf(event)

    def _heardOf(self, event: Event) -> None:
        if isinstance(event, RequestHead):
            self._began(event)
        elif isinstance(event, BadMessage):
            raise Refusal(HTTPStatus(event.status), event.reason)
        elif self._check is None:
            return
        elif isinstance(event, bytes):
            self._check.update(event)
        elif isinstance(event, MessageEnd):
            self.isGood = self._check.isGood
            if not self.isGood:
                raise Refusal(HTTPStatus.UNAUTHORIZED, "the signature is wrong")

    def _began(self, head: RequestHead) -> None:
        self.head = head
        try:
            self._check = self._verification.check(head, self._now())
        except BadSignature as problem:
            raise Refusal(HTTPStatus.UNAUTHORIZED, str(problem)) from None
        if (head.length or 0) > MOST_BODY:
            raise _tooLarge()
        self.asksToGoOn = (
            head.hasBody and b"100-continue" in head.get(b"expect").lower()
        )

    def taken(self) -> bytes:
        """Take its bytes away, as they came."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


def _tooLarge() -> Refusal:
    return Refusal(
        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
        f"the request has more than {MOST_BODY} bytes",
    )
