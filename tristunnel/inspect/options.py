"""The options about inspection."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any, ClassVar

from twisted.internet.interfaces import IStreamServerEndpoint

from tristunnel.config.help import OptionGroup
from tristunnel.config.numbers import count, readOption
from tristunnel.errors import badOption, printable
from tristunnel.inspect.record import Limits
from tristunnel.util.endpoints import serverEndpoint
from tristunnel.util.hosts import parsePlace
from tristunnel.util.quantities import parseSize

__all__ = [
    "INSPECT",
    "PLACE",
    "InspectOptionsMixin",
    "InspectPlace",
    "InspectSettings",
    "parseInspect",
]

PLACE = "localhost:4040"
"""Where the page is, if nobody says where."""

INSPECT = OptionGroup(
    "Looking at requests",
    "inspect=[ADDRESS] inspect-remote inspect-requests=NUMBER inspect-body=SIZE"
    " inspect-memory=SIZE",
)
"""How C{--help} shows these options."""

_LIMITS = Limits()


@dataclass(frozen=True)
class InspectPlace:
    """
    Where the page is.

    @ivar description: As the user wrote it.
    @ivar host: The host in its address.
    @ivar endpoint: Where to listen.
    """

    description: str
    host: str
    endpoint: IStreamServerEndpoint


@dataclass(frozen=True)
class InspectSettings:
    """
    What the options say.

    @ivar place: Where the page is.
    @ivar limits: How much is kept.
    """

    place: InspectPlace
    limits: Limits


class InspectOptionsMixin:
    """
    For C{usage.Options}: whether requests are kept, and where they are shown.

    @ivar inspection: What L{checkInspect} has made of that; C{None} for neither.
    """

    inspection: InspectSettings | None

    optional: ClassVar[Mapping[str, str]] = {"inspect": PLACE}
    """What options mean that stand without a value."""

    optFlags: ClassVar[Any] = [
        (
            "inspect-remote",
            None,
            "Let --inspect listen at an address that other machines can reach.",
        )
    ]
    optParameters: ClassVar[Any] = [
        (
            "inspect",
            None,
            "",
            "Keep the latest HTTP requests, and show them on a page here: HOST:PORT, or"
            f" {PLACE} if nothing follows.",
        ),
        count(
            "inspect-requests", _LIMITS.count, "Maximum requests to keep.", 1, 100_000
        ),
        (
            "inspect-body",
            None,
            "64KiB",
            "How much to keep of each body and WebSocket message.",
        ),
        ("inspect-memory", None, "32MiB", "How much to keep in all."),
    ]

    def checkInspect(self: Any, reactor: Any) -> None:
        """
        Read the options.

        @raise TunnelError: C{bad-option}.
        """
        limits = Limits(
            self["inspect-requests"],
            readOption("inspect-body", parseSize, self["inspect-body"]),
            readOption("inspect-memory", parseSize, self["inspect-memory"]),
        )
        isRemote = bool(self["inspect-remote"])
        if not self["inspect"]:
            if isRemote:
                raise badOption("--inspect-remote goes with --inspect HOST:PORT")
            return
        place = parseInspect(reactor, self["inspect"], isRemote)
        self.inspection = InspectSettings(place, limits)


def parseInspect(reactor: Any, text: str, isRemote: bool) -> InspectPlace:
    """
    Read C{--inspect}.

    @param isRemote: Whether other machines may reach it.
    @raise TunnelError: C{bad-option}.
    """
    shown = printable(text, 60)
    whole = text if ":" in text else f"localhost:{text}"
    isAny = whole.endswith(":0")
    try:
        host, port = parsePlace(f"{whole[:-1]}1" if isAny else whole)
    except ValueError as error:
        raise badOption(
            f"--inspect {shown!r}: {error}; write HOST:PORT, for example {PLACE}"
        ) from None
    # Where a name leads, and who listens beside it, others may have a say in.
    address = "127.0.0.1" if host.lower() == "localhost" else host
    try:
        isHere = ip_address(address).is_loopback
    except ValueError:
        raise badOption(
            f"--inspect {shown!r}: write an address of this machine, or localhost"
        ) from None
    if not (isHere or isRemote):
        raise badOption(
            f"--inspect {shown!r} would show requests to other machines; write {PLACE},"
            " or add --inspect-remote"
        )
    kind = "tcp6" if ":" in address else "tcp"
    interface = address.replace(":", r"\:")
    number = 0 if isAny else port
    endpoint = serverEndpoint(reactor, f"{kind}:{number}:interface={interface}")
    return InspectPlace(shown, address, endpoint)
