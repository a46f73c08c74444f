"""
Sessions of clients that also visit the services of others, and have things dialled.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

from twisted.internet.interfaces import IAddress

from tristunnel.dialects.base.dialling import DialSide
from tristunnel.dialects.base.server_session import ServerSession
from tristunnel.errors import TunnelError
from tristunnel.forwards.destinations import Destinations
from tristunnel.service.clients import Visits
from tristunnel.service.visiting import Visiting
from tristunnel.util.hosts import addressText

__all__ = ["VisitingSession"]


class VisitingSession(ServerSession):
    """A session on which the client opens streams or flows, too."""

    @cached_property
    def visits(self) -> Visits:
        """Its visits to tunnels of others, once it is known whose they are."""
        return Visits(self._caller.identity)

    @cached_property
    def dialled(self) -> DialSide:
        """What it has dialled."""
        return DialSide(self, self._service, self._sessions.dialler)

    async def visit(
        self,
        end: Any,
        name: str,
        isUDP: bool,
        accept: Callable[[], object],
        peer: IAddress | None = None,
        hint: str = "",
    ) -> None:
        """
        Lead what the client has opened to a service.

        @param end: A stream or a flow.
        @param name: The service.
        @param accept: Tells the client that it is there.
        @param peer: Where it comes from, if not by the session's own connection.
        @param hint: What else the name may mean, if there is no such service.
        """
        try:
            tunnel = await self._service.findNamed(self._caller, name)
            if (tunnel.protocol == "udp") != isUDP:
                kind = "TCP" if isUDP else "UDP"
                why = "" if isUDP else ": send datagrams to its port"
                raise TunnelError("not-permitted", f"{name} is a {kind} service{why}")
            if end.over:
                return
            address = addressText(peer or self.connection.peerAddress)
            tunnel.visitorArrived(end, address, self.visits)
        except TunnelError as refusal:
            if hint and refusal.code.name == "unknown-tunnel":
                refusal = TunnelError("unknown-tunnel", f"{refusal.message}; {hint}")
            end.reset(refusal)
            return
        accept()

    # What dialling needs to know

    @property
    def destinations(self) -> Destinations:
        """What the server dials for its clients."""
        return self._sessions.destinations

    @property
    def visiting(self) -> Visiting | None:
        """What leads to other processes of this server, if there are any."""
        return self._sessions.visiting

    @property
    def isForOneTunnel(self) -> bool:
        """Whether it came with the URI of a tunnel, which is good for nothing else."""
        return self._caller.limitedTo is not None

    def sessionOver(self, reason: TunnelError) -> None:
        if "dialled" in vars(self):
            self.dialled.close(reason)
        super().sessionOver(reason)
