"""
Whatever a stranger says, the server refuses it in order, and nothing is left.

C{python -m benchmarks.faults.fuzz} does the same with millions of inputs.
"""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.targets import SEEDS, TARGETS, Doors, mutate

_short = settings(
    deadline=None, max_examples=50, suppress_health_check=list(HealthCheck)
)


class ParserTests(SynchronousTestCase):
    """
    The parsers alone.
    """

    def test_seeds(self) -> None:
        """
        They accept what is right, so that what is nearly right gets far.
        """
        for name, target in TARGETS.items():
            accepted = [target(seed) for seed in SEEDS[name]]
            self.assertTrue(any(accepted), name)

    def test_nearlyRight(self) -> None:
        """
        They accept or refuse what is nearly right, and do nothing else.
        """
        chance = random.Random(1)
        for name, target in TARGETS.items():
            for _ in range(1000):
                target(mutate(SEEDS[name], chance))

    @_short
    @given(st.sampled_from(sorted(TARGETS)), st.binary())
    def test_anything(self, name: str, data: bytes) -> None:
        """
        And whatever else there is.
        """
        TARGETS[name](data)


class DoorTests(SynchronousTestCase):
    """
    A whole server.
    """

    def setUp(self) -> None:
        """
        Make it.
        """
        self.doors = Doors()
        self.addCleanup(self.doors.close)

    def test_seeds(self) -> None:
        """
        Who speaks rightly gets an answer, which is a refusal.
        """
        for seed in SEEDS["doors"]:
            self.assertTrue(self.doors(seed), seed[:40])

    def test_nearlyRight(self) -> None:
        """
        Nothing is left of anybody who does not: no session, no stranger, no
        timer, no error in the log.
        """
        chance = random.Random(2)
        for _ in range(300):
            self.doors(mutate(SEEDS["doors"], chance))

    @_short
    @given(st.sampled_from(SEEDS["doors"]), st.binary(), st.integers(0, 500))
    def test_tails(self, seed: bytes, tail: bytes, cut: int) -> None:
        """
        Nor of those who stop in the middle, or go on with something else.
        """
        self.doors(seed[:cut] + tail)
