"""
Visitors of some countries only, L{tristunnel.service.countries}.
"""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity
from tristunnel.model.policy import VisitorPolicy, parseCountries
from tristunnel.model.tunnel import Tunnel, VisitorObserver
from tristunnel.service.countries import LOOKS, CountryDatabase
from tristunnel.service.policies import VisitorPolicies
from tristunnel.service.visitor_filter import PolicyFilter


class ParseTests(SynchronousTestCase):
    """The codes of countries."""

    def test_codes(self) -> None:
        """They are two letters, in any case."""
        self.assertEqual(parseCountries(["de,AT", "de"]), ("DE", "AT"))
        for wrong in ("", "DEU", "Ö1", "d", "de;at"):
            self.assertRaises(TunnelError, parseCountries, [wrong])

    def test_combined(self) -> None:
        """Of two policies, both must agree."""
        one, other = VisitorPolicy(countries=("DE", "AT")), VisitorPolicy()
        self.assertEqual(one.combined(other).countries, ("DE", "AT"))
        self.assertEqual(other.combined(one).countries, ("DE", "AT"))
        self.assertEqual(
            one.combined(VisitorPolicy(countries=("AT",))).countries, ("AT",)
        )
        none = VisitorPolicy(countries=("FR",))
        self.assertRaises(TunnelError, one.combined, none)
        door = PolicyFilter(one.combined(none, False), Clock().seconds)
        self.assertRaises(TunnelError, door.checkNetwork, "192.0.2.1")


class WithoutFileTests(SynchronousTestCase):
    """A server that has no countries."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.tunnel = Tunnel(
            "1", Identity("anna"), None, VisitorObserver(), self.clock.seconds
        )
        self.policies = VisitorPolicies(self.clock)

    def test_refused(self) -> None:
        """It says what it needs; what a token asks keeps everybody out."""
        wanted = VisitorPolicy(countries=("DE",))
        for setting in (self.policies.setByOwner, self.policies.setByOperator):
            error = self.assertRaises(TunnelError, setting, self.tunnel, wanted)
            self.assertIn("--country-database", error.message)
        self.policies.policy = wanted
        self.policies.setByOwner(self.tunnel, VisitorPolicy())
        door = self.tunnel.filters[-1]
        assert isinstance(door, PolicyFilter)
        self.assertRaises(TunnelError, door.checkNetwork, "192.0.2.1")


class DatabaseTests(SynchronousTestCase):
    """A file of the operator's."""

    if importlib.util.find_spec("mmdb_writer") is None:
        skip = "the package mmdb-writer is not installed"

    def write(self, kind: str = "Test-Country", **networks: Any) -> None:
        from mmdb_writer import MMDBWriter
        from netaddr import IPSet  # type: ignore[import-untyped] # it has none

        made = MMDBWriter(6, kind, ipv4_compatible=True)
        for code, network in networks.items():
            made.insert_network(IPSet([network]), {"country": {"iso_code": code}})
        temporary = f"{self.path}.new"
        made.to_db_file(temporary)
        os.replace(temporary, self.path)

    def setUp(self) -> None:
        self.path = self.mktemp()
        self.clock = Clock()
        self.write(DE="192.0.2.0/24", FR="2001:db8::/32")

    def test_found(self) -> None:
        """Addresses of both kinds are found, others are not."""
        database = CountryDatabase(self.path, self.clock.seconds)
        for host, code in (
            ("192.0.2.7", "DE"),
            ("2001:db8::1", "FR"),
            ("127.0.0.1", ""),
            ("nonsense", ""),
        ):
            self.assertEqual(database.countryOf(host), code)

    def test_door(self) -> None:
        """Visitors of a tunnel are judged by it."""
        clock, policies = self.clock, VisitorPolicies(self.clock)
        policies.countries = CountryDatabase(self.path, clock.seconds)
        owner = Identity("anna")
        tunnel = Tunnel("1", owner, None, VisitorObserver(), clock.seconds)
        policies.setByOwner(tunnel, VisitorPolicy(countries=("DE",)))
        door = tunnel.filters[-1]
        assert isinstance(door, PolicyFilter)
        door.checkNetwork("192.0.2.7")
        door.checkNetwork("::ffff:192.0.2.7")
        for host in ("2001:db8::1", "198.51.100.1", "127.0.0.1"):
            error = self.assertRaises(TunnelError, door.checkNetwork, host)
            self.assertEqual(error.code.name, "not-permitted")

    def test_newer(self) -> None:
        """Another file is taken; one that is damaged is not."""
        database = CountryDatabase(self.path, self.clock.seconds)
        self.write(AT="192.0.2.0/24")
        self.assertEqual(database.countryOf("192.0.2.7"), "DE")
        self.clock.advance(LOOKS)
        self.assertEqual(database.countryOf("192.0.2.7"), "AT")
        for spoil in (
            lambda: Path(self.path).write_bytes(b"damaged"),
            lambda: self.write("Test-ASN", DE="192.0.2.0/24"),
        ):
            spoil()
            self.clock.advance(LOOKS)
            self.assertEqual(database.countryOf("192.0.2.7"), "AT")

    def test_wrong(self) -> None:
        """What is no such file is refused in one line."""
        self.write("Test-ASN")
        open_ = CountryDatabase
        error = self.assertRaises(TunnelError, open_, self.path, self.clock.seconds)
        self.assertIn("has no countries: it is a Test-ASN", error.message)
        for content in (b"", b"x" * 1000, None):
            if content is None:
                os.unlink(self.path)
            else:
                Path(self.path).write_bytes(content)
            error = self.assertRaises(TunnelError, open_, self.path, self.clock.seconds)
            self.assertIn("cannot be used", error.message)
