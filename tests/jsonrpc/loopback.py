"""A real server on the loopback interface, and a plain way to talk to it."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
    UNIXServerEndpoint,
    clientFromString,
    connectProtocol,
    wrapServerTLS,
)
from twisted.internet.interfaces import (
    IAddress,
    IOpenSSLServerConnectionCreator,
    IStreamServerEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from tests.jsonrpc.test_dispatcher import Published
from tests.support.protocols import Hearing
from tristunnel.errors import TunnelError
from tristunnel.http.resource import JSONRPCResource
from tristunnel.http.site import LimitedChannel, LimitedSite
from tristunnel.http.xmlrpc import TunnelXMLRPC
from tristunnel.jsonrpc.dispatcher import Dispatcher

reactor: Any = _reactor


class WatchedSite(LimitedSite):
    """A site that knows when its last connection is gone."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._live: set[object] = set()
        self._waiting: list[Deferred[None]] = []

    def buildProtocol(self, addr: IAddress | None) -> Any:
        channel: Any = super().buildProtocol(addr)
        assert isinstance(channel, LimitedChannel)
        connectionLost = channel.connectionLost
        self._live.add(channel)

        def lost(reason: Failure = connectionDone) -> None:
            connectionLost(reason)
            self._live.discard(channel)
            if not self._live:
                waiting, self._waiting = self._waiting, []
                for each in waiting:
                    each.callback(None)

        channel.connectionLost = lost  # type: ignore[method-assign] # of one connection
        return channel

    def whenQuiet(self) -> Deferred[None]:
        quiet: Deferred[None] = Deferred()
        if self._live:
            self._waiting.append(quiet)
        else:
            quiet.callback(None)
        return quiet


def post(body: bytes, *headers: str, path: str = "/rpc", length: bool = True) -> bytes:
    lines = [f"POST {path} HTTP/1.1", *headers]
    if not any(header.startswith("Host:") for header in headers):
        lines.append("Host: localhost")
    if not any(header.startswith("Content-Type:") for header in headers):
        lines.append("Content-Type: application/json")
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body


def call(method: str, params: str = "[]") -> bytes:
    return (
        f'{{"jsonrpc": "2.0", "id": 1, "method": "{method}", "params": {params}}}'
    ).encode("ascii")


class LoopbackTestCase(TestCase):
    """A site with C{/rpc} and C{/RPC2} on the loopback interface."""

    timeout = 60
    demanded: str | None = None
    linger = 2.0

    def callerFor(self, request: Request) -> object:
        if self.demanded is None:
            return "anybody"
        if request.getHeader("Authorization") != self.demanded:
            raise TunnelError("auth-refused")
        return "somebody"

    def root(self) -> IResource:
        root = Resource()
        dispatcher = Dispatcher(self.published.lookup)
        root.putChild(b"rpc", JSONRPCResource(dispatcher, self.callerFor))
        root.putChild(b"RPC2", TunnelXMLRPC(self.published.lookup, self.callerFor))
        root.putChild(b"broken", BrokenResource())
        return root

    async def setUp(self) -> None:  # type: ignore[override] # trial waits for it
        self.published = Published()
        self.site = WatchedSite(self.root(), reactor=reactor)
        self.site.linger = self.linger
        self.port = (
            await self.listen(TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"))
        ).port

    async def listen(self, endpoint: IStreamServerEndpoint) -> Any:
        port = await endpoint.listen(self.site)
        self.addCleanup(self.site.whenQuiet)
        self.addCleanup(port.stopListening)
        return port.getHost()

    async def listenTLS(self, creator: IOpenSSLServerConnectionCreator) -> int:
        plain = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        return int((await self.listen(wrapServerTLS(creator, plain))).port)

    async def listenUNIX(self, path: str) -> None:
        await self.listen(UNIXServerEndpoint(reactor, path))

    async def connect(self) -> Hearing:
        endpoint = clientFromString(reactor, f"tcp:127.0.0.1:{self.port}")
        client = await connectProtocol(endpoint, Hearing())

        def close() -> Deferred[Hearing]:
            client.abort()
            return client.gone()

        self.addCleanup(close)
        return client

    async def exchange(self, request: bytes) -> tuple[int, dict[str, str], bytes]:
        client = await self.connect()
        head, _, body = request.partition(b"\r\n\r\n")
        client.say(head + b"\r\nConnection: close\r\n\r\n" + body)
        return parsed(bytes((await client.gone()).data))


def parsed(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    """Take an HTTP answer apart: status, headers in lower case, body."""
    head, _, body = answer.partition(b"\r\n\r\n")
    status, *lines = head.decode("latin-1").split("\r\n")
    headers: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        key = name.lower()
        headers[key] = f"{headers[key]}, {value}" if key in headers else value
    if headers.get("transfer-encoding") == "chunked":
        whole = b""
        while body:
            size, _, body = body.partition(b"\r\n")
            whole, body = whole + body[: int(size, 16)], body[int(size, 16) + 2 :]
        body = whole
    return int(status.split()[1]), headers, body


class BrokenResource(Resource):
    """Fails."""

    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        raise RuntimeError("secret")
