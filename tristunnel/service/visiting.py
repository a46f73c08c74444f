"""
Visitors who are clients of one process of a server, of named services that another
process of it has: their streams go there by a pair of sockets.
"""

from __future__ import annotations

import socket as socketModule
from typing import Any

from twisted.logger import Logger

from tristunnel.dataplane.join import join
from tristunnel.dataplane.poller import Poller
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.errors import TunnelError
from tristunnel.interfaces import End
from tristunnel.processes.link import Asker
from tristunnel.processes.membership import Membership
from tristunnel.service.caller import Caller
from tristunnel.service.clients import Visits
from tristunnel.service.siblings import Siblings, callerAsDict, callerFrom
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.platform import AF_UNIX

__all__ = ["Visiting"]


class Visiting:
    """
    Leads visitors to other processes, and takes theirs.

    @param poller: Where sockets wait.
    @param membership: The ways to the others.
    @param siblings: Says which one has a service.
    @param service: The tunnels of this process.
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
        siblings.publish("hasService", self._has)
        membership.answers["visit"] = self._arrived

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
        link = self._membership.sibling(member)
        visits.enter(visitor)

        def closed(reason: TunnelError | None) -> None:
            visits.leave(visitor)

        try:
            ours, theirs = socketModule.socketpair(AF_UNIX)
        except OSError as error:
            raise TunnelError("limit-reached", f"a passage: {error.strerror}") from None
        try:
            link.tell("visit", [name, address, callerAsDict(caller)], b"", [theirs])
        except TunnelError:
            ours.close()
            raise
        ours.setblocking(False)
        SocketEnd(self._poller, ours, lambda end: join(visitor, end, closed)).begin()

    @returnsDeferred
    async def _arrived(
        self, asker: Asker, name: str, address: str, caller: Any
    ) -> None:
        """Somebody visits by way of another process."""
        if not asker.message.sockets:
            self._log.warn("A visitor was lost: there are no descriptors left")
            return
        connection = asker.message.sockets[0]
        connection.setblocking(False)
        who = callerFrom(caller)
        try:
            tunnel = await self._service.findNamed(who, name)
            visits = Visits(who.identity)

            def arrived(end: End) -> None:
                tunnel.visitorArrived(end, address, visits)

            SocketEnd(self._poller, connection, arrived).begin()
        except (TunnelError, OSError) as problem:
            self._log.info(
                "A visitor of {name} was turned away: {problem}",
                name=name,
                problem=problem,
            )
            connection.close()
