"""
Visitors of zlayer clients who wait for their data connections.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID, uuid4

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tristunnel.dialects.zlayer.data_end import DataEnd, DataFlow
from tristunnel.errors import TunnelError
from tristunnel.model.ports import PortRange

if TYPE_CHECKING:
    from tristunnel.model.tunnel import Stream
    from tristunnel.websocket.connection import Receiver

__all__ = [
    "PATIENCE",
    "PORTS",
    "WAITING",
    "ZLayerSessions",
    "connectionOf",
    "memberOfConnection",
]

PATIENCE = 10.0
"""Seconds in which a visitor's data connection must come."""

WAITING = 1024
"""Visitors of one session that may wait for their data connections."""

PORTS = PortRange(((30000, 31000),))
"""What zlayer's clients may have, unless the operator says otherwise."""


def connectionOf(path: str) -> str | None:
    """
    The connection that a path is about: what follows C{/data/}.

    @return: C{None} if it is about none.
    """
    _, slash, name = f"/{path.strip('/')}".rpartition("/data/")
    return name if slash and "/" not in name else None


def memberOfConnection(name: str, members: int) -> int | None:
    """
    Read from a connection's id in which of several processes its visitor waits.

    @return: An index, or C{None} if it is no id of ours.
    """
    try:
        first = UUID(name).bytes[0]
    except ValueError:
        return None
    return first if first < members else None


class ZLayerClient(Protocol):
    """
    The session of a client whose visitors wait.

    @ivar source: What connections from its address are counted by.
    """

    @property
    def source(self) -> str: ...

    def probe(self) -> None:
        """Have the client show that it lives."""


@dataclass(eq=False)
class _Visitor:
    """Somebody who waits."""

    stream: Stream
    session: ZLayerClient
    timer: IDelayedCall


class ZLayerSessions:
    """
    What all zlayer sessions of a server share.

    @param reactor: Tells time.
    @param patience: Seconds in which a data connection must come.

    @ivar ports: Which ports may be given out; C{None} for all that the server
        gives out.
    @ivar inUse: The sessions, by their tokens' SHA-256 digests.
    @ivar member: Which of several processes this is, from 0; C{None} if it is alone.
    """

    def __init__(self, reactor: IReactorTime, patience: float = PATIENCE) -> None:
        self.ports: PortRange | None = PORTS
        self.inUse: dict[bytes, ZLayerClient] = {}
        self.member: int | None = None
        self._reactor = reactor
        self._patience = patience
        self._visitors: dict[UUID, _Visitor] = {}
        self._waiting: Counter[ZLayerClient] = Counter()

    def __len__(self) -> int:
        return len(self._visitors)

    def expect(self, stream: Stream, session: ZLayerClient) -> UUID:
        """
        Have a visitor wait.

        @return: What its data connection is known by: unguessable, good for
            one connection, and for as long as the visitor waits.
        @raise TunnelError: C{limit-reached}.
        """
        if self._waiting[session] >= WAITING:
            raise TunnelError("limit-reached", f"{WAITING} visitors wait")
        self._waiting[session] += 1
        # Of the 128 bits, 122 are from the system's source for secrets.
        identifier = uuid4()
        if self.member is not None:
            # The other bits are enough of a secret.
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

    def _take(self, identifier: UUID) -> Stream | None:
        visitor = self._visitors.pop(identifier, None)
        if visitor is None:
            return None
        self._waiting[visitor.session] -= 1
        if visitor.timer.active():
            visitor.timer.cancel()
        return None if visitor.stream.over else visitor.stream

    def _refuse(self, identifier: UUID, reason: TunnelError) -> None:
        stream = self._take(identifier)
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
        self, identifier: UUID, session: ZLayerClient, reason: TunnelError
    ) -> None:
        """
        Turn a visitor away that C{session} cannot serve; somebody else's, or
        one that does not wait, is left alone.
        """
        visitor = self._visitors.get(identifier)
        if visitor is not None and visitor.session is session:
            self._refuse(identifier, reason)

    def sessionOver(self, session: ZLayerClient, reason: TunnelError) -> None:
        for identifier, visitor in list(self._visitors.items()):
            if visitor.session is session:
                self._refuse(identifier, reason)
        del self._waiting[session]

    def receive(self, name: str) -> Receiver:
        """
        Receive a data connection.

        @param name: The connection's id, as its path says.
        @raise TunnelError: C{unknown-tunnel}, if no visitor waits for it.
        """
        try:
            identifier = UUID(name)
        except ValueError:
            raise _noVisitor() from None
        visitor = self._visitors.get(identifier)
        if visitor is None:
            raise _noVisitor()
        arrived = partial(self._arrived, identifier)
        if visitor.stream.tunnel.protocol == "udp":
            return DataFlow(arrived)
        return DataEnd(arrived, patient=True)

    def _arrived(self, identifier: UUID, end: Any) -> None:
        stream = self._take(identifier)
        if stream is None:
            end.reset(_noVisitor())
        else:
            stream.connect(end)


def _noVisitor() -> TunnelError:
    return TunnelError("unknown-tunnel", "no visitor is waiting for this connection")
