"""Tests for L{tristunnel.tls.pem}."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tests.tls.authority import certificateOf, makeAuthority
from tests.tls.files import FileTestCase
from tristunnel.errors import TunnelError
from tristunnel.tls.pem import (
    MAXIMUM_FILE_SIZE,
    certificateNames,
    certificatesIn,
    isExpired,
    keysIn,
    loadAuthorities,
    loadOwnCertificate,
    loadPrivateKey,
)


class LoadOwnCertificateTests(FileTestCase):
    """L{loadOwnCertificate}: each error names the file, the cause and the cure."""

    def setUp(self) -> None:
        super().setUp()
        self.authority = makeAuthority()
        self.certificate, self.key = self.authority.issue(["example.com"])

    def test_oneFile(self) -> None:
        """Key and certificate may be in one file, in any order."""
        for parts in ((self.certificate, self.key), (self.key, self.certificate)):
            path = self.write("both.pem", b"some words\n", *parts)
            own = loadOwnCertificate(path)
            self.assertEqual(own.certificate, certificateOf(self.certificate))
            self.assertEqual(own.chain, ())

    def test_chain(self) -> None:
        """What follows the certificate is its chain."""
        path = self.write("full.pem", self.certificate, self.authority.pem)
        own = loadOwnCertificate(path, self.write("key.pem", self.key))
        self.assertEqual(own.chain, (self.authority.certificate,))

    def test_missing(self) -> None:
        """A file that is not there."""
        with self.refused("none.pem", "does not exist"):
            loadOwnCertificate(self.directory / "none.pem")

    def test_permission(self) -> None:
        """A file that may not be read; pretended, because root may read all."""
        path = self.write("both.pem", self.certificate, self.key)

        def stat(path: str) -> None:
            raise PermissionError(13, "Permission denied")

        self.patch(os, "stat", stat)
        with self.refused("both.pem", "permission denied", str(os.geteuid())):
            loadOwnCertificate(path)

    def test_noFile(self) -> None:
        """Directories and pipes are no files, and do not block."""
        with self.refused("is not a file"):
            loadOwnCertificate(self.directory)
        os.mkfifo(self.directory / "pipe")
        with self.refused("is not a file"):
            loadOwnCertificate(self.directory / "pipe")
        with self.refused("cannot be read"):
            loadOwnCertificate("a\0b")

    def test_tooLarge(self) -> None:
        """A file without bounds is not read."""
        path = self.write("large.pem")
        os.truncate(path, MAXIMUM_FILE_SIZE + 1)
        with self.refused("large.pem", "too large"):
            loadOwnCertificate(path)

    def test_notPEM(self) -> None:
        """Files that hold something else."""
        der = certificateOf(self.certificate).public_bytes(Encoding.DER)
        for data, word in (
            (b"", "is empty"),
            (b"hello", "not PEM"),
            (der, "-inform DER"),
            (self.key, "no certificate in it"),
        ):
            with self.refused("odd.pem", word):
                loadOwnCertificate(self.write("odd.pem", data))
        with self.refused("odd.pem", "no private key in it"):
            loadOwnCertificate(self.write("odd.pem", self.certificate))

    def test_damaged(self) -> None:
        """Files that were cut or altered."""
        for name, data in (("certificate", self.certificate), ("key", self.key)):
            lines = data.splitlines(keepends=True)
            del lines[2]
            other = self.key if name == "certificate" else self.certificate
            with self.refused("odd.pem", "damaged"):
                loadOwnCertificate(self.write("odd.pem", *lines, other))

    def test_mismatch(self) -> None:
        """A key that belongs to another certificate."""
        _, other = self.authority.issue(["example.com"])
        certificate = self.write("cert.pem", self.certificate)
        with self.refused("key.pem", "does not match", "cert.pem"):
            loadOwnCertificate(certificate, self.write("key.pem", other))

    def test_order(self) -> None:
        """A chain that comes before the certificate."""
        certificate = self.write("cert.pem", self.authority.pem, self.certificate)
        with self.refused("cert.pem", "wrong order", "first"):
            loadOwnCertificate(certificate, self.write("key.pem", self.key))

    def test_encrypted(self) -> None:
        """A key with a passphrase."""
        key = load_pem_private_key(self.key, None)
        for form in (PrivateFormat.PKCS8, PrivateFormat.TraditionalOpenSSL):
            encrypted = key.private_bytes(
                Encoding.PEM, form, BestAvailableEncryption(b"secret")
            )
            path = self.write("key.pem", encrypted)
            with self.refused("key.pem", "encrypted", "openssl pkey"):
                loadPrivateKey(path)

    def test_wrongKind(self) -> None:
        """A key that is not for signing."""
        key = X25519PrivateKey.generate().private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        with self.refused("key.pem", "cannot use"):
            loadPrivateKey(self.write("key.pem", key))


class LoadAuthoritiesTests(FileTestCase):
    """Tests for L{loadAuthorities}."""

    def test_fileAndDirectory(self) -> None:
        """A file may have several certificates, a directory several files."""
        one, two = makeAuthority("one"), makeAuthority("two")
        bundle = self.write("bundle.txt", one.pem, two.pem)
        both = (one.certificate, two.certificate)
        self.assertEqual(loadAuthorities(bundle), both)
        self.write("a.pem", one.pem)
        self.write("b.CRT", two.pem)
        self.write("README", b"words")
        self.write("dir.pem/c.pem", two.pem)
        self.assertEqual(loadAuthorities(str(self.directory)), both)

    def test_empty(self) -> None:
        """A directory without certificates is an error."""
        with self.refused(str(self.directory), "no certificates"):
            loadAuthorities(self.directory)


class CertificateTests(SynchronousTestCase):
    """Tests for what is said about certificates."""

    def test_names(self) -> None:
        """Names are in lower case; without any, the common name counts."""
        authority = makeAuthority("Some Authority")
        pem, _ = authority.issue(["Example.com", "192.0.2.1"])
        self.assertEqual(
            certificateNames(certificateOf(pem)), ("example.com", "192.0.2.1")
        )
        self.assertEqual(certificateNames(authority.certificate), ("some authority",))

    def test_expired(self) -> None:
        """A certificate is expired once its time is over."""
        authority = makeAuthority()
        past = datetime.now(UTC) - timedelta(days=1)
        self.assertTrue(isExpired(certificateOf(authority.issue(["a"], past)[0])))
        self.assertFalse(isExpired(certificateOf(authority.issue(["a"])[0])))

    @given(
        st.sampled_from(["CERTIFICATE", "PRIVATE KEY", "EC PRIVATE KEY", "X"]),
        st.binary(),
        st.binary(),
    )
    def test_anything(self, label: str, body: bytes, around: bytes) -> None:
        """Whatever is in a file, it has certificates and keys or is refused."""
        name = label.encode("ascii")
        data = b"%b-----BEGIN %b-----\n%b\n-----END %b-----\n" % (
            around,
            name,
            body,
            name,
        )
        for find in (certificatesIn, keysIn):
            try:
                find("file.pem", data)
            except TunnelError as error:
                self.assertIn("file.pem", error.message)
