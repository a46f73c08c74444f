"""
Challenges: proving to an authority that a name is ours, and the answers that are ready.

The answers are files, so that any process of this machine can give them, whichever has
ordered the certificate. They are made only from what an authority has sent, never from
what a visitor sends.
"""

from __future__ import annotations

import hashlib
import re
import time
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from acme import challenges
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from josepy.jwk import JWK
from OpenSSL import SSL

from tristunnel.auth.files import replaceFile
from tristunnel.errors import TunnelError
from tristunnel.names.public import CHALLENGES
from tristunnel.tls.contexts import serverContext
from tristunnel.tls.pem import loadOwnCertificate
from tristunnel.util.hosts import parseHost
from tristunnel.wire.client_hello import CHALLENGE

__all__ = ["TLSALPN01", "Answers", "TLSALPN01Response"]

_TOKEN = re.compile(r"[A-Za-z0-9_-]{1,128}")
"""RFC 8555, section 8.1: base64url, of 128 bits at least; ours are no longer than
this."""

_ACME_IDENTIFIER = x509.ObjectIdentifier("1.3.6.1.5.5.7.1.31")
_LONGEST = 4096
_STALE = 3600.0


@challenges.ChallengeResponse.register
class TLSALPN01Response(challenges.KeyAuthorizationChallengeResponse):
    """An answer to the challenge of RFC 8737, which certbot's library no longer has."""

    typ = "tls-alpn-01"


@challenges.Challenge.register
class TLSALPN01(challenges.KeyAuthorizationChallenge):
    """The challenge of RFC 8737: to show a certificate with a digest in it."""

    response_cls = TLSALPN01Response
    typ = response_cls.typ

    def validation(self, account_key: JWK, **unused: object) -> bytes:
        """
        @return: The content of the extension: a digest in DER (RFC 8737, section 3).
        """
        digest = hashlib.sha256(self.key_authorization(account_key).encode()).digest()
        # An octet string of 32 bytes.
        return b"\x04\x20" + digest


class Answers:
    """
    Answers that an authority may ask for.

    @param directory: Where they are kept.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def put(self, token: str, answer: bytes) -> None:
        """
        Add an answer over HTTP.

        @raise TunnelError: C{protocol-error} for a malformed token; C{bad-option} if it
            cannot be written.
        """
        if not _TOKEN.fullmatch(token):
            raise TunnelError(
                "protocol-error", "the authority's challenge is not a token"
            )
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        replaceFile(str(self._directory / token), answer)

    def remove(self, token: str) -> None:
        """Remove it."""
        (self._directory / token).unlink(missing_ok=True)

    def get(self, path: bytes) -> bytes | None:
        """
        Answer a request.

        @param path: Its path, as the visitor wrote it.
        @return: C{None} if it is not for us.
        """
        token = path[len(CHALLENGES) :].decode("latin-1")
        if not path.startswith(CHALLENGES) or not _TOKEN.fullmatch(token):
            return None
        try:
            with open(self._directory / token, "rb") as file:
                return file.read(_LONGEST)
        except OSError:
            return None

    def putCertificate(self, name: str, extension: bytes) -> None:
        """
        Add a certificate that answers over TLS.

        @param name: The name that is to be proved.
        @param extension: What L{TLSALPN01.validation} returns.
        @raise TunnelError: C{bad-option} if it cannot be written.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        replaceFile(self._certificatePath(name), _challengeCertificate(name, extension))

    def removeCertificate(self, name: str) -> None:
        """Remove it."""
        Path(self._certificatePath(name)).unlink(missing_ok=True)

    def contextFor(self, name: str) -> SSL.Context | None:
        """
        Answer a TLS client that offers L{CHALLENGE}.

        @param name: The name that it asks for, which may be anything.
        @return: The context with the certificate; C{None} if there is none.
        """
        host = parseHost(name)
        if not isinstance(host, str):
            return None
        path = self._certificatePath(host)
        try:
            context = serverContext(loadOwnCertificate(path, path), path)
        except TunnelError:
            return None
        context.set_alpn_select_callback(lambda connection, offered: CHALLENGE)
        return context

    def _certificatePath(self, name: str) -> str:
        # A token has no dot.
        return str(self._directory / f"{name}.pem")

    def clean(self) -> None:
        """Remove what killed processes have left behind."""
        with suppress(OSError):
            for path in self._directory.iterdir():
                if time.time() - path.stat().st_mtime > _STALE:
                    path.unlink(missing_ok=True)


def _challengeCertificate(name: str, extension: bytes) -> bytes:
    """RFC 8737, section 3: self-signed, for that name alone, with the digest."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=7))
        .add_extension(
            # Its subject is empty.
            x509.SubjectAlternativeName([x509.DNSName(name)]),
            critical=True,
        )
        .add_extension(
            x509.UnrecognizedExtension(_ACME_IDENTIFIER, extension), critical=True
        )
        .sign(key, SHA256())
    )
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return private + certificate.public_bytes(Encoding.PEM)
