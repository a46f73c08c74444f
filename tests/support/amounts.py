"""Much to send, a service that does so, and a visitor who counts it."""

from __future__ import annotations

from hashlib import sha256
from random import Random

from twisted.internet.interfaces import IPullProducer
from zope.interface import implementer

from tests.support.loopback import Service, Talk

__all__ = ["Source", "pattern"]

_PIECE = bytes(range(256)) * 4096


def pattern(size: int, seed: int = 0) -> bytes:
    """Bytes in which a lost or doubled piece shows."""
    return Random(seed).randbytes(size)


@implementer(IPullProducer)
class Source(Service):
    """
    A service that sends much to one visitor, and then its end.

    @param amount: How many bytes, in whole MiB.

    @ivar sent: Pieces that are sent.
    """

    def __init__(self, amount: int) -> None:
        super().__init__()
        self.sent = 0
        self._amount = amount

    def begin(self, talk: Talk) -> None:
        """Send as the connection takes it."""
        self.talk = talk
        talk.transport.registerProducer(self, False)

    def resumeProducing(self) -> None:
        self.sent += 1
        self.talk.say(_PIECE)
        if self.sent * len(_PIECE) >= self._amount:
            self.talk.transport.unregisterProducer()
            self.talk.finish()

    def stopProducing(self) -> None:
        """The visitor has left."""

    async def passesTo(self, visitor: Talk, talk: Talk) -> tuple[int, bytes]:
        """
        Send all to a visitor.

        @return: How many bytes have come, and their SHA-256.
        """
        digest, count = sha256(), 0

        def come(data: bytes) -> None:
            nonlocal count
            count += len(data)
            digest.update(data)

        visitor.dataReceived = come  # type: ignore[method-assign] # of one visitor
        self.begin(talk)
        await visitor.ended()
        return count, digest.digest()

    @property
    def whole(self) -> tuple[int, bytes]:
        """What L{passesTo} says if nothing is missing."""
        expected = sha256()
        for _ in range(self._amount // len(_PIECE)):
            expected.update(_PIECE)
        return self._amount, expected.digest()
