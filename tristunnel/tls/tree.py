"""
Finding certificates below a directory, and which of them belong together.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509 import BasicConstraints, Certificate, ExtensionNotFound

from tristunnel.tls.pem import CERTIFICATE_SUFFIXES
from tristunnel.tls.watch import Signature, signature

__all__ = ["completeChain", "findFiles", "isAuthority"]

_SUFFIXES = CERTIFICATE_SUFFIXES | {".key"}
_MAXIMUM_FILES = 4096
_MAXIMUM_DEPTH = 8
_MAXIMUM_CHAIN = 10


def findFiles(directory: str) -> Iterator[tuple[str, Signature]]:
    """
    Find the files that may hold certificates or keys.

    @param directory: Where to begin; links to directories are followed, but no
        directory is looked at twice.
    @return: Paths and what the files look like, sorted, at most
        L{_MAXIMUM_FILES}.
    @raise OSError: When the directory itself cannot be read.
    """
    visited: set[tuple[int, int]] = set()
    pending: list[tuple[int, str]] = [(0, directory)]
    count = 0
    while pending:
        depth, here = pending.pop()
        try:
            found = os.stat(here)
            names = sorted(os.listdir(here))
        except OSError:
            if depth == 0:
                raise
            continue
        if (found.st_dev, found.st_ino) in visited:
            continue
        visited.add((found.st_dev, found.st_ino))
        below = []
        for name in names:
            path = os.path.join(here, name)
            if os.path.splitext(name)[1].lower() in _SUFFIXES and not os.path.isdir(
                path
            ):
                count += 1
                if count > _MAXIMUM_FILES:
                    return
                yield path, signature(path)
            elif depth < _MAXIMUM_DEPTH and os.path.isdir(path):
                below.append((depth + 1, path))
        pending.extend(reversed(below))


def _issued(issuer: Certificate, certificate: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def completeChain(
    certificate: Certificate, candidates: Sequence[Certificate]
) -> tuple[Certificate, ...]:
    """
    Find the authorities between a certificate and its root.

    @param certificate: Where to begin.
    @param candidates: The certificates to choose from, the preferred first.
    @return: The chain without the certificate and without the root, which
        clients have.
    """
    chain: list[Certificate] = []
    current = certificate
    while len(chain) < _MAXIMUM_CHAIN and current.issuer != current.subject:
        for each in candidates:
            if each.subject == current.issuer and _issued(each, current):
                break
        else:
            break
        if each.issuer == each.subject:
            break
        chain.append(each)
        current = each
    return tuple(chain)


def isAuthority(certificate: Certificate) -> bool:
    """
    Tell whether a certificate may sign others.

    @param certificate: The certificate.
    @return: What its basic constraints say.
    """
    try:
        extension = certificate.extensions.get_extension_for_class(BasicConstraints)
    except (ExtensionNotFound, ValueError):
        return False
    return extension.value.ca
