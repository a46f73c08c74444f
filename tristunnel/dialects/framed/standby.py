"""
A client's further sessions, with other members of its server's cluster: one of them
takes over when the first one is lost, and nobody has to find out who is left.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from tristunnel.dataplane.endings import EndAcknowledgements
from tristunnel.dialects.base.client import backoff
from tristunnel.dialects.framed.client import TunnelClientProtocol
from tristunnel.errors import TunnelError, boundedPlaces
from tristunnel.jsonrpc.pending import RemoteError
from tristunnel.model.observer import ClientObserver
from tristunnel.util.process import Drain
from tristunnel.util.repeating import RepeatingCall

__all__ = ["MOST_STANDBYS", "SILENCE", "Retired", "Standby"]

MOST_STANDBYS = 3
"""Further sessions of a client."""

SILENCE = 4.0
"""Seconds without a word from the first session's member, while another one answers,
after which it counts as lost."""

_LOOK = 1.0
_FRESH = 2.5
_SLOWEST = 15.0
_SETTLED = 10.0


class Standby:
    """
    Keeps sessions that stand by.

    @param reactor: Tells time.
    @param connect: Has a session stand by at C{HOST:PORT}.

    @ivar count: How many there are to be.
    """

    _log = Logger(namespace="tristunnel.client")

    def __init__(
        self, reactor: Any, connect: Callable[[str], Awaitable[TunnelClientProtocol]]
    ) -> None:
        self.count = 0
        self._reactor = reactor
        self._connect = connect
        self._sessions: dict[str, TunnelClientProtocol] = {}
        self._main: TunnelClientProtocol | None = None
        self._filling: Deferred[None] | None = None
        self._failures = 0
        self._next = 0.0
        self._ticking = RepeatingCall(reactor, self._look)

    @property
    def isReady(self) -> bool:
        """Whether there is a session that can take over."""
        self._prune()
        return bool(self._sessions)

    def up(self, main: TunnelClientProtocol) -> None:
        """
        The first session is there.

        @param main: It is asked for other members, and watched.
        """
        self._main, self._failures, self._next = main, 0, 0.0
        if self.count and main.extended and not self._ticking.running:
            self._ticking.start(_LOOK, now=True)

    def down(self) -> None:
        """The first session is gone, or about to be."""
        self._main = None
        if self._ticking.running:
            self._ticking.stop()
        if self._filling is not None:
            self._filling.cancel()

    async def takeOver(
        self,
        lease: Mapping[str, object],
        confirmations: EndAcknowledgements,
        observer: ClientObserver,
    ) -> TunnelClientProtocol | None:
        """
        Have a session be the first one: that from which something was heard last.

        @param lease: As a handshake offers it.
        @param confirmations: What client and server tell each other of the ends of
            streams.
        @param observer: Told what happens from now on.
        @return: C{None}, if none can.
        """
        while self.isReady:
            place = max(
                self._sessions, key=lambda each: self._sessions[each].liveness.heard
            )
            session = self._sessions.pop(place)
            session.factory.confirmations = confirmations
            session.factory.observer = observer
            try:
                await session.takeOver(lease)
            except TunnelError as refusal:
                self._log.info(
                    "{place} does not take over: {refusal}",
                    place=place,
                    refusal=refusal,
                )
                session.close()
            except CancelledError:
                session.close()
                raise
            else:
                self._log.info("{place} takes over", place=place)
                return session
        return None

    def stop(self) -> None:
        """End all of them."""
        self.down()
        sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.close()

    def _prune(self) -> None:
        """Let go of those that are lost, or whose member is about to stop."""
        for place, session in list(self._sessions.items()):
            if session.lost is not None or session.leaving is not None:
                del self._sessions[place]
                session.close()

    def _look(self) -> None:
        self._prune()
        main, now = self._main, self._reactor.seconds()
        if main is None:
            return
        if (
            len(self._sessions) < self.count
            and self._filling is None
            and now >= self._next
        ):
            self._fill(main)
        if not self._sessions:
            return
        heard = max(session.liveness.heard for session in self._sessions.values())
        if now - main.liveness.heard > SILENCE and now - heard < _FRESH:
            main.fail(
                TunnelError(
                    "session-lost",
                    f"nothing was received for {SILENCE:g} s, and another member of"
                    " the server's cluster answers",
                )
            )
            return
        for session in (main, *self._sessions.values()):
            session.liveness.ping()

    def _fill(self, main: TunnelClientProtocol) -> None:
        filling = self._filling = Deferred.fromCoroutine(self._add(main))

        def done(result: object) -> None:
            self._filling = None
            self._next = self._reactor.seconds() + min(
                backoff(self._failures), _SLOWEST
            )
            self._failures += 1

        filling.addErrback(lambda failure: failure.trap(CancelledError))
        filling.addErrback(
            lambda failure: self._log.failure("There is nobody who stands by", failure)
        )
        filling.addBoth(done)

    async def _add(self, main: TunnelClientProtocol) -> None:
        """Have one more session, with a member with which there is none."""
        try:
            listed = boundedPlaces(await main.call("standbyAddresses"))
        except (TunnelError, RemoteError):
            # A server that knows of no cluster, or a session that ends.
            self._failures = max(self._failures, 5)
            return
        for place in listed:
            if not place or place in self._sessions:
                continue
            try:
                session = await self._connect(place)
            except TunnelError as refusal:
                self._log.info(
                    "{place} does not stand by: {refusal}", place=place, refusal=refusal
                )
                continue
            if main is not self._main:
                session.close()
                return
            self._sessions[place] = session
            self._failures = -1
            self._log.info("{place} stands by", place=place)
            return


class Retired:
    """
    Sessions with members that are about to stop: they have the visitors that they had,
    and end with the last of them.

    @param reactor: Tells time.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._sessions: dict[TunnelClientProtocol, EndAcknowledgements] = {}
        self._since: dict[TunnelClientProtocol, float] = {}
        self._ticking = RepeatingCall(reactor, self._look)

    def add(
        self, session: TunnelClientProtocol, confirmations: EndAcknowledgements
    ) -> None:
        """
        Have a session end when its time has come.

        @param confirmations: What it and its server tell each other of the ends of
            streams; closed with it.
        """
        self._sessions[session] = confirmations
        self._since[session] = self._reactor.seconds()
        if not self._ticking.running:
            self._ticking.start(_LOOK, now=False)

    def streams(self) -> int:
        """How many visitors there are."""
        return sum(session.streams() for session in self._sessions)

    def _look(self) -> None:
        now = self._reactor.seconds()
        for session in list(self._sessions):
            # Until the other member has us, visitors go on to come here.
            isIdle = now - self._since[session] > _SETTLED and not session.streams()
            if session.lost is not None or isIdle:
                self._end(session)
        if not self._sessions:
            self._ticking.stop()

    def _end(self, session: TunnelClientProtocol) -> None:
        session.close()
        self._sessions.pop(session).close()
        del self._since[session]

    async def leave(self, grace: float) -> None:
        """
        The client stops.

        @param grace: Seconds that visitors get to finish.
        """
        await Drain(self._reactor, self.streams, grace).wait()
        for session in list(self._sessions):
            self._end(session)
        if self._ticking.running:
            self._ticking.stop()
