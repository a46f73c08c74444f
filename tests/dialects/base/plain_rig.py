"""Sessions of clients without extensions, on record."""

from __future__ import annotations

from tests.vectors import readVectors
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
