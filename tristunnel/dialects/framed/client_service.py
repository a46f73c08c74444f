"""
The client as a service: connect, open the forwards, and come back.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.connect.address import ServerAddress
from tristunnel.dataplane.endings import EndAcknowledgements
from tristunnel.dialects.base.client import ClientService, backoff
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.dialects.framed.client import TunnelClientFactory, TunnelClientProtocol
from tristunnel.dialects.framed.health import HealthReports
from tristunnel.dialects.framed.managed import AskedForwards
from tristunnel.dialects.framed.moves import Carrier
from tristunnel.dialects.framed.reaching import greetOtherwise, reached
from tristunnel.dialects.framed.standby import Retired, Standby
from tristunnel.dialects.framed.wanted import beyondW3P, servePlain, wantedFor
from tristunnel.errors import TunnelError
from tristunnel.forwards.changes import differences, matched
from tristunnel.forwards.dialling import dialDestinations
from tristunnel.forwards.forward import Forward
from tristunnel.forwards.udp import UDPService
from tristunnel.jsonrpc.pending import RemoteError
from tristunnel.model.observer import ClientObserver
from tristunnel.util.process import GRACE

__all__ = ["TunnelClientService"]


class TunnelClientService(ClientService["TunnelClientProtocol"]):
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

    @ivar forGood: Whether nobody will come back with its lease, so that it gives
        up its ports when it stops.
    @ivar session: The session that is up now, or C{None}.
    @ivar about: What the server is told of this client: C{program}, C{host}.
    @ivar tellsTargets: Whether it is told of each tunnel where that leads.
    @ivar asksToDial: Whether it asks others to dial.
    @ivar destinations: What it dials for others.
    @ivar managed: What the server asks for, and what it may ask for.
    @ivar standby: Its sessions with other members of the server's cluster.
    @ivar tunnelOptions: What C{openTunnel} is told for each forward, beside
        what the forward says.
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
        self.tunnelOptions: dict[str, object] = {}
        self.asksToDial = False
        self.destinations = dialDestinations(())
        self.managed = AskedForwards(reactor, lambda: self.session, self._offerAsked)
        # What the user has said, without what the server asks for.
        self._own = list(forwards)
        self.about: dict[str, str] = {}
        self.tellsTargets = False
        self.forGood = False
        self._lease = lease or ClientLease()
        self._carrier = carrier or Carrier("session" if server.route.proxy else "auto")
        self._confirmations = EndAcknowledgements(reactor)
        self._greeting = server.greeting()
        self._health = HealthReports(reactor, self.observer, self._reportHealth)
        if self._lease.id:
            self._greeting.answered(extended=True)
        # Of this session: forwards that need nothing more, by their text.
        self._settled: set[str] = set()
        # Those of them whose tunnels' addresses were told.
        self._told: set[str] = set()
        self._addresses: dict[str, str] = {}
        self._links: dict[str, str] = {}
        self._changing = DeferredLock()
        self._opening: Deferred[None] | None = None
        self._nap: Deferred[None] | None = None
        self.standby = Standby(reactor, self._standBy)
        self._retired = Retired(reactor)
        # Where the server has sent us.
        self._places: list[str] = []
        # Why a session whose tunnels were all refused is of no use.
        self._turnedAway: TunnelError | None = None

    def whyFinal(self, reason: TunnelError) -> TunnelError | None:
        if reason.code.name == "expired" and self._server.access:
            # The server would refuse us from now on.
            return reason
        if reason.code.name == "displaced" and self._server.capability:
            # To come back would only displace that one in turn.
            reason.message = "another client now serves this tunnel"
            return reason
        if reason.code.name == "displaced":
            # Somebody runs with a copy of our lease: let it.
            self._lease.id = self._lease.secret = ""
        return None

    def goesOn(self) -> bool:
        return self.standby.isReady

    async def _oneSession(self) -> tuple[TunnelError, bool]:
        """
        Connect, serve, and wait for the end.

        @return: Why it ended, and whether the server turned us away.
        """
        session = await self.standby.takeOver(
            self._lease.asOffer(), self._confirmations, self.observer
        )
        if session is None:
            begun = await self._begin()
            if isinstance(begun, TunnelError):
                return begun, True
            session = begun
        self.session = session
        session.tunnelClosed = self._tunnelClosed
        session.isReplaced = self._isShared
        session.placeFree = self._openLater
        session.managedChanged = self.managed.askAgain
        self._settled, self._told = set(), set()
        self._links.clear()
        self._beginOpening(session, self._openForwards(session))
        self.standby.up(session)
        try:
            reason = await session.whenOver()
        finally:
            self.session = None
            self.standby.down()
            if self._opening is not None:
                self._opening.cancel()
        turnedAway, self._turnedAway = self._turnedAway, None
        if turnedAway is not None:
            return turnedAway, True
        if session.lost is None:
            self._retire(session, reason)
        return session.leaving or reason, False

    async def _begin(self) -> TunnelClientProtocol | TunnelError:
        """
        Have a session at the address to which the server has sent us, or at its own.

        @return: The session, or why there is none.
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
            return refusal
        self._greeting.answered(session.extended)
        self._places = []
        return session

    def _factoryFor(self, server: ServerAddress) -> TunnelClientFactory:
        """Make what makes sessions with a server."""
        factory = TunnelClientFactory(
            self._reactor,
            self._serviceFor,
            self._credentials,
            self.observer,
            server.where,
            server.host,
            self._lease.asOffer(),
            server.capability,
            server.explain,
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
        Have a session that takes over if this one is lost.

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

    # Forwards

    def _beginOpening(
        self, session: TunnelClientProtocol, work: Coroutine[Any, Any, None]
    ) -> None:
        """Have tunnels opened while the session goes on."""
        opening = self._opening = Deferred.fromCoroutine(work)
        opening.addErrback(self._openingFailed, session)
        opening.addBoth(self._opened, opening)

    def _opened(self, result: object, opening: Deferred[None]) -> None:
        """All tunnels that can be had are open."""
        if self._opening is opening:
            self._opening = None

    async def _openForwards(self, session: TunnelClientProtocol) -> None:
        """
        Have the server open our tunnels; try again for those that it refuses
        for now.
        """
        if not session.extended:
            self._servePlain(session)
            return
        if self._server.capability:
            for uri in session.tunnels:
                first = self._forwards[0]
                address = str(await session.call("getTunnelAddress", uri=uri))
                address = first.addressFor(address)
                self.observer.tunnelOpened(first.spec, uri, address, first.target)
                self.observer.tunnelReady(address, first.target)
            return
        self._lease.granted(session.lease, session.tunnels)
        for uri in set(session.tunnels) - set(self._lease.uris.values()):
            session.call("closeTunnel", uri=uri).addErrback(lambda failure: None)
        await self.managed.ask(session)
        await self._openMissing(session)
        if self.managed.consent is None and self._forwards and not self._lease.uris:
            raise TunnelError.said(
                "not-permitted", "the server refused all of the tunnels"
            )

    async def _openMissing(self, session: TunnelClientProtocol) -> None:
        """
        Open what is not open, until there is no such forward. They may change
        meanwhile.
        """
        refusals = 0
        while True:
            missing = [f for f in self._forwards if f.spec not in self._settled]
            if not missing:
                return
            # Those that any port will do for must not get another's.
            missing.sort(key=lambda forward: not forward.port)
            refused, known = False, self._forwards
            for forward in missing:
                await self._changing.acquire()
                try:
                    if self._forwards is not known and not any(
                        each is forward for each in self._forwards
                    ):
                        continue
                    if await self._open(session, forward):
                        refused = True
                    else:
                        self._settled.add(forward.spec)
                finally:
                    self._changing.release()
            if refused:
                delay = self._delay(2 + refusals, None)
                self.observer.openingQueued(delay)
                self._nap = deferLater(self._reactor, delay)
                self._nap.addErrback(lambda failure: failure.trap(CancelledError))
                await self._nap
                if self.session is not session:
                    return
                refusals += 1

    def changeForwards(self, forwards: Sequence[Forward]) -> Deferred[list[str]]:
        """
        Offer something else. What stays the same is not touched; a forward that
        has only another target keeps its tunnel, and its visitors stay with the
        target that they came to.

        @param forwards: All that is to be offered from now on.
        @return: What has changed, in words, once tunnels of forwards that are
            gone are closed. New ones are opened later, as after the start.
        """
        self._own = list(forwards)
        return Deferred.fromCoroutine(
            self._changeForwards([*self._own, *self.managed.forwards])
        )

    async def _offerAsked(self, session: TunnelClientProtocol) -> list[str]:
        """Offer what the server asks for now, too, and say what has changed."""
        wanted = [*self._own, *self.managed.forwards]
        kept = {forward.spec for forward in wanted}
        for spec in [each for each in self._lease.uris if each not in kept]:
            uri = self._lease.uris.pop(spec)
            session.call("closeTunnel", uri=uri).addErrback(lambda failure: None)
        return await self._changeForwards(wanted)

    async def _changeForwards(self, wanted: list[Forward]) -> list[str]:
        """Change them when no tunnel is just being opened."""
        await self._changing.acquire()
        try:
            told: list[str] = []
            gone: list[Forward] = []
            fresh: list[Forward] = []
            for index, (before, after) in enumerate(matched(self._forwards, wanted)):
                if before is None or before.private != after.private:
                    gone += [before] if before is not None else []
                    fresh.append(after)
                    told.append(f"forward {after.spec} added")
                elif before.isLike(after):
                    # Its service may be in use.
                    wanted[index] = before
                else:
                    told.append(self._replace(before, after))
            stay = {id(before) for before, _ in matched(self._forwards, wanted)}
            gone += [f for f in self._forwards if id(f) not in stay]
            new = {id(forward) for forward in fresh}
            self._forwards = [each for each in wanted if id(each) not in new]
            session = self.session
            for forward in gone:
                told.append(f"forward {forward.spec} removed")
                await self._withdraw(session, forward)
            self._forwards = wanted
            self._lease.save()
        finally:
            self._changing.release()
        self._openLater()
        return told

    def _replace(self, before: Forward, after: Forward) -> str:
        """
        Take over another target or other rules for a tunnel.

        @return: What is different, in words.
        """
        told = differences(before, after)
        if told:
            self._settled.discard(before.spec)
        if (before.options, before.health) != (after.options, after.health):
            self._health.withdrawn(before.spec)
        if before.spec != after.spec:
            told.append(f"leads to {after.target}")
            self.observer.forwardWithdrawn(before.spec)
            self._health.withdrawn(before.spec)
            self._lease.renamed(before.spec, after.spec)
            address = self._addresses.pop(before.spec, "")
            self._links[after.spec] = self._links.pop(before.spec, "")
            uri = self._lease.uris.get(after.spec)
            if before.spec in self._settled:
                self._settled.remove(before.spec)
                self._settled.add(after.spec)
                self._told.add(after.spec)
                if uri is not None:
                    self._ready(after, uri, address)
        return f"forward {before.spec} {' and '.join(told)}"

    async def _withdraw(
        self, session: TunnelClientProtocol | None, forward: Forward
    ) -> None:
        """Offer something no longer."""
        uri = self._lease.uris.pop(forward.spec, None)
        self._lease.ports.pop(forward.spec, None)
        self._health.withdrawn(forward.spec)
        self._settled.discard(forward.spec)
        self._addresses.pop(forward.spec, None)
        self.observer.forwardWithdrawn(forward.spec)
        if uri is None or session is None or session.lost is not None:
            # The server is told when we are back.
            return
        try:
            await session.call("closeTunnel", uri=uri)
        except (TunnelError, RemoteError) as error:
            self._log.info(
                "The tunnel of {forward} was not closed: {reason}",
                forward=forward.spec,
                reason=error,
            )

    def _openLater(self) -> None:
        """Have new forwards opened, now if there is a session."""
        session = self.session
        if session is None or not isinstance(session, TunnelClientProtocol):
            return
        if self._server.capability:
            return
        if not session.extended:
            self._servePlain(session)
        elif self._opening is None:
            self._beginOpening(session, self._openMissing(session))
        elif self._nap is not None and not self._nap.called:
            self._nap.cancel()

    def _ready(self, forward: Forward, uri: str, address: str) -> None:
        """Tell that visitors can come."""
        self._refusals.passed()
        shown = forward.addressFor(address) or f"service {forward.name}"
        self._addresses[forward.spec] = address
        opened = getattr(forward.endpoint, "tunnelOpened", None)
        if opened is not None:
            opened(address)
        self.observer.tunnelOpened(forward.spec, uri, shown, forward.target)
        self.observer.tunnelReady(shown, forward.target)
        if link := self._links.get(forward.spec):
            self.observer.knockLinkMade(shown, link)

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
        specs = [forward.spec for forward in self._forwards]
        self._lease.moveTo(directory, self._server.where, specs)

    async def _open(self, session: TunnelClientProtocol, forward: Forward) -> bool:
        """
        Open one tunnel.

        @return: Whether to try again later.
        """
        options = wantedFor(forward, self._lease, self.tunnelOptions)
        if self.tellsTargets:
            options["target"] = forward.target
        try:
            uri = str(await session.call("openTunnel", **options))
            # Visitors may come before the address is known.
            self._lease.uris[forward.spec] = uri
            address = str(await session.call("getTunnelAddress", uri=uri))
            link = ""
            if forward.gate.knock:
                link = str(await session.call("getKnockLink", uri=uri))
        except (TunnelError, RemoteError) as error:
            if session.lost is not None:
                raise
            refusal = (
                error
                if isinstance(error, TunnelError)
                else TunnelError("internal", str(error))
            )
            self.observer.tunnelFailed(forward.wanted, refusal)
            return not refusal.code.permanent
        scheme, _, place = address.partition("://")
        port = place.rpartition(":")[2]
        if forward.hasHost or scheme.startswith("http"):
            # The name is to be had again, and the port is the server's.
            host = "" if forward.name else place.partition("/")[0].partition(":")[0]
            self._lease.opened(forward.spec, uri, 0, host)
        else:
            number = int(port) if port.isdecimal() else 0
            self._lease.opened(forward.spec, uri, number)
        self._health.opened(forward)
        known = self._addresses.get(forward.spec), self._links.get(forward.spec)
        self._links[forward.spec] = link
        if forward.spec not in self._told or known != (address, link):
            self._told.add(forward.spec)
            self._ready(forward, uri, address)
        return False

    def _isShared(self) -> bool:
        """Whether other clients may have visitors that we cannot take any more."""
        return any(forward.options.share for forward in self._forwards)

    def _reportHealth(self, spec: str, isWell: bool, reason: str) -> None:
        """Tell the server how a service is, if it knows the tunnel."""
        session, uri = self.session, self._lease.uris.get(spec)
        if session is not None and session.lost is None and uri is not None:
            session.notify("reportHealth", uri=uri, well=isWell, reason=reason)

    def _openingFailed(self, failure: Failure, session: TunnelClientProtocol) -> None:
        """No tunnel can be had, or the session ended meanwhile."""
        if failure.check(CancelledError) or session.lost is not None:
            return
        error = failure.value
        if isinstance(error, TunnelError) and error.code.permanent:
            self._turnedAway = error
            session.close()
            return
        self._log.failure("The tunnels were not opened", failure)

    def _servePlain(self, session: TunnelClientProtocol) -> None:
        """A W3P server has opened one tunnel, on a port of its own choice."""
        servePlain(
            self._forwards,
            self.tunnelOptions,
            self._server.host or "localhost",
            session.port,
            self.observer,
        )

    def _serviceFor(self, uri: str) -> tuple[str, IStreamClientEndpoint | UDPService]:
        """Find the service of a tunnel's visitors."""
        if not uri:
            # A plain W3P server's.
            for forward in self._forwards:
                if not beyondW3P(forward, self.tunnelOptions):
                    return forward.target, forward.endpoint
        elif self._server.capability:
            return self._forwards[0].target, self._forwards[0].endpoint
        spec = self._lease.specOf(uri)
        for forward in self._forwards:
            if forward.spec == spec:
                return forward.target, forward.endpoint
        raise TunnelError("unknown-tunnel", "this client has no such tunnel")

    def _tunnelClosed(self, uri: str, reason: TunnelError) -> None:
        """The server has closed a tunnel of ours."""
        self.observer.tunnelClosed(uri)
        spec = self._lease.specOf(uri)
        if self._server.capability:
            self.observer.tunnelFailed(uri, reason)
        elif spec is not None:
            del self._lease.uris[spec]
            self._lease.save()
            self.observer.tunnelFailed(spec, reason)

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
        self._health.stop()
        self._lease.close()
        self.observer.stopped()
