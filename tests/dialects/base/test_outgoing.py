"""
Tests for L{tristunnel.dialects.base.outgoing}, without what reads.
"""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.ends import NotingEnd
from tristunnel.dataplane.memory import HELD
from tristunnel.dialects.base.outgoing import (
    SOURCE_HIGH,
    SOURCE_LOW,
    OutgoingDirection,
)
from tristunnel.errors import TunnelError
from tristunnel.wire.windows import UNLIMITED, SendWindow


class Sending(OutgoingDirection):
    """One whose session is the test, and takes nothing at once unless told to."""

    def __init__(self) -> None:
        carrier: Any = self
        super().__init__(carrier, 1, SendWindow(UNLIMITED))
        self.local = NotingEnd()
        self._peer = self.local
        self.sent: list[bytes | None] = []
        self.takes = False

    def reset(self, reason: TunnelError) -> None:
        self.over = True

    def breakOff(self, reason: TunnelError) -> None:
        self.reset(reason)

    def divert(self, end: NotingEnd) -> None:
        self._sendsBy = end

    # The session

    def sendNow(self, stream: object, data: bytes) -> bool:
        if self.takes:
            self.sent.append(data)
        return self.takes

    def wantsToSend(self, stream: object) -> None:
        self.queued = True

    def sendEnd(self, stream: object) -> None:
        self.finished = True
        self.sent.append(None)

    def carry(self, limit: int) -> None:
        """Send a piece, as a session in its turn."""
        if self.outgoing:
            self.sent.append(self.take(limit))
        if not self.outgoing:
            self.queued = False
            if self.finishing and not self.finished:
                self.sendEnd(self)


class OutgoingDirectionTests(SynchronousTestCase):
    """What is written, what waits, and who is paused for it."""

    def setUp(self) -> None:
        self.sending = Sending()

    @given(
        st.lists(
            st.one_of(
                st.tuples(st.just("write"), st.integers(0, 40_000)),
                st.tuples(st.just("carry"), st.integers(1, 30_000)),
                st.tuples(st.just("takes"), st.integers(0, 1)),
            ),
            max_size=20,
        )
    )
    def test_order(self, steps: list[tuple[str, int]]) -> None:
        """
        What is written is sent in its order, and the end after it; who writes is
        paused while much waits.
        """
        sending, said = Sending(), bytearray()
        for step, amount in steps:
            if step == "takes":
                sending.takes = bool(amount)
            elif step == "carry":
                sending.carry(amount)
            else:
                data = bytes([len(said) % 251]) * amount
                said += data
                sending.write(data)
            waiting = len(said) - sum(len(data or b"") for data in sending.sent)
            isPaused = sending.local.told[-1:] == ["pause"]
            if waiting > SOURCE_HIGH or waiting <= SOURCE_LOW:
                self.assertEqual(isPaused, waiting > SOURCE_HIGH)
            self.assertEqual(bool(HELD.of(sending)), isPaused)
        sending.finish()
        while not sending.finished:
            sending.carry(10_000)
        *pieces, end = sending.sent
        self.assertIsNone(end)
        self.assertEqual(b"".join(data or b"" for data in pieces), said)
        self.assertEqual(HELD.of(sending), 0)

    def test_finishOnce(self) -> None:
        """The end is sent once, and at once if nothing waits."""
        self.sending.finish()
        self.sending.finish()
        self.assertEqual(self.sending.sent, [None])

    def test_afterTheEnd(self) -> None:
        """What is written later is dropped; who goes on for long is broken."""
        self.sending.finish()
        self.sending.write(bytes(SOURCE_HIGH))
        self.assertEqual(self.sending.local.told, [])
        self.sending.write(b"x")
        self.assertEqual(self.sending.local.told, ["reset"])
        self.assertEqual(self.sending.sent, [None])

    def test_elsewhere(self) -> None:
        """What has another way goes there, and so does the end."""
        end = NotingEnd()
        self.sending.divert(end)
        self.sending.write(b"x")
        self.sending.finish()
        self.assertEqual(end.told, [b"x", "finish"])
        self.assertTrue(self.sending.finished)
        self.assertEqual(self.sending.sent, [])
