"""
C{--listen ENDPOINT=TARGET[@CLIENT]}: local ports that lead to what others can reach.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from tristunnel.client.local import localEndpoint
from tristunnel.errors import badOption
from tristunnel.forwards.destinations import UNIX
from tristunnel.forwards.dialling import SOCKS, dialDestinations, parseDialTarget

__all__ = ["NO_DIALS", "Dial", "DialOptionsMixin", "parseDial", "sortedListens"]

NO_DIALS = "does not dial: leave out --dial-allow, and targets behind --listen"
"""The refusal for a dialect without this."""


@dataclass(frozen=True)
class Dial:
    """
    A local port, and what its visitors reach.

    @ivar spec: As the user wrote it.
    @ivar listen: The part of it that is about the port.
    @ivar endpoint: Where to listen: what L{localEndpoint} makes.
    @ivar target: C{HOST:PORT} or C{unix:PATH}.
    @ivar client: The client that dials it; empty for the server.
    """

    spec: str
    listen: str
    endpoint: Any
    target: str
    client: str

    @property
    def what(self) -> str:
        """What is reached, for messages."""
        return f"{self.target} of {self.client or 'the server'}"


def parseDial(reactor: Any, spec: str) -> Dial | None:
    """
    Read one.

    @return: C{None} if it is a port without a target: the last C{=} may be the
        endpoint's own.
    @raise TunnelError: C{bad-option}.
    """
    listen, equals, text = spec.rpartition("=")
    # An endpoint's keyword has its name between the last colon and the mark.
    keyword = listen.rpartition(":")[2]
    if not equals or not listen:
        return None
    if keyword.isidentifier() and keyword.isalpha() and not listen.isalpha():
        return None
    try:
        target, client = parseDialTarget(text)
    except ValueError as error:
        raise badOption(
            f"--listen {spec!r}: {text!r} is nothing to dial ({error}); write for"
            " example --listen 5432=db.internal:5432, or ...@CLIENT behind it"
        ) from None
    if listen.startswith("udp:") and (target == SOCKS or target.startswith(UNIX)):
        raise badOption(
            f"--listen {spec!r}: there are no datagrams at {target}; name a HOST:PORT"
        )
    return Dial(spec, listen, localEndpoint(reactor, listen), target, client)


def sortedListens(reactor: Any, specs: Iterable[str]) -> tuple[str | None, list[Dial]]:
    """
    Separate the ports that lead to C{--service} from those that lead to what others
    dial.

    @return: The one of the first kind, if there is one; and all of the second.
    @raise TunnelError: C{bad-option}.
    """
    listen: str | None = None
    dials: list[Dial] = []
    for spec in specs:
        dial = parseDial(reactor, spec)
        if dial is not None:
            dials.append(dial)
        elif listen is not None:
            raise badOption(
                f"--listen {spec} has no target, and so has {listen}: write"
                f" {spec}=HOST:PORT, or start another client"
            )
        else:
            listen = spec
    return listen, dials


class DialOptionsMixin:
    """For C{usage.Options}: local ports, and what is dialled for others."""

    def opt_listen(self: Any, spec: str) -> None:
        """
        A local port. ENDPOINT, for example tcp:2222, reaches --service.
        ENDPOINT=HOST:PORT reaches that from the server, and
        ENDPOINT=HOST:PORT@CLIENT from another client; both ask for --dial-allow
        there. udp:PORT is for UDP. Can be repeated.
        """
        self._listens.append(spec)

    def opt_dial_allow(self: Any, pattern: str) -> None:
        """
        Connect other clients to these services (their --listen
        PORT=HOST:PORT@CLIENT): HOST:PORTS, for example 10.0.0.0/8:443,
        udp/localhost:53 or unix:/PATH. Nothing by default. Can be repeated.
        """
        self["dial-allow"].append(pattern)

    def noDials(self: Any) -> None:
        """Begin without any."""
        self["listen"] = None
        self["dial-allow"] = []
        self._listens: list[str] = []

    def checkDials(self: Any, reactor: Any) -> None:
        """
        Make C{dials} and C{destinations} from the options.

        @raise TunnelError: C{bad-option}.
        """
        self["listen"], self.dials = sortedListens(reactor, self._listens)
        self.destinations = dialDestinations(self["dial-allow"])
        if self.dials and (self["listen"] or self["service"] or self["tunnel"]):
            raise badOption(
                "--listen ENDPOINT=HOST:PORT names what it reaches: leave out --service"
                " and --tunnel"
            )
