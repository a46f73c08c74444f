"""
Visitors who are clients of one process of a server, of what a client of another process
of it has or dials: their streams go there by a pair of sockets.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

from twisted.logger import Logger

from tristunnel.dataplane.join import join
from tristunnel.dataplane.poller import Poller
from tristunnel.errors import TunnelError
from tristunnel.interfaces import End
from tristunnel.processes.link import Asker
from tristunnel.processes.membership import Membership
from tristunnel.processes.passage import endOf, passage
from tristunnel.service.caller import Caller
from tristunnel.service.clients import Visits
from tristunnel.service.siblings import Siblings, callerAsDict, callerFrom
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.util.deferreds import returnsDeferred

__all__ = ["Dials", "Visiting"]


class Dials(Protocol):
    """A client's session that dials for others."""

    def openDial(self, target: str, visitor: str) -> End:
        """
        Have it dial.

        @param target: What it is to reach.
        @param visitor: The address of who wants that.
        @return: A stream to it.
        @raise TunnelError: If it takes no more.
        """


class Visiting:
    """
    Leads visitors to other processes, and takes theirs.

    @param poller: Where sockets wait.
    @param membership: The ways to the others.
    @param siblings: Says which one has a service.
    @param service: The tunnels of this process.

    @ivar dialler: Finds a client of this process by name, if there is one that dials.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(
        self,
        poller: Poller,
        membership: Membership,
        siblings: Siblings,
        service: TunnelService,
    ) -> None:
        self._poller = poller
        self._membership = membership
        self._siblings = siblings
        self._service = service
        self.dialler: Callable[[str], Dials | None] = lambda name: None
        siblings.publish("hasService", self._has)
        siblings.publish("hasDialler", self._dials)
        membership.answers["visit"] = self._arrived
        membership.answers["dial"] = self._dialArrived

    @returnsDeferred
    async def _has(self, caller: Caller, name: str) -> object:
        tunnel = await self._service.findNamed(caller, name)
        return [self._membership.index, tunnel.protocol]

    async def find(
        self, caller: Caller, name: str, refusal: TunnelError
    ) -> tuple[int, str]:
        """
        Find out who has a service that C{caller} may visit.

        @param refusal: Why this process has it not.
        @return: The process, and what the service's visitors speak.
        @raise TunnelError: C{refusal}, if nobody has.
        """
        member, protocol = await self._siblings.first(
            refusal, "hasService", caller, name
        )
        return int(member), str(protocol)

    def lead(
        self,
        member: int,
        caller: Caller,
        name: str,
        visitor: Any,
        address: str,
        visits: Visits,
    ) -> None:
        """
        Lead a visitor to a service.

        @param member: Who has it.
        @param visitor: The visitor's end, not yet joined.
        @param address: Where it comes from.
        @param visits: Those of the visitor's session.
        @raise TunnelError: If that process is not there, or takes no more.
        """
        self._membership.sibling(member)
        visits.enter(visitor)

        def closed(reason: TunnelError | None) -> None:
            visits.leave(visitor)

        said = [name, address, callerAsDict(caller)]
        try:
            self._lead(member, "visit", said, lambda end: join(visitor, end, closed))
        except TunnelError:
            visits.leave(visitor)
            raise

    def _lead(
        self,
        member: int,
        what: str,
        said: Sequence[object],
        arrived: Callable[[Any], None],
    ) -> None:
        """
        Make a way to another process.

        @param what: How that answers.
        @param arrived: Called with this side's end.
        """
        link = self._membership.sibling(member)
        ours, theirs = passage()
        try:
            link.tell(what, said, b"", [theirs])
        except TunnelError:
            ours.close()
            raise
        endOf(self._poller, ours, arrived)

    # Dialling

    def _dials(self, caller: Caller, name: str) -> object:
        if self.dialler(name) is None:
            raise TunnelError("client-away")
        return self._membership.index

    async def findDialler(self, caller: Caller, name: str, refusal: TunnelError) -> int:
        """
        Find out at which process a client is that dials for others.

        @param refusal: Why none of this process does.
        @raise TunnelError: C{refusal}, if nobody has it.
        """
        found = await self._siblings.first(refusal, "hasDialler", caller, name)
        return int(found)

    def leadToDialler(
        self,
        member: int,
        name: str,
        target: str,
        address: str,
        arrived: Callable[[Any], None],
    ) -> None:
        """
        Have a client of another process dial.

        @param member: Where it is.
        @param name: The client.
        @param arrived: Called with the end that leads there.
        @raise TunnelError: If that process is not there, or takes no more.
        """
        self._lead(member, "dial", [name, target, address], arrived)

    def _dialArrived(self, asker: Asker, name: str, target: str, address: str) -> None:
        """Somebody wants a client of ours to dial."""
        if not asker.message.sockets:
            self._log.warn("A visitor was lost: there are no descriptors left")
            return
        connection = asker.message.sockets[0]
        found = self.dialler(name)
        try:
            if found is None:
                raise TunnelError("client-away")
            far = found.openDial(target, address)
            endOf(
                self._poller,
                connection,
                lambda end: join(far, end, lambda reason: None),
            )
        except TunnelError as problem:
            self._log.info(
                "A visitor of {name} was turned away: {problem}",
                name=name,
                problem=problem,
            )
            connection.close()

    @returnsDeferred
    async def _arrived(
        self, asker: Asker, name: str, address: str, caller: Any
    ) -> None:
        """Somebody visits by way of another process."""
        if not asker.message.sockets:
            self._log.warn("A visitor was lost: there are no descriptors left")
            return
        connection = asker.message.sockets[0]
        who = callerFrom(caller)
        try:
            tunnel = await self._service.findNamed(who, name)
            visits = Visits(who.identity)

            def arrived(end: End) -> None:
                tunnel.visitorArrived(end, address, visits)

            endOf(self._poller, connection, arrived)
        except TunnelError as problem:
            self._log.info(
                "A visitor of {name} was turned away: {problem}",
                name=name,
                problem=problem,
            )
            connection.close()
