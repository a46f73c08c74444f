"""Sessions of clients without extensions, on record."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.framed.memory import MemorySink, frameBytes
from tests.vectors import readVectors
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.wire.framed import Frame, FrameDecoder, FrameType, HandshakeDecoder

DATA, CLOSE, ERROR = FrameType.DATA, FrameType.CLOSE, FrameType.ERROR


def recorded(side: str) -> list[Frame]:
    """
    The frames that one side of the recorded exchange sent.

    @param side: C{"client"} or C{"server"}.
    """
    done = HandshakeDecoder().feed(
        b"".join(
            bytes.fromhex(line["hex"])
            for line in readVectors("w3p-http-get")
            if line["from"] == side and "hex" in line
        )
    )
    assert done is not None
    return FrameDecoder().feed(done[1])


class PlainSideTestCase(SynchronousTestCase):
    """
    One side of such a session, whose other side is the test.

    @cvar kind: What it is.
    """

    kind: Any

    def setUp(self) -> None:
        self.clock = Clock()
        self.sink = MemorySink()
        self.side = self.kind(
            self.sink,
            self.clock.seconds,
            self.opened,
            Limits(streams=3),
            self.clock.callLater,
        )

    def opened(self, stream: SessionStream, info: dict[str, object]) -> None:
        self.fail("a stream was opened")

    def hear(self, *frames: tuple[int, int, bytes]) -> list[Frame]:
        """Have the other side send frames; what was sent since the last time."""
        self.side.framesArrived(FrameDecoder().feed(frameBytes(*frames)))
        return self.sink.frames()
