"""
Passwords that people remember: stored as hashes by bcrypt, which are slow to guess.
"""

from __future__ import annotations

import base64
import hmac
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import sha256

import bcrypt

from tristunnel.auth.credentials import nameProblem
from tristunnel.auth.files import Lines

__all__ = ["LONGEST", "UserList", "hashed", "isHash", "isPassword", "secretProblem"]

LONGEST = 72
"""The most bytes of a password; bcrypt ignores more."""

COST = 10
"""The cost of hashes that are made here: each step doubles the time."""

_FOREIGN = (b"$apr1$", b"{SHA}", b"$1$", b"$5$", b"$6$", b"sha256:")
"""The beginnings of other kinds of hashes in web servers' files."""


def isHash(secret: bytes) -> bool:
    """Whether a text is not a password, but the hash of one."""
    return len(secret) == 60 and secret.startswith((b"$2a$", b"$2b$", b"$2y$"))


@lru_cache(1024)
def hashed(password: bytes, salt: bytes, whose: str) -> str:
    """
    Make the hash of a password, the same each time for the same salt.

    @param password: Up to L{LONGEST} bytes.
    @param salt: A secret, so that guessing cannot begin without the hash.
    @param whose: What the password is for.
    """
    own = hmac.digest(salt, whose.encode(), sha256)[:16]
    # bcrypt's alphabet differs from that of base64.
    text = base64.b64encode(own).rstrip(b"=").translate(_ALPHABET)
    return bcrypt.hashpw(password, b"$2b$%02d$%b" % (COST, text)).decode("ascii")


_ALPHABET = bytes.maketrans(
    b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/",
    b"./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789",
)


def isPassword(given: bytes, kept: str, decoy: str = "") -> bool:
    """
    Whether a password fits a hash; this takes a while, and just as long for a wrong
    one.

    @param kept: The hash; empty for an unknown user.
    @param decoy: The hash to compare with for an unknown user, to take as long.
    """
    fits = 0 < len(given) <= LONGEST and b"\0" not in given
    known = (kept or decoy or _NOBODYS).encode("ascii")
    return bcrypt.checkpw(given if fits else b"-", known) and fits and bool(kept)


_NOBODYS = "$2b$10$" + "." * 53
"""A hash that no password has, at the usual cost."""


@dataclass
class UserList(Lines):
    """
    The content of a file of users: C{NAME:PASSWORD} or C{NAME:HASH}, as C{htpasswd -B}
    writes it.

    @ivar secrets: The password or the hash of each, by name.
    """

    secrets: dict[str, bytes] = field(default_factory=dict, repr=False)

    def readLine(self, line: bytes, number: int) -> str | None:
        said, colon, secret = line.partition(b":")
        if not colon:
            return "there is no colon after the name; write NAME:PASSWORD"
        try:
            name = said.strip().decode("utf-8")
        except UnicodeDecodeError:
            return "the name is not UTF-8"
        problem = nameProblem(name) or secretProblem(secret.strip())
        if problem is None and name in self.secrets:
            problem = "the name is already on an earlier line"
        if problem is None:
            self.secrets[name] = secret.strip()
        return problem


def secretProblem(secret: bytes) -> str | None:
    """
    Say what is wrong with a password, or a hash of one, in a file.

    @return: The reason without the password, or C{None} for a good one.
    """
    if not secret:
        return "there is no password"
    if secret.startswith(_FOREIGN):
        return "the hash is of an unknown kind; make it with htpasswd -B"
    if len(secret) > LONGEST or b"\0" in secret:
        return f"a password has up to {LONGEST} bytes"
    if secret.startswith(b"$2") and not isHash(secret):
        return "the hash is incomplete"
    return None
