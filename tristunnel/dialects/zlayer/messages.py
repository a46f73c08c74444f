"""
What both roles of zlayer's dialect do with messages, and with the reasons in them,
which are text only.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from tristunnel.dialects.base.messages import MessageSession
from tristunnel.errors import CODES, TunnelError, printable
from tristunnel.websocket.codes import UNSUPPORTED
from tristunnel.wire.zlayer import MAX_MESSAGE, Message, decodeMessage, encodeMessage

__all__ = ["IN_USE", "ZLayerSession", "reasonIn", "shorten"]

IN_USE = "Token already in use"
"""What zlayer's server says of a second client with one token."""


def shorten(text: str) -> str:
    """Make a line from what a peer wrote, for logs and messages."""
    return printable(" ".join(text.split()), 300)


def reasonIn(text: str, code: str, lead: str = "") -> TunnelError:
    """
    Make a reason from what a peer says. Our own program puts the code at its end.

    @param code: The code for other programs' words.
    @param lead: What to put before those.
    """
    text = shorten(text)
    found = re.search(r" \[([a-z-]+)\]$", text)
    if found is not None and found[1] in CODES:
        return TunnelError.said(found[1], text[: found.start()])
    return TunnelError.said(code, lead + text if text else "")


class ZLayerSession(MessageSession):
    """
    A session that handles messages by their types.

    @cvar peersName: Who sends messages, for people.
    """

    peersName: str
    _take: dict[type[Message], Callable[[Any], None]]

    def opened(self, connection: Any) -> None:
        super().opened(connection)
        connection.wholeUpTo = MAX_MESSAGE

    def send(self, message: Message) -> None:
        """Send a message."""
        self.connection.sendWhole(encodeMessage(message))

    def bytesReceived(self, data: bytes) -> None:
        if self.lost is None:
            try:
                self.take(decodeMessage(data))
            except TunnelError as error:
                self.fail(error)

    def take(self, message: Message) -> None:
        """
        Take a message.

        @raise TunnelError: C{protocol-error}, for one that is not the peer's
            to send.
        """
        take = self._take.get(type(message))
        if take is None:
            raise TunnelError(
                "protocol-error", f"{type(message).__name__} is not {self.peersName}'s"
            )
        take(message)

    def textReceived(self, text: bytes) -> None:
        self.fail(
            TunnelError("protocol-error", "zlayer uses binary messages"), UNSUPPORTED
        )
