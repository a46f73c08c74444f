"""
Protocols by which a visitor says where it wants to go, and which then give way: SOCKS
and HTTP's CONNECT, spoken by the client as a proxy into its network.
"""

from __future__ import annotations

import hmac
import os
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.errors import TunnelError, badOption
from tristunnel.forwards.destinations import (
    Destinations,
    PermittedEndpoint,
    parseDestination,
)
from tristunnel.forwards.early import EarlyProtocol
from tristunnel.model.policy import VisitorPolicy
from tristunnel.util.files import warnIfOpen
from tristunnel.util.log_limiter import BoundedLog
from tristunnel.util.repeating import stopTimer

__all__ = ["Gateway", "Onward", "gatewayFrom"]

PATIENCE = 30.0
"""Seconds in which a visitor must say where it wants to go."""

PENALTY = 1.0
"""Seconds that a wrong password costs."""


@dataclass(eq=False)
class Gateway:
    """
    What visitors of a client's proxy may do.

    @ivar reactor: Connects and tells time.
    @ivar spec: The forward, for messages.
    @ivar destinations: Where visitors may go.
    @ivar login: The user and the password that they must give, or C{None}.
    @ivar isOpen: Whether the user has said that anybody may use it.
    """

    reactor: Any
    spec: str
    destinations: Destinations
    login: tuple[bytes, bytes] | None = field(default=None, repr=False)
    isOpen: bool = False

    @cached_property
    def bounded(self) -> BoundedLog:
        """Where refusals are logged."""
        return BoundedLog(self.reactor.seconds, self.reactor.callLater)

    def admits(self, user: bytes, password: bytes) -> bool:
        """Whether a login is right."""
        if self.login is None:
            return True
        name, secret = self.login
        # Both are compared in any case, so that the time tells nothing.
        good = [hmac.compare_digest(user, name), hmac.compare_digest(password, secret)]
        return all(good)

    def checkPublic(self, policy: VisitorPolicy | None) -> None:
        """
        Make sure that no public port leads into a network by oversight.

        @param policy: The limits on visitors.
        @raise TunnelError: C{bad-option}.
        """
        if self.login is None and not self.isOpen and not (policy and policy.allow):
            raise badOption(
                f"--forward {self.spec}: anybody could use it; add"
                " user=NAME:password=@FILE, limit who may come by --allow NETWORK, make"
                " it private (--private, and NAME= in front), or add :open=yes"
            )


def gatewayFrom(
    reactor: Any, spec: str, words: Sequence[str], keywords: Mapping[str, Sequence[str]]
) -> Gateway:
    """
    Read what follows C{socks:} or C{proxy:}.

    @param spec: The forward, for messages.
    @param words: Its parts without a keyword.
    @param keywords: The others.
    @raise TunnelError: C{bad-option}.
    """
    option = f"--forward {spec!r}"
    known = {"allow", "open", "password", "user"}
    unknown = [*words, *(f"{each}=" for each in keywords if each not in known)]
    if unknown:
        raise badOption(
            f"{option}: {unknown[0]!r} is not known; there is allow=, user=, password="
            " and open="
        )
    if not keywords.get("allow"):
        raise badOption(
            f"{option} allows nothing: say where its visitors may go, for example"
            " allow=10.0.0.0/8:allow=intra.example+443"
        )
    listed = [
        parseDestination(each, f"{option}: allow=", needsPorts=False, colon="+")
        for each in keywords["allow"]
    ]
    if any(each.isUDP for each in listed):
        raise badOption(f"{option}: allow= is about TCP and UDP: leave out udp/")
    isOpen = keywords.get("open", ["no"])[-1]
    if isOpen not in ("yes", "no"):
        raise badOption(f"{option}: open= takes yes or no")
    login = _loginFrom(option, keywords)
    destinations = Destinations(listed, "allow=")
    return Gateway(reactor, spec, destinations, login, isOpen == "yes")


