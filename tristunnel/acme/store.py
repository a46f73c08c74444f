"""
Certificates and the state of their renewal, in the state directory.

They are laid out as certbot does it (C{live/NAME/fullchain.pem}, C{privkey.pem}), so
that programs that read certbot's can read these, too. C{live/NAME} is a link to the
newest directory in C{archive/NAME}, and so certificate and key change together.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from tristunnel.acme.order import Issued
from tristunnel.auth.files import replaceFile
from tristunnel.errors import badOption
from tristunnel.util.descriptor_calls import lockFile

__all__ = ["Renewal", "Store"]

_KEPT = 2
"""How many certificates of a name are kept: the previous one may still be in use."""


@dataclass
class Renewal:
    """
    The state of a certificate's renewal, which survives restarts. Times are seconds
    since the epoch; 0 is never.

    @ivar first: When the name got its first certificate.
    @ivar failures: The number of failed attempts in a row.
    @ivar tried: When the last attempt was.
    @ivar next: The time before which there must be no other attempt.
    @ivar error: Why the last attempt failed; empty if it did not.
    @ivar renewAt: When the authority wants the certificate to be renewed.
    """

    first: float = 0.0
    failures: int = 0
    tried: float = 0.0
    next: float = 0.0
    error: str = ""
    renewAt: float = 0.0


class Store:
    """
    The files of certificates.

    @param stateDirectory: Where they are.

    @ivar live: The directory with certificates by name.
    """

    def __init__(self, stateDirectory: Path) -> None:
        self.live = stateDirectory / "live"
        self._archive = stateDirectory / "archive"
        self._renewal = stateDirectory / "renewal"

    def save(self, name: str, issued: Issued) -> None:
        """
        Store a certificate, and put it in force.

        @param name: The first name that it is for, without a wildcard.
        @raise TunnelError: C{bad-option}, if it cannot be written.
        """
        archive = self._archive / name
        try:
            for directory in (archive, self.live):
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            numbers = _numbers(archive)
            place = archive / str(max(numbers, default=0) + 1)
            place.mkdir(mode=0o700)
            replaceFile(str(place / "privkey.pem"), issued.privateKey)
            replaceFile(str(place / "fullchain.pem"), issued.fullchain)
            link = self.live / f".{name}.{secrets.token_hex(4)}"
            link.symlink_to(os.path.join("..", "archive", name, place.name))
            os.replace(link, self.live / name)
            for number in numbers[: max(0, len(numbers) + 1 - _KEPT)]:
                shutil.rmtree(archive / str(number), ignore_errors=True)
        except OSError as error:
            raise badOption(
                f"cannot write the certificate for {name} ({error.strerror}): let this"
                f" program write to {archive}"
            ) from None

    def renewal(self, name: str) -> Renewal:
        """Read the state of a name's renewal."""
        try:
            read = json.loads((self._renewal / f"{name}.json").read_text())
            return Renewal(
                float(read["first"]),
                int(read["failures"]),
                float(read["tried"]),
                float(read["next"]),
                str(read["error"]),
                float(read["renewAt"]),
            )
        except (OSError, ValueError, TypeError, KeyError):
            return Renewal()

    def remember(self, name: str, renewal: Renewal) -> None:
        """
        Store the state; L{order} has made the directory.

        @raise TunnelError: C{bad-option}, if it cannot be written.
        """
        text = json.dumps(asdict(renewal), indent=1)
        replaceFile(str(self._renewal / f"{name}.json"), text.encode())

    def tried(self) -> list[str]:
        """List the names with a known attempt."""
        try:
            return [each.stem for each in self._renewal.glob("*.json")]
        except OSError:
            return []

    def firsts(self, parent: str) -> Iterator[float]:
        """
        List when names of a domain got their first certificates, in seconds since the
        epoch.

        @param parent: The domain.
        """
        for name in self.tried():
            if name.partition(".")[2] == parent:
                yield self.renewal(name).first

    @contextmanager
    def order(self, name: str) -> Iterator[bool]:
        """
        Keep other processes of this machine from ordering for the same name.

        @return: Whether no other process is ordering for it.
        @raise TunnelError: C{bad-option}, if nothing can be written there.
        """
        try:
            self._renewal.mkdir(mode=0o700, parents=True, exist_ok=True)
            path = self._renewal / f"{name}.lock"
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise badOption(
                f"{self._renewal} cannot be written to ({error.strerror}): let this"
                " program write to the state directory"
            ) from None
        try:
            try:
                lockFile(descriptor)
            except BlockingIOError:
                yield False
            else:
                yield True
        finally:
            os.close(descriptor)


def _numbers(directory: Path) -> list[int]:
    return sorted(
        int(each.name) for each in directory.iterdir() if each.name.isdecimal()
    )
