"""Tests for L{tristunnel.wire.zlayer}."""

from __future__ import annotations

import json
from pathlib import Path
from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.wire import zlayer
from tristunnel.wire.zlayer import MAX_MESSAGE, MESSAGES, decodeMessage, encodeMessage

VECTORS = Path(__file__).parent.parent / "vectors" / "zlayer-messages.jsonl"

_NAMES = {
    "client_id": "clientId",
    "tunnel_id": "tunnelId",
    "service_id": "serviceId",
    "connection_id": "connectionId",
    "local_port": "localPort",
    "remote_port": "remotePort",
    "client_addr": "visitor",
    "timestamp": "time",
}

_FIELDS = {
    "text": st.text(max_size=100),
    "name": st.text(max_size=60),
    "uuid": st.uuids(),
    "port": st.integers(0, 65535),
    "protocol": st.sampled_from([zlayer.TCP, zlayer.UDP]),
    "time": st.integers(0, 2**64 - 1),
}

messages = st.sampled_from(list(MESSAGES.values())).flatmap(
    lambda kind: st.builds(kind, *(_FIELDS[codec] for codec in kind.layout))
)


def _fromVector(name: str, given: dict[str, object]) -> zlayer.Message:
    values: dict[str, object] = {}
    for key, value in given.items():
        if key.endswith("_id"):
            value = UUID(str(value))
        elif key == "protocol":
            value = {"tcp": zlayer.TCP, "udp": zlayer.UDP}[str(value)]
        values[_NAMES.get(key, key)] = value
    message: zlayer.Message = getattr(zlayer, name)(**values)
    return message


class VectorTests(SynchronousTestCase):
    """The bytes computed by hand from the layout."""

    def test_allKinds(self) -> None:
        """Each message is written and read as the vectors say."""
        seen = set()
        for line in VECTORS.read_text().splitlines():
            vector = json.loads(line)
            message = _fromVector(vector["message"], vector["fields"])
            self.assertEqual(encodeMessage(message).hex(), vector["hex"])
            self.assertEqual(decodeMessage(bytes.fromhex(vector["hex"])), message)
            seen.add(type(message))
        self.assertEqual(seen, set(MESSAGES.values()))


class CodecTests(SynchronousTestCase):
    """Any message, and anything else."""

    @given(messages)
    def test_roundTrip(self, message: zlayer.Message) -> None:
        """What is written is read again."""
        self.assertEqual(decodeMessage(encodeMessage(message)), message)

    @given(st.binary(max_size=200))
    def test_garbage(self, data: bytes) -> None:
        """Garbage is a protocol error or a message, never anything else."""
        try:
            decodeMessage(data)
        except TunnelError as error:
            self.assertEqual(error.code.name, "protocol-error")

    @given(messages, st.data())
    def test_damage(self, message: zlayer.Message, data: st.DataObject) -> None:
        """A message that is cut or has more bytes than it says is refused."""
        whole = encodeMessage(message)
        cut = data.draw(st.integers(0, len(whole) - 1))
        self.assertRaises(TunnelError, decodeMessage, whole[:cut])
        self.assertRaises(TunnelError, decodeMessage, whole + b"x")

    def test_tooLarge(self) -> None:
        """The bound holds for both directions."""
        self.assertRaises(TunnelError, decodeMessage, bytes(MAX_MESSAGE + 1))
        longest = MAX_MESSAGE - 5 - 2 - 1
        fits = encodeMessage(zlayer.Disconnect("x" * longest))
        self.assertEqual(len(fits), MAX_MESSAGE - 1)
        for length in (longest + 2, 65536):
            self.assertRaises(
                TunnelError, encodeMessage, zlayer.Disconnect("x" * length)
            )

    def test_badText(self) -> None:
        """Bad UTF-8, an unknown type and an unknown protocol are named."""
        for data, said in (
            (b"\x41\x00\x00\x00\x04\x00\x02\xff\xfe", "UTF-8"),
            (b"\x7f\x00\x00\x00\x00", "0x7f"),
            (b"\x10\x00\x00\x00\x07\x01a\x02\x00\x01\x00\x00", "protocol 2"),
        ):
            error = self.assertRaises(TunnelError, decodeMessage, data)
            self.assertIn(said, error.message)
