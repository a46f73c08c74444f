"""Minecraft's first packet."""

from __future__ import annotations

import json

from hypothesis import example, given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.support.minecraft import handshake, legacyPing, readPacket
from tristunnel.wire.minecraft import (
    LONGEST,
    MinecraftHandshake,
    NotMinecraft,
    readHandshake,
    refusal,
)


def _whole(data: bytes) -> MinecraftHandshake:
    read = readHandshake(data)
    assert read is not None
    return read


class HandshakeTests(SynchronousTestCase):
    """Reading it."""

    def test_hosts(self) -> None:
        """The server's name is what is left without what others put behind it."""
        for address, host in (
            ("play.example", "play.example"),
            ("Play.Example.", "play.example"),
            ("play.example\0FML\0", "play.example"),
            ("play.example.\0FML3\0", "play.example"),
            ("play.example\x00192.0.2.1\x005f9a\0[]", "play.example"),
            ("play.example///192.0.2.1:1///7", "play.example"),
        ):
            self.assertEqual(_whole(handshake(address)).host, host)
        self.assertEqual(_whole(legacyPing("Play.example")).host, "play.example")
        self.assertEqual(_whole(handshake("a", state=2)).state, 2)
        self.assertEqual(_whole(handshake("a", protocol=767)).protocol, 767)

    @given(
        host=st.from_regex("[a-z0-9.-]{1,200}[a-z]", fullmatch=True),
        more=st.binary(max_size=40),
        legacy=st.booleans(),
    )
    def test_pieces(self, host: str, more: bytes, legacy: bool) -> None:
        """It is read when it is whole, not before, whatever follows."""
        data = legacyPing(host) if legacy else handshake(host)
        for size in range(len(data)):
            self.assertIsNone(readHandshake(data[:size]))
        self.assertEqual(_whole(data + more).host, host)

    @given(
        st.binary(max_size=300) | st.binary(max_size=60).map(handshake(b"a").__add__)
    )
    @example(b"\xfe\x01")
    @example(b"\xff\xff\xff\xff\xff\xff")
    @example(handshake("a")[:1] + b"\0")
    def test_anything(self, data: bytes) -> None:
        """Whatever comes is a handshake, none, or not yet one."""
        try:
            read = readHandshake(data)
        except NotMinecraft as error:
            self.assertNotIn("\n", str(error))
        else:
            self.assertTrue(read is None or isinstance(read.host, str))

    def test_endless(self) -> None:
        """What does not end is not read for ever."""
        for beginning in (b"\xf0\x1f\0", handshake("a" * 3900)[:-1], b"\xfe\x01\xfa"):
            data = beginning + b"\x80" * LONGEST
            self.assertRaises(NotMinecraft, readHandshake, data)

    def test_refusal(self) -> None:
        """A reason is in the packet that the client expects."""
        status = readPacket(refusal(MinecraftHandshake("a", 767, 1), "not here"))
        self.assertEqual(json.loads(status[1])["description"], {"text": "not here"})
        kick = readPacket(refusal(MinecraftHandshake("a", 767, 2), "not here"))
        self.assertEqual((kick[0], json.loads(kick[1])), (0, {"text": "not here"}))
        old = refusal(MinecraftHandshake("a", 78, 0), "no")
        self.assertEqual(old, b"\xff\0\x02\0n\0o")
