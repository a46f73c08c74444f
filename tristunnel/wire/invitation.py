"""
The text of an invitation: the address of a server, a fingerprint to verify it by, and a
code that is good for one token.

::

    t.example.com#k7f3-9q2m-...

Before the C{#} is the host, and the port unless it is 9000. After it are 30 bytes in
Crockford's base 32, which has no C{i}, C{l}, C{o} and C{u}: 10 random ones, which are
the code; the first 17 of the SHA-256 of the server's certificate; and 3 of a checksum
over both. So a mistyped invitation is noticed before any server is asked, and the code
goes only to the server that is meant.
"""

from __future__ import annotations

import hashlib
import secrets
from base64 import b32decode, b32encode
from dataclasses import dataclass, field
from ipaddress import ip_address

from tristunnel.errors import badOption, printable
from tristunnel.util.hosts import hostName, portNumber

__all__ = [
    "PIN_BYTES",
    "PLACEHOLDER",
    "USUAL_PORT",
    "Invitation",
    "newCode",
    "readCode",
]

USUAL_PORT = 9000
"""The port that is left out."""

PLACEHOLDER = "YOUR-SERVER"
"""Stands for the host if the server does not know by which name it is reached."""

PIN_BYTES = 17
"""The bytes of the certificate's SHA-256 in an invitation. To pose as the server takes
a certificate whose digest begins the same: 2**136 attempts."""

_CODE_BYTES = 10
_CHECK_BYTES = 3
_LENGTH = (_CODE_BYTES + PIN_BYTES + _CHECK_BYTES) * 8 // 5
_CODE_LENGTH = _CODE_BYTES * 8 // 5
_GROUP = 4

_RFC4648 = "ABCDEFGHIJKLMNOPQRSTUVWXYZ234567"
_CROCKFORD = "0123456789abcdefghjkmnpqrstvwxyz"
_OURS = str.maketrans(_RFC4648, _CROCKFORD)
_THEIRS = str.maketrans(_CROCKFORD, _RFC4648)
_ALIKE = str.maketrans("oil", "011", "- \t")


def _letters(data: bytes) -> str:
    return b32encode(data).decode("ascii").translate(_OURS)


def _plain(text: str) -> str:
    """Correct letters that are easily mistyped, such as an O for a 0."""
    return text.lower().translate(_ALIKE)


def _check(secret: bytes) -> bytes:
    return hashlib.sha256(b"tristunnel invitation\n" + secret).digest()[:_CHECK_BYTES]


def newCode() -> str:
    """Make a code: 80 random bits, 16 letters and digits."""
    return _letters(secrets.token_bytes(_CODE_BYTES))


def readCode(text: str) -> str:
    """
    Read a code alone, as it is sent.

    @return: As L{newCode} makes it; empty if it is not a code.
    """
    code = _plain(text[: 2 * _CODE_LENGTH])
    good = len(code) == _CODE_LENGTH and set(code) <= set(_CROCKFORD)
    return code if good else ""


@dataclass(frozen=True)
class Invitation:
    """
    An invitation.

    @ivar host: The server's name or address, as L{hostName} writes it.
    @ivar port: Its port.
    @ivar pin: The first L{PIN_BYTES} of the SHA-256 of its certificate.
    @ivar code: What L{newCode} made.
    """

    host: str
    port: int
    pin: bytes
    code: str = field(repr=False)

    def __str__(self) -> str:
        """
        Write it as one line that no shell changes: an IPv6 address has no brackets, and
        a comma before its port.
        """
        colon = "," if ":" in self.host else ":"
        port = "" if self.port == USUAL_PORT else f"{colon}{self.port}"
        pin = self.pin[:PIN_BYTES]
        secret = b32decode(self.code.translate(_THEIRS)) + pin
        body = _letters(secret + _check(secret))
        groups = [body[at : at + _GROUP] for at in range(0, len(body), _GROUP)]
        return f"{self.host}{port}#{'-'.join(groups)}"

    @classmethod
    def parse(cls, text: str) -> Invitation:
        """
        Read an invitation as it was pasted or typed.

        @raise TunnelError: C{bad-option}, with what is wrong in one line that does
            not repeat the code.
        """
        word = text.strip().strip("'\"").removeprefix("tristunnel join ")
        place, mark, rest = word.partition("#")
        if not mark or not rest:
            raise badOption(
                "an invitation is HOST#CODE, as 'tristunnel invite' prints it; what"
                " follows the # is missing, so copy the whole line"
            )
        body = _plain(rest)
        if len(body) != _LENGTH:
            raise badOption(
                f"the invitation has {len(body)} letters and digits after the #, not"
                f" {_LENGTH}: copy the whole line"
            )
        if not set(body) <= set(_CROCKFORD):
            raise badOption(
                "the invitation has a character after the # that belongs in none: copy"
                " it again"
            )
        data = b32decode(body.translate(_THEIRS))
        if _check(data[:-_CHECK_BYTES]) != data[-_CHECK_BYTES:]:
            raise badOption("the invitation is mistyped after the #: copy it again")
        host, port = _place(place)
        return cls(host, port, data[_CODE_BYTES:-_CHECK_BYTES], body[:_CODE_LENGTH])


def _place(text: str) -> tuple[str, int]:
    """Read the host and the port of an invitation, perhaps pasted from a browser."""
    text = text.removeprefix("https://").removesuffix("/")
    if text.partition(":")[0].upper() == PLACEHOLDER:
        raise badOption(
            f"put the server's name or address in place of {PLACEHOLDER}, before the #"
        )
    host, comma, port = text.partition(",")
    try:
        ip_address(host)
    except ValueError:
        if not comma:
            host, colon, port = text.rpartition(":")
            if not colon or port.endswith("]"):
                host, port = text, ""
    try:
        if not host:
            raise ValueError("the host is missing before the #")
        return hostName(host), portNumber(port) if port else USUAL_PORT
    except ValueError as error:
        raise badOption(f"the invitation is wrong: {printable(str(error))}") from None
