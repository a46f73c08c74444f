"""
What an identity may do now: its permissions can change, and end, while it is connected.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from twisted.cred.error import LoginDenied
from zope.interface import Attribute, Interface, implementer

from tristunnel.dataplane.throttle import Throttle
from tristunnel.errors import TunnelError
from tristunnel.model.names import HostNames
from tristunnel.model.policy import VisitorPolicy
from tristunnel.model.ports import PortRange

__all__ = [
    "ANONYMOUS_IDENTITY",
    "RIGHTS",
    "Changed",
    "Ended",
    "Grant",
    "GrantedName",
    "IIdentity",
    "Identity",
    "Permissions",
    "RefusedWithReason",
    "protocolOf",
]

RIGHTS = ("open", "access", "dial", "share", "admin")
"""Open tunnels; reach the named services of others; have the server, or another client,
connect to what they allow; have tunnels at the same place as other tokens that may; see
and end everything."""

Ended = Callable[[TunnelError], None]
"""Called once when a grant has ended."""

Changed = Callable[[], None]
"""Called when a grant's permissions have changed."""


def protocolOf(listener: str) -> str:
    """Find what a kind of listener speaks, inside of TLS."""
    names = {"tls": "tcp", "loopback": "tcp", "wss": "ws", "https": "http"}
    return names.get(listener, listener)


@dataclass(frozen=True)
class Permissions:
    """
    What somebody may do.

    @ivar ports: Ports that its visitors may connect to; C{None} for all that
        the server gives out.
    @ivar protocols: Kinds of listener that it may have; C{None} for all.
        C{"tcp"} covers C{"tls"}.
    @ivar maxTunnels: Tunnels at once; C{None} for no limit of its own.
    @ivar maxVisitors: Visitors at once, in all of its tunnels; C{None} for no
        limit of its own.
    @ivar rate: Bytes per second that all its visitors together may send, and
        as many that they may receive; C{None} for no limit.
    @ivar expires: When this ends, in seconds since the epoch; C{None} for
        never.
    @ivar may: Some of L{RIGHTS}.
    @ivar services: With C{"access"}, the names of the services that it may
        reach, with C{*} for any letters; C{None} for all.
    @ivar servicesOf: With C{"access"}, the only owner whose services it may
        reach; empty for all.
    @ivar policy: The limits on the visitors of each of its tunnels.
    @ivar names: Hosts that its visitors may ask for, which are nobody else's;
        C{None} for all that the server gives out.
    """

    ports: PortRange | None = None
    protocols: frozenset[str] | None = None
    maxTunnels: int | None = None
    maxVisitors: int | None = None
    rate: int | None = None
    expires: float | None = None
    may: frozenset[str] = frozenset({"open"})
    services: tuple[str, ...] | None = None
    servicesOf: str = ""
    policy: VisitorPolicy = field(default_factory=VisitorPolicy)
    names: HostNames | None = None

    def checkPort(self, port: int) -> None:
        """@raise TunnelError: C{port-not-permitted}."""
        if self.ports is not None and port not in self.ports:
            raise TunnelError(
                "port-not-permitted",
                f"port {port} is not among those of this token; ask for one of"
                f" {self.ports}, or for any with 0",
            )

    def checkListener(self, listener: str) -> None:
        """
        @param listener: What C{openTunnel} was asked for, or the scheme of a
            tunnel's address.
        @raise TunnelError: C{not-permitted}.
        """
        allowed = self.protocols
        if allowed is None or not allowed.isdisjoint((listener, protocolOf(listener))):
            return
        raise TunnelError(
            "not-permitted",
            f"this token is not for {listener}, only for"
            f" {', '.join(sorted(allowed)) or 'nothing'}",
        )

    def reaches(self, service: str, owner: str) -> bool:
        """Whether the named service of an owner is among those that it may reach."""
        if "access" not in self.may or (self.servicesOf and owner != self.servicesOf):
            return False
        return self.services is None or any(
            fnmatchcase(service, pattern) for pattern in self.services
        )


