"""
A directory of certificates, chosen by the name that the client asks for.

Every PEM file in the directory and below it is read; keys are matched to certificates
by content, not by file names. So the layouts that Twisted's C{tls:} endpoint knows
work, among them certbot's C{live} directory and plain files with a key and a
certificate.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.x509 import BasicConstraints, Certificate, ExtensionNotFound
from OpenSSL import SSL
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOProtocol
from zope.interface import implementer

from tristunnel.errors import TunnelError, badOption
from tristunnel.tls.certificates import fingerprint
from tristunnel.tls.contexts import loadClientTrust, serverContext
from tristunnel.tls.pem import (
    CERTIFICATE_SUFFIXES,
    OwnCertificate,
    PrivateKey,
    certificateNames,
    certificatesIn,
    isExpired,
    keysIn,
    readFile,
    samePublicKey,
)
from tristunnel.util.files import PathLike, pathText, warnIfOpen
from tristunnel.util.watch import CHECK_INTERVAL, Reloading, Signature, signature

__all__ = ["CertificateDirectory"]

_SUFFIXES = CERTIFICATE_SUFFIXES | {".key"}
_MAXIMUM_FILES = 4096
_MAXIMUM_DEPTH = 8
_MAXIMUM_CHAIN = 10


@dataclass(frozen=True)
class _File:
    """
    One file as it was read.

    @ivar signature: What it looked like then.
    @ivar certificates: The certificates in it.
    @ivar keys: The private keys in it.
    """

    signature: Signature
    certificates: Sequence[Certificate] = ()
    keys: Sequence[PrivateKey] = ()


@dataclass(frozen=True)
class _Entry:
    """
    A certificate that can be served.

    @ivar own: The certificate, its key and its chain.
    @ivar context: The context that shows it.
    @ivar paths: Where the certificate is from: at least one file.
    @ivar keyPath: Where the key is from.
    """

    own: OwnCertificate
    context: SSL.Context
    paths: frozenset[str]
    keyPath: str

    @property
    def fingerprint(self) -> str:
        return fingerprint(self.own.certificate)

    @property
    def isExpired(self) -> bool:
        return isExpired(self.own.certificate)

    @property
    def expiry(self) -> str:
        certificate = self.own.certificate
        return (
            f"The certificate in {min(self.paths)} expired on"
            f" {certificate.not_valid_after_utc.date()}"
        )

    def newness(self) -> tuple[bool, datetime]:
        """Order certificates, better ones last: valid now, and then issued last."""
        certificate = self.own.certificate
        since = certificate.not_valid_before_utc
        valid = since <= datetime.now(UTC) <= certificate.not_valid_after_utc
        return valid, since


@implementer(IOpenSSLServerConnectionCreator)
class CertificateDirectory:
    """
    Shows the certificate for the name that a client asks for.

    A client that asks for no name, or for one that no certificate is for, gets
    the default certificate: the one in a file or directory called C{default},
    or else the first by path.
    """

    _log = Logger()

    def __init__(
        self,
        directory: PathLike,
        clientCA: PathLike | None = None,
        clientCRL: PathLike | None = None,
        *,
        seconds: Callable[[], float] = time.monotonic,
    ) -> None:
        """
        Read the directory.

        @param directory: The directory.
        @param clientCA: A PEM file, or a directory of them, with the
            authorities of which a client must show a certificate; C{None}
            when clients need none.
        @param clientCRL: A PEM file, or a directory of them, with lists of
            those that were revoked; C{None} for no lists.
        @param seconds: A clock that counts seconds; the directory is looked at
            no more than once in each.
        @raise TunnelError: C{bad-option}, when there is no certificate with
            its key in it.
        """
        self._directory = Path(pathText(directory))
        self._seconds = seconds
        self._files: dict[str, _File] = {}
        self._entries: list[_Entry] = []
        self._byName: dict[str, _Entry] = {}
        self._lost = False
        self._trust = Reloading(
            [path for path in (clientCA, clientCRL) if path is not None],
            lambda: loadClientTrust(clientCA, clientCRL),
            seconds,
        )
        self._usedTrust = self._trust.current
        self._lastCheck = seconds()
        problems: list[str] = []
        try:
            self._readFiles(dict(_findFiles(str(self._directory))), problems)
        except OSError as error:
            raise badOption(
                f"{self._directory} cannot be read as a directory of certificates "
                f"({error.strerror}): correct the path or its permissions."
            ) from None
        self._pair(problems)
        if not self._entries:
            because = f" ({problems[0]})" if problems else ""
            raise badOption(
                f"{self._directory} has no certificate with its private key in "
                f"it{because}: put PEM files there, for example fullchain.pem and "
                f"privkey.pem."
            )
        self._report(problems)

    @property
    def names(self) -> tuple[str, ...]:
        """The names that have a certificate, sorted."""
        return tuple(sorted(self._byName))

    def certificateFor(self, name: str) -> Certificate:
        """The certificate for clients that ask for a name."""
        return self._lookup(name).own.certificate

    def fingerprintFor(self, name: str) -> str:
        """The fingerprint of the certificate for clients that ask for a name."""
        return self._lookup(name).fingerprint

    def _report(self, problems: Sequence[str]) -> None:
        for problem in problems:
            self._log.error("{problem}", problem=problem)

    def _readFiles(self, found: dict[str, Signature], problems: list[str]) -> None:
        files: dict[str, _File] = {}
        for path, sign in found.items():
            known = self._files.get(path)
            if known is not None and known.signature == sign:
                files[path] = known
                continue
            try:
                data = readFile(path)
                files[path] = file = _File(
                    sign, certificatesIn(path, data), keysIn(path, data)
                )
                if file.keys:
                    warnIfOpen(path, os.stat(path).st_mode & 0o007, "a private key")
            except TunnelError as error:
                problems.append(error.message)
                # Its former content stays in use until the file is right again.
                files[path] = replace(known or _File(sign), signature=sign)
        self._files = files

    def _pair(self, problems: list[str]) -> None:
        pool = [
            (path, certificate)
            for path, file in self._files.items()
            for certificate in file.certificates
        ]
        known = {each.fingerprint: each for each in self._entries}
        entries = self._matched(pool, known, problems)
        self._retain(entries, problems)
        if not entries:
            return
        for each in entries.values():
            if each.fingerprint not in known and each.isExpired:
                problems.append(f"{each.expiry}: renew it.")
        self._entries = sorted(entries.values(), key=self._precedence)
        self._byName = {}
        for each in self._entries:
            for name in certificateNames(each.own.certificate):
                other = self._byName.get(name)
                if other is None or each.newness() > other.newness():
                    self._byName[name] = each

    def _matched(
        self,
        pool: Sequence[tuple[str, Certificate]],
        known: Mapping[str, _Entry],
        problems: list[str],
    ) -> dict[str, _Entry]:
        entries: dict[str, _Entry] = {}
        for keyPath, file in self._files.items():
            for key in file.keys:
                fitting = [each for each in pool if samePublicKey(each[1], key)]
                if not fitting:
                    problems.append(
                        f"{keyPath} has a private key that fits no certificate in "
                        f"{self._directory}: put its certificate there."
                    )
                for _, certificate in fitting:
                    name = fingerprint(certificate)
                    if name in entries:
                        continue
                    try:
                        entries[name] = self._entry(
                            certificate, key, keyPath, pool, known.get(name)
                        )
                    except TunnelError as error:
                        problems.append(error.message)
        return entries

    def _entry(
        self,
        certificate: Certificate,
        key: PrivateKey,
        keyPath: str,
        pool: Sequence[tuple[str, Certificate]],
        known: _Entry | None,
    ) -> _Entry:
        paths = frozenset(path for path, each in pool if each == certificate)
        # What is in the same file is the chain that its owner chose.
        candidates = [each for path, each in pool if path in paths]
        candidates += [each for path, each in pool if path not in paths]
        chain = _completeChain(certificate, candidates)
        if (
            known is not None
            and known.own.chain == chain
            and (known.paths, known.keyPath) == (paths, keyPath)
        ):
            return known
        own = OwnCertificate(certificate, key, chain)
        return _Entry(own, self._contextOf(own, paths), paths, keyPath)

    def _contextOf(self, own: OwnCertificate, paths: frozenset[str]) -> SSL.Context:
        return serverContext(own, min(paths), self._usedTrust, self._choose)

    def _retain(self, entries: dict[str, _Entry], problems: list[str]) -> None:
        """
        Keep certificates whose files are there but do not match any more, as in the
        middle of a renewal, and those that were replaced by an expired one.

        @param entries: What can be served by now; receives what is kept.
        @param problems: Receives why.
        """
        for old in self._entries:
            files = old.paths | {old.keyPath}
            if old.fingerprint in entries or not files <= self._files.keys():
                continue
            successors = [each for each in entries.values() if old.paths & each.paths]
            if not successors:
                problems.append(
                    f"{min(old.paths)} and {old.keyPath} do not match any longer; "
                    f"the previous certificate stays in use: put both files there."
                )
            elif old.isExpired or not all(each.isExpired for each in successors):
                continue
            for each in successors:
                del entries[each.fingerprint]
                problems.append(
                    f"{each.expiry}; the previous one stays in use: put a valid one"
                    " there."
                )
            entries[old.fingerprint] = old

    def _precedence(self, entry: _Entry) -> tuple[bool, bool, str]:
        """Order certificates, the default first."""
        path = min(entry.paths)
        first = Path(path).relative_to(self._directory).parts[0]
        isDefault = os.path.splitext(first)[0].lower() == "default"
        return not isDefault, _isAuthority(entry.own.certificate), path

    def _refresh(self) -> None:
        trust = self._trust.get()
        if self._seconds() - self._lastCheck < CHECK_INTERVAL:
            return
        self._lastCheck = self._seconds()
        try:
            found = dict(_findFiles(str(self._directory)))
        except OSError:
            # It may be in the middle of being replaced; what is loaded will do.
            found = {}
        if not found:
            if not self._lost:
                self._lost = True
                self._log.error(
                    "{directory} has no files any longer; the certificates from "
                    "before stay in use.",
                    directory=self._directory,
                )
            return
        self._lost = False
        if trust is self._usedTrust and found == {
            path: file.signature for path, file in self._files.items()
        }:
            return
        if trust is not self._usedTrust:
            self._usedTrust = trust
            # None of the existing contexts knows the new ones.
            self._entries = [
                replace(each, context=self._contextOf(each.own, each.paths))
                for each in self._entries
            ]
        before = {each.fingerprint for each in self._entries}
        problems: list[str] = []
        self._readFiles(found, problems)
        self._pair(problems)
        self._report(problems)
        for each in self._entries:
            if each.fingerprint not in before:
                self._log.info(
                    "New certificate in {path} for {names}",
                    path=min(each.paths),
                    names=", ".join(certificateNames(each.own.certificate)),
                )

    def _lookup(self, name: str) -> _Entry:
        name = name.lower().removesuffix(".")
        wildcard = f"*.{name.partition('.')[2]}"
        found = self._byName.get(name) or self._byName.get(wildcard)
        return found or self._entries[0]

    def _choose(self, connection: SSL.Connection) -> None:
        if name := connection.get_servername():
            entry = self._lookup(name.decode("ascii", "replace"))
            connection.set_context(entry.context)

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        self._refresh()
        return SSL.Connection(self._entries[0].context)


def _findFiles(directory: str) -> Iterator[tuple[str, Signature]]:
    """Find files that may hold certificates or keys; no directory is read twice."""

    def failed(error: OSError) -> None:
        if error.filename == directory:
            raise error

    visited: set[Signature] = set()
    count = 0
    for here, below, names in os.walk(directory, onerror=failed, followlinks=True):
        found = signature(here)
        if found in visited:
            below.clear()
            continue
        visited.add(found)
        below.sort()
        if here[len(directory) :].count(os.sep) >= _MAXIMUM_DEPTH:
            below.clear()
        for name in sorted(names):
            if os.path.splitext(name)[1].lower() in _SUFFIXES:
                count += 1
                if count > _MAXIMUM_FILES:
                    return
                path = os.path.join(here, name)
                yield path, signature(path)


def _issued(issuer: Certificate, certificate: Certificate) -> bool:
    try:
        certificate.verify_directly_issued_by(issuer)
    except (ValueError, TypeError, InvalidSignature, UnsupportedAlgorithm):
        return False
    return True


def _completeChain(
    certificate: Certificate, candidates: Sequence[Certificate]
) -> tuple[Certificate, ...]:
    """Find the authorities between a certificate and its root, which clients have."""
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


def _isAuthority(certificate: Certificate) -> bool:
    try:
        extension = certificate.extensions.get_extension_for_class(BasicConstraints)
    except (ExtensionNotFound, ValueError):
        return False
    return extension.value.ca
