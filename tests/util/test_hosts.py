"""Tests for L{tristunnel.util.hosts}."""

from __future__ import annotations

from types import SimpleNamespace

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.util.hosts import addressText, hostHeader, hostName, parsePlace


class HostNameTests(SynchronousTestCase):
    """What is written for a machine, and what a name server is asked."""

    def test_hosts(self) -> None:
        """Names that machines do have are taken, in one form."""
        for text, host in (
            ("BÜCHER.test", "xn--bcher-kva.test"),
            ("bu\u0308cher.test.", "xn--bcher-kva.test."),
            ("straße。test", "xn--strae-oqa.test"),
            ("my_db", "my_db"),
            ("_srv._tcp.A_B.test", "_srv._tcp.a_b.test"),
            ("ab--cd.bücher.test", "ab--cd.xn--bcher-kva.test"),
            ("deploy-1--site.test", "deploy-1--site.test"),
            ("xn--ls8ha.test", "xn--ls8ha.test"),
            ("💩.test", "xn--ls8h.test"),
            ("-edge-", "-edge-"),
            ("Host.Test.", "host.test."),
            ("127.0.0.1", "127.0.0.1"),
            ("127.0.0.1.", "127.0.0.1"),
            ("\uff11\uff12\uff17.0.0.1", "127.0.0.1"),
            ("[::1]", "::1"),
            ("0:0:0:0:0:0:0:1", "::1"),
            ("[FE80::1%eth0]", "fe80::1%eth0"),
            ("fe80::1%25eth0", "fe80::1%eth0"),
        ):
            self.assertEqual(hostName(text), host)

    def test_wrong(self) -> None:
        """What no name server can be asked is refused in words."""
        for text in (
            *("", ".", "a..b", "a b", "a/b", "//a", "a:1", "a\n", "[a]", "[::1", "::g"),
            *("a" * 64, "a." * 127 + "ab", "\u200b.test", "a@b", "::1%", "1.2.3.4%lo"),
            "ü" * 64,
        ):
            self.assertIn(
                "is not a host", str(self.assertRaises(ValueError, hostName, text))
            )

    @given(st.text() | st.from_regex(r"[\w.:%\[\]-]{1,20}"))
    def test_anything(self, text: str) -> None:
        """What comes out is an address or plain ASCII, and does not change again."""
        try:
            host = hostName(text)
        except ValueError:
            return
        if not (isIPAddress(host) or isIPv6Address(host)):
            self.assertRegex(host, r"\A[a-z0-9_.-]{1,254}\Z")
        self.assertEqual(hostName(host), host)

    def test_header(self) -> None:
        """C{Host} has brackets, and nothing that proxies do not compare."""
        for host, port, header in (
            ("::1", 9000, "[::1]:9000"),
            ("::1", 443, "[::1]"),
            ("fe80::1%eth0", 9000, "[fe80::1]:9000"),
            ("host.test.", 443, "host.test"),
            ("host.test", 80, "host.test:80"),
        ):
            self.assertEqual(hostHeader(host, port, 443), header)

    def test_places(self) -> None:
        """A host and a port, and what is wrong with them."""
        self.assertEqual(parsePlace("[::1]:9"), ("::1", 9))
        self.assertEqual(parsePlace("A_b.test:65535"), ("a_b.test", 65535))
        for text, why in (
            ("host", "the port is missing"),
            ("host:", "the port is missing"),
            ("[::1]", "the port is missing"),
            (":9", "the host is missing"),
            ("host:0", "'0' is not a port"),
            ("host:65536", "'65536' is not a port"),
            ("host:٣", "'٣' is not a port"),
            ("host:9/", "'9/' is not a port"),
            ("my host:9", "'my host' is not a host"),
        ):
            self.assertEqual(str(self.assertRaises(ValueError, parsePlace, text)), why)


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
