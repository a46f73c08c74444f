"""
The log of requests: as web servers write it, or as JSON.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime

from tristunnel.names.exchange import Exchange
from tristunnel.util.output import LogFile

__all__ = ["FORMATS", "AccessLog"]

FORMATS = ("combined", "json")

_LONGEST = 2000


def _quoted(text: bytes) -> str:
    """
    Write what a visitor has sent between quotation marks, so that it can neither end
    them nor begin another line.
    """
    return "".join(
        letter
        if " " <= letter <= "~" and letter not in '"\\'
        else f"\\x{ord(letter):02x}"
        for letter in text[:_LONGEST].decode("latin-1")
    )


class AccessLog:
    """
    Writes a line for each request.

    @param file: Where to.
    @param form: One of L{FORMATS}: the combined format of Apache and nginx, or an
        object of JSON.
    @param now: The time of day.
    """

    def __init__(
        self,
        file: LogFile,
        form: str = "combined",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._file = file
        self._write = self._json if form == "json" else self._combined
        self._now = now

    def note(self, exchange: Exchange, status: int, seconds: float) -> None:
        """
        Write about a request.

        @param status: How it was answered; 0 if that is not known.
        @param seconds: How long it took.
        """
        self._file.write(self._write(exchange, status, seconds) + "\n")

    def _combined(self, exchange: Exchange, status: int, seconds: float) -> str:
        head = exchange.head
        at = datetime.fromtimestamp(self._now(), UTC).strftime(
            "%d/%b/%Y:%H:%M:%S +0000"
        )
        line = b"%b %b HTTP/%b" % (head.method, head.target, head.version.encode())
        referer, agent = head.get(b"referer") or b"-", head.get(b"user-agent") or b"-"
        return (
            f'{exchange.origin.address} - - [{at}] "{_quoted(line)}" {status or "-"}'
            f' {exchange.sent} "{_quoted(referer)}" "{_quoted(agent)}"'
        )

    def _json(self, exchange: Exchange, status: int, seconds: float) -> str:
        head, at = exchange.head, datetime.fromtimestamp(self._now(), UTC)
        texts = {
            "method": head.method,
            "target": head.target,
            "referer": head.get(b"referer"),
            "agent": head.get(b"user-agent"),
        }
        return json.dumps(
            {
                "time": at.isoformat(timespec="milliseconds"),
                "host": exchange.host,
                "visitor": exchange.origin.address,
                "scheme": exchange.origin.scheme.decode("ascii"),
                "status": status,
                "bytes": exchange.sent,
                "seconds": round(seconds, 6),
                **{k: v[:_LONGEST].decode("latin-1") for k, v in texts.items()},
            }
        )
