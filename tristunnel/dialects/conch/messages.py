"""
SSH in the messages of a WebSocket.
"""

from __future__ import annotations

from tristunnel.websocket.stream import ByteStream

__all__ = ["AnyMessages"]


class AnyMessages(ByteStream):
    """Takes text messages as bytes, too, as the receivers of Go's programs do."""

    def textReceived(self, text: bytes) -> None:
        self.bytesReceived(text)