def _loginFrom(
    option: str, keywords: Mapping[str, Sequence[str]]
) -> tuple[bytes, bytes] | None:
    user, place = (keywords.get(each, [""])[-1] for each in ("user", "password"))
    if not user and not place:
        return None
    if not (user and place):
        raise badOption(f"{option}: user= and password= go together")
    if not place.startswith("@"):
        # The text is not repeated, since it may be the password.
        raise badOption(
            f"{option.partition('password=')[0]}...: the password is read from a file;"
            " write password=@FILE"
        )
    try:
        secret = Path(place[1:]).read_bytes().strip()
        warnIfOpen(place[1:], os.stat(place[1:]).st_mode, "a password")
    except OSError as error:
        raise badOption(
            f"{option}: {place[1:]} cannot be read: {error.strerror}"
        ) from None
    if not 1 <= len(secret) <= 255 or b"\n" in secret or len(user.encode()) > 255:
        raise badOption(
            f"{option}: a user and a password have 1 to 255 bytes, one line"
        )
    return user.encode(), secret


class Onward(EarlyProtocol):
    """
    A visitor who says where to go.

    @param gateway: What it may do.
    @param info: What the server said of it.
    """

    def __init__(self, gateway: Gateway, info: Mapping[str, object]) -> None:
        super().__init__(gateway.reactor)
        self.gateway = gateway
        visitor = info.get("visitor")
        self.visitor = visitor[:200] if isinstance(visitor, str) else ""
        self._hasAsked = False
        self._timer: IDelayedCall | None = None

    @abstractmethod
    def heard(self, data: bytes) -> None:
        """
        Take what the visitor sends until it has said where to go.

        @raise TunnelError: To be passed to L{refused}.
        """

    @abstractmethod
    def reached(self) -> bytes:
        """
        Tell the visitor that the connection has been made.

        @return: What is sent to the other side first.
        """

    @abstractmethod
    def refused(self, error: TunnelError) -> None:
        """Tell the visitor that there is none, and why."""

    def connectionMade(self) -> None:
        self._timer = self.gateway.reactor.callLater(PATIENCE, self._late)

    def _late(self) -> None:
        self._timer = None
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        if self._hasAsked:
            self.keep(data)
            return
        try:
            self.heard(data)
        except TunnelError as error:
            self.giveUp(error)
        self.keep(b"")

    def punished(self) -> None:
        """Refuse a wrong password, after a while."""
        stopTimer(self._timer)
        self._hasAsked = True
        self.early = b""
        error = TunnelError("auth-refused", "the user or the password is wrong")
        self._timer = self.gateway.reactor.callLater(PENALTY, self.giveUp, error)

    def stayUnasked(self) -> None:
        """Let the visitor stay for as long as it likes, without going anywhere."""
        stopTimer(self._timer)

    def go(self, host: str, port: int) -> None:
        """
        Connect the visitor to where it wants to go.

        @raise TunnelError: C{not-permitted}, or C{limit-reached}.
        """
        gateway = self.gateway
        RESERVE.checkVisitor()
        try:
            endpoint = PermittedEndpoint(
                gateway.reactor, host, port, gateway.destinations
            )
        except ValueError as error:
            raise TunnelError("protocol-error", str(error)) from None
        stopTimer(self._timer)
        self._hasAsked = True
        self.dial(endpoint, self.reached, self.giveUp)

    def giveUp(self, error: TunnelError) -> None:
        """Refuse the visitor, and close its connection."""
        stopTimer(self._timer)
        gateway = self.gateway
        if self.transport is None:
            return
        self._hasAsked = True
        self.early = b""
        gateway.bounded(
            self._log.info,
            "{visitor} was refused by {spec}: {reason}",
            error.code.name,
            visitor=self.visitor or "A visitor",
            spec=gateway.spec,
            reason=error,
        )
        self._timer = gateway.reactor.callLater(PATIENCE, self._late)
        self.refused(error)
        # It may be over at once.
        self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        stopTimer(self._timer)
        super().connectionLost(reason)
