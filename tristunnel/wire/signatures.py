"""
Signatures of webhooks, as claimed in the heads of requests.

All of them are an HMAC-SHA256 of the body, or of the body with something before it.
What a head claims is read before the body has come; L{SignatureCheck} takes the body in
pieces.
"""

from __future__ import annotations

import hmac
import re
from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tristunnel.wire.http import Head

__all__ = [
    "SCHEMES",
    "TOLERANCE",
    "BadSignature",
    "Claim",
    "Scheme",
    "SignatureCheck",
    "github",
    "plain",
    "slack",
    "stripe",
]

TOLERANCE = 300
"""The seconds by which the time in a signature may differ from ours."""

_SIZE = 32
_HEX = re.compile(rb"[0-9A-Fa-f]{64}")
_SECONDS = re.compile(rb"[0-9]{1,12}")


class BadSignature(ValueError):
    """A request has no signature that could be valid; the text says why."""


@dataclass(frozen=True)
class Claim:
    """
    What a head says about the signature of its request.

    @ivar prefix: What was signed in front of the body.
    @ivar digests: The signatures, one of which must be good.
    """

    prefix: bytes
    digests: tuple[bytes, ...]


Scheme = Callable[[Head, float], Claim]
"""Reads the claim of a head, given the time of day in seconds. @raise BadSignature: If
there is none that could be valid."""


class SignatureCheck:
    """
    Checks a claim while the body comes.

    @param claim: The claim.
    @param secrets: The secrets, one of which must have made the signature.
    """

    def __init__(self, claim: Claim, secrets: Iterable[bytes]) -> None:
        self._digests = claim.digests
        self._made = [hmac.new(each, claim.prefix, "sha256") for each in secrets]

    def update(self, data: bytes) -> None:
        """Take a piece of the body."""
        for each in self._made:
            each.update(data)

    @property
    def isGood(self) -> bool:
        """Whether the body that has come is the one that was signed."""
        # All are compared, so that timing reveals nothing.
        found = [
            hmac.compare_digest(each.digest(), claimed)
            for each in self._made
            for claimed in self._digests
        ]
        return any(found)


def _one(head: Head, name: str) -> bytes:
    found = head.all(name.lower().encode("ascii"))
    if len(found) != 1:
        raise BadSignature(f"there must be one {name}, not {len(found)}")
    return found[0]


def _digest(text: bytes, name: str) -> bytes:
    if not _HEX.fullmatch(text):
        raise BadSignature(f"{name} is not an HMAC-SHA256 signature")
    return bytes.fromhex(text.decode("ascii"))


def _checkTime(text: bytes, now: float, name: str) -> None:
    if not _SECONDS.fullmatch(text):
        raise BadSignature(f"{name} has no time")
    if abs(now - int(text)) > TOLERANCE:
        raise BadSignature(
            f"{name} is more than {TOLERANCE} seconds from this machine's time"
        )


def github(head: Head, now: float) -> Claim:
    """
    GitHub's C{X-Hub-Signature-256: sha256=HEX}, of the body; there is no time in it.

    @see: U{https://docs.github.com/en/webhooks/using-webhooks/validating-webhook-deliveries}
    """
    name = "X-Hub-Signature-256"
    value = _one(head, name)
    if not value.startswith(b"sha256="):
        raise BadSignature(f"{name} does not begin with sha256=")
    return Claim(b"", (_digest(value[7:], name),))


def stripe(head: Head, now: float) -> Claim:
    """
    Stripe's C{Stripe-Signature: t=SECONDS,v1=HEX,v1=HEX,v0=...}, of C{SECONDS.BODY}:
    one C{v1} for each secret that is valid at the moment, and other schemes that do not
    count.

    @see: U{https://docs.stripe.com/webhooks/signature}
    """
    name = "Stripe-Signature"
    pairs = [part.strip().partition(b"=") for part in _one(head, name).split(b",")]
    times = [value for key, _, value in pairs if key == b"t"]
    if len(times) != 1:
        raise BadSignature(f"{name} has no time")
    _checkTime(times[0], now, name)
    digests = tuple(_digest(value, name) for key, _, value in pairs if key == b"v1")
    if not digests:
        raise BadSignature(f"{name} has no v1=")
    return Claim(times[0] + b".", digests)


def slack(head: Head, now: float) -> Claim:
    """
    Slack's C{X-Slack-Signature: v0=HEX}, of C{v0:SECONDS:BODY} with the seconds of
    C{X-Slack-Request-Timestamp}.

    @see: U{https://docs.slack.dev/authentication/verifying-requests-from-slack}
    """
    name = "X-Slack-Signature"
    value = _one(head, name)
    if not value.startswith(b"v0="):
        raise BadSignature(f"{name} does not begin with v0=")
    seconds = _one(head, "X-Slack-Request-Timestamp")
    _checkTime(seconds, now, "X-Slack-Request-Timestamp")
    return Claim(b"v0:" + seconds + b":", (_digest(value[3:], name),))


def plain(name: str) -> Scheme:
    """
    Make the scheme that most others use: the HMAC of the body in a header, in
    hexadecimal or in base64, with or without C{sha256=} before it.

    @param name: The header.
    """

    def read(head: Head, now: float) -> Claim:
        value = _one(head, name).removeprefix(b"sha256=")
        if _HEX.fullmatch(value):
            return Claim(b"", (bytes.fromhex(value.decode("ascii")),))
        try:
            digest = b64decode(value, validate=True)
        except NotBase64:
            digest = b""
        if len(digest) != _SIZE:
            raise BadSignature(f"{name} is not an HMAC-SHA256 signature")
        return Claim(b"", (digest,))

    return read


SCHEMES: dict[str, Scheme] = {"github": github, "slack": slack, "stripe": stripe}
"""The schemes with a header of their own."""
