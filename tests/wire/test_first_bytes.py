"""Tests for L{tristunnel.wire.first_bytes}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.wire.first_bytes import HTTP_METHODS, describeFirstBytes, looksLikeTLS


class FirstBytesTests(SynchronousTestCase):
    """Tests for L{describeFirstBytes} and L{looksLikeTLS}."""

    def test_known(self) -> None:
        """Common mistakes are named."""
        for data, name in (
            (b"\x16\x03\x01\x02\x00\x01\x00", "a TLS hello"),
            (b"\x15\x03\x01\x00\x02\x02\x28", "a TLS alert"),
            (b"GET / HTTP/1.1\r\n", "an HTTP request"),
            (b"HTTP/1.1 400 Bad Request\r\n", "an HTTP answer"),
            (b"SSH-2.0-OpenSSH_9.2\r\n", "an SSH banner"),
            (b"220 mail.example ESMTP\r\n", "an SMTP or FTP greeting"),
            (b"PROXY TCP4 192.0.2.1 ", "a PROXY protocol header"),
            (b"\r\n\r\n\x00\r\nQUIT\n\x21", "a PROXY protocol header"),
            (b"W3PTUNL\x00\x00", "the framed protocol"),
            (b"\x05\x01\x00", "a SOCKS request"),
            (b"\x03\x00\x00\x13", "a remote desktop request"),
            (b"", "nothing"),
        ):
            self.assertEqual(describeFirstBytes(data), name)

    def test_methods(self) -> None:
        """Every method of HTTP is known, but a word that begins like one is not."""
        for method in HTTP_METHODS:
            self.assertEqual(describeFirstBytes(method + b"/"), "an HTTP request")
        self.assertIn("unknown", describeFirstBytes(b"GETTING"))

    @given(st.binary())
    def test_anything(self, data: bytes) -> None:
        """Whatever comes is described in one short printable line."""
        text = describeFirstBytes(data)
        self.assertTrue(text.isprintable())
        self.assertTrue(text.isascii())
        self.assertLess(len(text), 100)

    def test_tls(self) -> None:
        """A TLS handshake and an alert are TLS; one byte is not enough to tell."""
        self.assertTrue(looksLikeTLS(b"\x16\x03\x01"))
        self.assertTrue(looksLikeTLS(b"\x15\x03\x03"))
        for data in (b"", b"\x16", b"\x17\x03\x03", b"GET "):
            self.assertFalse(looksLikeTLS(data))
