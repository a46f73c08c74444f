"""
Cookies that only this server can have made: the claims of a JSON Web Token (RFC 7519),
signed with a key that all processes and machines of the server share.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping
from hashlib import sha256
from pathlib import Path
from secrets import token_bytes
from typing import Any

import jwt

from tristunnel.errors import badOption
from tristunnel.names.heads import COOKIES
from tristunnel.util.files import writeNewSecret

__all__ = ["LONGEST", "Seal", "cookieLine", "cookieName", "cookiesNamed", "keyFrom"]

LONGEST = 4000
"""Bytes of a cookie; browsers keep little more."""

_ALGORITHM = "HS256"
_FILE = "visitors.key"


def keyFrom(directory: Path, shared: bytes = b"") -> bytes:
    """
    Find the key, or make one.

    @param directory: The server's state directory.
    @param shared: The secret of several machines, which have no directory in common.
    @raise TunnelError: C{bad-option}, if there can be none.
    """
    if shared:
        return hmac.digest(shared, b"cookies of visitors", sha256)
    path = directory / _FILE
    try:
        if not path.exists():
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            # Another process may have been faster.
            writeNewSecret(path, token_bytes(32))
        key = path.read_bytes()
    except OSError as error:
        raise badOption(
            f"{path} cannot be made or read ({error.strerror}), which holds the key for"
            " visitors' cookies; give a writable --state-dir"
        ) from None
    if len(key) != 32:
        raise badOption(
            f"{path} is damaged; remove it (visitors then have to sign in again)"
        )
    return key


class Seal:
    """
    Signs cookies, and reads them again.

    @param key: Finds the key, when it is needed.
    @param now: The time of day.
    """

    def __init__(self, key: Callable[[], bytes], now: Callable[[], float]) -> None:
        self._find = key
        self._key = b""
        self._now = now

    @property
    def key(self) -> bytes:
        """The key."""
        if not self._key:
            self._key = self._find()
        return self._key

    def derived(self, what: str) -> bytes:
        """Derive 32 bytes from a text, as only this server can."""
        return hmac.digest(self.key, what.encode(), sha256)

    def made(
        self, use: str, place: str, lifetime: float, claims: Mapping[str, object]
    ) -> str:
        """
        Sign some claims.

        @param use: What they are for; they are not accepted for another use.
        @param place: The name and the path that they are good for.
        @param lifetime: Seconds.
        """
        said = {**claims, "aud": f"{use} {place}", "exp": int(self._now() + lifetime)}
        return jwt.encode(said, self.key, _ALGORITHM)

    def read(self, use: str, place: str, text: bytes) -> dict[str, Any] | None:
        """
        Read what was signed.

        @return: The claims; C{None}, if they are not ours, are for something else, or
            have expired.
        """
        if len(text) > LONGEST:
            return None
        try:
            claims: dict[str, Any] = jwt.decode(
                text,
                self.key,
                [_ALGORITHM],
                audience=f"{use} {place}",
                # By our own clock.
                options={"verify_exp": False, "require": ["exp", "aud"]},
            )
        except (jwt.PyJWTError, RecursionError, ValueError):
            return None
        return claims if claims["exp"] > self._now() else None


def cookieName(use: str, path: str, secure: bool) -> bytes:
    """
    Name a cookie. Over TLS, only the host itself can set it (RFC 6265bis, section
    4.1.3.2), and no other host of the same domain.

    @param path: Below which path the tunnel is, since a host may have several.
    """
    mark = sha256(path.encode()).hexdigest()[:8]
    prefix = b"__Host-" if secure else b""
    return b"%b%b%b-%b" % (prefix, COOKIES, use.encode(), mark.encode())


def cookieLine(name: bytes, value: str, lifetime: float, secure: bool) -> bytes:
    """
    Write the header that sets a cookie.

    @param lifetime: Seconds; 0 to forget it.
    """
    return b"Set-Cookie: %b=%b; Path=/; Max-Age=%d; HttpOnly; SameSite=Lax%b\r\n" % (
        name,
        value.encode("ascii"),
        lifetime,
        b"; Secure" if secure else b"",
    )


def cookiesNamed(name: bytes, headers: list[bytes]) -> list[bytes]:
    """
    Find the values of cookies of a name; others may have set some of them.

    @param headers: Those of C{Cookie}.
    """
    pairs = (each.partition(b"=") for said in headers for each in said.split(b";"))
    return [value.strip() for found, _, value in pairs if found.strip() == name]
