"""
The parts of an endpoint string.
"""

from __future__ import annotations

import re

from tristunnel.errors import TunnelError

__all__ = ["addressProblem", "splitEndpoint", "unknownKeywords", "whyNoEndpoint"]

_PARSERS_WORDS: tuple[tuple[re.Pattern[str], str], ...] = (
    (
        re.compile(r"Unknown endpoint type: '(tor|onion)'"),
        r"\1: comes with txtorcon: pip install txtorcon",
    ),
    (re.compile(r"Unknown endpoint type: (.*)"), r"there is no kind \1"),
    (re.compile(r"invalid literal for int\(\) with base 10: (.*)"), r"\1 is no number"),
    (re.compile(r".* unexpected keyword argument '(.*)'"), r"it has no \1="),
    (re.compile(r".* missing \d+ required .*: '(.*)'"), r"the \1 is missing"),
    (re.compile(r".* takes .* positional arguments? but .*"), "it has too many parts"),
    (re.compile(r".* got multiple values for argument '(.*)'"), r"\1 is there twice"),
)
"""What Twisted's endpoint parsers raise, which is Python's words for the call of
a function, and what a person can make something of."""


def splitEndpoint(description: str) -> tuple[str, list[str], dict[str, str]]:
    """
    Split an endpoint string as Twisted does: colons separate, C{=} makes a
    keyword, a backslash takes the next character as it is.

    @return: The prefix, the other positional parts, the keywords.
    """
    parts: list[tuple[str | None, str]] = []
    key: str | None = None
    text = ""
    letters = iter(description)
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


def addressProblem(prefix: str, parts: list[str], keywords: dict[str, str]) -> str:
    """
    Find what is wrong with the address in a client's endpoint string, which
    Twisted would find out only when it connects.

    @return: The problem, or nothing.
    """
    if prefix == "unix":
        path = parts[0] if parts else keywords.get("path", "")
        return "" if path else "the path is missing"
    if prefix not in ("tcp", "tls"):
        return ""
    host = parts[0] if parts else keywords.get("host", "")
    port = parts[1] if len(parts) > 1 else keywords.get("port", "")
    if not host:
        return "the host is missing"
    if not port:
        return "the port is missing"
    if not port.isdecimal() or not 0 < int(port) < 65536:
        return f"{port!r} is no port"
    return ""
