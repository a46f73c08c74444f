"""
Targets that are services of the client's own: C{socks:...}, C{proxy:...} and
C{files:DIR}.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tristunnel.dataplane.reactor import polledReactor
from tristunnel.forwards.files import filesFrom
from tristunnel.forwards.inner import InnerEndpoint, OneProtocol
from tristunnel.forwards.onward import Gateway, gatewayFrom
from tristunnel.forwards.socks import Socks
from tristunnel.forwards.socks_udp import Associations, SocksRelay
from tristunnel.forwards.web_proxy import WebProxy

__all__ = ["INNER", "Inner", "innerTarget", "isInner"]


@dataclass(frozen=True, eq=False)
class Inner:
    """
    A service of the client's own.

    @ivar endpoint: The service.
    @ivar scheme: As for L{Forward<tristunnel.forwards.forward.Forward>}.
    @ivar gateway: What its visitors may do, if it is a proxy; C{None} otherwise.
    @ivar datagrams: What takes datagrams at the UDP port beside, or C{None}.
    """

    endpoint: InnerEndpoint
    scheme: str = ""
    gateway: Gateway | None = None
    datagrams: SocksRelay | None = None


_Words = Sequence[str]
_Keywords = Mapping[str, Sequence[str]]


def _socks(reactor: Any, spec: str, words: _Words, keywords: _Keywords) -> Inner:
    gateway = gatewayFrom(reactor, spec, words, keywords)
    associations = Associations()
    endpoint = InnerEndpoint(
        reactor, lambda info: OneProtocol(lambda: Socks(gateway, info, associations))
    )
    relay = SocksRelay(reactor, associations, gateway.destinations)
    return Inner(endpoint, "", gateway, relay)


def _proxy(reactor: Any, spec: str, words: _Words, keywords: _Keywords) -> Inner:
    gateway = gatewayFrom(reactor, spec, words, keywords)
    endpoint = InnerEndpoint(
        reactor, lambda info: OneProtocol(lambda: WebProxy(gateway, info))
    )
    return Inner(endpoint, "", gateway)


def _files(reactor: Any, spec: str, words: _Words, keywords: _Keywords) -> Inner:
    site = filesFrom(reactor, spec, words, keywords)
    return Inner(InnerEndpoint(reactor, lambda info: site), "http")


INNER: Mapping[str, Callable[[Any, str, _Words, _Keywords], Inner]] = {
    "files": _files,
    "proxy": _proxy,
    "socks": _socks,
}
"""The kinds. Each is given the reactor, the forward for messages, and what follows the
kind: parts, and parts by keywords."""


_PART = re.compile(r"(?:\\.|\[[^\]]*\]|[^:\\\[])+|")
_KEYWORD = re.compile(r"([a-z]+)=(.*)", re.DOTALL)


def isInner(target: str) -> bool:
    """
    Whether a target is one of the client's own; C{proxy:3128} is a host with this name.
    """
    kind, colon, rest = target.partition(":")
    return bool(colon) and kind in INNER and not rest.isdecimal()


def innerTarget(reactor: Any, spec: str, target: str) -> Inner:
    """
    Read a target that L{isInner}: C{KIND:PART:KEYWORD=VALUE...}. Brackets keep colons,
    and a backslash takes the next character as it is.

    @param spec: The forward, for messages.
    @raise TunnelError: C{bad-option}.
    """
    kind, _, rest = target.partition(":")
    words: list[str] = []
    keywords: dict[str, list[str]] = {}
    for part in _PART.findall(rest):
        found = _KEYWORD.fullmatch(part)
        if found:
            keywords.setdefault(found[1], []).append(found[2])
        elif part:
            words.append(re.sub(r"\\(.)", r"\1", part))
    return INNER[kind](polledReactor(reactor), spec, words, keywords)
