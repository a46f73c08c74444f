"""
Streams at the server, in a dialect that cannot end one direction alone: the end of what
a visitor sends is held back while its answer is still coming.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tristunnel.dataplane.join import ANSWER_LINGER, EndPatience
from tristunnel.dialects.base.multiplexer import Multiplexer
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.util.repeating import stopTimer

__all__ = ["LingeringEnds"]


class LingeringEnds(Multiplexer):
    """
    Mixed in before the multiplexer whose C{sendEnd} ends both directions.

    @ivar patienceOf: What is known of each visitor's answer.
    """

    def lingerWith(self, callLater: Callable[..., Any]) -> None:
        """
        Set all fields.

        @param callLater: Has something called later.
        """
        self.patienceOf: dict[SessionStream, EndPatience] = {}
        self._lingerLater = callLater
        # For visitors that send no more: the call that looks whether their answer is
        # over.
        self._lingering: dict[SessionStream, Any] = {}

    def begun(self, stream: SessionStream) -> None:
        """Take note of a visitor."""
        self.patienceOf[stream] = EndPatience(self._seconds())

    @property
    def readsNothing(self) -> bool:
        """Whether there may be answers that are not being read."""
        return bool(self.holds)

    def sending(self, stream: SessionStream) -> None:
        """The visitor has sent something, and awaits an answer now."""
        if (patience := self.patienceOf.get(stream)) is not None:
            patience.asked(self._seconds())

    def answered(self, stream: SessionStream) -> None:
        """The service answers."""
        if (patience := self.patienceOf.get(stream)) is not None:
            patience.heard(self._seconds())

    def sendEnd(self, stream: SessionStream) -> None:
        """The visitor sends no more: close, unless its answer is due or coming."""
        patience = self.patienceOf.get(stream)
        if patience is None:
            super().sendEnd(stream)  # type: ignore[safe-super] # a sibling's
            return
        stream.finished = True
        patience.ended(self._seconds())
        self._lingered(stream, patience)

    def _lingered(self, stream: SessionStream, patience: EndPatience) -> None:
        """Close if no answer came for long enough, or else look again later."""
        left = patience.left(self._seconds())
        if self.readsNothing:
            left = max(left, ANSWER_LINGER)
        if left <= 0:
            super().sendEnd(stream)  # type: ignore[safe-super] # a sibling's
        else:
            self._lingering[stream] = self._lingerLater(
                left, self._lingered, stream, patience
            )

    def readsAgain(self) -> None:
        """Measure silence from now on."""
        for stream in self._lingering:
            self.patienceOf[stream].heardAt = self._seconds()

    def streamOver(self, stream: SessionStream, held: int) -> None:
        self.patienceOf.pop(stream, None)
        stopTimer(self._lingering.pop(stream, None))
        super().streamOver(stream, held)
