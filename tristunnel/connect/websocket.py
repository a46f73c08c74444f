"""Connecting to a WebSocket: C{ws://} and C{wss://} as client endpoints."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn
from urllib.parse import unquote, urlsplit, urlunsplit

from autobahn.twisted.websocket import WebSocketClientFactory
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.errors import TunnelError, badOption
from tristunnel.util.hosts import basicLogin, hostHeader, hostName, portNumber, quoteURL
from tristunnel.websocket.connection import PING_INTERVAL, Connection, Receiver
from tristunnel.websocket.roles import ClientConnection
from tristunnel.websocket.stream import ByteStream

__all__ = [
    "SUBPROTOCOL",
    "WebSocketEndpoint",
    "WebSocketURL",
    "clientFactory",
    "shownURL",
]

SUBPROTOCOL = "tristunnel.1"
"""The framed protocol over a WebSocket."""

OPEN_TIMEOUT = 30.0
"""Seconds in which the WebSocket must be open, from the first packet on."""

USER_AGENT = "tristunnel"


def shownURL(url: str) -> str:
    """Write a URL, which may be wrong, without the parts that may be secret."""
    scheme, mark, rest = url.partition("://")
    place = re.split("[?#]", rest, maxsplit=1)[0]
    return scheme + mark + place.rpartition("@")[2]


class WebSocketURL:
    """
    The parts of a WebSocket's URL.

    @ivar secure: Whether it is C{wss}.
    @ivar host: As L{hostName<tristunnel.util.hosts.hostName>} writes it.
    @ivar port: The number.
    @ivar hostHeader: The C{Host} header for both.
    @ivar text: The URL in ASCII, without a name and password.
    @ivar where: The same without a query, which may have a token in it.
    @ivar headers: The headers that take their place.
    """

    def __init__(self, url: str) -> None:
        """
        @raise TunnelError: C{bad-option}.
        """
        try:
            if " " in url or not url.isprintable():
                # urlsplit drops these silently.
                raise ValueError("there is a space in it")
            parts = urlsplit(url)
            if parts.scheme not in ("ws", "wss"):
                raise ValueError("it begins with neither ws:// nor wss://")
            if not parts.hostname:
                raise ValueError("the host is missing")
            if parts.fragment:
                raise ValueError("what follows '#' is never sent")
            self.host = hostName(parts.hostname)
            usual = 443 if parts.scheme == "wss" else 80
            port = parts.netloc.rpartition("@")[2].rpartition("]")[2].partition(":")[2]
            self.port = portNumber(port) if port else usual
        except ValueError as error:
            raise badOption(
                f"{shownURL(url)!r} is not a WebSocket URL ({error}); write"
                " ws://HOST:PORT/PATH or wss://HOST/PATH"
            ) from None
        self.secure = parts.scheme == "wss"
        self.hostHeader = hostHeader(self.host, self.port, usual)
        self.path = quoteURL(parts.path or "/")
        place = parts.scheme, self.hostHeader, self.path
        self.text = urlunsplit((*place, quoteURL(parts.query), ""))
        self.where = urlunsplit((*place, "", ""))
        self.headers: dict[str, str] = {}
        if parts.username is not None:
            pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            self.headers["Authorization"] = basicLogin(pair)


class _Factory(WebSocketClientFactory):
    noisy = False
    connection: ClientConnection | None = None
    hostHeader = ""

    def buildProtocol(self, addr: object) -> ClientConnection | None:
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.factory = self
        return connection


def clientFactory(
    reactor: IReactorTime,
    url: WebSocketURL,
    headers: Mapping[str, str],
    subprotocols: Sequence[str],
) -> _Factory:
    """Make autobahn's factory for a connection, with its timers off."""
    factory = _Factory(
        url.text,
        protocols=list(subprotocols),
        useragent=USER_AGENT,
        headers=dict(headers),
        reactor=reactor,
    )
    factory.hostHeader = url.hostHeader
    factory.setProtocolOptions(
        failByDrop=False,
        utf8validateIncoming=False,
        openHandshakeTimeout=0,
        closeHandshakeTimeout=0,
        serverConnectionDropTimeout=0,
        autoPingInterval=0,
        autoPingTimeout=0,
        perMessageCompressionOffers=[],
    )
    return factory


