"""Secrets of URIs and leases, of which only their hashes are kept."""

from __future__ import annotations

import hmac
import secrets
from hashlib import sha256

__all__ = ["isSecret", "newSecret", "secretHash"]


def newSecret() -> tuple[str, bytes]:
    """
    Make a secret.

    @return: It, and what is kept of it.
    """
    secret = secrets.token_urlsafe(24)
    return secret, secretHash(secret)


def secretHash(secret: str) -> bytes:
    """What is kept of a secret: its SHA-256."""
    return sha256(secret.encode("utf-8", "surrogatepass")).digest()


def isSecret(given: str, kept: bytes | None) -> bool:
    """
    Compare a secret in time that tells nothing of the right one.

    @param given: What a peer sent.
    @param kept: What L{secretHash} made of the right one; C{None} or empty if
        there is none, which takes as long.
    """
    return hmac.compare_digest(secretHash(given), kept or bytes(32)) and bool(kept)
