"""Tests for L{tristunnel.tls.certificates} and L{tristunnel.util.hosts}."""

from __future__ import annotations

import base64
import os
import stat
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.python.filepath import FilePath
from twisted.trial.unittest import SynchronousTestCase

from tests.tls.files import FileTestCase
from tristunnel.errors import TunnelError
from tristunnel.tls.certificates import (
    VALID_DAYS,
    fingerprint,
    fingerprintOfFile,
    parseFingerprint,
    selfSigned,
)
from tristunnel.tls.pem import certificateNames, loadOwnCertificate
from tristunnel.util.hosts import parseHost


class SelfSignedTests(FileTestCase):
    """Tests for L{selfSigned}."""

    def test_content(self) -> None:
        """The file has a certificate with all names, valid for the documented time, and
        the key that belongs to it."""
        path = selfSigned(
            self.directory / "new", ["localhost", "127.0.0.1", "::1", "Büro.example."]
        )
        self.assertEqual(path, self.directory / "new" / "server.pem")
        certificate = loadOwnCertificate(path).certificate
        self.assertEqual(
            certificateNames(certificate),
            ("localhost", "xn--bro-hoa.example", "127.0.0.1", "::1"),
        )
        since = certificate.not_valid_before_utc
        until = certificate.not_valid_after_utc
        self.assertEqual(until - since, timedelta(days=VALID_DAYS))
        self.assertLess(since, datetime.now(UTC))

    def test_private(self) -> None:
        """Only the owner may read it, and nothing else is left behind."""
        path = selfSigned(self.directory, ["localhost"])
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(os.listdir(self.directory), ["server.pem"])

    def test_neverOverwrites(self) -> None:
        """A file that is there is left alone."""
        path = self.write("server.pem", b"mine")
        self.assertEqual(selfSigned(self.directory, ["localhost"]), path)
        self.assertEqual(path.read_bytes(), b"mine")

    def test_lostRace(self) -> None:
        """A file that another process made in the meantime is left alone."""
        path = self.directory / "server.pem"
        link = os.link

        def late(source: Path, target: Path) -> None:
            target.write_bytes(b"theirs")
            link(source, target)

        self.patch(os, "link", late)
        self.assertEqual(selfSigned(self.directory, ["localhost"]), path)
        self.assertEqual(path.read_bytes(), b"theirs")
        self.assertEqual(os.listdir(self.directory), ["server.pem"])

    def test_noLinks(self) -> None:
        """A file system without links will do."""

        def unable(source: Path, target: Path) -> None:
            raise OSError(1, "Operation not permitted")

        self.patch(os, "link", unable)
        path = selfSigned(self.directory, ["localhost"])
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        self.assertEqual(os.listdir(self.directory), ["server.pem"])

    def test_filePath(self) -> None:
        """Twisted's paths are accepted, and bad names and places are refused."""
        path = selfSigned(FilePath(str(self.directory)), ["localhost"])
        self.assertEqual(len(fingerprintOfFile(path)), 64)
        other = self.directory / "other"
        with self.refused("'a b'"):
            selfSigned(other, ["a b"])
        with self.refused("name"):
            selfSigned(other, [])
        with self.refused("server.pem/server.pem", "directory"):
            selfSigned(path, ["localhost"])


class FingerprintTests(FileTestCase):
    """Tests for fingerprints."""

    def test_known(self) -> None:
        """The fingerprint of a file is that of its certificate, as OpenSSL would print
        it."""
        path = selfSigned(self.directory, ["localhost"])
        certificate = loadOwnCertificate(path).certificate
        text = fingerprint(certificate)
        self.assertEqual(fingerprintOfFile(path), text)
        self.assertRegex(text, "^[0-9a-f]{64}$")
        self.assertEqual(parseFingerprint(text).hex(), text)

    @given(
        st.binary(min_size=32, max_size=32),
        st.sampled_from(
            ["", "sha256:", "SHA256:", "sha256 Fingerprint=", "SHA-256:", "  "]
        ),
        st.sampled_from(["plain", "colons", "base64", "unpadded"]),
        st.booleans(),
    )
    def test_spellings(self, digest: bytes, prefix: str, form: str, up: bool) -> None:
        """All spellings of a fingerprint mean the same bytes."""
        encoded = base64.b64encode(digest).decode("ascii")
        text = {
            "plain": digest.hex().upper() if up else digest.hex(),
            "colons": digest.hex(":").upper() if up else digest.hex(":"),
            "base64": encoded,
            "unpadded": encoded.rstrip("="),
        }[form]
        self.assertEqual(parseFingerprint(prefix + text + "\n"), digest)

    @given(st.text() | st.text(alphabet="0123456789abcdef:=", max_size=120))
    def test_anything(self, text: str) -> None:
        """Any other text is refused with one line."""
        try:
            digest = parseFingerprint(text)
        except TunnelError as error:
            self.assertEqual(error.code.name, "bad-option")
            self.assertEqual(len(error.message.splitlines()), 1)
            self.assertLess(len(error.message), 2000)
        else:
            self.assertEqual(len(digest), 32)

    def test_wrong(self) -> None:
        """What looks almost like a fingerprint is refused."""
        for text in (
            "",
            "ab" * 31,
            "ab" * 33,
            "ab" * 20,
            "a:b" * 32,
            "ab:" * 32,
            "sha1:" + "ab" * 32,
            "sha256//" + "A" * 43 + "=",
            "g" * 64,
            "ab" * 10_000,
        ):
            with self.refused("64 hexadecimal digits"):
                parseFingerprint(text)


class ParseHostTests(SynchronousTestCase):
    """Tests for L{parseHost}."""

    def test_names(self) -> None:
        """Names become lower case and ASCII."""
        for text, host in (
            ("Example.COM.", "example.com"),
            ("localhost", "localhost"),
            ("*.example.com", "*.example.com"),
            ("BÜCHER.example", "xn--bcher-kva.example"),
            ("my_host", "my_host"),
            ("-a.ab--cd.xn--ls8ha-", "-a.ab--cd.xn--ls8ha-"),
        ):
            self.assertEqual(parseHost(text), host)

    def test_addresses(self) -> None:
        """Addresses lose their brackets and zones."""
        for text, address in (
            ("192.0.2.1", "192.0.2.1"),
            ("[2001:DB8::1]", "2001:db8::1"),
            ("fe80::1%eth0", "fe80::1"),
        ):
            self.assertEqual(parseHost(text), ip_address(address))

    def test_wrong(self) -> None:
        """Anything else is neither."""
        for text in ("", ".", "a..b", "a b", "a/b", "a:1", "*", "a" * 64):
            self.assertIsNone(parseHost(text), text)

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """What comes out is always fit for a certificate."""
        host = parseHost(text)
        if isinstance(host, str):
            self.assertRegex(host, r"^(\*\.)?[a-z0-9_.-]{1,253}$")
