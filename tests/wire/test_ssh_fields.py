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

    @settings(max_examples=50)
    @given(_TEXT, st.integers(0, 2**32 - 1), st.booleans(), st.binary(max_size=40))
    def test_roundTrip(self, text: str, number: int, flag: bool, rest: bytes) -> None:
        """What is written is read."""
        data = packText(text) + packNumbers(number) + bytes((flag,)) + rest
        fields = Fields(data)
        self.assertEqual(
            (text, number, flag, rest),
            (fields.text(), fields.number(), fields.boolean(), fields.rest()),
        )

    @settings(max_examples=100)
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
            seed,
            parsePrivateKey("vt-priv-AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8"),
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
