"""
The parts of an endpoint string.
"""

from __future__ import annotations

import re

from tristunnel.errors import TunnelError

__all__ = ["splitEndpoint", "unknownKeywords", "whyNoEndpoint", "withoutBrackets"]

_PARSERS_WORDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"Unknown endpoint type: '(tor|onion)'"),
        r"\1: comes with txtorcon: pip install txtorcon",
    ),
    (re.compile(r"Unknown endpoint type: (.*)"), r"there is no kind \1"),
    (
        re.compile(r"(?:invalid literal for int|could not convert).*: (.*)"),
        r"\1 is no number",
    ),
    (re.compile(r".* unexpected keyword argument '(.*)'"), r"it has no \1="),
    (re.compile(r".* missing \d+ required .*: '(.*)'"), r"the \1 is missing"),
    (re.compile(r".* takes .* positional arguments? but .*"), "it has too many parts"),
    (re.compile(r".* got multiple values for argument '(.*)'"), r"\1 is there twice"),
)
"""What Twisted's endpoint parsers raise, which is Python's words for the call of
a function, and what a person can make something of."""


_BRACKETS = re.compile(
    r"(?<=[:=])\[([0-9a-fA-F.]*:[0-9a-fA-F:.]*(?:%[\w.%-]+)?)\](?=:|$)"
)


def withoutBrackets(description: str) -> str:
    """
    Write IPv6 addresses of an endpoint string as Twisted takes them: without
    brackets, and with quoted colons.
    """
    return _BRACKETS.sub(lambda found: found[1].replace(":", r"\:"), description)


def splitEndpoint(description: str) -> tuple[str, list[str], dict[str, str]]:
    """
    Split an endpoint string as Twisted does: colons separate, C{=} makes a
    keyword, a backslash takes the next character as it is. Beyond that, brackets
    keep the colons of an IPv6 address.

    @return: The prefix, the other positional parts, the keywords.
    """
    parts: list[tuple[str | None, str]] = []
    key: str | None = None
    text = ""
    letters = iter(withoutBrackets(description))
    for letter in letters:
        if letter == "\\":
            text += next(letters, "")
        elif letter == ":":
            parts.append((key, text))
            key, text = None, ""
        elif letter == "=" and key is None:
            key, text = text, ""
        else:
            text += letter
    parts.append((key, text))
    positional = [value for name, value in parts if name is None]
    keywords = {name: value for name, value in parts if name is not None}
    return (positional[0] if positional else ""), positional[1:], keywords


def unknownKeywords(option: str, keywords: dict[str, str], known: set[str]) -> None:
    """
    @raise TunnelError: C{bad-option}, if there is a keyword beside C{known}.
    """
    unknown = sorted(set(keywords) - known)
    if unknown:
        raise TunnelError(
            "bad-option",
            f"{option}: {unknown[0]}= is not known; there is"
            f" {', '.join(sorted(known))}",
        )


def whyNoEndpoint(prefix: str, error: Exception) -> str:
    """
    Say in plain words why a parser of Twisted did not take an endpoint string.

    @param prefix: Its kind.
    @param error: What was raised; parsers raise whatever comes to hand.
    """
    if prefix == "systemd" and isinstance(error, LookupError):
        return "systemd has passed no such socket; is it in the unit's .socket file?"
    text = str(getattr(error, "strerror", None) or error) or type(error).__name__
    for pattern, words in _PARSERS_WORDS:
        found = pattern.fullmatch(text)
        if found:
            return found.expand(words)
    return text
