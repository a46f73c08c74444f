"""
Clients of one process of a server that dial for visitors who are clients of another
one: their streams go there by a pair of sockets.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from twisted.logger import Logger

from tristunnel.dataplane.carried import CarriedFlow
from tristunnel.dataplane.join import join
from tristunnel.dataplane.poller import Poller
from tristunnel.errors import TunnelError
from tristunnel.interfaces import DatagramEnd, EitherEnd, End
from tristunnel.processes.link import Asker
from tristunnel.processes.membership import Membership
from tristunnel.processes.passage import endOf, passage
from tristunnel.service.caller import Caller
from tristunnel.service.siblings import Siblings

__all__ = ["Dials", "Visiting"]


class Dials(Protocol):
    """A client's session that dials for others."""

    def openDial(self, target: str, visitor: str) -> End:
        """
        Have it dial.

        @param target: What it is to reach.
        @param visitor: The address of the visitor.
        @return: A stream to it.
        @raise TunnelError: If it takes no more.
        """

    def openDialFlow(self, target: str, visitor: str) -> DatagramEnd:
        """The same, for datagrams."""


class Visiting:
    """
    Leads visitors to other processes, and takes those from there.

    @param poller: Where sockets wait.
    @param membership: The ways to the others.
    @param siblings: Says which one has a client.

    @ivar dialler: Finds a client of this process by name, if there is one that dials.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(
        self, poller: Poller, membership: Membership, siblings: Siblings
    ) -> None:
        self._poller = poller
        self._membership = membership
        self._siblings = siblings
        self.dialler: Callable[[str], Dials | None] = lambda name: None
        siblings.publish("hasDialler", self._dials)
        membership.answers["dial"] = self._dialArrived

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
        isUDP: bool,
        arrived: Callable[[Any], None],
    ) -> None:
        """
        Have a client of another process dial.

        @param member: Where it is.
        @param name: The client.
        @param isUDP: Whether it is about datagrams.
        @param arrived: Called with the end that leads there, or with that of a flow.
        @raise TunnelError: If that process is not there, or takes no more.
        """
        link = self._membership.sibling(member)
        ours, theirs = passage()
        try:
            link.tell("dial", [name, target, address, isUDP], b"", [theirs])
        except TunnelError:
            ours.close()
            raise
        endOf(
            self._poller, ours, lambda end: arrived(CarriedFlow(end) if isUDP else end)
        )

    def _dialArrived(
        self, asker: Asker, name: str, target: str, address: str, isUDP: bool
    ) -> None:
        """Have a client of this process dial, for a visitor at another one."""
        if not asker.message.sockets:
            self._log.warn("A visitor was lost: there are no descriptors left")
            return
        connection = asker.message.sockets[0]
        found = self.dialler(name)
        try:
            if found is None:
                raise TunnelError("client-away")
            far: EitherEnd = (found.openDialFlow if isUDP else found.openDial)(
                target, address
            )
            endOf(
                self._poller,
                connection,
                lambda end: join(
                    far, CarriedFlow(end) if isUDP else end, lambda reason: None
                ),
            )
        except TunnelError as problem:
            self._log.info(
                "A visitor of {name} was turned away: {problem}",
                name=name,
                problem=problem,
            )
            connection.close()