class Grant:
    """
    L{Permissions} in force, until they end.

    @param permissions: What is permitted.
    @param over: The code of the reason when time is up.
    @param now: The time of day.
    @param look: Called before a check, to bring the grant up to date.
    @param watched: Called when somebody begins to wait for the end, and when
        nobody does any more.
    @param parents: Grants whose end is this one's end, too.

    @ivar permissions: What is permitted now.
    @ivar ended: Why it is over, or C{None}.
    @ivar throttle: Limits the rate of the streams that depend on this grant; made when
        it is needed.
    """

    def __init__(
        self,
        permissions: Permissions,
        over: str = "token-expired",
        now: Callable[[], float] = time.time,
        look: Callable[[], None] = lambda: None,
        watched: Callable[[], None] = lambda: None,
        parents: Iterable[Grant] = (),
    ) -> None:
        self.permissions = permissions
        self.ended: TunnelError | None = None
        self.throttle: Throttle | None = None
        self._over = over
        self._now = now
        self._look = look
        self._whenWatched = watched
        self._parents = tuple(parents)
        # In the order in which they came; a dict, since an Ended may be any
        # callable and is looked up often.
        self._watchers: dict[Ended, None] = {}
        self._followers: dict[Changed, None] = {}

    @property
    def inUse(self) -> bool:
        """Whether somebody waits for the end."""
        return bool(self._watchers)

    @property
    def timeLeft(self) -> float | None:
        """Seconds until it expires, or C{None} if it does not."""
        left = [
            parent.timeLeft for parent in self._parents if parent.timeLeft is not None
        ]
        if self.permissions.expires is not None:
            left.append(max(0.0, self.permissions.expires - self._now()))
        return min(left, default=None)

    def check(self, right: str = "") -> None:
        """
        Make sure that the grant is in force.

        @param right: One of L{RIGHTS} that it must contain.
        @raise TunnelError: Why it is over; C{not-permitted} if it does not
            contain C{right}.
        """
        self._look()
        for parent in self._parents:
            parent.check()
        self.expire()
        if self.ended is not None:
            raise self.ended
        if right and right not in self.permissions.may:
            raise TunnelError(
                "not-permitted", f"this token may not {right}; ask for one that may"
            )

    def expire(self) -> None:
        """End it, if it has expired."""
        expires = self.permissions.expires
        if expires is not None and expires <= self._now():
            self.end(TunnelError(self._over))

    def change(self, permissions: Permissions) -> None:
        """Change the permissions, and tell everybody who follows them."""
        self.permissions = permissions
        for changed in list(self._followers):
            changed()

    def follow(self, changed: Changed) -> None:
        """Have C{changed} called whenever the permissions change."""
        self._followers[changed] = None

    def unfollow(self, changed: Changed) -> None:
        """Stop following. It may be called twice."""
        self._followers.pop(changed, None)

    def end(self, reason: TunnelError) -> None:
        """
        End all permissions, and tell everybody who waits for that: the last one first,
        so that tunnels are closed before the session that has them.
        """
        if self.ended is not None:
            return
        self.ended = reason
        while self._watchers:
            watcher, _ = self._watchers.popitem()
            watcher(reason)
        self._unwatched()

    def watch(self, ended: Ended) -> None:
        """Have C{ended} called when the grant is over."""
        if not self._watchers:
            for parent in self._parents:
                parent.watch(self.end)
        self._watchers[ended] = None
        self._whenWatched()

    def unwatch(self, ended: Ended) -> None:
        """Stop waiting. It may be called twice."""
        if ended in self._watchers:
            del self._watchers[ended]
            if not self._watchers:
                self._unwatched()

    def _unwatched(self) -> None:
        for parent in self._parents:
            parent.unwatch(self.end)
        self._whenWatched()


class GrantedName(bytes):
    """
    An avatar id that comes with a L{Grant}: how a checker tells the realm
    what somebody may do.

    @ivar grant: The grant.
    """

    grant: Grant

    def __new__(cls, name: bytes, grant: Grant) -> GrantedName:
        made = super().__new__(cls, name)
        made.grant = grant
        return made


class RefusedWithReason(LoginDenied):
    """
    A login was refused for a reason that its owner may be told, since the secret itself
    was right.

    @ivar reason: The reason.
    """

    def __init__(self, reason: TunnelError) -> None:
        self.reason = reason
        super().__init__(reason.message)


class IIdentity(Interface):
    """The avatar of a client: what the rest of the program may know about it."""

    name: str = Attribute("The verified name, or C{'anonymous'}.")

    anonymous: bool = Attribute("Whether the name says nothing about who it is.")


@implementer(IIdentity)
@dataclass(frozen=True)
class Identity:
    """
    A client whose credentials were accepted.

    @ivar name: The avatar id as text: printable and of bounded length, so
        that it can be logged as it is.
    @ivar anonymous: Whether nobody checked who it is. All anonymous clients
        share one name, so it must not decide who owns something.
    @ivar grant: What it may do, where that is limited. Identities of the same name are
        the same, so it does not count in comparisons.
    @ivar claimed: The name that it gave where nobody checks it, for people to read.
    @ivar issued: Whether this server made the name, for whoever has a capability:
        nobody who logs in has it.
    """

    name: str
    anonymous: bool = False
    grant: Grant | None = field(default=None, compare=False, repr=False)
    issued: bool = False
    claimed: str = field(default="", compare=False, repr=False)

    @property
    def shown(self) -> str:
        """What to call it in messages; it does not decide who owns something."""
        return f"{self.claimed} (unproven)" if self.claimed else self.name


ANONYMOUS_IDENTITY = Identity("anonymous", anonymous=True)
"""Everybody of whom nothing is known."""
