"""
Streams that clients open to be connected by this server, or by another client of it.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dataplane.transport_end import EndFactory
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.errors import TunnelError
from tristunnel.forwards.destinations import Destinations
from tristunnel.forwards.dialling import DIAL, DialRequest, dialService, dialTarget
from tristunnel.forwards.early import reasonOf
from tristunnel.forwards.inner import InnerEndpoint
from tristunnel.interfaces import EitherEnd
from tristunnel.model.policy import VisitorPolicy
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.access import isCapability
from tristunnel.service.caller import Caller
from tristunnel.service.clients import Visits
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.service.visiting import Visiting
from tristunnel.util.hosts import addressText

__all__ = ["DialSession", "DialSide", "Dialler"]

_End = Any
"""A stream or a flow of the session's."""


class DialSession(Protocol):
    """What dialling needs of the session of the client that asks for it."""

    @property
    def visits(self) -> Visits:
        """Its visits to others' services."""

    @property
    def visiting(self) -> Visiting | None:
        """What leads to other processes of this server, if there are any."""

    @property
    def destinations(self) -> Destinations:
        """What the server dials for its clients."""

    @property
    def isForOneTunnel(self) -> bool:
        """Whether it may only have the tunnel that it came for."""

    def caller(self) -> Caller:
        """As whom the client asks."""


class Dialler(Protocol):
    """A session whose client dials for others."""

    def openDial(self, target: str, visitor: str) -> SessionStream:
        """Have it dial."""

    def openDialFlow(self, target: str, visitor: str) -> EitherEnd:
        """The same, for datagrams."""


