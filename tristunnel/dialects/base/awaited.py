"""
Visitors who wait for data connections of their own, which clients open for them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol
from uuid import UUID, uuid4

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tristunnel.errors import TunnelError
from tristunnel.util.repeating import stopTimer

if TYPE_CHECKING:
    from tristunnel.model.tunnel import Stream

__all__ = ["PATIENCE", "WAITING", "Awaited", "AwaitingSession", "noVisitor"]

PATIENCE = 10.0
"""Seconds in which a visitor's data connection must come."""

WAITING = 1024
"""Visitors of one session that may wait for their data connections."""


class AwaitingSession(Protocol):
    """
    The session of a client whose visitors wait.

    @ivar source: What connections from its address are counted by.
    """

    @property
    def source(self) -> str: ...


@dataclass(eq=False)
class _Visitor:
    """A visitor who waits."""

    stream: Stream
    session: AwaitingSession
    timer: IDelayedCall


class Awaited:
    """
    The visitors of all sessions of a dialect.

    @param reactor: Tells time.
    @param patience: Seconds in which a data connection must come.

    @ivar member: Which of several processes this is, from 0; C{None} if it is alone.
    """

    def __init__(self, reactor: IReactorTime, patience: float = PATIENCE) -> None:
        self.member: int | None = None
        self._reactor = reactor
        self._patience = patience
        self._visitors: dict[UUID, _Visitor] = {}
        self._waiting: Counter[AwaitingSession] = Counter()

    def __len__(self) -> int:
        return len(self._visitors)

    def expect(self, stream: Stream, session: AwaitingSession) -> UUID:
        """
        Have a visitor wait.

        @return: The id of its data connection, which cannot be guessed, and is good for
            one connection as long as the visitor waits.
        @raise TunnelError: C{limit-reached}.
        """
        if self._waiting[session] >= WAITING:
            raise TunnelError("limit-reached", f"{WAITING} visitors wait")
        self._waiting[session] += 1
        # Of the 128 bits, 122 are from the system's source for secrets.
        identifier = uuid4()
        if self.member is not None:
            # The other bits are secret enough.
            identifier = UUID(bytes=bytes([self.member]) + identifier.bytes[1:])
        timer = self._reactor.callLater(self._patience, self._late, identifier)
        self._visitors[identifier] = _Visitor(stream, session, timer)

        def left(reason: TunnelError | None) -> None:
            self._refuse(identifier, reason or TunnelError("reset"))

        stream.visitor.whileWaiting(left)
        return identifier

    def awaited(self, source: str) -> int:
        """How many data connections the clients at an address are about to open."""
        return sum(
            count
            for session, count in self._waiting.items()
            if session.source == source
        )

    def find(self, identifier: UUID) -> tuple[Stream, AwaitingSession] | None:
        """Look a visitor up, and whose it is."""
        found = self._visitors.get(identifier)
        return None if found is None else (found.stream, found.session)

    def take(self, identifier: UUID) -> Stream | None:
        """
        Take the visitor for whom somebody has come.

        @return: C{None}, if it does not wait any more.
        """
        visitor = self._visitors.pop(identifier, None)
        if visitor is None:
            return None
        self._waiting[visitor.session] -= 1
        stopTimer(visitor.timer)
        return None if visitor.stream.over else visitor.stream

    def _refuse(self, identifier: UUID, reason: TunnelError) -> None:
        stream = self.take(identifier)
        if stream is not None:
            stream.refuse(reason)

    def _late(self, identifier: UUID) -> None:
        self._refuse(
            identifier,
            TunnelError(
                "service-timeout",
                f"the client opened no data connection for {self._patience:g} s",
            ),
        )

    def refuse(
        self, identifier: UUID, session: AwaitingSession, reason: TunnelError
    ) -> None:
        """
        Turn a visitor away that C{session} cannot serve; somebody else's, or
        one that does not wait, is left alone.
        """
        visitor = self._visitors.get(identifier)
        if visitor is not None and visitor.session is session:
            self._refuse(identifier, reason)

    def sessionOver(self, session: AwaitingSession, reason: TunnelError) -> None:
        """Turn the visitors of a session away, which is over."""
        for identifier, visitor in list(self._visitors.items()):
            if visitor.session is session:
                self._refuse(identifier, reason)
        del self._waiting[session]


def noVisitor() -> TunnelError:
    """Make the refusal of a connection for which no visitor waits."""
    return TunnelError("unknown-tunnel", "no visitor is waiting for this connection")
