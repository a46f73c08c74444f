"""
Who may have which name; this is decided before a route for it exists.

A name is an owner's, whatever leads there: with all of its paths, and by each kind of
listener. What a token has among its C{names} is nobody else's, even while its holder is
away; a name that was made up here stays reserved for its owner.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field, replace

from tristunnel.errors import TunnelError, badOption
from tristunnel.model.names import hostWanted, patternsFor
from tristunnel.model.options import TunnelOptions
from tristunnel.model.permissions import Identity
from tristunnel.model.record import TunnelRecord
from tristunnel.model.tunnel import Tunnel
from tristunnel.names.words import pronounceable
from tristunnel.service.caller import Caller
from tristunnel.util.words import isName

__all__ = ["RESERVED", "HostRules", "holderIn"]

RESERVED = frozenset(
    ("autoconfig", "autodiscover", "isatap", "localhost", "mta-sts", "wpad")
)
"""First labels of names that programs look for by themselves, and trust: whoever has
one of them can speak for the whole domain."""

_REMEMBERED = 10_000
"""Made-up names that are kept for their owners."""

_ATTEMPTS = 20


@dataclass(eq=False)
class _Held:
    """
    @ivar owner: Whose a host is.
    @ivar tunnels: Those that have it now.
    """

    owner: str
    tunnels: set[Tunnel] = field(default_factory=set)


def _ownerOf(identity: Identity, lease: str, tunnel: str) -> str:
    """
    Tell owners apart: by their names where these are proven, else by what only they
    have.

    @param lease: The id of the tunnel's lease, or empty.
    @param tunnel: Its own.
    """
    if not (identity.anonymous or identity.issued):
        return f"client {identity.name}"
    return f"lease {lease}" if lease else f"tunnel {tunnel}"


def holderIn(record: TunnelRecord) -> str:
    """Find whose the names of a tunnel are, by what the book says of it."""
    identity = Identity(record.owner, record.anonymous, issued=record.issued)
    return _ownerOf(identity, record.lease, record.id)


class HostRules:
    """
    Decides on the names of tunnels whose listeners have names instead of ports.

    @param domains: Below which names are given out, C{--domain}; the first is that of
        a name without a dot.
    @param hostname: The server's own name, which no tunnel may have.
    @param reserved: Names that no tunnel may have either, or their first labels.

    @ivar holders: Finds the names of those who keep a host for themselves, by the
        patterns that cover it.
    """

    def __init__(
        self,
        domains: Iterable[str] = (),
        hostname: str = "",
        reserved: Iterable[str] = RESERVED,
    ) -> None:
        self.domains: tuple[str, ...] = ()
        self.change(domains, hostname, reserved)
        self.holders: Callable[[Collection[str]], Collection[str]] = lambda each: ()
        self._held: dict[str, _Held] = {}
        self._hosts: dict[Tunnel, str] = {}
        # Made up here: for whom, the oldest first.
        self._madeFor: OrderedDict[str, str] = OrderedDict()

    def change(
        self, domains: Iterable[str], hostname: str, reserved: Iterable[str] = RESERVED
    ) -> None:
        """Change the rules for names that are asked for from now on."""
        self.domains = tuple(domains)
        self._own = hostname.lower().removesuffix(".")
        self._reserved = frozenset(reserved)

    def completed(self, wanted: TunnelOptions, named: bool) -> TunnelOptions:
        """
        Write the name that is wanted in full.

        @param named: Whether the listener has names; with any other, a name is what
            a tunnel is found by, and stays as it is.
        @raise TunnelError: C{bad-option}, C{name-not-permitted}.
        """
        if not named:
            if wanted.path:
                raise badOption(
                    "option path goes with a listener of names, such as listener http"
                )
            if not isName(wanted.name):
                raise badOption(
                    "a name has at most 64 letters, digits, hyphens, dots, underscores"
                )
            return wanted
        if wanted.private or wanted.port:
            raise badOption("a tunnel with a name of its own has no port; leave it out")
        return replace(
            wanted,
            name=wanted.name and self._inFull(wanted.name),
            preferName=wanted.preferName and self._inFull(wanted.preferName),
        )

    def _inFull(self, name: str) -> str:
        host = hostWanted(name, True)
        if "." in host:
            return host
        if not self.domains:
            raise TunnelError(
                "name-not-permitted",
                f"this server has no --domain for {host} to lie below; ask for a whole"
                " name, such as www.example.org",
            )
        return f"{host}.{self.domains[0]}"

    def claim(
        self, tunnel: Tunnel, caller: Caller, wanted: TunnelOptions
    ) -> TunnelOptions:
        """
        Give a tunnel a name.

        @param wanted: As L{completed} returned it.
        @return: The same, with the name that it has now.
        @raise TunnelError: C{name-not-permitted}, C{name-taken}.
        """
        lease = caller.lease.id if caller.lease else ""
        owner = _ownerOf(caller.identity, lease, tunnel.id)
        host = wanted.name
        if host:
            self._check(host, owner, caller.identity)
        else:
            host = self._madeUp(owner, caller.identity, wanted.preferName)
        self._enter(tunnel, host, owner)
        return replace(wanted, name=host)

    def _enter(self, tunnel: Tunnel, host: str, owner: str) -> None:
        held = self._held.setdefault(host, _Held(owner))
        held.tunnels.add(tunnel)
        self._hosts[tunnel] = host

    def isElsewhere(self, tunnel: Tunnel, record: TunnelRecord, host: str) -> None:
        """
        Take note that another process of the server has given a name to a tunnel; until
        L{release}, nobody else can have it here either.

        @param tunnel: What stands for it here.
        @param record: What the book says of it.
        """
        self._enter(tunnel, host, holderIn(record))

    def wasMadeUp(self, host: str, record: TunnelRecord) -> None:
        """
        Take note that another process has made a name up.

        @param record: What the book says of the tunnel that it was made for.
        """
        self._remember(host, holderIn(record))

    def join(self, tunnel: Tunnel, identity: Identity, host: str) -> None:
        """
        Have a tunnel share a name that another one has.

        @param identity: Whose the tunnel is.
        @raise TunnelError: C{name-not-permitted}.
        """
        self.check(identity, host)
        held = self._held.get(host)
        if held is not None:
            held.tunnels.add(tunnel)
            self._hosts[tunnel] = host

    def isMadeUp(self, host: str) -> bool:
        """Whether a host's name was made up here."""
        return host in self._madeFor

    def isKept(self, host: str) -> bool:
        """Whether a host is among the C{names} of a token, used or not."""
        return bool(self.holders(patternsFor(host, self.domains)))

    def release(self, tunnel: Tunnel) -> None:
        """Take away a tunnel's name. It may be called twice."""
        host = self._hosts.pop(tunnel, "")
        held = self._held.get(host)
        if held is not None:
            held.tunnels.discard(tunnel)
            if not held.tunnels:
                del self._held[host]

    def check(self, identity: Identity, host: str) -> None:
        """
        Make sure that somebody may have a host, as of now.

        @raise TunnelError: C{name-not-permitted}.
        """
        first = host.removeprefix("*.").partition(".")[0]
        if host == self._own or {host, first} & self._reserved:
            raise TunnelError(
                "name-not-permitted", f"{host} is reserved on this server"
            )
        names = None if identity.grant is None else identity.grant.permissions.names
        if names is not None:
            if not names.covers(host, self.domains):
                raise TunnelError(
                    "name-not-permitted",
                    f"{host} is not among the names of this token; ask for one of"
                    f" {names}",
                )
        elif not any(self._isBelow(host, domain) for domain in self.domains):
            raise TunnelError(
                "name-not-permitted",
                f"{host} does not lie directly below a --domain of this server"
                f" ({', '.join(self.domains) or 'it has none'}); other names take a"
                " token with --names",
            )
        holders = self.holders(patternsFor(host, self.domains))
        if holders and identity.name not in holders:
            raise TunnelError(
                "name-taken", f"{host} is kept for another client; choose another"
            )

    @staticmethod
    def _isBelow(host: str, domain: str) -> bool:
        label = host.removesuffix(f".{domain}")
        return label != host and "." not in label and "*" not in label

    def _check(self, host: str, owner: str, identity: Identity) -> None:
        self.check(identity, host)
        held = self._held.get(host)
        mine = self._madeFor.get(host) if held is None else held.owner
        if mine not in (None, owner):
            raise TunnelError(
                "name-taken", f"{host} belongs to another client; choose another"
            )

    def _madeUp(self, owner: str, identity: Identity, prefer: str) -> str:
        grant = identity.grant
        names = None if grant is None else grant.permissions.names
        own = [] if names is None else names.patterns
        madeUp = (pronounceable(attempt) for attempt in range(_ATTEMPTS))
        for candidate in (prefer, *own, *madeUp):
            if not candidate or "*" in candidate:
                continue
            try:
                host = self._inFull(candidate)
                self._check(host, owner, identity)
            except TunnelError as refusal:
                if not self.domains and refusal.code.permanent and not own:
                    raise
                continue
            if host in self._held:
                continue
            self._remember(host, owner)
            return host
        raise TunnelError(
            "name-taken", "no free name was found for it; ask for one by its name"
        )

    def _remember(self, host: str, owner: str) -> None:
        self._madeFor[host] = owner
        self._madeFor.move_to_end(host)
        if len(self._madeFor) > _REMEMBERED:
            self._madeFor.popitem(last=False)
