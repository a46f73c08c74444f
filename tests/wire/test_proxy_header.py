"""The PROXY protocol's header, read again by Twisted's parsers."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.protocols.haproxy._v1parser import V1Parser
from twisted.protocols.haproxy._v2parser import V2Parser
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.wire.proxy_header import ProxyHeader, proxyHeaderV1, proxyHeaderV2

_PLACES = st.tuples(st.ip_addresses(), st.integers(0, 65535))
_SOURCE = (ip_address("192.0.2.1"), 40000)


class HeaderTests(SynchronousTestCase):
    """Both versions of the header."""

    @given(source=_PLACES, destination=st.none() | _PLACES, name=st.text(max_size=300))
    def test_read(self, source: Any, destination: Any, name: str) -> None:
        """What is written is read as it was, with an address of the same family."""
        visit = ProxyHeader(source, destination, name)
        same = destination is not None and destination[0].version == source[0].version
        port = destination[1] if destination else 0
        there = destination if same else (type(source[0])(0), port)
        v1: Any = V1Parser.parse(proxyHeaderV1(visit)[:-2])
        header = proxyHeaderV2(visit)
        v2: Any = V2Parser.parse(header)
        self.assertEqual(len(header), 16 + int.from_bytes(header[14:16]))
        for info in (v1, v2):
            self.assertEqual((ip_address(info.source.host), info.source.port), source)
            told = ip_address(info.destination.host), info.destination.port
            self.assertEqual(told, there)
        self.assertLessEqual(len(proxyHeaderV1(visit)), 107)

    def test_nobodys(self) -> None:
        """A check says that it is nobody's connection, a visitor of no IP address
        that it is one of an unknown family."""
        self.assertEqual(proxyHeaderV1(None), b"PROXY UNKNOWN\r\n")
        self.assertEqual(proxyHeaderV1(ProxyHeader()), b"PROXY UNKNOWN\r\n")
        self.assertEqual(proxyHeaderV2(None)[12:], b"\x20\0\0\0")
        self.assertEqual(proxyHeaderV2(ProxyHeader())[12:], b"\x21\0\0\0")

    def test_authority(self) -> None:
        """The name that a visitor asked for follows the addresses."""
        header = proxyHeaderV2(ProxyHeader(_SOURCE, None, "blog.example"))
        self.assertEqual(header[28:], b"\x02\0\x0cblog.example")
