"""
The client as a service: connect, open the forwards, and come back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger

from tristunnel.connect.address import ServerAddress
from tristunnel.dataplane.endings import EndAcknowledgements
from tristunnel.dialects.base.client import SessionClientService, backoff
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.framed.client import TunnelClientFactory, TunnelClientProtocol
from tristunnel.dialects.framed.moves import Carrier
from tristunnel.dialects.framed.offered import OfferedForwards
from tristunnel.dialects.framed.reaching import greetOtherwise, reached
from tristunnel.dialects.framed.standby import Retired, Standby
from tristunnel.errors import TunnelError
from tristunnel.forwards.demand import STREAM_WINDOW
from tristunnel.forwards.dialling import dialDestinations
from tristunnel.forwards.forward import Forward
from tristunnel.model.observer import ClientObserver
from tristunnel.util.process import GRACE

__all__ = ["TunnelClientService"]

_WAITING = Limits(streamWindow=STREAM_WINDOW)
"""The limits on visitors, of whom many may wait at once."""


class TunnelClientService(SessionClientService[TunnelClientProtocol]):
    """
    A client of a tunnel server.

    @param reactor: Tells time.
    @param server: Where to connect.
    @param forwards: What to offer.
    @param credentials: The JSON object that says who we are.
    @param observer: Told what happens.
    @param lease: What is remembered of former sessions.
    @param grace: Seconds that streams get to finish when the service stops.
    @param gaveUp: Called with the reason when no attempt follows.
    @param delay: Makes the delay of failures and the server's hint.
    @param carrier: How streams are to travel.

    @ivar forGood: Whether it stops for good, and so gives up its ports.
    @ivar session: The session that is up now, or C{None}.
    @ivar about: What the server is told of this client: C{program}, C{host}.
    @ivar asksToDial: Whether it asks others to dial.
    @ivar destinations: What it dials for others.
    @ivar offered: Its forwards, and what of them is open.
    @ivar standby: Its sessions with other members of the server's cluster.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        server: ServerAddress,
        forwards: Sequence[Forward],
        credentials: Mapping[str, object] | None = None,
        observer: ClientObserver | None = None,
        lease: ClientLease | None = None,
        grace: float = GRACE,
        gaveUp: Callable[[TunnelError], None] = lambda reason: None,
        delay: Callable[[int, float | None], float] = backoff,
        carrier: Carrier | None = None,
    ) -> None:
        super().__init__(
            reactor, server, forwards, credentials, observer, grace, gaveUp, delay
        )
        self.asksToDial = False
        self.destinations = dialDestinations(())
        self.about: dict[str, str] = {}
        self.forGood = False
        self._lease = lease or ClientLease()
        self._carrier = carrier or Carrier("session" if server.route.proxy else "auto")
        self._confirmations = EndAcknowledgements(reactor)
        self._greeting = server.greeting()
        if self._lease.id:
            self._greeting.answered(extended=True)
        self.offered = OfferedForwards(
            reactor,
            server,
            forwards,
            self._lease,
            self.observer,
            self._delay,
            self._refusals.passed,
        )
        self.standby = Standby(reactor, self._standBy)
        self._retired = Retired(reactor)
        # Where the server has sent us.
        self._places: list[str] = []

    def whyFinal(self, reason: TunnelError) -> TunnelError | None:
        if reason.code.name == "expired" and self._server.access:
            # The server would refuse us from now on.
            return reason
        if reason.code.name == "displaced" and self._server.capability:
            # To come back would only displace that one in turn.
            reason.message = "another client now serves this tunnel"
            return reason
        if reason.code.name == "displaced":
            # Another client runs with a copy of our lease, and keeps it.
            self._lease.id = self._lease.secret = ""
        return None

    def goesOn(self) -> bool:
        return self.standby.isReady

    async def openSession(self) -> TunnelClientProtocol:
        standing = await self.standby.takeOver(
            self._lease.asOffer(), self._confirmations, self.observer
        )
        return standing or await self._begin()

    def sessionUp(self, session: TunnelClientProtocol) -> None:
        self.offered.up(session)
        self.standby.up(session)

    def sessionDown(self) -> None:
        self.standby.down()
        self.offered.down()

    def sessionEnded(
        self, session: TunnelClientProtocol, reason: TunnelError
    ) -> tuple[TunnelError, bool]:
        if self.offered.turnedAway is not None:
            return self.offered.turnedAway, True
        if session.lost is None:
            self._retire(session, reason)
        return session.leaving or reason, False

    async def _begin(self) -> TunnelClientProtocol:
        """
        Begin a session at the address to which the server has sent us, or at its own.

        @raise TunnelError: Why there is none.
        """
        server = self._server
        if self._places:
            server = server.at(self._reactor, self._places.pop(0))
        factory = self._factoryFor(server)
        session: TunnelClientProtocol | None = None
        try:
            session = await reached(server, factory)
            await session.whenReady()
        except CancelledError:
            if session is not None:
                session.transport.abortConnection()
            raise
        except TunnelError as refusal:
            if session is not None and session.unanswered:
                greetOtherwise(self._greeting, self._server.where)
            self._places = self._places or list(refusal.elsewhere)
            raise
        self._greeting.answered(session.extended)
        self._places = []
        return session

    def _factoryFor(self, server: ServerAddress) -> TunnelClientFactory:
        factory = TunnelClientFactory(
            self._reactor,
            self.offered.serviceFor,
            self._credentials,
            self.observer,
            server.where,
            server.host,
            self._lease.asOffer(),
            server.capability,
            server.explain,
            _WAITING if any(each.demand for each in self.offered.forwards) else None,
        )
        factory.carrier, factory.endpoint = self._carrier, server.endpoint
        factory.confirmations = self._confirmations
        factory.access = server.access
        factory.about = self.about
        factory.dials = {"ask": self.asksToDial, "take": bool(self.destinations)}
        factory.destinations = self.destinations
        factory.proxied = server.route.proxy is not None
        factory.extended = self._greeting.extended
        return factory

    async def _standBy(self, place: str) -> TunnelClientProtocol:
        """
        Begin a standby session, which takes over if this one is lost.

        @param place: Where, as the server has told.
        @raise TunnelError: Why there is none.
        """
        server = self._server.at(self._reactor, place)
        factory = self._factoryFor(server)
        factory.standsBy, factory.observer = True, ClientObserver()
        session = await reached(server, factory)
        try:
            return await session.whenReady()
        except CancelledError:
            session.transport.abortConnection()
            raise

    def _retire(self, session: TunnelClientProtocol, reason: TunnelError) -> None:
        """
        Go to another member; the visitors that are here stay with this session.
        """
        self._places = list(reason.elsewhere)
        session.tunnelClosed = None
        self._retired.add(session, self._confirmations)
        self._confirmations = EndAcknowledgements(self._reactor)

    # Changes

    @property
    def forwards(self) -> Sequence[Forward]:
        return tuple(self.offered.forwards)

    def changeForwards(self, forwards: Sequence[Forward]) -> Deferred[list[str]]:
        """
        Offer something else, see L{OfferedForwards.change}.

        @return: What has changed, in words.
        """
        return self.offered.change(forwards)

    def adapt(
        self,
        server: ServerAddress,
        credentials: Mapping[str, object],
        carrier: Carrier,
        grace: float,
    ) -> None:
        """
        Connect in another way, from the next connection on; at once if there is
        none.

        @param server: The same server; how to know it and the way there may be
            different.
        """
        self._server, self._credentials = server, dict(credentials)
        self._carrier, self._grace = carrier, grace
        if self._attempt is not None and self._attempt.active():
            self._attempt.reset(0)

    def moveLease(self, directory: Path) -> None:
        """
        Keep the lease where the next client of this kind looks for it.

        @param directory: Where clients keep their state.
        """
        specs = [forward.spec for forward in self.forwards]
        self._lease.moveTo(directory, self._server.where, specs)

    # Stopping

    def sayGoodbye(self, session: TunnelClientProtocol) -> None:
        """
        Give up ports and names that nobody will come back to. What is still under
        way to visitors gets there.
        """
        if self.forGood or not self._lease.isKept:
            for uri in self._lease.uris.values():
                session.notify("closeTunnel", uri=uri, finish=True)

    async def _stop(self) -> None:
        self.standby.stop()
        left = Deferred.fromCoroutine(self._retired.leave(self._grace))
        await super()._stop()
        await left
        self._confirmations.close()
        self.offered.stop()
        self._lease.close()
        self.observer.stopped()
