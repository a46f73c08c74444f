"""Tests for L{tristunnel.util.addresses}."""

from __future__ import annotations

from types import SimpleNamespace

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.util.addresses import addressText


class AddressTextTests(SynchronousTestCase):
    """Addresses as people read them."""

    def test_known(self) -> None:
        """IPv4, IPv6, and IPv4 on a socket for both."""
        for address, text in (
            (IPv4Address("TCP", "192.0.2.1", 80), "192.0.2.1:80"),
            (IPv6Address("TCP", "2001:db8::1", 80), "[2001:db8::1]:80"),
            (IPv6Address("TCP", "::ffff:192.0.2.1", 80), "192.0.2.1:80"),
            (IPv6Address("TCP", "::1", 80), "[::1]:80"),
            (UNIXAddress(b"/run/s"), "unix:/run/s"),
            (UNIXAddress(None), "unix"),
            (None, "unix"),
        ):
            self.assertEqual(addressText(address), text)

    def test_onion(self) -> None:
        """An onion service of txtorcon's has a name, and the port that it shows."""
        address = SimpleNamespace(type="onion", onion_uri="abc.onion", onion_port=9000)
        self.assertEqual(addressText(address), "abc.onion:9000")
