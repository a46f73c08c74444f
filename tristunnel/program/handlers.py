"""
Applications of the program itself as a service: ASGI, WSGI, or a function.

Each visitor's connection reaches the application through a socket pair; no port of
this machine is opened for it.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import socket
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from http import HTTPStatus
from threading import Event
from typing import Any, Protocol
from urllib.parse import parse_qs
from wsgiref.headers import Headers

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IProtocolFactory,
    IPushProducer,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory
from twisted.python.threadpool import ThreadPool
from twisted.web.resource import Resource
from twisted.web.server import Request as WebRequest
from twisted.web.server import Site
from twisted.web.wsgi import WSGIResource
from zope.interface import implementer

from tristunnel.dataplane.dial import adopted
from tristunnel.errors import TunnelError, badOption
from tristunnel.program.thread import daemon
from tristunnel.util.hosts import parsePlace

__all__ = ["HandlerEndpoint", "Request"]

_NO_HANDLER = (
    "handler= takes an ASGI application, a WSGI application, or a function of one"
    " argument, the request"
)

_NO_ANSWER = (
    "the handler has to return text, bytes, None, something for JSON, or a tuple of the"
    " status, one of these, and a dictionary of headers"
)

MOST_BODY = 16 * 1024 * 1024
"""The most bytes of a request's body for a function."""

STOPPING = 3.0
"""Seconds that an application gets to stop."""

THREADS = 64
"""The most threads in which WSGI applications and functions run."""


@dataclass(frozen=True)
class Request:
    """
    A request to a function.

    @ivar method: C{"GET"}, for example.
    @ivar path: Without the query, decoded.
    @ivar query: The values of each field.
    @ivar headers: By name, ignoring case.
    @ivar body: All of it.
    """

    method: str
    path: str
    query: Mapping[str, list[str]]
    headers: Headers
    body: bytes

    def json(self) -> Any:
        """
        The body, read as JSON.

        @raise ValueError: If it is not JSON.
        """
        return json.loads(self.body)


Visitor = tuple[str, int]
"""An address and a port."""

_NOBODY: Visitor = ("0.0.0.0", 0)


class _Server(Protocol):
    """Answers HTTP on connections that it is given."""

    def start(self, reactor: Any) -> Deferred[None]: ...

    def serve(self, connection: socket.socket, visitor: Visitor) -> None: ...

    def stop(self) -> Deferred[None]: ...


@implementer(IStreamClientEndpoint)
class HandlerEndpoint:
    """
    Connects to an application of this program.

    @param handler: The application.
    @raise TunnelError: C{bad-option}, if it cannot be called.
    """

    def __init__(self, handler: Any) -> None:
        self._reactor: Any = None
        self._server: _Server = _serverOf(handler)

    def start(self, reactor: Any) -> Deferred[None]:
        """
        Start the application.

        @return: Fires when it has; fails with L{TunnelError}.
        """
        self._reactor = reactor
        return self._server.start(reactor)

    def stop(self) -> Deferred[None]:
        """
        Stop it.

        @return: Fires when it has stopped, or takes too long.
        """
        return self._server.stop()

    def forVisitor(self, info: Mapping[str, object]) -> IStreamClientEndpoint:
        """
        Make the endpoint by which the application sees one visitor.

        @param info: What the server said about the visitor.
        """
        try:
            visitor = parsePlace(str(info.get("visitor", "")))
        except ValueError:
            visitor = _NOBODY
        return _ForVisitor(self, visitor)

    def connect(
        self, protocolFactory: IProtocolFactory, visitor: Visitor = _NOBODY
    ) -> Deferred[Any]:
        ours, theirs = socket.socketpair()
        theirs.setblocking(False)
        self._server.serve(theirs, visitor)
        return adopted(self._reactor, ours, protocolFactory)


@implementer(IStreamClientEndpoint)
@dataclass(frozen=True)
class _ForVisitor:
    application: HandlerEndpoint
    visitor: Visitor

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[Any]:
        return self.application.connect(protocolFactory, self.visitor)


def _serverOf(handler: Any) -> _Server:
    try:
        signature = inspect.signature(handler)
    except (TypeError, ValueError):
        raise badOption(_NO_HANDLER) from None
    kinds = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    parameters = signature.parameters.values()
    needed = [
        each for each in parameters if each.kind in kinds and each.default is each.empty
    ]
    count = len(needed)
    if any(each.kind is each.VAR_POSITIONAL for each in parameters):
        # A wrapper: only an ASGI application is async.
        called = handler if inspect.isroutine(handler) else type(handler).__call__
        count = 3 if inspect.iscoroutinefunction(called) else max(count, 2)
    if count == 3:
        return _ASGI(handler)
    if count == 2:
        return _WSGI(handler)
    if count == 1:
        return _WSGI(_asWSGI(handler))
    raise badOption(_NO_HANDLER)


