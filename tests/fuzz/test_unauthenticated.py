"""
Whatever a peer says, the server refuses it in order, and nothing is left.

C{python -m benchmarks.faults --only fuzz} does the same with millions of inputs,
guided by the lines that they reach.
"""

from __future__ import annotations

import random

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.targets import PARSERS, SEEDS, SERVERS, Target, mutate

FOUND = [
    ("uris", b"w3p://[2001:db8::1:443/0011223344556677#secret"),
    ("uris", b"w3p://server:9000x/0011223344556677#a-long-secret"),
    (
        "pages",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text;"
        b"version=1.x\r\n\r\n",
    ),
    ("websocket", b"GET /tunnel HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"),
]
"""What fuzzing has found, once."""

_short = settings(
    deadline=None, max_examples=50, suppress_health_check=list(HealthCheck)
)


class ParserTests(SynchronousTestCase):
    """The parsers alone."""

    def test_seeds(self) -> None:
        """They accept what is right, so that what is nearly right gets far."""
        for name, target in PARSERS.items():
            accepted = [target(seed) for seed in SEEDS[name]]
            self.assertTrue(any(accepted), name)

    def test_nearlyRight(self) -> None:
        """They accept or refuse what is nearly right, and do nothing else."""
        chance = random.Random(1)
        for name, target in PARSERS.items():
            for _ in range(1000):
                target(mutate(SEEDS[name], chance))

    @_short
    @given(st.sampled_from(sorted(PARSERS)), st.binary())
    def test_anything(self, name: str, data: bytes) -> None:
        """And whatever else there is."""
        PARSERS[name](data)


class ServerTests(SynchronousTestCase):
    """Whole servers."""

    def setUp(self) -> None:
        self.servers = {name: make() for name, make in SERVERS.items()}
        for server in self.servers.values():
            self.addCleanup(server.close)

    def test_seeds(self) -> None:
        """Who speaks rightly gets an answer, which is a refusal."""
        for name, server in self.servers.items():
            for seed in SEEDS[name]:
                # A hello without an end, and a balancer's question whether
                # anybody is there, get none.
                if name not in ("tls", "names", "proxy"):
                    self.assertTrue(server(seed), seed[:40])
            self.assertTrue(any(server(seed) for seed in SEEDS[name]), name)

    def test_found(self) -> None:
        """What was once wrong is not so again."""
        targets: dict[str, Target] = {**PARSERS, **self.servers}
        for name, data in FOUND:
            targets[name](data)

    def test_nearlyRight(self) -> None:
        """
        Nothing is left of anybody who does not: no session, no unauthenticated peer, no
        timer, no error in the log.
        """
        chance = random.Random(2)
        for name, server in self.servers.items():
            for _ in range(150):
                server(mutate(SEEDS[name], chance))

    @_short
    @given(st.sampled_from(sorted(SERVERS)), st.data())
    def test_tails(self, name: str, data: st.DataObject) -> None:
        """Nor of those who stop in the middle, or go on with something else."""
        seed = data.draw(st.sampled_from(SEEDS[name]))
        cut, tail = data.draw(st.integers(0, 500)), data.draw(st.binary())
        self.servers[name](seed[:cut] + tail)
