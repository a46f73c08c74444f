"""Tests for L{tristunnel.forwards.demand}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.forwards.demand import MagicPacket, planOf


class PacketTests(SynchronousTestCase):
    """What wakes a machine."""

    def test_forms(self) -> None:
        mac = bytes.fromhex("001122aabbcc")
        for text, wanted in {
            "00:11:22:aa:bb:cc": MagicPacket(mac),
            "00-11-22-AA-BB-CC": MagicPacket(mac),
            "001122aabbcc": MagicPacket(mac),
            "001122aabbcc@10.0.0.255": MagicPacket(mac, "10.0.0.255", 9),
            "001122aabbcc@10.0.0.255:7": MagicPacket(mac, "10.0.0.255", 7),
        }.items():
            self.assertEqual(MagicPacket.parse(text), wanted)

    def test_payload(self) -> None:
        payload = MagicPacket.parse("00:11:22:aa:bb:cc").payload
        self.assertEqual(payload[:6], b"\xff" * 6)
        self.assertEqual(payload[6:], bytes.fromhex("001122aabbcc") * 16)

    def test_wrong(self) -> None:
        for text, why in {
            "": "the interface's address",
            "00:11:22:aa:bb": "the interface's address",
            "00:11-22:aa:bb:cc": "the interface's address",
            "001122aabbcc@lan": "an IP address",
            "001122aabbcc@": "wake",
            "001122aabbcc@10.0.0.1:99999": "port",
        }.items():
            error = self.assertRaises(TunnelError, MagicPacket.parse, text)
            self.assertEqual(error.code.name, "bad-option")
            self.assertIn(why, error.message)

    @given(st.text(alphabet="0aF:-@.9\x00é", max_size=40))
    def test_anything(self, text: str) -> None:
        try:
            packet = MagicPacket.parse(text)
        except TunnelError as error:
            self.assertNotIn("\n", error.message)
        else:
            self.assertEqual(len(packet.payload), 102)


class PlanTests(SynchronousTestCase):
    """What users say."""

    def test_nothing(self) -> None:
        self.assertIsNone(planOf("", "", ""))

    def test_words(self) -> None:
        plan = planOf("sh -c 'sleep 1; exec cat'", "true", "", 5.0, 7.0)
        assert plan is not None
        self.assertEqual(plan.start, ("sh", "-c", "sleep 1; exec cat"))
        self.assertEqual(plan.stop, ("true",))
        self.assertEqual((plan.wake, plan.idle, plan.wait), (None, 5.0, 7.0))

    def test_wrong(self) -> None:
        for (start, stop, wake), why in {
            ("", "true", ""): "stop goes with start or wake",
            ("no-such-program-x", "", ""): "'no-such-program-x' is not a program",
            ("   ", "", ""): "'' is not a program",
            ("sh 'a", "", ""): "No closing quotation",
            ("true", "no-such-program-x", ""): "stop: 'no-such-program-x'",
            ("", "", "x"): "the interface's address",
        }.items():
            error = self.assertRaises(TunnelError, planOf, start, stop, wake)
            self.assertIn(why, error.message)
