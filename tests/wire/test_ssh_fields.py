"""
The fields of SSH's messages, and what vtunnel and chisel say in them.
"""

from __future__ import annotations

import json

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.wire.chisel import MAX_REMOTES, Remote, packConfig, unpackConfig
from tristunnel.wire.chisel_udp import TYPE, DatagramReader, packDatagram
from tristunnel.wire.ssh import Fields, packNumbers, packText, packTexts
from tristunnel.wire.vtunnel_ssh import (
    Listen,
    hostSeedFor,
    packPort,
    packPublicKey,
    parsePrivateKey,
    parsePublicKey,
    portIn,
)

_TEXT = st.text(max_size=40)
_PORT = st.integers(1, 65535)


class FieldTests(SynchronousTestCase):
    """RFC 4251, section 5."""

    @given(_TEXT, st.integers(0, 2**32 - 1), st.booleans(), st.binary(max_size=40))
    def test_roundTrip(self, text: str, number: int, flag: bool, rest: bytes) -> None:
        """What is written is read."""
        data = packText(text) + packNumbers(number) + bytes((flag,)) + rest
        fields = Fields(data)
        self.assertEqual(
            (text, number, flag, rest),
            (fields.text(), fields.number(), fields.boolean(), fields.rest()),
        )

    @given(st.binary(max_size=60), st.lists(st.sampled_from("dntbpr"), max_size=6))
    def test_anything(self, data: bytes, kinds: list[str]) -> None:
        """Whatever comes is read within its bounds, or is a protocol error."""
        fields = Fields(data)
        read = {
            "d": fields.data,
            "n": fields.number,
            "t": fields.text,
            "b": fields.boolean,
            "p": fields.port,
            "r": fields.rest,
        }
        try:
            values = [read[kind]() for kind in kinds]
        except TunnelError as error:
            self.assertEqual("protocol-error", error.code.name)
        else:
            sizes = [len(each) for each in values if isinstance(each, bytes | str)]
            self.assertLessEqual(sum(sizes), len(data))

    def test_long(self) -> None:
        """A text has a bound, and must be UTF-8."""
        for data in (b"x" * 1025, b"\xff"):
            with self.assertRaises(TunnelError):
                Fields(packText(data)).text()


class VTunnelTests(SynchronousTestCase):
    """vtunnel's requests and keys."""

    @settings(max_examples=30)
    @given(_PORT, _TEXT, _TEXT)
    def test_listen(self, port: int, address: str, domain: str) -> None:
        """A request goes as JSON."""
        asked = Listen(port, address, domain)
        self.assertEqual(asked, Listen.unpack(asked.pack()))

    def test_port(self) -> None:
        """Go leaves a 0 out."""
        self.assertEqual(0, portIn(b"{}"))
        self.assertEqual(9000, portIn(packPort(9000)))
        for bad in (b'{"port":-1}', b'{"port":"1"}', b'{"port":65536}', b"[]", b"x"):
            with self.assertRaises(TunnelError):
                portIn(bad)
        with self.assertRaises(TunnelError):
            Listen.unpack(b'{"port":1,"local_addr":7}')

    def test_keys(self) -> None:
        """
        Keys are base64 behind a mark; the host key is made of the public one.
        """
        seed = bytes(range(32))
        self.assertEqual(
            seed, parsePrivateKey("vt-priv-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8")
        )
        self.assertEqual(seed, parsePublicKey(packPublicKey(seed)))
        self.assertEqual(32, len(hostSeedFor(seed)))
        for bad in ("vt-priv-AAEC", "vt-pub-?", "", "vt-priv-" + "A" * 44):
            with self.assertRaises(TunnelError):
                parsePrivateKey(bad)


class ChiselTests(SynchronousTestCase):
    """chisel's configuration."""

    @settings(max_examples=30)
    @given(
        st.lists(
            st.builds(
                Remote,
                _TEXT,
                _PORT,
                _TEXT,
                _PORT,
                st.booleans(),
                st.booleans(),
                st.just(False),
            ),
            max_size=4,
        )
    )
    def test_config(self, remotes: list[Remote]) -> None:
        """What a client wants goes as JSON."""
        self.assertEqual(remotes, unpackConfig(packConfig(remotes)))

    def test_bad(self) -> None:
        """What is no configuration is refused, and so is too much of it."""
        good = {"LocalHost": "", "LocalPort": "1", "RemotePort": "2"}
        self.assertEqual([], unpackConfig(b'{"Remotes":null}'))
        for remotes in (
            7,
            [7],
            [{**good, "LocalPort": "65536"}],
            [{**good, "LocalPort": "²"}],
            [{**good, "LocalHost": 7}],
            [{**good, "Reverse": "yes"}],
            [good] * (MAX_REMOTES + 1),
        ):
            with self.assertRaises(TunnelError):
                unpackConfig(json.dumps({"Remotes": remotes}).encode())

    def test_target(self) -> None:
        """A channel is called after where it leads."""
        self.assertEqual("a:1", Remote("", 1, "a", 1).target)
        self.assertEqual("a:1/udp", Remote("", 1, "a", 1, isUDP=True).target)
        self.assertEqual("socks", Remote("", 1, isSocks=True).target)
        self.assertEqual(packTexts("a", "b"), packText("a") + packText(b"b"))


class DatagramTests(SynchronousTestCase):
    """chisel's datagrams."""

    def test_known(self) -> None:
        """They are what Go's own package writes."""
        known = bytes.fromhex("17ff80010b3132372e302e302e313a35010568656c6c6f00")
        self.assertEqual(known, packDatagram("127.0.0.1:5", b"hello"))
        # Go leaves out what is empty.
        bare = bytes.fromhex("fe0133ff8002fe012c") + bytes(300) + b"\0"
        reader = DatagramReader()
        self.assertEqual([("", bytes(300))], reader.feed(TYPE + bare))

    @settings(max_examples=30)
    @given(
        st.lists(st.tuples(st.text(min_size=1, max_size=20), st.binary(max_size=200))),
        st.integers(1, 40),
    )
    def test_pieces(self, datagrams: list[tuple[str, bytes]], size: int) -> None:
        """They come in whatever pieces."""
        data = TYPE + b"".join(packDatagram(*each) for each in datagrams)
        reader, found = DatagramReader(), []
        for start in range(0, len(data), size):
            found += reader.feed(data[start : start + size])
        self.assertEqual(datagrams, found)

    @given(st.lists(st.binary(max_size=30), max_size=8))
    def test_anything(self, pieces: list[bytes]) -> None:
        """Whatever comes is read, or is a protocol error, within a bound."""
        reader = DatagramReader()
        try:
            for piece in pieces:
                reader.feed(TYPE + piece)
        except TunnelError as error:
            self.assertEqual("protocol-error", error.code.name)

    def test_long(self) -> None:
        """What is too long is refused before it has come."""
        for head in (b"\xfc\x7f\xff\xff\xff", b"\xf0", b"\x05\xff\x80\x05\x01a"):
            with self.assertRaises(TunnelError):
                DatagramReader().feed(head)
