"""
Streams that leave their session for a connection of their own: the server.

It is specified in C{docs/protocol-direct.rst}.
"""

from __future__ import annotations

import secrets
from collections import deque
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from twisted.internet.interfaces import IReactorTime

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.endings import KEY, DirectEnd, EndAcknowledgements, StreamEnd
from tristunnel.dataplane.kernel import canHandOver, handOver
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dialects.framed.spare import ServerSpare, SpareConnection
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import encodeHandshake

if TYPE_CHECKING:
    from tristunnel.dialects.framed.extended import ExtendedMultiplexer
    from tristunnel.model.tunnel import Stream, Tunnel
    from tristunnel.service.tickets import TicketBook

__all__ = ["ACCEPTED", "MOST_SPARES", "DirectStreams"]

ACCEPTED = encodeHandshake({"tristunnel": {"accepted": True}})
"""What the server says to a good ticket."""

MOST_SPARES = 64
"""Spare connections that a session may have."""

SPARE_ANSWER = 5.0
"""Seconds in which a spare connection must answer; else it is dead."""

SPARE_SILENCE = 60.0
"""Seconds after which a spare connection that said nothing is dead."""

DECLINED = 3
"""Streams that the client kept in the session, in a row, after which it is
not asked for a while: a firewall blocks its second connections."""

REST = 60.0
"""Seconds of that while."""

SHORT = 256 * 1024
"""Bytes below which a stream was not worth a connection of its own."""

SAMPLE = 8
"""Streams by which a tunnel's next ones are judged."""


