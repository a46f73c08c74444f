"""Leading visitors between the processes of one machine."""

from __future__ import annotations

from collections.abc import Callable
from socket import socket
from typing import Any

from twisted.internet.defer import Deferred

from tristunnel.cluster.arrival import PATIENCE, Finds, RelayedSocket, arrive
from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.poller import Poller
from tristunnel.errors import TunnelError
from tristunnel.model.record import TunnelRecord
from tristunnel.processes.link import Asker
from tristunnel.processes.membership import Membership
from tristunnel.processes.passage import endOf, passage

__all__ = ["SiblingWays"]


class SiblingWays:
    """
    The L{Ways<tristunnel.cluster.leading.Ways>} to the other processes, and from them.

    @param poller: Where sockets wait.
    @param membership: The links to the others.
    @param find: Finds who takes a tunnel's visitors.
    @param passed: Called with each visitor who was led elsewhere.

    @ivar indexOf: Which process of this machine a member is, by its name; C{None} for
        one of another machine.
    """

    def __init__(
        self,
        poller: Poller,
        membership: Membership,
        find: Finds,
        passed: Callable[[], object] = lambda: None,
    ) -> None:
        self._poller = poller
        self._membership = membership
        self._find = find
        self._passed = passed
        self.indexOf: Callable[[str], int | None] = int
        membership.answers["visitor"] = self._came

    def otherThanThis(self, member: str) -> int | None:
        """Which other process of this machine a member is, if it is one."""
        index = self.indexOf(member)
        return None if index == self._membership.index else index

    def memberLeaves(self, member: str) -> None:
        """Learn that a member stops, which may be another process of this machine."""
        index = self.indexOf(member)
        if index is not None and index in self._membership.siblings:
            self._membership.siblings[index].isLeaving = True

    async def wayTo(self, record: TunnelRecord, visitor: str, host: str) -> Any:
        """
        Lead a visitor to the process that has a tunnel's client.

        @raise TunnelError: Why that cannot be.
        """
        member = self.indexOf(record.place.member)
        assert member is not None
        ours, theirs = passage()
        try:
            if member == self._membership.index:
                # It has come here meanwhile.
                await self._arrives(theirs, record.id, visitor, host)
            else:
                said = [record.id, visitor, host]
                link = self._membership.sibling(member)
                await link.call("visitor", said, b"", [theirs], PATIENCE)
        except BaseException:
            # Also a visitor who leaves meanwhile.
            ours.close()
            raise
        self._passed()
        made: list[Any] = []
        endOf(self._poller, ours, made.append)
        return made[0]

    def _came(
        self, asker: Asker, tunnel: str, visitor: str, host: str
    ) -> Deferred[None]:
        """Take a visitor from another process."""
        if not asker.message.sockets:
            raise TunnelError("limit-reached", "there are no descriptors left")
        return self._arrives(asker.message.sockets[0], tunnel, visitor, host)

    def _arrives(
        self, connection: socket, tunnel: str, visitor: str, host: str
    ) -> Deferred[None]:
        answered: Deferred[None] = Deferred()

        def told(reason: TunnelError | None) -> None:
            if reason is None:
                answered.callback(None)
            else:
                answered.errback(reason)

        def came(end: RelayedSocket) -> None:
            arrive(found, end, visitor, host, told)

        try:
            found = self._find(tunnel)
            RESERVE.checkSession()
        except TunnelError:
            connection.close()
            raise
        endOf(self._poller, connection, came, RelayedSocket)
        return answered
