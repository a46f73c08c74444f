"""
Opening a WebSocket under a C{twisted.web} site.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

from autobahn.twisted.resource import WebSocketResource
from autobahn.twisted.websocket import WebSocketServerFactory
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from tristunnel.errors import TunnelError
from tristunnel.http.browsers import OriginRule
from tristunnel.http.forwarded import Forwarded
from tristunnel.http.plain import errorText, refusalText
from tristunnel.http.site import requestKnown
from tristunnel.websocket.connection import PING_INTERVAL, Receiver
from tristunnel.websocket.roles import ServerConnection

__all__ = ["PreparedFactory", "WebSocketPage", "WebSocketRequest"]


@dataclass(frozen=True)
class WebSocketRequest:
    """
    A request to open a WebSocket.

    @ivar request: The request.
    @ivar name: The rest of the path behind the page's own, without a slash.
    @ivar peer: The address that it comes from.
    @ivar secure: Whether it does so over TLS.
    """

    request: Request
    name: str
    peer: Any
    secure: bool


class PreparedFactory(WebSocketServerFactory):
    """Autobahn's part of a page's connections, with its timers off."""

    noisy = False

    def __init__(self, reactor: IReactorTime) -> None:
        super().__init__(reactor=reactor)
        self.setProtocolOptions(
            failByDrop=False,
            utf8validateIncoming=False,
            openHandshakeTimeout=0,
            closeHandshakeTimeout=0,
            autoPingInterval=0,
            autoPingTimeout=0,
            # Any call of this forbids them otherwise.
            allowNullOrigin=True,
        )
        self.server = None
        self.connection: ServerConnection | None = None

    def buildProtocol(self, addr: object) -> ServerConnection | None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.factory = self
        return connection


class WebSocketPage(Resource):
    """
    A page where WebSockets are opened, for itself and all paths below.

    @param reactor: Tells time.
    @param receive: Makes the receiver of a connection; may wait, and may raise
        L{TunnelError}, which is answered before the WebSocket opens.
    @param subprotocols: The subprotocols that are spoken here.
    @param anyOrigin: Whether web pages from elsewhere may connect.
    @param pingInterval: Seconds between pings, 0 for none.
    @param forwarded: Reads whom proxies speak for.
    @param group: Holds the connections that are there.
    """

    isLeaf = True
    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        receive: Callable[[WebSocketRequest], Awaitable[Receiver]],
        subprotocols: Sequence[str] = (),
        anyOrigin: bool = False,
        pingInterval: float = PING_INTERVAL,
        forwarded: Forwarded | None = None,
        group: set[object] | None = None,
    ) -> None:
        super().__init__()
        self._group = group
        self._reactor = reactor
        self._receive = receive
        self._subprotocols = subprotocols
        self._originRule = None if anyOrigin else OriginRule()
        self._pingInterval = pingInterval
        self._forwarded = forwarded or Forwarded()
        self._factory = PreparedFactory(reactor)
        self._resource = WebSocketResource(self._factory)

    def render(self, request: Request) -> bytes | int:
        upgrade = request.getHeader(b"upgrade") or b""
        if request.method != b"GET" or upgrade.lower() != b"websocket":
            request.setHeader(b"Upgrade", b"websocket")
            return errorText(
                request,
                426,
                "This address is for WebSockets: connect with ws: or wss:.",
            )
        if self._originRule is not None:
            objection = self._originRule.objection(request)
            if objection is not None:
                return errorText(request, 403, objection)
        admitting = Deferred.fromCoroutine(self._admit(request))
        request.notifyFinish().addErrback(lambda failure: admitting.cancel())
        admitting.addErrback(self._failed, request)
        return NOT_DONE_YET

    async def _admit(self, request: Request) -> None:
        name = b"/".join(request.postpath or []).decode("utf-8", "replace").strip("/")
        asked = WebSocketRequest(
            request,
            name,
            self._forwarded.peer(request),
            self._forwarded.isSecure(request),
        )
        receiver = await self._receive(asked)
        requestKnown(request)
        connection = ServerConnection()
        connection.configure(self._reactor, receiver, self._pingInterval)
        connection.subprotocols = self._subprotocols
        connection.peerAddress = asked.peer
        connection.group = self._group
        self._factory.connection = connection
        try:
            self._resource.render(request)
        except Exception:
            # Nothing else would tell the receiver.
            receiver.connectionLost(TunnelError("internal"), Failure())
            raise

    def _failed(self, failure: Failure, request: Request) -> None:
        if failure.check(CancelledError):
            return
        error = failure.value
        if not isinstance(error, TunnelError):
            self._log.failure("A WebSocket could not be opened", failure)
            error = TunnelError("internal")
        body = refusalText(request, error)
        request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(body)
        request.finish()