class _ASGI:
    """An ASGI application in uvicorn, in an asyncio loop and a thread of its own."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._server: Any = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._reactor: Any = None
        self._ended: Deferred[None] = Deferred()
        self._connections: set[asyncio.Future[Any]] = set()
        self._why = ""

    async def _called(self, scope: Any, receive: Any, send: Any) -> None:
        """Call the application, noting why it does not start."""

        async def heard(message: Any) -> None:
            if message["type"] == "lifespan.startup.failed":
                # Some frameworks send a whole traceback.
                lines = str(message.get("message", "")).strip().splitlines()
                self._why = lines[-1] if lines else ""
            await send(message)

        isLifespan = scope["type"] == "lifespan"
        await self._application(scope, receive, heard if isLifespan else send)

    def start(self, reactor: Any) -> Deferred[None]:
        try:
            import uvicorn
        except ImportError:
            raise badOption(
                "an ASGI application needs uvicorn: pip install uvicorn"
            ) from None
        self._reactor = reactor
        config = uvicorn.Config(
            self._called,
            interface="asgi3",
            log_config=None,
            proxy_headers=False,
            access_log=False,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        started: Deferred[None] = Deferred()

        def tell(problem: Exception | None) -> None:
            if started.called:
                return
            if problem is None:
                started.callback(None)
            else:
                started.errback(problem)

        def run() -> None:
            problem: Exception | None = None
            try:
                asyncio.run(self._run(lambda: reactor.callFromThread(tell, None)))
            except Exception as error:
                problem = error
            why = self._why or problem or "its lifespan failed"
            # Too late if it has started.
            reactor.callFromThread(
                tell, TunnelError("internal", f"the application did not start: {why}")
            )
            reactor.callFromThread(self._stopped)

        daemon(target=run, name="tristunnel-asgi").start()
        return started

    def _stopped(self) -> None:
        if not self._ended.called:
            self._ended.callback(None)

    async def _run(self, started: Callable[[], None]) -> None:
        self._loop = asyncio.get_running_loop()

        async def serve() -> None:
            # It exits if the application does not start.
            with suppress(SystemExit):
                await self._server.serve(sockets=[])

        serving = asyncio.ensure_future(serve())
        while not (self._server.started or serving.done()):
            await asyncio.sleep(0.01)
        if self._server.started:
            started()
        await serving

    def serve(self, connection: socket.socket, visitor: Visitor) -> None:
        assert self._loop is not None
        try:
            self._loop.call_soon_threadsafe(self._begin, connection, visitor)
        except RuntimeError:
            # The loop is closed.
            connection.close()

    def _begin(self, connection: socket.socket, visitor: Visitor) -> None:
        server = self._server

        def makeProtocol() -> Any:
            protocol = server.config.http_protocol_class(
                config=server.config,
                server_state=server.server_state,
                app_state=server.lifespan.state,
            )
            made = protocol.connection_made

            def connection_made(transport: Any) -> None:
                made(transport)
                protocol.client = visitor

            protocol.connection_made = connection_made
            return protocol

        assert self._loop is not None
        task = asyncio.ensure_future(
            self._loop.connect_accepted_socket(makeProtocol, connection)
        )
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    def stop(self) -> Deferred[None]:
        if self._server is not None:
            self._server.should_exit = True
            if not self._ended.called:
                self._ended.addTimeout(STOPPING, self._reactor)
                self._ended.addErrback(lambda late: None)
        return self._ended if self._server is not None else succeed(None)


@implementer(IPushProducer)
class _Request(WebRequest):
    """
    A request that came by a socket pair, as one of the network. Its application
    waits for a visitor that does not read.
    """

    visitor = _NOBODY

    def bounded(self, application: Any) -> Callable[..., Iterable[bytes]]:
        """A WSGI application, to be called once."""
        room = self._room = Event()
        room.set()
        self.registerProducer(self, True)

        def waiting(environ: dict[str, Any], startResponse: Any) -> Iterable[bytes]:
            def start(*arguments: Any, **named: Any) -> Callable[[bytes], None]:
                write = startResponse(*arguments, **named)

                def writeAndWait(data: bytes) -> None:
                    write(data)
                    room.wait()

                return writeAndWait

            chunks = application(environ, start)
            try:
                for chunk in chunks:
                    yield chunk
                    room.wait()
            finally:
                getattr(chunks, "close", lambda: None)()

        return waiting

    def pauseProducing(self) -> None:
        self._room.clear()

    def resumeProducing(self) -> None:
        self._room.set()

    stopProducing = resumeProducing

    def finish(self) -> None:
        self.unregisterProducer()
        super().finish()

    def connectionLost(self, reason: Any) -> None:
        self._room.set()
        super().connectionLost(reason)

    def getClientAddress(self) -> Any:
        kind: Any = IPv6Address if ":" in self.visitor[0] else IPv4Address
        return kind("TCP", *self.visitor)

    def getHost(self) -> IPv4Address:
        said = (self.getHeader(b"host") or b"").decode("latin-1")
        asked = said.rpartition("]")[2].rpartition(":")[2]
        port = int(asked) if asked.isdecimal() and len(asked) < 6 else 80
        return IPv4Address("TCP", _NOBODY[0], port)


class _Once(Factory):
    """Builds the one protocol that it was given."""

    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: Any) -> Any:
        return self._protocol


class _Site(Site):
    """A site that is one application."""

    def __init__(self, reactor: Any, threads: ThreadPool, application: Any) -> None:
        super().__init__(Resource(), reactor=reactor, logFormatter=lambda *_: None)
        self._threads = threads
        self._application = application

    def getResourceFor(self, request: Any) -> Any:
        bounded = request.bounded(self._application)
        return WSGIResource(self.reactor, self._threads, bounded)


class _WSGI:
    """A WSGI application in C{twisted.web}."""

    def __init__(self, application: Any) -> None:
        self._application = application
        self._threads = ThreadPool(0, THREADS, "tristunnel-wsgi")
        self._threads.threadFactory = daemon
        self._reactor: Any = None
        self._site: Any = None

    def start(self, reactor: Any) -> Deferred[None]:
        self._reactor = reactor
        self._threads.start()
        self._site = _Site(reactor, self._threads, self._application)
        return succeed(None)

    def serve(self, connection: socket.socket, visitor: Visitor) -> None:
        def makeRequest(*arguments: Any) -> _Request:
            request = _Request(*arguments)
            request.site, request.visitor = self._site, visitor
            return request

        protocol = self._site.buildProtocol(None)
        protocol.requestFactory = makeRequest
        with connection:
            self._reactor.adoptStreamConnection(
                connection.fileno(), connection.family, _Once(protocol)
            )

    def stop(self) -> Deferred[None]:
        if self._threads.started:
            # Without waiting for the application.
            daemon(target=self._threads.stop).start()
        return succeed(None)


def _asWSGI(function: Callable[[Request], Any]) -> Callable[..., Iterable[bytes]]:
    def application(environ: dict[str, Any], startResponse: Any) -> Iterable[bytes]:
        body = environ["wsgi.input"].read(MOST_BODY + 1)
        if len(body) > MOST_BODY:
            answer: Any = (413, "the body is too long\n")
        else:
            names = {key: value for key, value in environ.items() if "HTTP_" in key}
            headers = Headers(
                [
                    (key.removeprefix("HTTP_").replace("_", "-").title(), value)
                    for key, value in names.items()
                ]
            )
            if environ.get("CONTENT_TYPE"):
                headers["Content-Type"] = environ["CONTENT_TYPE"]
            path = environ.get("PATH_INFO", "").encode("latin-1")
            answer = function(
                Request(
                    environ["REQUEST_METHOD"],
                    path.decode("utf-8", "replace") or "/",
                    parse_qs(environ.get("QUERY_STRING", ""), True),
                    headers,
                    body,
                )
            )
            if inspect.isawaitable(answer):
                answer = asyncio.run(_result(answer))
        status, headersOut, data = _answer(answer)
        startResponse(f"{status} {_phrase(status)}", headersOut)
        return [data]

    return application


async def _result(answer: Any) -> Any:
    return await answer


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Status"


def _answer(answer: Any) -> tuple[int, list[tuple[str, str]], bytes]:
    """
    Read what a function has returned: text, bytes, C{None}, what JSON can hold, or
    a tuple of the status, one of these, and headers.
    """
    status, extra = 200, {}
    if isinstance(answer, tuple):
        try:
            status, answer, extra = answer if len(answer) == 3 else (*answer, {})
            extra = dict(extra)
        except (TypeError, ValueError):
            status = 0
        if type(status) is not int or not 200 <= status < 600:
            raise TypeError(_NO_ANSWER)
    if answer is None:
        kind, data = "text/plain", b""
        status = 204 if status == 200 else status
    elif isinstance(answer, (bytes, bytearray, memoryview)):
        kind, data = "application/octet-stream", bytes(answer)
    elif isinstance(answer, str):
        isPage = answer.lstrip()[:1] == "<"
        kind, data = f"text/{'html' if isPage else 'plain'}", answer.encode()
        kind += "; charset=utf-8"
    else:
        try:
            kind, data = "application/json", json.dumps(answer).encode()
        except (TypeError, ValueError) as problem:
            raise TypeError(f"{_NO_ANSWER}: {problem}") from None
    if status == 204:
        # It has no body, and no headers about one.
        return status, list(extra.items()), b""
    headers = {"Content-Type": kind, "Content-Length": str(len(data)), **extra}
    return status, list(headers.items()), data
