"""
What is known of tunnels, leases and access beyond the process that has them: text
and numbers only, so that they can be written down and read again elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any, TypeVar

from tristunnel.errors import TunnelError

__all__ = [
    "AccessRecord",
    "Change",
    "Claim",
    "Place",
    "TokenRecord",
    "TunnelLimits",
    "TunnelRecord",
    "named",
    "reservedFor",
]

_R = TypeVar("_R", bound="_Record")


def named(name: str) -> str:
    """Find what a tunnel with a name reserves, see L{TunnelRecord.reserved}."""
    return f"name:{name}"


def reservedFor(kind: str, what: int | str) -> str:
    """
    Find what a tunnel reserves that has a port, or a name that visitors ask for.

    @param kind: Of which kind: C{"tcp"}, C{"udp"}, or that of a listener of names.
    """
    return f"{kind}:{what}"


@dataclass(frozen=True)
class _Record:
    """A record all of whose fields have defaults."""

    def asDict(self) -> dict[str, Any]:
        """The record as JSON can have it; L{fromDict} reads it."""
        return asdict(self)

    @classmethod
    def fromDict(cls: type[_R], values: Mapping[str, Any]) -> _R:
        """
        Read what L{asDict} has made. Fields that a later version has added are left
        out.

        @raise TunnelError: C{protocol-error}, if a value is not of its kind.
        """
        if not isinstance(values, Mapping):
            raise TunnelError("protocol-error", f"{cls.__name__} is not a table")
        read = {
            each.name: _read(cls, each.name, values[each.name])
            for each in fields(cls)
            if each.name in values
        }
        return cls(**read)


_blanks: dict[type[_Record], _Record] = {}


def _blank(cls: type[_Record]) -> _Record:
    if cls not in _blanks:
        _blanks[cls] = cls()
    return _blanks[cls]


def _read(cls: type[_Record], name: str, value: Any) -> Any:
    """
    Read one value, which must be of the same kind as its default.

    @raise TunnelError: C{protocol-error}.
    """
    default = getattr(_blank(cls), name)
    if isinstance(default, _Record):
        return type(default).fromDict(value)
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, tuple) and isinstance(value, (list, tuple)):
        if name == "records":
            return tuple(TunnelRecord.fromDict(each) for each in value)
        if all(isinstance(each, str) for each in value):
            return tuple(value)
    elif type(value) is type(default):
        return value
    raise TunnelError("protocol-error", f"{name} of {cls.__name__} is not of its kind")


@dataclass(frozen=True)
class Place(_Record):
    """
    Who serves a tunnel.

    @ivar member: The server process, by its name among the others; empty where there
        is only one.
    @ivar fence: Grows each time somebody else takes over, so that if two say that they
        serve a tunnel, the one with the higher fence is right.
    """

    member: str = ""
    fence: int = 0


@dataclass(frozen=True)
class TunnelRecord(_Record):
    """
    A tunnel, as every member of a cluster may know it.

    @ivar id: Short, unique and public.
    @ivar place: Who serves it.
    @ivar lease: The lease that keeps it open, or empty.
    @ivar owner: The name of whoever opened it.
    @ivar anonymous: Whether nobody checked that name.
    @ivar issued: Whether the server made that name, for a capability.
    @ivar uri: Where its client's end connects, without a secret; empty until the
        tunnel is open.
    @ivar secretHash: SHA-256 of the URI's secret in hexadecimal, where it has one.
    @ivar name: What its owner calls it, or empty.
    @ivar reserved: What it has reserved: C{tcp:30001}, C{udp:53}, C{name:shop},
        C{http:blog.example/api}.
    @ivar protocol: What visitors speak: C{tcp} or C{udp}.
    @ivar address: Where visitors connect; empty without a public side.
    @ivar lookup: Who may ask for the address, as in L{TunnelOptions
        <tristunnel.model.options.TunnelOptions>}.
    @ivar countedAs: Whose tunnels it is counted with.
    @ivar token: The token whose tunnels it is counted with, or empty.
    @ivar options: What it was opened with, as JSON.
    @ivar until: When it ends, in seconds since the epoch; 0 for never.
    """

    id: str = ""
    place: Place = field(default_factory=Place)
    lease: str = ""
    owner: str = ""
    anonymous: bool = False
    issued: bool = False
    uri: str = ""
    secretHash: str = ""
    name: str = ""
    reserved: tuple[str, ...] = ()
    protocol: str = "tcp"
    address: str = ""
    lookup: tuple[str, ...] = ()
    countedAs: str = ""
    token: str = ""
    options: str = ""
    until: float = 0.0

    def changed(self, values: Mapping[str, object]) -> TunnelRecord:
        """The record with other values."""
        made = object.__new__(TunnelRecord)
        # Like dataclasses.replace(), but four times as fast: it is called three times
        # for each tunnel.
        vars(made).update(vars(self))
        vars(made).update(values)
        return made


@dataclass(frozen=True)
class TunnelLimits(_Record):
    """
    How many tunnels there may be when one is opened; 0 for any number.

    @ivar perCaller: Of those that are counted as the new one is.
    @ivar perToken: Of those of its token.
    @ivar total: Of all that are counted with somebody.
    """

    perCaller: int = 0
    perToken: int = 0
    total: int = 0


@dataclass(frozen=True)
class Claim(_Record):
    """
    A lease that somebody has claimed.

    @ivar place: Who has it from now on.
    @ivar previous: Who had it; with no fence, if nobody did.
    @ivar records: The tunnels that it has kept, oldest first.
    """

    place: Place = field(default_factory=Place)
    previous: Place = field(default_factory=Place)
    records: tuple[TunnelRecord, ...] = ()


@dataclass(frozen=True)
class AccessRecord(_Record):
    """
    Access to a named service for a limited time.

    @ivar id: Short, unique and public.
    @ivar secretHash: SHA-256 of its secret, in hexadecimal.
    @ivar service: The name of the service.
    @ivar serviceOwner: Whose service it is.
    @ivar owner: Who granted it.
    @ivar anonymous: Whether nobody checked that name.
    @ivar countedAs: Whose grants it is counted with.
    @ivar networks: Where it may be used from, as text; empty for everywhere.
    @ivar token: The name that whoever uses it logs in by; empty for no login.
    @ivar uses: Sessions that may begin with it; 0 for any number.
    @ivar used: How many have begun.
    @ivar until: When it ends, in seconds since the epoch.
    @ivar dropped: Whether it was revoked. It stays on record until its time is over, so
        that nobody who has not heard of that puts it back.
    """

    id: str = ""
    secretHash: str = ""
    service: str = ""
    serviceOwner: str = ""
    owner: str = ""
    anonymous: bool = False
    countedAs: str = ""
    networks: str = ""
    token: str = ""
    uses: int = 0
    used: int = 0
    until: float = 0.0
    dropped: bool = False


@dataclass(frozen=True)
class TokenRecord(_Record):
    """
    What the servers of a cluster know of a token, or of an invitation.

    @ivar name: Whose it is.
    @ivar version: How often it has changed, from 1; the highest version counts.
    @ivar line: What a file of tokens says of it. One that is revoked stays on record.
    """

    name: str = ""
    version: int = 0
    line: str = ""


@dataclass(frozen=True)
class Change(_Record):
    """
    Something that has happened in a book.

    @ivar kind: C{opened}, C{changed} or C{closed}, of a tunnel; C{claimed}, C{away} or
        C{expired}, of a lease; C{access}; C{token}; or C{resynced}, if more may have
        changed than was told.
    @ivar id: The tunnel, lease or access, or the token's name.
    @ivar place: Who has it after that; if it is over, who had it.
    """

    kind: str = ""
    id: str = ""
    place: Place = field(default_factory=Place)
