"""What a client offers: C{[udp/][PORT|NAME]=TARGET}."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from twisted.internet.endpoints import wrapClientTLS
from twisted.internet.interfaces import IStreamClientEndpoint

from tristunnel.connect.address import Trust
from tristunnel.connect.endpoints import EndpointParts, isKind, noEndpoint
from tristunnel.dataplane.dial import ServiceEndpoint
from tristunnel.errors import badOption
from tristunnel.forwards.udp import UDPService
from tristunnel.model.policy import VisitorPolicy
from tristunnel.util.hosts import parsePlace
from tristunnel.util.words import isName

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
        """Whether its tunnel can be told from others."""
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
        return isinstance(self.endpoint, UDPService)

    @property
    def wanted(self) -> str:
        """What was asked for, for messages."""
        wanted = self.name or (f"port {self.port}" if self.port else "any port")
        return f"UDP {wanted}" if self.isUDP else wanted


def parseForward(reactor: Any, spec: str) -> Forward:
    """
    Read a forward.

    @raise TunnelError: C{bad-option}, with the cause and an example.
    """
    wanted, equals, target = (part.strip() for part in spec.partition("="))
    # "tcp:h:1" has no "=", but an endpoint's keywords may have one.
    if not equals or ":" in wanted:
        raise badOption(f"--forward {spec!r} {_noTarget(wanted, target)}")
    port, name = 0, ""
    wanted, isUDP = wanted.removeprefix("udp/"), wanted.startswith("udp/")
    if target.lower().startswith("udp:"):
        target, isUDP = target[4:].removeprefix("//"), True
    if wanted.isascii() and wanted.isdecimal():
        port = int(wanted[:6])
        if port > 65535:
            raise badOption(f"--forward {spec!r}: no port is {port}")
    elif wanted:
        name = wanted
        if not isName(name):
            raise badOption(
                f"--forward {spec!r}: a name has letters, digits, '-', '_' and '.'"
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


def _noTarget(wanted: str, target: str) -> str:
    """
    Say what is wrong where a forward is not C{PORT=TARGET}, for those who write
    it as C{ssh -R} and Docker do.

    @param wanted: What comes before C{=}, if it has one.
    @param target: What comes behind.
    """
    kind = "udp/" if wanted.startswith("udp/") else ""
    address, _, port = wanted.removeprefix(kind).rpartition(":")
    found = _AS_SSH.fullmatch(wanted.removeprefix(kind))
    if found and not target:
        address, port, host, number = found.groups()
        target = f"{host or 'localhost'}:{number}"
    if not (target and port.isdecimal()):
        return (
            "has no TARGET; write PORT=TARGET, for example 8080=localhost:3000, or"
            " 0=TARGET for any port"
        )
    if not address:
        return f"has no TARGET; write {kind}{port}={target}"
    return (
        "has an address before its port, but the server says at which of its"
        f" addresses visitors come (--interface there); write {kind}{port}={target}"
    )


_AS_SSH = re.compile(r"(?:(.+):|)([0-9]+):(?:([^:]+|\[.*\]):)?([0-9]+)")


def _udp(reactor: Any, spec: str, target: str) -> UDPService:
    try:
        return UDPService(reactor, *parsePlace(target))
    except ValueError as error:
        raise badOption(
            f"--forward {spec!r}: {target!r} is no UDP service ({error}); write"
            " HOST:PORT, for example udp/5353=localhost:53"
        ) from None


def _endpoint(reactor: Any, spec: str, target: str) -> IStreamClientEndpoint:
    if target.lower().startswith("ssl:"):
        raise badOption(
            f"--forward {spec!r}: ssl: verifies nothing; write tls: instead"
        )
    try:
        if not isKind(target):
            return ServiceEndpoint(reactor, *parsePlace(target))
        parts = EndpointParts(target)
        endpoint = parts.endpoint(reactor, ServiceEndpoint)
        if parts.kind != "tls":
            return endpoint
        verification = Trust().verification(parts.host, parts.keywords)
        return wrapClientTLS(verification, endpoint)
    except Exception as error:
        # Endpoint parsers raise whatever comes to hand.
        raise badOption(
            f"--forward {spec!r}: {target!r} is no target"
            f" ({noEndpoint(target, error)}); write HOST:PORT, tcp:HOST:PORT,"
            " tls:HOST:PORT or unix:PATH"
        ) from None
