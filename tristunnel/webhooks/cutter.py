"""Where one request ends and the next one begins, byte for byte."""

from __future__ import annotations

from tristunnel.wire.http import Event, MessageEnd, RequestHead, RequestReader

__all__ = ["RequestCutter"]

_BLANK = b"\r\n\r\n"


class RequestCutter:
    """
    Cuts what a visitor sends into pieces, none of which has bytes of two requests.

    A head ends with an empty line, and so does a body in chunks; any other body has a
    length. The reader is given no more than up to there. If it finds that a request
    ends elsewhere, the rest of the piece belongs to another request: L{isTorn} says so.

    @ivar isTorn: Whether the last piece went on beyond the end of a request.
    @ivar isUpgrade: Whether the last request asks for another protocol.
    """

    def __init__(self) -> None:
        self.isTorn = self.isUpgrade = False
        self._reader = RequestReader()
        self._tail = b""
        self._left = 0

    def end(self, data: bytes, start: int) -> int:
        """
        Find where the next piece ends.

        @param data: What has come.
        @param start: Where the piece begins.
        """
        if self._left:
            return min(start + self._left, len(data))
        # The empty line may have begun in an earlier piece.
        tail = self._tail
        at = (tail + data[start : start + len(_BLANK) - 1]).find(_BLANK)
        if at >= 0:
            return start + at + len(_BLANK) - len(tail)
        at = data.find(_BLANK, start)
        return len(data) if at < 0 else at + len(_BLANK)

    def feed(self, piece: bytes) -> list[Event]:
        """
        Read a piece.

        @return: As L{RequestReader.feed}.
        """
        isCounted = self._left > 0
        self._left -= min(self._left, len(piece))
        last = (self._tail + piece)[-len(_BLANK) :]
        self._tail = last[1:] if len(last) == len(_BLANK) else last
        events = self._reader.feed(piece)
        self.isUpgrade = self._reader.rest is not None
        for place, event in enumerate(events):
            if isinstance(event, RequestHead):
                self._left = 0 if event.chunked else event.length or 0
            elif isinstance(event, MessageEnd):
                self._tail = b""
                isWhole = isCounted or last == _BLANK
                self.isTorn = not isWhole or place + 1 < len(events)
        return events
