"""Tests of L{tristunnel.wire.bore}."""

from __future__ import annotations

import hmac
import json
from hashlib import sha256
from uuid import UUID, uuid4

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.wire.bore import (
    MAX_MESSAGE,
    Accept,
    Authenticate,
    Hello,
    isAnswer,
    nextMessage,
    packChallenge,
    packConnection,
    packError,
    packHello,
    unpack,
)

_ID = UUID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")


class MessageTests(SynchronousTestCase):
    """What either side says."""

    def test_client(self) -> None:
        """A client's messages, as serde writes them."""
        for text, message in (
            (b'{"Hello":0}', Hello(0)),
            (b'{"Hello":65535}', Hello(65535)),
            (b'{"Authenticate":"00ff"}', Authenticate("00ff")),
            (b'{"Accept":"%s"}' % str(_ID).encode(), Accept(_ID)),
        ):
            self.assertEqual(message, unpack(text))

    def test_wrong(self) -> None:
        """All else is refused."""
        for text in (
            b"",
            b'"Heartbeat"',
            b'{"Hello":65536}',
            b'{"Hello":-1}',
            b'{"Hello":true}',
            b'{"Hello":1,"Accept":"x"}',
            b'{"Accept":"x"}',
            b'{"Authenticate":1}',
            b"[" * 200,
        ):
            self.assertRaises(TunnelError, unpack, text)

    def test_server(self) -> None:
        """A server's messages end with a null byte, and are never too long."""
        for packed, message in (
            (packHello(9), {"Hello": 9}),
            (packChallenge(_ID), {"Challenge": str(_ID)}),
            (packConnection(_ID), {"Connection": str(_ID)}),
            (packError("why"), {"Error": "why"}),
        ):
            self.assertEqual((message, 0), (json.loads(packed[:-1]), packed[-1]))
        self.assertLessEqual(len(packError("\x01" * 5000)), MAX_MESSAGE)

    def test_answer(self) -> None:
        """Who has the secret answers as bore does, and nobody else."""
        challenge, secret = uuid4(), sha256(b"secret").digest()
        tag = hmac.digest(secret, challenge.bytes, "sha256").hex()
        self.assertTrue(isAnswer(tag, challenge, secret))
        for other in ("", tag[:-1], "\u00fc", tag.replace(tag[0], "g")):
            self.assertFalse(isAnswer(other, challenge, secret))
        self.assertFalse(isAnswer(tag, uuid4(), secret))

    @given(st.lists(st.binary(max_size=40).filter(lambda each: b"\0" not in each)))
    def test_pieces(self, messages: list[bytes]) -> None:
        """Messages are the same ones, in whatever pieces they come."""
        left, read = b"", []
        for byte in b"".join(each + b"\0" for each in messages):
            left += bytes((byte,))
            message, left = nextMessage(left)
            if message is not None:
                read.append(message)
        self.assertEqual((messages, b""), (read, left))

    @given(st.binary(max_size=600))
    def test_anything(self, data: bytes) -> None:
        """What is no message is refused, and what is kept of it is bounded."""
        try:
            message, left = nextMessage(data)
            if message is None:
                self.assertLessEqual(len(left), MAX_MESSAGE)
            else:
                unpack(message)
        except TunnelError as refusal:
            self.assertEqual("protocol-error", refusal.code.name)
