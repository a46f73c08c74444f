"""
The forwards that a client offers: their tunnels are opened in one session after the
other, and may change meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredLock
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.connect.address import ServerAddress
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.dialects.framed.client import TunnelClientProtocol
from tristunnel.dialects.framed.managed import AskedForwards
from tristunnel.dialects.framed.opened import OpenedTunnels
from tristunnel.dialects.framed.wanted import beyondW3P, servePlain, wantedFor
from tristunnel.errors import TunnelError
from tristunnel.forwards.changes import matched
from tristunnel.forwards.forward import Forward
from tristunnel.forwards.udp import UDPService
from tristunnel.model.observer import ClientObserver

__all__ = ["OfferedForwards"]


class OfferedForwards:
    """
    What one client offers.

    @param reactor: Tells time.
    @param server: Where the client connects.
    @param forwards: What its user offers.
    @param lease: What is remembered of former sessions.
    @param observer: Told what happens.
    @param delay: Makes the delay of failures and the server's hint.
    @param served: Called when a tunnel is open.

    @ivar forwards: What is offered now, including what the server asks for.
    @ivar managed: What the server asks for, and what it may ask for.
    @ivar tunnelOptions: What C{openTunnel} is told for each forward, beside
        what the forward says.
    @ivar tellsTargets: Whether the server is told of each tunnel where that leads.
    @ivar turnedAway: Why a session whose tunnels were all refused is of no use.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        server: ServerAddress,
        forwards: Sequence[Forward],
        lease: ClientLease,
        observer: ClientObserver,
        delay: Callable[[int, float | None], float],
        served: Callable[[], object],
    ) -> None:
        self.forwards = list(forwards)
        self.managed = AskedForwards(
            reactor, lambda: self._tunnels.session, self._offerAsked
        )
        self.tunnelOptions: dict[str, object] = {}
        self.tellsTargets = False
        self.turnedAway: TunnelError | None = None
        # What the user has said, without what the server asks for.
        self._own = list(forwards)
        self._reactor = reactor
        self._server = server
        self._lease = lease
        self._observer = observer
        self._delay = delay
        self._tunnels = OpenedTunnels(reactor, lease, observer, served)
        self._changing = DeferredLock()
        self._opening: Deferred[None] | None = None
        self._nap: Deferred[None] | None = None

    def up(self, session: TunnelClientProtocol) -> None:
        """Open the tunnels in a session."""
        self.turnedAway = None
        session.tunnelClosed = self._tunnelClosed
        session.isReplaced = self._isShared
        session.placeFree = self._openLater
        session.managedChanged = self.managed.askAgain
        self._tunnels.up(session)
        self._beginOpening(session, self._openForwards(session))

    def down(self) -> None:
        """Stop opening tunnels, because the session is over."""
        self._tunnels.session = None
        if self._opening is not None:
            self._opening.cancel()

    def stop(self) -> None:
        """Offer nothing any more."""
        self._tunnels.stop()

    def _beginOpening(
        self, session: TunnelClientProtocol, work: Coroutine[Any, Any, None]
    ) -> None:
        """Open tunnels while the session goes on."""
        opening = self._opening = Deferred.fromCoroutine(work)
        opening.addErrback(self._openingFailed, session)
        opening.addBoth(self._opened, opening)

    def _opened(self, result: object, opening: Deferred[None]) -> None:
        """Note that all tunnels are open that can be had."""
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
                first = self.forwards[0]
                address = str(await session.call("getTunnelAddress", uri=uri))
                address = first.addressFor(address)
                self._observer.tunnelOpened(first.spec, uri, address, first.target)
                self._observer.tunnelReady(address, first.target)
            return
        self._lease.granted(session.lease, session.tunnels)
        for uri in set(session.tunnels) - set(self._lease.uris.values()):
            session.call("closeTunnel", uri=uri).addErrback(lambda failure: None)
        await self.managed.ask(session)
        await self._openMissing(session)
        if self.managed.consent is None and self.forwards and not self._lease.uris:
            raise TunnelError.said(
                "not-permitted", "the server refused all of the tunnels"
            )

    async def _openMissing(self, session: TunnelClientProtocol) -> None:
        """
        Open the tunnels that are not open, until there are none. The forwards may
        change meanwhile.
        """
        refusals = 0
        while True:
            missing = self._tunnels.missing(self.forwards)
            if not missing:
                return
            refused, known = False, self.forwards
            for forward in missing:
                await self._changing.acquire()
                try:
                    if self.forwards is not known and not any(
                        each is forward for each in self.forwards
                    ):
                        continue
                    if await self._open(session, forward):
                        refused = True
                finally:
                    self._changing.release()
            if refused:
                delay = self._delay(2 + refusals, None)
                self._observer.openingQueued(delay)
                self._nap = deferLater(self._reactor, delay)
                self._nap.addErrback(lambda failure: failure.trap(CancelledError))
                await self._nap
                if self._tunnels.session is not session:
                    return
                refusals += 1

    def change(self, forwards: Sequence[Forward]) -> Deferred[list[str]]:
        """
        Change what is offered. What stays the same is not touched; a forward that has
        only another target keeps its tunnel, and its visitors stay with the target that
        they came to.

        @param forwards: All that is to be offered from now on.
        @return: What has changed, in words, once tunnels of forwards that are
            gone are closed. New ones are opened later, as after the start.
        """
        self._own = list(forwards)
        return Deferred.fromCoroutine(
            self._change([*self._own, *self.managed.forwards])
        )

    async def _offerAsked(self, session: TunnelClientProtocol) -> list[str]:
        """Offer also what the server asks for now, and say what has changed."""
        wanted = [*self._own, *self.managed.forwards]
        kept = {forward.spec for forward in wanted}
        for spec in [each for each in self._lease.uris if each not in kept]:
            uri = self._lease.uris.pop(spec)
            session.call("closeTunnel", uri=uri).addErrback(lambda failure: None)
        return await self._change(wanted)

    async def _change(self, wanted: list[Forward]) -> list[str]:
        """Change the forwards, when no tunnel is just being opened."""
        await self._changing.acquire()
        try:
            told: list[str] = []
            gone: list[Forward] = []
            fresh: list[Forward] = []
            for index, (before, after) in enumerate(matched(self.forwards, wanted)):
                if before is None or before.private != after.private:
                    gone += [before] if before is not None else []
                    fresh.append(after)
                    told.append(f"forward {after.spec} added")
                elif before.isLike(after):
                    # Its service may be in use.
                    wanted[index] = before
                else:
                    told.append(self._tunnels.replace(before, after))
            stay = {id(before) for before, _ in matched(self.forwards, wanted)}
            gone += [f for f in self.forwards if id(f) not in stay]
            new = {id(forward) for forward in fresh}
            self.forwards = [each for each in wanted if id(each) not in new]
            session = self._tunnels.session
            for forward in gone:
                told.append(f"forward {forward.spec} removed")
                await self._tunnels.withdraw(session, forward)
            self.forwards = wanted
            self._lease.save()
        finally:
            self._changing.release()
        self._openLater()
        return told

    async def _open(self, session: TunnelClientProtocol, forward: Forward) -> bool:
        options = wantedFor(forward, self._lease, self.tunnelOptions)
        if self.tellsTargets:
            options["target"] = forward.target
        return await self._tunnels.open(session, forward, options)

    def _openLater(self) -> None:
        """Open new forwards, if there is a session."""
        session = self._tunnels.session
        if session is None or self._server.capability:
            return
        if not session.extended:
            self._servePlain(session)
        elif self._opening is None:
            self._beginOpening(session, self._openMissing(session))
        elif self._nap is not None and not self._nap.called:
            self._nap.cancel()

    def _isShared(self) -> bool:
        """Whether other clients may have visitors that we cannot take any more."""
        return any(forward.options.share for forward in self.forwards)

    def _openingFailed(self, failure: Failure, session: TunnelClientProtocol) -> None:
        """Handle that no tunnel can be had, or that the session ended meanwhile."""
        if failure.check(CancelledError) or session.lost is not None:
            return
        error = failure.value
        if isinstance(error, TunnelError) and error.code.permanent:
            self.turnedAway = error
            session.close()
            return
        self._log.failure("The tunnels were not opened", failure)

    def _servePlain(self, session: TunnelClientProtocol) -> None:
        """A W3P server has opened one tunnel, on a port of its own choice."""
        servePlain(
            self.forwards,
            self.tunnelOptions,
            self._server.host or "localhost",
            session.port,
            self._observer,
        )

    def serviceFor(self, uri: str) -> tuple[str, IStreamClientEndpoint | UDPService]:
        """Find the service of a tunnel's visitors."""
        if not uri:
            # A plain W3P server's.
            for forward in self.forwards:
                if not beyondW3P(forward, self.tunnelOptions):
                    return forward.target, forward.endpoint
        elif self._server.capability:
            return self.forwards[0].target, self.forwards[0].endpoint
        spec = self._lease.specOf(uri)
        for forward in self.forwards:
            if forward.spec == spec:
                return forward.target, forward.endpoint
        raise TunnelError("unknown-tunnel", "this client has no such tunnel")

    def _tunnelClosed(self, uri: str, reason: TunnelError) -> None:
        self._observer.tunnelClosed(uri)
        if self._server.capability:
            self._observer.tunnelFailed(uri, reason)
        else:
            self._tunnels.closed(uri, reason)
