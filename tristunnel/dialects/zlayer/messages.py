"""
What both roles of zlayer's dialect do with messages.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tristunnel.errors import TunnelError
from tristunnel.websocket.codes import UNSUPPORTED
from tristunnel.wire.zlayer import Message

__all__ = ["MessageSession"]


class MessageSession:
    """
    A session whose messages are taken by what they are.

    @ivar lost: Why the session is over, or C{None}.
    @cvar peersName: Who sends messages, for people.
    """

    lost: TunnelError | None
    peersName: str
    _take: dict[type[Message], Callable[[Any], None]]

    def take(self, message: Message) -> None:
        """
        Take a message.

        @raise TunnelError: C{protocol-error}, for one that is not the peer's
            to send.
        """
        take = self._take.get(type(message))
        if take is None:
            raise TunnelError(
                "protocol-error",
                f"{type(message).__name__} is not {self.peersName}'s",
            )
        take(message)

    def textReceived(self, text: bytes) -> None:
        self.fail(
            TunnelError("protocol-error", "zlayer speaks in binary messages"),
            UNSUPPORTED,
        )

    def closeReceived(self, reason: TunnelError | None) -> None:
        """The connection's end follows."""

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        """
        End the session because of C{reason}.

        @param code: The close code, if it is another than the reason's.
        """
        raise NotImplementedError
