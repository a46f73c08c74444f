"""The server's sessions of the framed dialect, over a network in memory."""

from __future__ import annotations

from typing import Any

from tests.dialects.framed.network import NetworkTestCase, RawPeer
from tristunnel.wire.framed import Frame, FrameType, decodeObject, encodeObject

WINDOW = 1 << 18


OFFER = {"versions": [1], "streamWindow": WINDOW, "sessionWindow": 1 << 25}


def hello(**offer: object) -> dict[str, object]:
    return {"id": "laptop", "tristunnel": {**OFFER, **offer}}


def call(ident: int, method: str, **params: object) -> Frame:
    message = {"jsonrpc": "2.0", "id": ident, "method": method, "params": params}
    return Frame(0, FrameType.CONTROL, encodeObject(message))


class ServerTestCase(NetworkTestCase):
    """A test of sessions with peers that the test plays."""

    def extended(self, *messages: Frame, **offer: object) -> RawPeer:
        return self.dial(hello(**offer), *messages)

    def answers(self, peer: RawPeer) -> dict[int, dict[str, Any]]:
        """The answers that came on the control channel, by the call's number."""
        messages = [
            decodeObject(frame.payload)
            for frame in peer.frames()
            if frame.kind == FrameType.CONTROL
        ]
        return {m["id"]: m for m in messages if "id" in m}  # type: ignore[misc] # they are numbers

    def openTunnel(self, peer: RawPeer, **options: object) -> str:
        """Have the server open a tunnel; its URI."""
        peer.say(call(1, "openTunnel", **options))
        self.settle()
        uri: str = self.answers(peer)[1]["result"]
        return uri

    def kinds(self, peer: RawPeer) -> list[int]:
        """The types of the frames that came, without pings."""
        return [f.kind for f in peer.frames() if f.kind != FrameType.PING]
