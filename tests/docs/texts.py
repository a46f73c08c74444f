"""
What the texts of commands and of their output say.
"""

from __future__ import annotations

import re

__all__ = [
    "BACKGROUND",
    "ENDS",
    "HOSTS",
    "PORTS",
    "SHIFTS",
    "SPEAKING_FIRST",
    "TRUST",
    "TRUSTING",
    "isServer",
    "patternOf",
    "readyLines",
    "takenBy",
]

HOSTS = ("tunnel.example", "b.example.net", "app.example", "server")
"""Public machines in the documentation; all are this one."""

PORTS = (
    *(22, 53, 80, 443, 2222, 2233, 3000, 5353, 5432, 5433, 6001, 7000, 7443, 8000),
    *(8010, 8011, 8080, 8081, 8082, 8085, 8090, 8443, 9000, 9001, 9002, 9010, 9050),
    *(10001, 10010, 19132, 25565, 25566),
)
"""Ports in the documentation. Those from 30000 up stay what they are, since the
zlayer dialect gives out no others."""

SHIFTS = range(1100, 1700)
"""By how much they are moved: above the privileged ones, and below those that
systems give out by themselves."""

SPEAKING_FIRST = {22, 5432}

_VOLATILE = re.compile(
    r"tst_\w+|[0-9a-f]{8,}(?:\.\d+)?|(?=[\w-]*\d)[A-Za-z0-9_-]{16,}|\d{4,}|(?:\d+[dhms])+"
)
"""What is different each time, in output."""

BACKGROUND = re.compile(
    r"\btwistd\b.* tunnel(-client|-access)?(?: |$)|http\.server"
    r"|^tristunnel (?:server|client|http|tcp|udp)\b"
)
ENDS = re.compile(r"--(check|help|version|help-auth|print-config|_shell-completion)\b")
TRUSTING = re.compile(r"--connect '?(?:tls:|wss:)|https://|w3ps://")
TRUST = re.compile(r"--(pin|ca|insecure)\b")


def isServer(text: str) -> bool:
    return re.search(r"\btwistd\b.* tunnel(?: |$)|^tristunnel server", text) is not None


def takenBy(text: str) -> frozenset[str]:
    if isServer(text):
        found = re.findall(r"--(?:port|rpc|https?) \w+:(\d+)", text)
    else:
        found = re.findall(r"--forward (?!0=|=)(?:udp/)?([\w.-]+)=", text)
        found += re.findall(r"^tristunnel (?:http|tcp|udp) ([\w.-]+)=", text)
        found += re.findall(r"--listen tcp:(\d+)", text)
        found += re.findall(r"http\.server (\d+)", text)
        found += re.findall(r"--dialect relay --connect (\S+)", text)
    return frozenset(found)


def readyLines(text: str) -> int:
    """How many lines a program says until it is ready."""
    if "--demo" in text:
        return 2
    if isServer(text):
        return max(1, text.count("--port ") + text.count("--rpc "))
    if "--listen" in text:
        return 1
    if "--managed " in text:
        return text.count("--forward ")
    return max(1, text.count("--forward "))


def patternOf(shown: str) -> tuple[str, list[str]]:
    """Make an expression of a line of output, with the texts of its groups."""
    names: list[str] = []
    pattern = ""
    at = 0
    for found in _VOLATILE.finditer(shown):
        pattern += re.escape(shown[at : found.start()])
        word = found[0]
        if word.isdecimal():
            pattern += r"(\d+)"
        elif re.fullmatch(r"(?:\d+[dhms])+", word):
            pattern += r"((?:\d+[dhms])+)"
        else:
            pattern += r"([\w.-]+)"
        names.append(word)
        at = found.end()
    pattern += re.escape(shown[at:])
    return pattern.replace(re.escape("..."), ".*"), names
