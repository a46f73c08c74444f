"""Tests for L{tristunnel.model.options}."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.model.options import TunnelOptions
from tristunnel.model.policy import POLICY_OPTIONS

NAMES = st.sampled_from(
    [*(part.name for part in fields(TunnelOptions)), *POLICY_OPTIONS, "nonsense"]
)
_MADE = (
    *("allow", "deny", "lookup", "target"),
    *("path", "requestHeaders", "responseHeaders"),
)
"""What is made of a value is something else."""
VALUES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.lists(st.integers(), max_size=2)
)


class TunnelOptionsTests(SynchronousTestCase):
    def refusal(self, **options: object) -> str:
        with self.assertRaises(TunnelError) as caught:
            TunnelOptions.fromMapping(options)
        self.assertEqual(caught.exception.code.name, "bad-option")
        return str(caught.exception.message)

    def test_nothing(self) -> None:
        """Every option has a default, and null means the same."""
        self.assertEqual(TunnelOptions.fromMapping({}), TunnelOptions())
        self.assertEqual(
            TunnelOptions.fromMapping({"port": None, "name": None}), TunnelOptions()
        )

    def test_target(self) -> None:
        """Where a tunnel leads is a line for people to read, of bounded length."""
        options = TunnelOptions.fromMapping({"target": "\x1b[2J" + "x" * 999})
        self.assertEqual(options.target, "?[2J" + "x" * 196)

    def test_everything(self) -> None:
        """All options are taken over."""
        options: dict[str, Any] = {
            "via": "tcp",
            "listener": "tcp",
            "port": 65535,
            "prefer": 1,
            "name": "My-tunnel_1.2",
            "visitors": 5,
            "ttl": 1.5,
            "private": True,
            "resume": "tunnel://x/1",
            "target": "localhost:3000",
            "scheme": "https",
        }
        self.assertEqual(TunnelOptions.fromMapping(options), TunnelOptions(**options))

    def test_unknown(self) -> None:
        """A name that is not known is refused, and those that are, are told."""
        text = self.refusal(prot=80)
        self.assertIn("'prot'", text)
        self.assertIn("port", text)

    def test_kinds(self) -> None:
        """Each option has one type; true is not a number."""
        self.assertIn("port takes a whole number", self.refusal(port="80"))
        self.assertIn("port takes a whole number", self.refusal(port=True))
        self.assertIn("port takes a whole number", self.refusal(port=80.0))
        self.assertIn("name takes a string", self.refusal(name=5))
        for scheme in ("ftp", "javascript", "HTTP"):
            self.assertIn("scheme takes", self.refusal(scheme=scheme))
        self.assertIn("private takes true or false", self.refusal(private=1))

    def test_ranges(self) -> None:
        """Ports are 0 to 65535; visitors and time are bounded as well."""
        for value in (-1, 1_000_001, 2**70):
            self.assertIn("visitors", self.refusal(visitors=value))
        for seconds in (-0.5, -1, 1e12, 10**400, float("inf"), float("nan")):
            self.assertIn("ttl", self.refusal(ttl=seconds))
        for value in (-1, 65536, 2**70):
            self.assertIn("65535", self.refusal(port=value))
            self.assertIn("prefer", self.refusal(prefer=value))

    def test_networks(self) -> None:
        """Networks come in a list, or in a string with commas between."""
        for value in (["10.0.0.0/8", "::1"], "10.0.0.0/8,::1"):
            options = TunnelOptions.fromMapping({"allow": value})
            allowed = [str(network) for network in options.policy.allow]
            self.assertEqual(allowed, ["10.0.0.0/8", "::1/128"])
        self.assertIn("a list of strings", self.refusal(deny=[5]))
        self.assertIn("not an address", self.refusal(deny="nowhere"))

    def test_wholeSeconds(self) -> None:
        """A time may be a whole number."""
        self.assertEqual(TunnelOptions.fromMapping({"ttl": 60}).ttl, 60.0)

    def test_names(self) -> None:
        """Names are short and plain."""
        for name in ("a b", "a/b", "a\n", "x" * 65, "\ud800", "a:b"):
            self.assertIn("64", self.refusal(name=name))
        self.assertEqual(TunnelOptions.fromMapping({"name": "x" * 64}).name, "x" * 64)

    @settings(max_examples=200)
    @given(st.dictionaries(NAMES | st.text(max_size=5), VALUES))
    def test_anything(self, options: dict[str, object]) -> None:
        """Whatever a caller gives is taken, or refused with one line."""
        try:
            result = TunnelOptions.fromMapping(options)
        except TunnelError as error:
            self.assertEqual(error.code.name, "bad-option")
            self.assertNotIn("\n", error.message)
        else:
            for name, value in options.items():
                if value is not None and name not in _MADE:
                    whose = result.policy if name in POLICY_OPTIONS else result
                    self.assertEqual(getattr(whose, name), value)