class DirectStreams:
    """
    The streams of one session that need not stay in it.

    @param reactor: Tells time.
    @param tickets: The session's.
    @param multiplexer: The session's streams.
    @param always: Whether even short streams should leave it.
    @param confirmations: What the client is told of their ends, if it wants to
        be.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        tickets: TicketBook,
        multiplexer: ExtendedMultiplexer,
        always: bool = False,
        confirmations: EndAcknowledgements | None = None,
    ) -> None:
        self.reactor = reactor
        self.tickets = tickets
        self._confirmations = confirmations
        self.multiplexer = multiplexer
        self._spares: deque[ServerSpare] = deque()
        self._opening: set[ServerSpare] = set()
        self._waiting: set[_Waiting] = set()
        self._declined = 0
        self._restUntil = 0.0
        self._always = always
        self._habits: WeakKeyDictionary[Tunnel, _Habit] = WeakKeyDictionary()
        self._closed = False

    @property
    def spares(self) -> int:
        """
        Spare connections that wait for a visitor.
        """
        return len(self._spares)

    def serve(self, stream: Stream, info: dict[str, object]) -> None:
        """
        Find a client end for a visitor.

        @raise TunnelError: If the session opens no more streams.
        """
        if self._spares:
            self._useSpare(self._spares.popleft(), stream, info)
        elif self.reactor.seconds() < self._restUntil or (
            not self._always and self._areShort(stream.tunnel)
        ):
            stream.connect(self.multiplexer.open(info))
        else:
            self._waiting.add(_Waiting(self, stream, info))
            RESERVE.expected += 1

    def expect(self, info: dict[str, object]) -> StreamEnd | None:
        """
        Name a stream, so that its ends can be told of.

        @param info: What the client is told of it: the name goes there.
        """
        if self._confirmations is None:
            return None
        key = secrets.token_bytes(KEY)
        info["key"] = key.hex()
        return self._confirmations.expect(key)

    def _areShort(self, tunnel: Tunnel) -> bool:
        """
        Whether a tunnel's visitors came for little of late. A connection for
        each would cost more than their bytes.
        """
        habit = self._habits.get(tunnel)
        if habit is None:
            habit = self._habits[tunnel] = _Habit(tunnel)
        return habit.areShort()

    # Either answer

    def answered(self, waiting: _Waiting, direct: bool) -> None:
        """
        A stream has found its way.
        """
        self.forget(waiting)
        if direct:
            # The client was busy, and not cut off.
            self._declined, self._restUntil = 0, 0.0
            return
        self._declined += 1
        if self._declined >= DECLINED:
            self._declined = 0
            self._restUntil = self.reactor.seconds() + REST

    def forget(self, waiting: _Waiting) -> None:
        """
        A stream is over before it found one, or waits no longer.
        """
        if waiting in self._waiting:
            self._waiting.discard(waiting)
            RESERVE.expected -= 1

    # Spares

    def grantSpares(self, count: int) -> list[str]:
        """
        Make tickets for spare connections.

        @return: At most as many as are asked for.
        """
        return [self._grantSpare() for _ in range(min(count, self._room()))]

    def _room(self) -> int:
        """
        How many more spare connections there may be.
        """
        return MOST_SPARES - len(self._spares) - self.tickets.out("spare")

    def _grantSpare(self) -> str:
        """
        Make a ticket for a spare connection.
        """

        def use(arrival: Any, offer: dict[str, object]) -> bool:
            transport = arrival.transport
            if not canHandOver(transport):
                return False
            transport.write(ACCEPTED)
            spare = ServerSpare(self.reactor, self._spareLost)
            spare.takeOver(transport, arrival.stepAside())
            self._spares.append(spare)
            return True

        return self.tickets.grant("spare", MOST_SPARES, use).text

    def _useSpare(
        self, spare: ServerSpare, stream: Stream, info: dict[str, object]
    ) -> None:
        """
        Give a visitor a spare connection, if that proves to be alive.
        """

        def forget() -> None:
            self._opening.discard(spare)
            if ending is not None:
                ending.forget()

        def opened(answer: SocketEnd | TunnelError) -> None:
            self._opening.discard(spare)
            if isinstance(answer, TunnelError):
                forget()
                stream.refuse(answer)
            elif stream.over:
                answer.reset(TunnelError("reset", "the visitor has left"))
            else:
                stream.connect(answer)

        def dead(lost: SpareConnection) -> None:
            forget()
            if stream.over:
                return
            try:
                if self._closed:
                    raise TunnelError("session-lost")
                self.serve(stream, info)
            except TunnelError as reason:
                stream.refuse(reason)

        def left(reason: TunnelError | None) -> None:
            stream.refuse(reason or TunnelError("reset", "the visitor has left"))
            spare.transport.abortConnection()

        self._opening.add(spare)
        spare.whenLost(dead)
        stream.visitor.whileWaiting(left)
        more: dict[str, object] = {}
        ending = self.expect(more)
        if self._room() > 0:
            more["spare"] = self._grantSpare()
        spare.open({**info, **more}, opened, ending)

    def _spareLost(self, spare: SpareConnection) -> None:
        """
        A spare connection is gone.
        """
        if spare in self._spares:
            self._spares.remove(spare)  # type: ignore[arg-type]

    def tick(self) -> None:
        """
        Give up on what is silent; called every few seconds.
        """
        now = self.reactor.seconds()
        for spare in [s for s in self._spares if now - s.lastHeard > SPARE_SILENCE]:
            spare.transport.abortConnection()
        for spare in [s for s in self._opening if now - s.since > SPARE_ANSWER]:
            spare.transport.abortConnection()

    def close(self) -> None:
        """
        The session is over. Streams that have their own connection go on.
        """
        self._closed = True
        for spare in [*self._spares, *self._opening]:
            spare.transport.abortConnection()
        for waiting in list(self._waiting):
            waiting.close()


class _Habit:
    """
    How much a tunnel's streams carry.
    """

    __slots__ = ("_bytes", "_over", "_short", "_tunnel")

    def __init__(self, tunnel: Tunnel) -> None:
        # Weak, since it is kept in a mapping by the same tunnel.
        self._tunnel = ref(tunnel)
        self._short = False
        self._over, self._bytes = self._count()

    def _count(self) -> tuple[int, int]:
        """
        Streams that are over, and what they carried.
        """
        tunnel = self._tunnel()
        if tunnel is None:
            return 0, 0
        over = tunnel.visitorCount - len(tunnel.streams)
        return over, tunnel.bytesIn + tunnel.bytesOut

    def areShort(self) -> bool:
        """
        Judge by the last few.
        """
        over, carried = self._count()
        ended = over - self._over
        if ended >= SAMPLE:
            self._short = carried - self._bytes < ended * SHORT
            self._over, self._bytes = over, carried
        return self._short


class _Waiting:
    """
    A visitor for whom either answer is still possible: C{opened} in the
    session, or a connection with the ticket.
    """

    __slots__ = ("_direct", "_end", "_ending", "_stream", "_ticket")

    def __init__(
        self, direct: DirectStreams, stream: Stream, info: dict[str, object]
    ) -> None:
        self._direct = direct
        self._stream = stream
        # As many as there can be streams.
        self._ticket = direct.tickets.grant(
            "stream", direct.multiplexer.limits.streams, self._connected
        )
        more: dict[str, object] = {"ticket": self._ticket.text}
        self._ending = direct.expect(more)
        try:
            self._end = direct.multiplexer.open({**info, **more})
        except TunnelError:
            direct.tickets.revoke(self._ticket)
            self._forgetEnding()
            raise
        self._end.whenAnswered = self._inSession
        self._end.whileWaiting(self._refused)
        stream.visitor.whileWaiting(self._left)

    def _forgetEnding(self) -> None:
        """
        There will be no connection whose end is told of.
        """
        if self._ending is not None:
            self._ending.forget()

    def _inSession(self) -> None:
        """
        The client keeps the stream in the session.
        """
        self._forgetEnding()
        self._direct.tickets.revoke(self._ticket)
        self._direct.answered(self, False)
        if self._stream.over:
            self._end.reset(TunnelError("reset", "the visitor has left"))
        else:
            self._stream.connect(self._end)

    def _connected(self, arrival: Any, offer: dict[str, object]) -> bool:
        """
        The client has come with the ticket.
        """
        self._direct.answered(self, True)
        if self._stream.over:
            self._forgetEnding()
            self._end.reset(TunnelError("reset", "the visitor has left"))
            return False
        transport = arrival.transport
        end = DirectEnd(self._direct.reactor, lambda end: None, self._ending)
        if not handOver(transport, end):
            # The session remains.
            self._forgetEnding()
            return False
        self._end.abandon()
        rest = arrival.stepAside()
        end.takeOver(transport)
        end.write(ACCEPTED)
        if rest:
            end.dataReceived(rest)
        self._stream.connect(end)
        return True

    def _refused(self, reason: TunnelError | None) -> None:
        """
        The client has no service for it, or the session is over.
        """
        self.close()
        self._stream.refuse(reason or TunnelError("session-lost"))

    def _left(self, reason: TunnelError | None) -> None:
        """
        The visitor has left.
        """
        self.close()
        gone = reason or TunnelError("reset", "the visitor has left")
        self._stream.refuse(gone)
        self._end.reset(gone)

    def close(self) -> None:
        """
        The ticket is void.
        """
        self._forgetEnding()
        self._direct.tickets.revoke(self._ticket)
        self._direct.forget(self)
