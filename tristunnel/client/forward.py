"""
What a client offers: C{[udp/][PORT|NAME]=TARGET}.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

from twisted.internet.abstract import isIPv6Address
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import (
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
)
from twisted.plugin import getPlugins

from tristunnel.client.udp import UDPService
from tristunnel.errors import TunnelError
from tristunnel.relay.dial import ServiceEndpoint
from tristunnel.rules.policy import VisitorPolicy
from tristunnel.text.strings import addressProblem, splitEndpoint, whyNoEndpoint

__all__ = ["DEFAULT_FORWARD", "Forward", "matched", "parseForward"]

DEFAULT_FORWARD = "0=localhost:8080"
"""What is offered when nothing is said."""


@dataclass(frozen=True)
class Forward:
    """
    One service on offer.

    @ivar spec: As the user wrote it.
    @ivar port: The visitors' port wanted; 0 for any.
    @ivar name: The tunnel's name, or empty.
    @ivar target: The service, as messages name it.
    @ivar endpoint: The service.
    @ivar private: Whether the tunnel has no port for visitors.
    @ivar policy: What is asked of this tunnel's visitors; C{None} for what the
        client asks of all.
    """

    spec: str
    port: int
    name: str
    target: str
    endpoint: IStreamClientEndpoint | UDPService
    private: bool = False
    policy: VisitorPolicy | None = None

    @property
    def place(self) -> tuple[bool, int, str]:
        """
        What does not change when a tunnel gets another target: its kind, its
        port, its name.
        """
        return self.isUDP, self.port, self.name

    @property
    def isFixed(self) -> bool:
        """
        Whether its tunnel can be told from others.
        """
        return bool(self.port or self.name)

    def isLike(self, other: Forward) -> bool:
        """
        Whether another one asks for just the same. (Endpoints cannot be
        compared, but they are what the text says.)
        """
        return (self.spec, self.private, self.policy) == (
            other.spec,
            other.private,
            other.policy,
        )

    @property
    def isUDP(self) -> bool:
        """
        Whether it is a UDP service.
        """
        return isinstance(self.endpoint, UDPService)

    @property
    def wanted(self) -> str:
        """
        What was asked for, for messages.
        """
        wanted = self.name or (f"port {self.port}" if self.port else "any port")
        return f"UDP {wanted}" if self.isUDP else wanted


def parseForward(reactor: Any, spec: str) -> Forward:
    """
    Read a forward.

    @raise TunnelError: C{bad-option}, with the cause and an example.
    """
    wanted, equals, target = spec.partition("=")
    # "tcp:h:1" has no "=", but an endpoint's keywords may have one.
    if not equals or ":" in wanted:
        raise TunnelError(
            "bad-option",
            f"--forward {spec!r} has no TARGET; write PORT=TARGET, for example"
            " 8080=localhost:3000",
        )
    port, name = 0, ""
    wanted, isUDP = wanted.removeprefix("udp/"), wanted.startswith("udp/")
    if target.startswith("udp:"):
        target, isUDP = target.removeprefix("udp:"), True
    if wanted.isdecimal():
        port = int(wanted)
        if port > 65535:
            raise TunnelError("bad-option", f"--forward {spec!r}: no port is {port}")
    elif wanted:
        name = wanted
        if len(name) > 64 or not all(c.isalnum() or c in "-_." for c in name):
            raise TunnelError(
                "bad-option",
                f"--forward {spec!r}: a name has letters, digits, '-', '_' and '.'",
            )
    if isUDP:
        return Forward(spec, port, name, f"udp:{target}", _udp(reactor, spec, target))
    return Forward(spec, port, name, target, _endpoint(reactor, spec, target))


def matched(
    before: Sequence[Forward], after: Sequence[Forward]
) -> list[tuple[Forward | None, Forward]]:
    """
    Find out which forward has become which.

    @param before: Those that were there.
    @param after: Those that are to be.
    @return: Each of C{after}, with the one that it was: the same text; else the
        same port or name; else, where any port will do, the same place in the
        list.
    """
    texts = {forward.spec: forward for forward in before}
    places = {forward.place: forward for forward in before if forward.isFixed}
    found = [
        texts.get(new.spec) or (places.get(new.place) if new.isFixed else None)
        for new in after
    ]
    taken = {id(old) for old in found if old is not None}
    for index, (old, new) in enumerate(zip(before, after, strict=False)):
        free = found[index] is None and id(old) not in taken
        if free and not new.isFixed and old.place == new.place:
            found[index] = old
    return list(zip(found, after, strict=True))


def _udp(reactor: Any, spec: str, target: str) -> UDPService:
    """
    Find the UDP service of a target: C{host:port}.
    """
    host, _, port = target.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise TunnelError(
            "bad-option",
            f"--forward {spec!r}: {target!r} is no UDP service; write HOST:PORT, for"
            " example udp/5353=localhost:53",
        )
    return UDPService(reactor, host, int(port))


def _endpoint(reactor: Any, spec: str, target: str) -> IStreamClientEndpoint:
    """
    Make the endpoint of a target: C{host:port}, or an endpoint string.
    """
    if target.startswith("tls://"):
        # As vtunnel's users write it; no endpoint is written like that.
        target = "tls:" + target.removeprefix("tls://")
    prefix = target.partition(":")[0]
    if prefix == "ssl":
        raise TunnelError(
            "bad-option",
            f"--forward {spec!r}: ssl: verifies nothing; write tls: instead",
        )
    if prefix in _prefixes():
        try:
            if problem := addressProblem(*splitEndpoint(target)):
                raise ValueError(problem)
            endpoint: IStreamClientEndpoint = clientFromString(reactor, target)
            return endpoint
        except Exception as error:
            # Endpoint parsers raise whatever comes to hand.
            raise TunnelError(
                "bad-option",
                f"--forward {spec!r}: {target!r} is no endpoint"
                f" ({whyNoEndpoint(prefix, error)}); write HOST:PORT, tcp:HOST:PORT,"
                " tls:HOST:PORT or unix:PATH",
            ) from None
    host, _, port = target.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host or not port.isdecimal() or not 0 < int(port) < 65536:
        raise TunnelError(
            "bad-option",
            f"--forward {spec!r}: {target!r} is no target; write HOST:PORT,"
            " tcp:HOST:PORT, tls:HOST:PORT or unix:PATH",
        )
    if ":" in host and not isIPv6Address(host):
        # An endpoint of a kind that is not installed, and no host's name.
        unknown = ValueError(f"Unknown endpoint type: {prefix!r}")
        raise TunnelError(
            "bad-option",
            f"--forward {spec!r}: {target!r} is no endpoint"
            f" ({whyNoEndpoint(prefix, unknown)}); write HOST:PORT, tcp:HOST:PORT,"
            " tls:HOST:PORT or unix:PATH",
        )
    try:
        return ServiceEndpoint(reactor, host, int(port))
    except ValueError as error:
        raise TunnelError("bad-option", f"--forward {spec!r}: {error}") from None


@cache
def _prefixes() -> set[str]:
    """
    The kinds of client endpoint that are installed; to look takes a while.
    """
    plugins = getPlugins(IStreamClientEndpointStringParserWithReactor)
    return {"tcp", "unix"} | {plugin.prefix for plugin in plugins}
