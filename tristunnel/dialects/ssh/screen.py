"""
What C{ssh} without C{-N} shows: where visitors connect, how many there are, and a QR
code.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from tristunnel.errors import TunnelError, printable
from tristunnel.interfaces import Closed, End
from tristunnel.model.tunnel import Tunnel
from tristunnel.util.qr import qrLines
from tristunnel.util.repeating import RepeatingCall
from tristunnel.util.words import plural

__all__ = ["MOST_NOTES", "Screen"]

INTERVAL = 1.0
"""Seconds between two looks whether there is something new to show."""

MOST_NOTES = 3
"""Lines of what happened that are shown."""

_LAST_WORDS = frozenset(b"\x03\x04q")
"""Ctrl-C, Ctrl-D, and q."""

_CLEAR = "\x1b[2J\x1b[H"


class Screen:
    """
    The L{End<tristunnel.interfaces.End>} of a channel whose client is a person.

    @param reactor: Tells time.
    @param tunnels: Tells what there is to show.
    @param leave: Called when the person has had enough.

    @ivar rows: Lines of the person's terminal; 0 if there is none, so that new lines
        are written below the old ones.
    """

    def __init__(
        self,
        reactor: Any,
        tunnels: Callable[[], Sequence[Tunnel]],
        leave: Callable[[], object],
    ) -> None:
        self.received = 0
        self.rows = 0
        self._tunnels = tunnels
        self._leave = leave
        self._full = False
        self._shown = ""
        self._notes: deque[str] = deque(maxlen=MOST_NOTES)
        self._peer: Any = None
        self._closed: Closed | None = None
        self._drawing = RepeatingCall(reactor, self.draw)

    def note(self, text: str) -> None:
        """Show a line of what happened."""
        self._notes.append(printable(text))
        self.draw()

    def draw(self) -> None:
        """Show what there is, if it is new and the last has been taken."""
        if self._peer is None or self._full:
            return
        shown = "\r\n".join(self._page() if self.rows else self._lines())
        if shown != self._shown:
            self._shown = shown
            text = f"{_CLEAR}{shown}" if self.rows else f"{shown}\r\n"
            self._peer.write(text.encode())

    def _lines(self) -> list[str]:
        """The lines that do not change with every visitor."""
        tunnels = [f"Visitors connect to {each.address}" for each in self._tunnels()]
        return [*(tunnels or ["No tunnel is open: give -R"]), *self._notes]

    def _page(self) -> list[str]:
        tunnels = list(self._tunnels())
        lines = ["tristunnel", ""]
        for tunnel in tunnels:
            now, all_ = len(tunnel.streams), tunnel.visitorCount
            there = f"{plural(now, 'visitor')} now, {all_} so far"
            lines.append(f"  {tunnel.page or tunnel.address}   {there}")
        if not tunnels:
            lines.append("  No tunnel is open: give -R PORT:localhost:PORT")
        lines += ["", *(f"  {note}" for note in self._notes), "Ctrl-C ends."]
        web = next((tunnel.page for tunnel in tunnels if tunnel.page), "")
        code = qrLines(web) if web else []
        if code and len(lines) + len(code) < self.rows:
            lines += ["", *code]
        return lines[: self.rows]

    # End

    def join(self, peer: End, closed: Closed) -> None:
        """Begin to draw."""
        self._peer = peer
        self._closed = closed
        self._drawing.start(INTERVAL)

    def passTo(self, peer: Any) -> tuple[Any | None, bool]:
        """Write to the channel's stand-in from now on."""
        before, self._peer = self._peer, peer
        return before, False

    def whileWaiting(self, left: Closed) -> None:
        """It never waits."""

    def write(self, data: bytes) -> None:
        """Take what was typed."""
        self.received += len(data)
        if not _LAST_WORDS.isdisjoint(data):
            self._leave()

    def finish(self) -> None:
        """Nothing more will be typed; the screen stays."""

    def reset(self, reason: TunnelError) -> None:
        """The person has left."""
        self._end(reason)

    def over(self, reason: TunnelError | None) -> None:
        """The channel is over."""
        self._end(reason)

    def _end(self, reason: TunnelError | None) -> None:
        if self._drawing.running:
            self._drawing.stop()
        self._peer = None
        closed, self._closed = self._closed, None
        if closed is not None:
            closed(reason)

    def pauseReading(self) -> None:
        """The terminal has not taken the last picture."""
        self._full = True

    def resumeReading(self) -> None:
        """The terminal has taken it."""
        self._full = False
        self.draw()
