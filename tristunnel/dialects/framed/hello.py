"""What a client says of itself in the handshake, beside who it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from twisted.internet.address import IPv4Address, IPv6Address

from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.framed.datagram_path import PATH
from tristunnel.dialects.framed.moves import Carrier
from tristunnel.dialects.framed.session import QUIET, STANDBY, VERSION, extensionOffer
from tristunnel.forwards.dialling import DIAL

__all__ = ["offerOf"]


class _Wishes(Protocol):
    """What a client wants of its session, as its factory has it."""

    host: str
    carrier: Carrier
    standsBy: bool
    lease: Mapping[str, object] | None
    capability: Mapping[str, object] | None
    access: Mapping[str, object] | None
    dials: dict[str, bool]
    about: Mapping[str, str]
    quiet: float
    proxied: bool


def offerOf(
    factory: _Wishes, limits: Limits, peer: object, mayMove: bool
) -> dict[str, object]:
    """
    Say what a session is to be.

    @param factory: Whose session it is.
    @param limits: What this side accepts.
    @param peer: The address of the other end.
    @param mayMove: Whether streams may have connections of their own.
    """
    offer: dict[str, object] = {"versions": [VERSION], **extensionOffer(limits)}
    if factory.host:
        offer["host"] = factory.host
    if isinstance(peer, (IPv4Address, IPv6Address)) and not factory.proxied:
        offer[PATH] = True
    if mayMove:
        offer["move"] = "at-once" if factory.carrier.kind == "direct" else "busy"
    if factory.standsBy:
        offer[STANDBY] = True
    elif factory.capability:
        offer["tunnel"] = dict(factory.capability)
    elif factory.access:
        offer["access"] = dict(factory.access)
    elif factory.lease:
        offer["lease"] = dict(factory.lease)
    words = [word for word, yes in factory.dials.items() if yes]
    if words:
        offer[DIAL] = words
    if factory.about:
        offer["client"] = dict(factory.about)
    if factory.quiet:
        offer[QUIET] = factory.quiet
    return offer
