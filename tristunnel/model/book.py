"""
The book: which member of a server has which tunnels, leases, ports and names.

It says who owns what, and is never asked on the path of a visitor or a byte. Its
contents live only as long as the sessions that they are about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from tristunnel.model.record import (
    AccessRecord,
    Claim,
    Place,
    TokenRecord,
    TunnelLimits,
    TunnelRecord,
)
from tristunnel.model.watchers import Watcher

__all__ = ["IBook"]


class IBook(Interface):
    """
    The book, as one member of a server uses it.

    All answers are Deferreds and all refusals L{TunnelError
    <tristunnel.errors.TunnelError>}s. Whatever is written says who writes it, as a
    L{Place<tristunnel.model.record.Place>}; a member whose tunnel or lease was taken
    over is refused (C{displaced}) or changes nothing. Each call may be repeated with
    the same effect, since it may have succeeded even if its answer was lost.
    """

    member = Attribute("The name of this process among the others, or empty.")
    now = Attribute("Returns the time of day by which access ends.")

    def grant(lease: str, secretHash: str, owner: str) -> Deferred[Place]:
        """
        Enter a new lease, which this member has.

        @param lease: Its id.
        @param secretHash: SHA-256 of the secret that only the client has, in
            hexadecimal.
        @param owner: Who gets it; nobody of another name can claim it.
        """

    def claim(
        lease: str, secretHash: str, owner: str, shown: int = 0
    ) -> Deferred[Claim | None]:
        """
        Take a lease over, with its tunnels.

        @param shown: The fence that the client has seen last; the new one is higher,
            even if the book has forgotten it.
        @return: C{None}, if there is no such lease of that secret and owner.
        """

    def away(lease: str, place: Place, seconds: float) -> Deferred[None]:
        """
        Note that nobody has a lease any more: after a while it expires, with its
        tunnels. One that keeps no tunnel ends at once.

        @param place: Who had it.
        """

    def open(record: TunnelRecord, limits: TunnelLimits) -> Deferred[None]:
        """
        Enter a new tunnel, with what it has L{reserved<TunnelRecord.reserved>}.

        @raise TunnelError: C{name-taken}, C{port-taken}, C{limit-reached}; or
            C{displaced}, if somebody else has its lease.
        """

    def change(
        tunnel: str, place: Place, fields: Mapping[str, object]
    ) -> Deferred[TunnelRecord]:
        """
        Change what is written of a tunnel.

        @param tunnel: Its id.
        @param place: Who has it.
        @param fields: By the name that L{TunnelRecord} gives them: C{uri},
            C{address}, C{name}, C{reserved} and others. Of C{id}, C{place},
            C{lease} and what the tunnel is counted by, nothing changes.
        @return: The record as it is now.
        @raise TunnelError: As for C{open}; C{unknown-tunnel}.
        """

    def close(tunnel: str, place: Place) -> Deferred[None]:
        """
        Remove a tunnel, if it is in the book. With the last tunnel of a lease that
        nobody has, the lease ends, too.
        """

    def find(tunnel: str) -> Deferred[TunnelRecord]:
        """
        Look a tunnel up by its URI, with or without its secret, or its id.

        @raise TunnelError: C{unknown-tunnel}.
        """

    def snapshot() -> Deferred[list[TunnelRecord]]:
        """All tunnels of all members."""

    def holder(reserved: str) -> Deferred[TunnelRecord | None]:
        """
        Find out who has something reserved.

        @param reserved: C{name:shop}, C{tcp:30001}.
        """

    def putAccess(record: AccessRecord, most: int) -> Deferred[AccessRecord]:
        """
        Enter access. If it is in the book already, the higher number of uses counts,
        and if it was revoked it stays so.

        @param most: How much access may be counted with this one.
        @return: What is in the book now.
        @raise TunnelError: C{limit-reached}.
        """

    def spend(access: str) -> Deferred[AccessRecord]:
        """
        Begin a session with some access.

        @return: What is in the book now.
        @raise TunnelError: C{expired}, if it is over, used up or not known.
        """

    def findAccess(access: str) -> Deferred[AccessRecord | None]:
        """Look some access up, by its id."""

    def dropAccess(access: str) -> Deferred[None]:
        """Revoke access, if it is in the book."""

    def listAccess() -> Deferred[list[AccessRecord]]:
        """All access, including what was revoked."""

    def putToken(record: TokenRecord) -> Deferred[TokenRecord]:
        """
        Enter a token, unless the book has the same version of it already, or a higher
        one.

        @return: What is in the book now.
        """

    def findToken(name: str) -> Deferred[TokenRecord | None]:
        """Look a token up."""

    def tokens() -> Deferred[list[TokenRecord]]:
        """All tokens, including revoked ones."""

    def watch(changed: Watcher) -> Deferred[Callable[[], None]]:
        """
        Be told of all changes, including those that this member makes.

        @return: Ends that.
        """

    def stop() -> Deferred[None]:
        """Stop this member. What it has stays in the other members' book."""
