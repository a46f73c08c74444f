"""
The key by which SSH clients recognize this server. This file does without
twisted.conch, since the fingerprint is shown whether an SSH client comes or not.
"""

from __future__ import annotations

import re
from base64 import b64encode
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_ssh_private_key,
)

from tristunnel.errors import badOption
from tristunnel.util.files import warnIfOpen, writeNewSecret
from tristunnel.wire.ssh import packTexts

__all__ = ["FILE_NAME", "HostKey", "fingerprintOf", "parseFingerprint"]

FILE_NAME = "ssh_host_ed25519_key"

_KIND = b"ssh-ed25519"


def fingerprintOf(blob: bytes) -> str:
    """
    The fingerprint of a public key, as OpenSSH shows it.

    @param blob: The key as it is on the wire (RFC 4253, section 6.6).
    """
    return f"SHA256:{b64encode(sha256(blob).digest()).decode().rstrip('=')}"


def parseFingerprint(text: str) -> str:
    """
    Read a fingerprint as OpenSSH shows it, or as chisel does.

    @return: As OpenSSH shows it; empty for none.
    @raise TunnelError: C{bad-option}.
    """
    bare = text.strip().removeprefix("SHA256:").rstrip("=")
    if not bare:
        return ""
    if not re.fullmatch(r"[A-Za-z0-9+/]{43}", bare):
        raise badOption(
            f"--host-key {text[:60]!r} is not a fingerprint: write SHA256: and 43"
            " characters, as the server or ssh-keygen -l shows it"
        )
    return f"SHA256:{bare}"


@dataclass(frozen=True)
class HostKey:
    """
    An ed25519 key.

    @ivar private: The key.
    @ivar path: The file that holds it; C{None} for one in memory.
    """

    private: Ed25519PrivateKey
    path: Path | None = None

    @classmethod
    def inDirectory(cls, directory: Path | None) -> HostKey:
        """
        Read the key of a state directory, or make it.

        @param directory: C{None} for a key that is forgotten with the process.
        @raise TunnelError: C{bad-option}, if it can be neither read nor written.
        """
        if directory is None:
            return cls(Ed25519PrivateKey.generate())
        path = directory / FILE_NAME
        try:
            if not path.exists():
                directory.mkdir(mode=0o700, parents=True, exist_ok=True)
                writeNewSecret(path, _written(Ed25519PrivateKey.generate()))
            data = path.read_bytes()
            warnIfOpen(path, path.stat().st_mode, "the SSH host key")
        except OSError as error:
            raise badOption(
                f"the SSH host key {path} cannot be used ({error.strerror}): give a"
                " --state-dir that this program may write to, or leave ssh out of"
                " --dialects"
            ) from None
        try:
            private = load_ssh_private_key(data, None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            private = None
        if not isinstance(private, Ed25519PrivateKey):
            raise badOption(
                f"the SSH host key {path} is not an ed25519 key without a passphrase;"
                " remove the file to have a new one made"
            )
        return cls(private, path)

    @property
    def blob(self) -> bytes:
        """The public key as it is on the wire."""
        return packTexts(_KIND, self.private.public_key().public_bytes_raw())

    @property
    def fingerprint(self) -> str:
        """What clients show when they come for the first time."""
        return fingerprintOf(self.blob)


def _written(key: Ed25519PrivateKey) -> bytes:
    return key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
