"""Tests of L{tristunnel.wire.vtunnel}."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.vectors import readVectors
from tristunnel.errors import TunnelError
from tristunnel.wire.vtunnel import (
    CONNECT,
    DATA,
    LISTEN,
    LISTEN_ERR,
    Message,
    decodeMessage,
    encodeData,
    encodeMessage,
)
from tristunnel.wire.vtunnel_ssh import Listen

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["type", "port", "stream_id", "data", "error", "x"]),
            inner,
            max_size=6,
        )
    ),
    max_leaves=12,
)


class RecordedTests(SynchronousTestCase):
    """What the real program has said."""

    def test_sameBytes(self) -> None:
        """Each message, read and written again, is the same byte for byte."""
        texts = [
            line["text"].encode()
            for line in readVectors("vtunnel-http-get")
            if "text" in line
        ]
        self.assertEqual(6, len(texts))
        for text in texts:
            message = decodeMessage(text)
            self.assertEqual(text, encodeMessage(message))
            if message.kind == DATA:
                self.assertEqual(text, encodeData(message.stream, message.data))

    def test_fields(self) -> None:
        """The fields are what they are."""
        self.assertEqual(
            Message(CONNECT, port=9510, stream=1),
            decodeMessage(b'{"type":"connect","port":9510,"stream_id":1}'),
        )
        self.assertEqual(
            Message(LISTEN, port=9000, target="localhost:3000"),
            decodeMessage(
                b'{"type":"listen","port":9000,"local_addr":"localhost:3000"}'
            ),
        )


class ParserTests(SynchronousTestCase):
    """What else may come."""

    def assertRefused(self, text: bytes, words: str) -> None:
        error = self.assertRaises(TunnelError, decodeMessage, text)
        self.assertEqual("protocol-error", error.code.name)
        self.assertIn(words, error.message)

    def test_wrong(self) -> None:
        """What is no message is refused with what is wrong."""
        for text, words in (
            (b"", "not JSON"),
            (b"hello", "not JSON"),
            (b"[" * 100_000, "not JSON"),
            (b"\xff", "not JSON"),
            (b"[]", "not an object"),
            (b'"data"', "not an object"),
            (b"{}", "no type"),
            (b'{"type":1}', "type is not a string"),
            (b'{"type":"listen","port":"9000"}', "port is not a number"),
            (b'{"type":"listen","port":true}', "port is not a number"),
            (b'{"type":"listen","port":65536}', "port is not a number"),
            (b'{"type":"listen","port":-1}', "port is not a number"),
            (b'{"type":"listen","port":1.5}', "port is not a number"),
            (b'{"type":"data","stream_id":4294967296}', "stream_id is not a number"),
            (b'{"type":"data","stream_id":1,"data":[]}', "data is not a string"),
            (b'{"type":"data","stream_id":1,"data":"a"}', "base64"),
            (b'{"type":"data","stream_id":1,"data":"a*=="}', "base64"),
            (b'{"type":"data","stream_id":1,"data":"YQ==YQ=="}', "base64"),
            ('{"type":"data","stream_id":1,"data":"ä"}'.encode(), "base64"),
        ):
            self.assertRefused(text, words)

    def test_likeGo(self) -> None:
        """Go leaves out zeros, takes null for zero, and skips what it does not know."""
        self.assertEqual(
            Message("new", port=0, stream=3),
            decodeMessage(
                b' {"type":"new","stream_id":3,"port":null,"data":null,"more":{"a":1}}'
            ),
        )
        self.assertEqual(
            b"abc", decodeMessage(b'{"type":"data","data":"YWJj\\n"}').data
        )

    @given(
        st.sampled_from([LISTEN, DATA, CONNECT, LISTEN_ERR]),
        st.integers(0, 65535),
        st.integers(0, 0xFFFFFFFF),
        st.binary(max_size=500),
        st.text(st.characters(codec="utf-8"), max_size=50),
    )
    def test_roundTrip(
        self, kind: str, port: int, stream: int, data: bytes, text: str
    ) -> None:
        """What is written is read as it was."""
        message = Message(kind, port, stream, data, text, text)
        wire = encodeMessage(message)
        self.assertEqual(message, decodeMessage(wire))
        fields = json.loads(wire)
        self.assertNotIn(0, fields.values())
        if data:
            self.assertEqual(data, base64.b64decode(fields["data"]))

    @given(
        st.from_regex(rb"[0-9]{1,11}", fullmatch=True),
        st.binary(max_size=40)
        | st.from_regex(rb"[A-Za-z0-9+/]*={0,3}", fullmatch=True),
    )
    def test_twoWays(self, number: bytes, inner: bytes) -> None:
        """A data message is read alike whether it takes the short way or not."""
        usual = b'{"type":"data","stream_id":%b,"data":"%b"}' % (number, inner)
        unusual = b" " + usual
        results: list[object] = []
        for text in (usual, unusual):
            try:
                results.append(decodeMessage(text))
            except TunnelError as error:
                results.append(error.message)
        self.assertEqual(results[0], results[1])

    @given(_JSON)
    def test_anyJSON(self, value: Any) -> None:
        """Any JSON is a message, or refused as a broken one."""
        try:
            message = decodeMessage(json.dumps(value).encode())
        except TunnelError as error:
            self.assertEqual("protocol-error", error.code.name)
        else:
            self.assertTrue(message.kind)

    @given(st.binary(max_size=300))
    def test_anyBytes(self, data: bytes) -> None:
        """So are any bytes."""
        try:
            decodeMessage(data)
        except TunnelError as error:
            self.assertEqual("protocol-error", error.code.name)


class ListenTests(SynchronousTestCase):
    """A request for a domain, over SSH."""

    def test_headers(self) -> None:
        """Headers are lists of values by name, as in Go, and read as one line each."""
        told = {"port": 0, "local_addr": "a:1", "domain": "b", "headers": {"X": ["1"]}}
        asked = Listen(0, "a:1", "b", ("X: 1",))
        self.assertEqual(asked, Listen.unpack(json.dumps(told).encode()))
        self.assertEqual(told, json.loads(asked.pack()))
        told["headers"] = {"X": ["1", "2"], "Y": []}
        read = Listen.unpack(json.dumps(told).encode())
        self.assertEqual(("X: 1, 2", "Y: "), read.headers)

    @given(_JSON)
    def test_anything(self, headers: Any) -> None:
        """All else is refused."""
        told = {"port": 1, "headers": headers}
        with contextlib.suppress(TunnelError):
            Listen.unpack(json.dumps(told).encode())
