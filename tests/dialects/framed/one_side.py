"""A multiplexer whose other side is the test."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.framed.memory import MemorySink, RecordingEnd, frameBytes
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.framed.extended import ExtendedMultiplexer
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import Frame, FrameDecoder, encodeCredit
from tristunnel.wire.windows import UNLIMITED

OPEN = encodeCredit(1000) + b"{}"


class OneSideTests(SynchronousTestCase):
    """Tests of one L{ExtendedMultiplexer}, a server's, whose peer is the test."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.sink = MemorySink()
        self.ends: list[RecordingEnd] = []
        self.infos: list[dict[str, object]] = []
        self.limits = Limits(1000, 4000, 3000, streams=10)
        self.multiplexer = ExtendedMultiplexer(
            self.sink,
            self.clock.seconds,
            self.opened,
            self.limits,
            True,
            UNLIMITED,
            UNLIMITED,
        )

    def opened(self, stream: SessionStream, info: dict[str, object]) -> None:
        self.infos.append(info)
        end = RecordingEnd()
        self.ends.append(end)
        end.meet(stream)
        self.multiplexer.accept(stream)

    def open(self) -> RecordingEnd:
        end = RecordingEnd()
        end.meet(self.multiplexer.open({}))
        return end

    def hear(self, *frames: tuple[int, int, bytes]) -> list[Frame]:
        """Have the peer send frames; what was sent since the last time."""
        self.multiplexer.framesArrived(FrameDecoder().feed(frameBytes(*frames)))
        return self.sink.frames()

    def violation(self, *frames: tuple[int, int, bytes]) -> str:
        """Have the peer send frames that it may not send; what is wrong with them."""
        with self.assertRaises(TunnelError) as caught:
            self.hear(*frames)
        self.assertEqual(caught.exception.code.name, "protocol-error")
        return str(caught.exception)