class DialSide:
    """
    What one session has dialled: the client side of two tunnels that nobody finds, one
    for bytes and one for datagrams, so that its streams are counted and limited as
    visits are.

    @param session: The session.
    @param service: The server's.
    @param findClient: Finds the session of another client by its name.
    """

    _log = Logger()

    def __init__(
        self,
        session: DialSession,
        service: TunnelService,
        findClient: Callable[[str], Dialler | None],
    ) -> None:
        self._session = session
        self._service = service
        self._findClient = findClient
        self._tunnels: dict[bool, Tunnel] = {}
        self._asked: dict[_End, tuple[DialRequest, Callable[[], None]]] = {}

    def opened(
        self,
        end: _End,
        info: dict[str, object],
        peer: IAddress,
        accept: Callable[[], None],
        isUDP: bool,
    ) -> None:
        """
        Take a request of the client's.

        @param end: The stream or flow that it has opened.
        @param peer: Where it comes from.
        @param accept: Tells the client that it is connected.
        """
        try:
            request = DialRequest.read(info, isUDP)
            self._check()
            tunnel = self._tunnel(isUDP)
        except TunnelError as refusal:
            end.reset(refusal)
            return
        self._asked[end] = request, accept
        tunnel.visitorArrived(end, addressText(peer), self._session.visits)
        # Unless it was turned away.
        self._asked.pop(end, None)

    def _check(self) -> None:
        identity = self._session.caller().identity
        if isCapability(identity) or self._session.isForOneTunnel:
            raise TunnelError("not-permitted", "this URI is good for one tunnel alone")
        if identity.grant is not None:
            identity.grant.check(DIAL)

    def _tunnel(self, isUDP: bool) -> Tunnel:
        service = self._service
        found = self._tunnels.get(isUDP)
        if found is None:
            found = Tunnel(
                id=secrets.token_hex(8),
                owner=self._session.caller().identity,
                clientSide=self,
                observer=service.observer,
                seconds=service.reactor.seconds,
                name="dialling",
                uri="dialled:",
                protocol="udp" if isUDP else "tcp",
            )
            service.policies.setByOwner(found, VisitorPolicy())
            service.here.dialled.add(found)
            self._tunnels[isUDP] = found
        # The grant may have changed meanwhile.
        service.rights.share(found)
        return found

    def close(self, reason: TunnelError) -> None:
        """
        Close what is in the session, which is over; streams that have left it may go on
        until the grant ends.
        """
        self._tunnels.clear()

    # IClientSide

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        """Nobody closes these."""

    def serve(self, stream: Stream) -> None:
        """Dial, or have somebody else dial."""
        request, accept = self._asked.pop(stream.visitor)
        stream.target = str(request)
        try:
            if request.client:
                self._pass(stream, request, accept)
            elif request.isUDP:
                self._datagrams(stream, request, accept)
            else:
                self._dial(stream, request, accept)
        except TunnelError as refusal:
            self._refuse(stream, request, refusal)

    def _refuse(
        self, stream: Stream, request: DialRequest, refusal: TunnelError
    ) -> None:
        service = self._service
        identity = self._session.caller().identity
        text = f"asked to dial {request} and was refused: {refusal}"
        service.observer.requestNoted(identity, text, True)
        stream.refuse(refusal)

    def _dial(
        self, stream: Stream, request: DialRequest, accept: Callable[[], None]
    ) -> None:
        reactor = self._service.reactor
        RESERVE.checkVisitor()
        endpoint = dialTarget(reactor, request, self._session.destinations)
        if isinstance(endpoint, InnerEndpoint):
            endpoint = endpoint.forVisitor({"visitor": stream.visitorAddress})

        def arrived(end: Any) -> None:
            accept()
            stream.connect(end)

        def failed(failure: Failure) -> None:
            if not stream.over:
                self._refuse(stream, request, reasonOf(failure))

        dialling = endpoint.connect(EndFactory(reactor, arrived))
        stream.visitor.whileWaiting(lambda reason: self._left(stream, reason, dialling))
        dialling.addErrback(failed)
        dialling.addErrback(lambda f: self._log.failure("A dial failed", f))

    def _left(
        self, stream: Stream, reason: TunnelError | None, dialling: Deferred[Any]
    ) -> None:
        stream.refuse(reason or TunnelError("reset", "the visitor has left"))
        dialling.cancel()

    def _datagrams(
        self, stream: Stream, request: DialRequest, accept: Callable[[], None]
    ) -> None:
        reactor = self._service.reactor
        service = dialService(reactor, request, self._session.destinations)

        async def connect() -> None:
            try:
                makeEnd = await service.beginFlow(str(request), stream.info)
                if not stream.over:
                    end = makeEnd()
                    accept()
                    stream.connect(end)
            except (DNSLookupError, TunnelError):
                self._refuse(stream, request, reasonOf(Failure()))

        Deferred.fromCoroutine(connect()).addErrback(
            lambda failure: self._log.failure("A flow was not dialled", failure)
        )

    def _pass(
        self, stream: Stream, request: DialRequest, accept: Callable[[], None]
    ) -> None:
        """Have another client dial."""
        other = self._findClient(request.client)
        if other is None:
            self._elsewhere(stream, request, accept)
        elif request.isUDP:
            accept()
            stream.connect(other.openDialFlow(request.target, stream.visitorAddress))
        else:
            opened = other.openDial(request.target, stream.visitorAddress)
            opened.whenAnswered = accept
            stream.connect(opened)

    def _elsewhere(
        self, stream: Stream, request: DialRequest, accept: Callable[[], None]
    ) -> None:
        """Have a client dial that is at another process of this server."""
        refusal = TunnelError(
            "client-away",
            f"no client {request.client!r} that dials for others is connected to this"
            " machine: start it with tunnel-client --dial-allow",
        )
        visiting = self._session.visiting
        if visiting is None:
            raise refusal
        caller = self._session.caller()

        def arrived(end: Any) -> None:
            accept()
            stream.connect(end)

        async def lead() -> None:
            try:
                name = request.client
                member = await visiting.findDialler(caller, name, refusal)
                if not stream.over:
                    visiting.leadToDialler(
                        member,
                        name,
                        request.target,
                        stream.visitorAddress,
                        request.isUDP,
                        arrived,
                    )
            except TunnelError as error:
                if not stream.over:
                    self._refuse(stream, request, error)

        leading = Deferred.fromCoroutine(lead())
        leading.addErrback(lambda f: self._log.failure("A dial failed", f))
        if not leading.called:
            stream.visitor.whileWaiting(
                lambda reason: self._left(stream, reason, leading)
            )
