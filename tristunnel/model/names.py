"""
Which hosts may be given to visitors: C{blog.t.example.com} instead of a port.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.util.hosts import hostName
from tristunnel.util.words import isName

__all__ = [
    "ANY",
    "HOSTS",
    "LONGEST_PATH",
    "HostNames",
    "hostWanted",
    "isHost",
    "nameWanted",
    "parseNames",
    "pathWanted",
    "patternsFor",
]

HOSTS = {
    "http": "http",
    "tls": "tls-name",
    "minecraft": "minecraft",
    "postgres": "postgres",
    "unix": "unix",
}
"""The kinds of names, as they stand before the slash, and the listener of each, as
C{openTunnel} takes it."""

_FILES = frozenset(("unix",))
"""The kinds whose names are not hosts."""

LONGEST_PATH = 255
"""Characters of the path of a tunnel."""

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
_PATH = re.compile(r"(?:/[A-Za-z0-9._~!$&'()*+,;=:@-]+)*")
_MOST = 1000

ANY = "*"
"""The pattern of every name that lies directly below a domain of the server."""


def hostWanted(text: str, wildcard: bool = False) -> str:
    """
    Read the host that somebody wants for a tunnel.

    @param text: For example C{blog}, C{www.example.org.} or C{BÜCHER.example}.
    @param wildcard: Whether C{*.example.org} is one, too.
    @return: In lower case and in ASCII, without a last dot.
    @raise TunnelError: C{bad-option}. Unlike other hosts, one of these has only
        letters, digits and hyphens, since certificates have no others.
    """
    star = "*." if wildcard and text.startswith("*.") else ""
    try:
        name = hostName(text.removeprefix(star)).removesuffix(".")
    except ValueError:
        name = ""
    labels = name.split(".")
    # To browsers, a host that ends in a number is an address of some form.
    if not all(map(_LABEL.fullmatch, labels)) or (
        len(labels) > 1 and labels[-1].isdecimal()
    ):
        raise badOption(
            f"{printable(text, 80)!r} is not a name for a tunnel; use letters, digits"
            " and hyphens, for example blog or www.example.org"
        )
    return star + name


def isHost(text: str) -> bool:
    """Whether L{hostWanted} reads a text, also as a wildcard."""
    try:
        return bool(hostWanted(text, True))
    except TunnelError:
        return False


def pathWanted(text: str) -> str:
    """
    Read the path below which a tunnel's requests are.

    @param text: For example C{/api} or C{api/v1/}.
    @return: With a slash at the beginning and none at the end; empty for all paths.
    @raise TunnelError: C{bad-option}, also for what a browser would send differently:
        percent signs, C{..} and the like.
    """
    path = f"/{text.strip('/')}" if text.strip("/") else ""
    parts = path.split("/")
    if len(path) > LONGEST_PATH or not _PATH.fullmatch(path) or {".", ".."} & {*parts}:
        raise badOption(
            f"{printable(text, 80)!r} is not a path for a tunnel; write for example"
            " /api, without percent signs"
        )
    return path


def nameWanted(kind: str, name: str, path: str) -> tuple[str, str]:
    """
    Read the name after one of the L{HOSTS}.

    @param name: A host, or empty to have one made up.
    @return: The name and the path.
    @raise TunnelError: C{bad-option}.
    """
    if kind not in _FILES:
        return name and hostWanted(name, True), pathWanted(path)
    if path or not name or not isName(name):
        raise badOption(
            "the socket has a name of letters, digits, '-', '_' and '.', in a directory"
            f" of the server's: {kind}/app.sock"
        )
    return name, ""


@dataclass(frozen=True)
class HostNames:
    """
    A set of hosts.

    @ivar patterns: Hosts; C{*.example.org} stands for everything below a host. One
        without a dot is below a domain of the server.
    """

    patterns: tuple[str, ...]

    def __str__(self) -> str:
        return ",".join(self.patterns)

    def covers(self, host: str, domains: Iterable[str] = ()) -> bool:
        """
        Whether a host is among them.

        @param host: In full, as L{hostWanted} writes it; C{*.example.org} is so only
            if that, or more, is a pattern.
        @param domains: Those of the server.
        """
        return not patternsFor(host, domains).isdisjoint(self.patterns)


def patternsFor(host: str, domains: Iterable[str] = ()) -> set[str]:
    """
    All patterns that cover a host.

    @param host: In full, as L{hostWanted} writes it.
    @param domains: Those of the server.
    """
    found = {host}
    rest = host.removeprefix("*.")
    while "." in rest:
        rest = rest.partition(".")[2]
        found.add(f"*.{rest}")
    for domain in domains:
        label = host.removesuffix(f".{domain}")
        if label != host and "." not in label:
            found |= {label, ANY}
    return found


def parseNames(texts: Iterable[str]) -> HostNames:
    """
    Read a list of hosts and wildcards.

    @param texts: For example C{blog}, C{www.example.org}, C{*.example.org}; C{*} is
        every name below a domain of the server.
    @raise TunnelError: C{bad-option}.
    """
    patterns = [
        each if each == ANY else hostWanted(each, True)
        for each in map(str.strip, texts)
        if each
    ]
    if len(patterns) > _MOST:
        raise badOption(f"more than {_MOST} names are too many; use a wildcard")
    return HostNames(tuple(dict.fromkeys(patterns)))
