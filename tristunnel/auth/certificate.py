"""Identifying clients by the certificates that they show: C{--client-ca}."""

from __future__ import annotations

from typing import Any

from cryptography.x509 import (
    Certificate,
    DNSName,
    ExtensionNotFound,
    RFC822Name,
    SubjectAlternativeName,
    UniformResourceIdentifier,
)
from cryptography.x509.oid import NameOID
from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred, fail, succeed
from twisted.plugin import IPlugin
from zope.interface import implementer

from tristunnel.auth.credentials import ITunnelCredentials, nameProblem

__all__ = [
    "CertificateChecker",
    "CertificateCheckerFactory",
    "certificateName",
    "nameIn",
]


def nameIn(certificate: Certificate) -> str:
    """
    Find the name that a certificate gives its holder: the common name, or else the
    first alternative name.

    @return: The name; empty if it has none that a client can have.
    """
    names: list[object] = [
        attribute.value
        for attribute in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    ]
    try:
        alternatives = certificate.extensions.get_extension_for_class(
            SubjectAlternativeName
        ).value
    except (ExtensionNotFound, ValueError):
        pass
    else:
        for kind in (DNSName, RFC822Name, UniformResourceIdentifier):
            names += alternatives.get_values_for_type(kind)
    for name in names:
        if isinstance(name, str) and nameProblem(name) is None:
            return name
    return ""


def certificateName(transport: Any) -> str:
    """
    Find the name that the peer of a connection has proved to have. Our TLS asks for a
    certificate only with C{--client-ca}, and ends connections whose certificates are
    not by those authorities.

    @return: The name, or empty.
    """
    shown = getattr(transport, "getPeerCertificate", lambda: None)()
    if shown is None:
        return ""
    try:
        return nameIn(shown.to_cryptography())
    except ValueError:
        # OpenSSL accepted a certificate that the other library does not.
        return ""


@implementer(ICredentialsChecker)
class CertificateChecker:
    """Admits clients by their certificates alone."""

    credentialInterfaces = (ITunnelCredentials,)

    def requestAvatarId(
        self, credentials: ITunnelCredentials
    ) -> Deferred[bytes | tuple[()]]:
        name = credentials.certificate
        if not name:
            return fail(UnauthorizedLogin())
        return succeed(name.encode("utf-8"))


@implementer(ICheckerFactory, IPlugin)
class CertificateCheckerFactory:
    """The C{certificate} type of C{--auth}."""

    authType = "certificate"
    argStringFormat = "Nothing"
    authHelp = """
Admits the clients that show a certificate of a --client-ca authority. The
client's name is the certificate's common name, or else its first alternative
name (DNS, e-mail, URI).

Without any --auth, --client-ca does the same. Give --auth certificate beside
another --auth where some clients have no other credentials.
"""
    credentialInterfaces = (ITunnelCredentials,)

    def generateChecker(self, argstring: str) -> CertificateChecker:
        if argstring.strip():
            raise InvalidAuthArgumentString("certificate takes no argument")
        return CertificateChecker()
