"""Visitors of a client's services, as a server of the framed protocol sends them."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from twisted.internet.interfaces import IStreamClientEndpoint

from tristunnel.dialects.base.stream import SessionStream
from tristunnel.errors import TunnelError
from tristunnel.forwards.destinations import Destinations
from tristunnel.forwards.dialling import DIAL, DialRequest, dialService, dialTarget
from tristunnel.forwards.service_connector import ServiceConnector
from tristunnel.forwards.udp import UDPConnector, UDPService

if TYPE_CHECKING:
    from tristunnel.dialects.framed.datagrams import SessionFlow

__all__ = ["IncomingVisitors", "ServiceFor"]

ServiceFor = Callable[[str], "tuple[str, IStreamClientEndpoint | UDPService]"]
"""Says which service a tunnel's visitors are for, by the tunnel's URI (empty
with a plain W3P server): its name for people, and its endpoint, or where it
takes datagrams. Raises L{TunnelError} if there is none."""


class IncomingVisitors:
    """
    Connects visitors to the services.

    @param reactor: Connects.
    @param connector: Connects those with streams.
    @param serviceFor: Finds a service.
    @param destinations: What the client dials for others.

    @ivar connector: Likewise.
    @ivar datagrams: Connects those with datagrams.
    @ivar refusal: Why no more are taken, or C{None}.
    """

    def __init__(
        self,
        reactor: Any,
        connector: ServiceConnector,
        serviceFor: ServiceFor,
        destinations: Destinations,
    ) -> None:
        self.connector = connector
        self.datagrams = UDPConnector(connector.observer)
        self.refusal: TunnelError | None = None
        self._reactor = reactor
        self._serviceFor = serviceFor
        self._destinations = destinations

    def opened(self, stream: SessionStream, info: dict[str, object]) -> None:
        """Connect a visitor to the service."""
        try:
            target, endpoint = self._serviceOf(info, False)
            if isinstance(endpoint, UDPService):
                raise TunnelError("service-refused", f"{target} is a UDP service")
        except TunnelError as refusal:
            stream.reset(refusal)
        else:
            accept = SessionStream.accept
            self.connector.connect(stream, target, endpoint, accept, info=info)

    def flowOpened(
        self,
        accept: Callable[[SessionFlow], None],
        flow: SessionFlow,
        info: dict[str, object],
    ) -> None:
        """
        Connect a visitor over UDP to the service.

        @param accept: Tells the server that it is connected.
        """
        try:
            target, service = self._serviceOf(info, True)
            if not isinstance(service, UDPService):
                raise TunnelError(
                    "service-refused",
                    f"{target} does not accept datagrams; write --forward"
                    " udp/PORT=HOST:PORT",
                )
        except TunnelError as refusal:
            self.connector.observer.serviceFailed("a UDP tunnel", refusal)
            flow.reset(refusal)
        else:
            self.datagrams.connect(flow, target, service, accept, info)

    def _serviceOf(
        self, info: dict[str, object], isUDP: bool
    ) -> tuple[str, IStreamClientEndpoint | UDPService]:
        """
        Find what a visitor is for: the service of a tunnel, or what somebody has asked
        this client to dial.

        @raise TunnelError: If there is none.
        """
        if self.refusal is not None:
            # The visitor was under way when the server was told.
            raise self.refusal
        if DIAL in info:
            request = DialRequest.read(info, isUDP)
            make = dialService if isUDP else dialTarget
            return str(request), make(self._reactor, request, self._destinations)
        uri = info.get("tunnel")
        return self._serviceFor(uri if isinstance(uri, str) else "")
