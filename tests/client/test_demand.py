"""Tests for L{tristunnel.client.service_options}: how services are started."""

from __future__ import annotations

from typing import Any

from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.cli.client_tap import Options
from tristunnel.errors import TunnelError
from tristunnel.forwards.consent import Consent
from tristunnel.forwards.demand import DemandPlan
from tristunnel.forwards.forward import Forward


class DemandOptionsTests(SynchronousTestCase):
    """Options of the client, and those of a forward."""

    def forwards(self, *words: str) -> list[Forward]:
        options = Options()
        options.parseOptions(["--connect", "tcp:localhost:9", *words])
        return options.forwards

    def plans(self, *words: str) -> list[Any]:
        return [each.demand for each in self.forwards(*words)]

    def test_all(self) -> None:
        """Services with the same words are one."""
        plans = self.plans(
            *("--start", "true x", "--stop", "false", "--idle", "1m", "--start-wait"),
            *("9", "3000", "8022=nas:22", "udp/53=localhost:53", "0=files:."),
        )
        plan = DemandPlan(("true", "x"), ("false",), None, 60.0, 9.0)
        self.assertEqual(plans, [plan, plan, None, None])

    def test_own(self) -> None:
        first, second, third = self.plans(
            *("--start", "true", "--stop", "false", "1=localhost:1,start=true a"),
            *("2=localhost:2,wake=001122334455", "3=localhost:3,stop=true"),
        )
        self.assertEqual((first.start, first.stop), (("true", "a"), ()))
        self.assertEqual((second.start, second.wake.mac.hex()), ((), "001122334455"))
        self.assertEqual((third.start, third.stop), (("true",), ("true",)))

    def test_nothing(self) -> None:
        self.assertEqual(self.plans("3000"), [None])

    def test_wrong(self) -> None:
        for words, why in {
            ("3000", "--start", "no-such-x"): "--start: 'no-such-x' is not a program",
            ("3000", "--stop", "true"): "--stop goes with start or wake",
            ("1=h:1,start=no-such-x",): "'1=h:1,start=no-such-x': start: 'no-such-x'",
            ("udp/1=h:1,start=true",): "leave out start and wake",
            ("0=files:.,start=true",): "leave out start and wake",
            ("1=h:1,start=true,health=tcp",): "leave out health",
            ("3000", "--start", "true", "--health", "tcp"): "leave out health",
            ("3000", "--wake", "nas"): "the interface's address",
            ("3000", "--start", ""): "--start is empty; write a command",
            ("1=h:1,start=",): "the option start of a forward is empty",
            ("http/a=h:1,pin=",): "the option pin of a forward is empty",
            ("1=h:1,allow=10.0.0.1,allow=",): "the option allow of a forward is empty",
        }.items():
            error = self.assertRaises(UsageError, self.forwards, *words)
            self.assertIn(why, str(error))
            self.assertNotIn("\n", str(error))

    def test_managed(self) -> None:
        """A server has no program of the client's run."""
        consent = Consent(["localhost:*"])
        for option in ("start=true", "stop=true", "wake=001122334455"):
            asked = {"id": "1", "to": f"localhost:80,{option}"}
            error = self.assertRaises(
                TunnelError, consent.forward, MemoryReactorClock(), asked
            )
            self.assertEqual(error.code.name, "not-permitted")
