"""
Secrets in requests and responses, and what is shown in their place.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

__all__ = ["MASK", "maskedForm", "maskedHeader", "maskedTarget", "unmasked"]

MASK = "\u2022\u2022\u2022"
"""What is shown in the place of a secret."""

_SECRET = re.compile(
    r"auth|token|secret|passw|pwd|api[-_]?key|access[-_]?key|private[-_]?key|session"
    r"|credential|signature|jwt|cookie|otp|csrf|xsrf",
    re.IGNORECASE,
)
"""What the names of secrets contain."""

_NO_SECRETS = frozenset(("authority", "www-authenticate", "proxy-authenticate"))
_PARAMETERS = frozenset(("code", "key", "pin", "sig", "sid", "state"))
_TARGETS = frozenset(("content-location", "link", "location", "referer", "refresh"))
_COOKIES = frozenset(("cookie", "set-cookie"))
_SCHEMES = frozenset(("authorization", "proxy-authorization"))
_PAIR = re.compile(r"([^&;?#=\s]+)=([^&;#\s]*)")


def _isSecret(name: str) -> bool:
    return bool(_SECRET.search(name)) and name.lower() not in _NO_SECRETS


def _maskedPairs(text: str) -> str:
    def shown(found: re.Match[str]) -> str:
        name, value = found.groups()
        isSecret = _isSecret(name) or name.lower() in _PARAMETERS
        return f"{name}={MASK if value and isSecret else value}"

    return _PAIR.sub(shown, text)


def maskedForm(text: str) -> str:
    """Mask secrets of C{name=value&...}."""
    return _maskedPairs(text)


def maskedTarget(text: str) -> str:
    """
    Mask the password of a URL and the secrets of its query; a path with a query will
    do.
    """
    path, mark, query = text.partition("?")
    path = re.sub(r"(//[^/@:]*):[^/@]*@", rf"\1:{MASK}@", path)
    return path + mark + _maskedPairs(query)


def _maskedCookie(text: str, isSet: bool) -> str:
    first, *others = text.split(";")
    shown = [first.partition("=")[0] + f"={MASK}"] if "=" in first else [MASK]
    for each in others:
        name, equals, _ = each.partition("=")
        # What follows in Set-Cookie are attributes.
        shown.append(each if isSet or not equals else f"{name}={MASK}")
    return ";".join(shown)


def maskedHeader(name: str, value: str) -> str:
    """
    Show a header without its secrets.

    @param name: The name, in any case.
    """
    lower = name.lower()
    if lower in _TARGETS:
        return maskedTarget(value)
    if not value or not _isSecret(lower):
        return value
    if lower in _COOKIES:
        return _maskedCookie(value, lower == "set-cookie")
    scheme, space, _ = value.partition(" ")
    return f"{scheme} {MASK}" if space and lower in _SCHEMES else MASK


def unmasked(
    edited: Sequence[tuple[str, str]],
    original: Sequence[tuple[str, str]],
    mask: Callable[[str, str], str] = maskedHeader,
) -> list[tuple[str, str]]:
    """
    Put secrets back into headers or fields that were shown masked, and then edited.

    @param edited: Names and values; those with a mask are as they were shown.
    @param original: What was masked.
    @param mask: Masks a value.
    """
    left = [(name, value, mask(name, value)) for name, value in original]
    made = []
    for name, value in edited:
        if MASK in value:
            for index, (known, secret, shown) in enumerate(left):
                if known.lower() == name.lower() and shown == value:
                    value = secret
                    del left[index]
                    break
        made.append((name, value))
    return made