class _Opening:
    """Receives the messages of a connection that is not open yet."""

    def __init__(self, connection: ClientConnection, receiver: Receiver) -> None:
        self.done: Deferred[ClientConnection] = Deferred(lambda _: connection.abort())
        self._connection = connection
        self._receiver = receiver

    def opened(self, connection: Connection) -> None:
        self._connection.receiver = self._receiver
        self._receiver.opened(connection)
        if not self.done.called:
            self.done.callback(self._connection)

    def bytesReceived(self, data: bytes) -> None:
        """Nothing comes before the opening."""

    textReceived = bytesReceived

    def closeReceived(self, reason: TunnelError | None) -> None:
        """Nothing comes before the opening."""

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        if self.done.called:
            return
        if self._connection.refusal is not None:
            failure = Failure(self._connection.refusal)
        elif failure.check(ConnectionDone, ConnectionLost):
            failure = Failure(
                TunnelError(
                    "session-lost",
                    "the server closed the connection instead of opening a WebSocket;"
                    " does it serve HTTP at that port?",
                )
            )
        self.done.errback(failure)


@implementer(IStreamClientEndpoint)
class WebSocketEndpoint:
    """
    A WebSocket as a client endpoint.

    @param reactor: Tells time.
    @param url: Where.
    @param below: Makes the connection itself: TCP, TLS, through a proxy.
    @param headers: Sent with the request.
    @param pingInterval: Seconds between pings, 0 for none.
    @param timeout: Seconds in which it must be open.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        url: WebSocketURL,
        below: IStreamClientEndpoint,
        headers: Mapping[str, str] | None = None,
        pingInterval: float = PING_INTERVAL,
        timeout: float = OPEN_TIMEOUT,
    ) -> None:
        self.url = url
        self.pingInterval = pingInterval
        self._reactor: Any = reactor
        self._below = below
        self._headers = {**url.headers, **(headers or {})}
        self._timeout = timeout

    def below(self, path: str) -> WebSocketEndpoint:
        """
        Make the endpoint of a path of the same server.

        @param path: The path below this endpoint's own.
        """
        parts = urlsplit(self.url.text)
        whole = parts._replace(path=f"{parts.path.rstrip('/')}/{path}")
        return WebSocketEndpoint(
            self._reactor,
            WebSocketURL(urlunsplit(whole)),
            self._below,
            self._headers,
            self.pingInterval,
            self._timeout,
        )

    def over(self, below: IStreamClientEndpoint) -> WebSocketEndpoint:
        """
        Make the endpoint of the same URL over another connection.

        @param below: Makes the connection.
        """
        return WebSocketEndpoint(
            self._reactor,
            self.url,
            below,
            self._headers,
            self.pingInterval,
            self._timeout,
        )

    def open(
        self, receiver: Receiver, subprotocols: Sequence[str] = ()
    ) -> Deferred[ClientConnection]:
        """
        Open a WebSocket.

        @param receiver: Told of its messages and its end.
        @param subprotocols: The subprotocols that we can speak over it.
        @return: Fires when it is open, after C{receiver} was told. Fails with
            L{TunnelError}, or as the connection below it does.
        """
        opening = Deferred.fromCoroutine(self._open(receiver, subprotocols))
        return opening.addTimeout(self._timeout, self._reactor, _late)

    async def _open(
        self, receiver: Receiver, subprotocols: Sequence[str]
    ) -> ClientConnection:
        connection = ClientConnection()
        opening = _Opening(connection, receiver)
        connection.configure(self._reactor, opening, self.pingInterval)
        factory = clientFactory(self._reactor, self.url, self._headers, subprotocols)
        factory.connection = connection
        try:
            await self._below.connect(factory)
        except BaseException:
            # The reason why there is no connection says more than that it was lost.
            opening.done.addErrback(lambda failure: None)
            raise
        return await opening.done

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return Deferred.fromCoroutine(self._connect(protocolFactory))

    async def _connect(self, protocolFactory: IProtocolFactory) -> IProtocol:
        protocol = protocolFactory.buildProtocol(None)  # type: ignore[arg-type] # it has no address
        if protocol is None:
            raise CancelledError()
        await self.open(ByteStream(protocol), [SUBPROTOCOL])
        return protocol


def _late(value: object, seconds: float) -> NoReturn:
    raise TunnelError("session-lost", f"no WebSocket was opened within {seconds:g} s")
