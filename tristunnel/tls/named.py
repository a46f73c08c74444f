"""
Certificates by name, in a directory whose files are named after their certificates'
names.

A certificate is looked for when a client asks for its name, and kept from then on, so
that thousands of them do not slow down the start. L{CertificateDirectory
<tristunnel.tls.directory.CertificateDirectory>} takes files of any name instead, and
reads all of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from cryptography.x509 import Certificate
from OpenSSL import SSL
from twisted.logger import Logger

from tristunnel.errors import TunnelError, badOption
from tristunnel.tls.pem import certificateNames
from tristunnel.tls.server_context import ReloadingCertificate
from tristunnel.util.files import PathLike, pathText
from tristunnel.util.hosts import parseHost
from tristunnel.util.watch import Signature, signature

__all__ = ["NamedCertificates", "covers"]


def covers(certificate: Certificate, name: str) -> bool:
    """
    Tell whether a certificate is for a name, by itself or by a wildcard.

    @param name: The name in lower case, without a final dot.
    """
    names = certificateNames(certificate)
    return name in names or f"*.{name.partition('.')[2]}" in names


class NamedCertificates:
    """
    A directory of certificates.

    The one for C{blog.example.com} is in C{blog.example.com/} (C{fullchain.pem} and
    C{privkey.pem}, as certbot has them), C{blog.example.com.pem} (with its key) or
    C{blog.example.com.crt} (with C{blog.example.com.key}), or in one of these for
    C{*.example.com} or for C{example.com} if that one is for C{*.example.com}, too.

    @param directory: The directory.
    @param clientCA: As for L{ReloadingCertificate
        <tristunnel.tls.server_context.ReloadingCertificate>}: whose certificates
        clients must show, or C{None}.
    @param clientCRL: Which of those were revoked, or C{None}.
    @param seconds: A clock that counts seconds; a file that is in use is looked at no
        more than once in each.
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
        self._clients = clientCA, clientCRL
        self.directory = Path(pathText(directory))
        self._seconds = seconds
        # By path, so that visitors' names cannot make it longer than the directory.
        self._loaded: dict[str, ReloadingCertificate] = {}
        # The state of each file, and why it cannot be used.
        self._broken: dict[str, tuple[tuple[Signature, Signature], str]] = {}

    def check(self, option: str) -> None:
        """
        Check that the directory can be read at all.

        @param option: Which option names it.
        @raise TunnelError: C{bad-option}.
        """
        try:
            os.listdir(self.directory)
        except OSError as error:
            raise badOption(
                f"{option} {self.directory} cannot be read ({error.strerror}): name a"
                " directory with NAME.pem or NAME/fullchain.pem in it"
            ) from None

    def find(self, name: str) -> ReloadingCertificate | None:
        """
        Find the certificate for a name.

        @param name: The name that a client asks for, which may be anything.
        @return: C{None} if there is none.
        """
        host = parseHost(name)
        if not isinstance(host, str):
            return None
        parent = host.partition(".")[2]
        for stem in (host, f"*.{parent}", parent):
            if not stem.removeprefix("*."):
                continue
            found = self._load(stem)
            if found is not None and covers(found.certificate, host):
                return found
        return None

    def contextFor(self, name: str) -> SSL.Context | None:
        """
        Find the context that shows the certificate for a name, following renewals.

        @return: C{None} if there is none.
        """
        found = self.find(name)
        return None if found is None else found.context

    def newest(self, stem: str) -> Certificate | None:
        """
        Give the present certificate of a file, whatever names it is for.

        @param stem: The name that the file has.
        """
        found = self._load(stem)
        # Asking for it makes the file be checked.
        return None if found is None or not found.context else found.certificate

    def broken(self, stem: str) -> str:
        """
        Say why a file cannot be used.

        @param stem: The name that the file has.
        @return: Nothing if it can, or if there is none.
        """
        if self._load(stem) is not None:
            return ""
        said = (self._broken.get(path, ((), ""))[1] for path, _ in self._places(stem))
        return next(filter(None, said), "")

    def names(self) -> Iterator[str]:
        """
        The certificates in the directory by name, which takes a look at all of it.
        """
        for _, stem, problem in self._entries():
            if not problem:
                yield stem

    def unused(self) -> Iterator[str]:
        """
        Say why some certificates will never be shown. Only files not named after a
        domain are read for this, which are few.
        """
        for path, stem, problem in self._entries():
            if not problem and "." not in stem:
                certificate = self.newest(stem)
                if certificate is not None:
                    problem = self.misnamed(stem, certificate)
            if problem:
                yield f"{path} is never used: {problem}"

    @staticmethod
    def misnamed(stem: str, certificate: Certificate) -> str:
        """
        Say what is wrong with the name of a file.

        @param stem: The name that the file has.
        @return: Empty if its certificate is for that name.
        """
        names = certificateNames(certificate)
        if covers(certificate, stem) or f"*.{stem}" in names:
            return ""
        return f"its certificate is for {', '.join(names[:5])}: name it for that"

    def _entries(self) -> Iterator[tuple[str, str, str]]:
        """
        List the content of the directory.

        @return: The path of each, the name that it is for, and why it will never be
            found; empty if it can be.
        """
        try:
            with os.scandir(self.directory) as found:
                # Unlike is_dir(), this works for a link to itself.
                entries = sorted((each.name, os.path.isdir(each)) for each in found)
        except OSError:
            return
        files = {name for name, _ in entries}
        for name, isDirectory in entries:
            path = os.path.join(self.directory, name)
            stem, suffix = (name, "") if isDirectory else os.path.splitext(name)
            problem = ""
            if isDirectory:
                if not os.path.exists(os.path.join(path, "fullchain.pem")):
                    problem = "there is no fullchain.pem in it"
            elif suffix == ".key":
                if not {f"{stem}.pem", f"{stem}.crt"} & files:
                    yield path, stem, f"put its certificate beside it, as {stem}.crt"
                continue
            elif suffix not in (".pem", ".crt"):
                continue
            elif not os.path.exists(path):
                problem = "it is a link that leads nowhere"
            if not problem and parseHost(stem) != stem:
                problem = "name it for its host, for example blog.example.com" + suffix
            yield path, stem, problem

    def _places(self, stem: str) -> Iterator[tuple[str, str]]:
        """List the files that a certificate and its key may be in."""
        base = os.path.join(self.directory, stem)
        yield os.path.join(base, "fullchain.pem"), os.path.join(base, "privkey.pem")
        yield f"{base}.pem", f"{base}.pem"
        yield f"{base}.crt", f"{base}.key"

    def _load(self, stem: str) -> ReloadingCertificate | None:
        base = os.path.join(self.directory, stem)
        for path, key in self._places(stem):
            known = self._loaded.get(path)
            if known is not None:
                return known
            there = signature(path)
            if there is None:
                continue
            if os.path.exists(f"{base}.key") and path.endswith(f"{stem}.pem"):
                key = f"{base}.key"
            return self._read(stem, path, key, (there, signature(key)))
        return None

    def _read(
        self, stem: str, path: str, key: str, state: tuple[Signature, Signature]
    ) -> ReloadingCertificate | None:
        if path in self._broken and self._broken[path][0] == state:
            return None
        try:
            made = ReloadingCertificate(
                path, key, *self._clients, seconds=self._seconds
            )
        except TunnelError as reason:
            self._broken[path] = state, reason.message
            self._log.error("{reason}", reason=reason.message)
            return None
        # L{unused} reports others.
        if "." in stem and (problem := self.misnamed(stem, made.certificate)):
            self._log.error(
                "{path} is never used: {problem}", path=path, problem=problem
            )
        self._broken.pop(path, None)
        self._loaded[path] = made
        return made
