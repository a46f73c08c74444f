"""
The book: which member of a server has which tunnels, leases, ports and names.

It says who owns what, and is never asked on the path of a visitor or a byte. What is
in it is only as long-lived as the sessions that it tells of.
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
    <tristunnel.errors.TunnelError>}s. Whatever is written says by whom, as a
    L{Place<tristunnel.model.record.Place>}; who has been taken over from is refused
    (C{displaced}) or changes nothing. To say something twice does what saying it once
    does, since an answer that did not come may have been a yes.
    """

    member = Attribute("The name of this process among the others, or empty.")
    now = Attribute("Returns the time of day by which access ends.")

    def grant(lease: str, secretHash: str, owner: str) -> Deferred[Place]:
        """
        Write a new lease down, which this member has.

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
        Nobody has a lease any more: after a while it expires, with its tunnels. One
        that keeps no tunnel is over at once.

        @param place: Who had it.
        """

    def open(record: TunnelRecord, limits: TunnelLimits) -> Deferred[None]:
        """
        Write a new tunnel down, with what it has L{reserved<TunnelRecord.reserved>}.

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
        A tunnel is over; one that is not in the book is no error. With the last
        tunnel of a lease that nobody has, the lease is over.
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
        Write access down. If it is in the book, the higher number of uses counts,
        and what was taken back stays so.

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
        """Take access back; what is not in the book is no error."""

    def listAccess() -> Deferred[list[AccessRecord]]:
        """All access, also what was taken back."""

    def putToken(record: TokenRecord) -> Deferred[TokenRecord]:
        """
        Write a token down, unless the book has that version of it already, or a
        higher one.

        @return: What is in the book now.
        """

    def findToken(name: str) -> Deferred[TokenRecord | None]:
        """Look a token up."""

    def tokens() -> Deferred[list[TokenRecord]]:
        """All tokens, also revoked ones."""

    def watch(changed: Watcher) -> Deferred[Callable[[], None]]:
        """
        Be told what happens, also of what this member does.

        @return: Ends that.
        """

    def stop() -> Deferred[None]:
        """This member stops. What it has stays in the book of the others."""
