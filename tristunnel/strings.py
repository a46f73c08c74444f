"""
The parts of an endpoint string.
"""

from __future__ import annotations

from tristunnel.errors import TunnelError

__all__ = ["splitEndpoint", "unknownKeywords"]


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
