"""Functions and applications that are exposed, and programs of asyncio."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import socket
import urllib.error
import urllib.parse
import urllib.request
from typing import Any

from fastapi import FastAPI

import tristunnel
from tests.program.rig import ExposeTestCase, _get
from tristunnel import aio
from tristunnel.program.handlers import Request


def _hello(request: Request) -> Any:
    if request.path == "/json":
        return {"query": request.query, "body": request.json()}
    if request.path == "/status":
        return 418, b"tea", {"X-Pot": "short"}
    if request.path == "/wrong":
        raise ValueError("on purpose")
    return f"{request.method} {request.headers['X-Test']}"


async def _later(request: Request) -> bytes:
    await asyncio.sleep(0)
    return request.path.encode()


def _wsgi(environ: dict[str, Any], startResponse: Any) -> list[bytes]:
    startResponse("200 OK", [("Content-Type", "text/plain")])
    return [environ["REMOTE_ADDR"].encode(), b" ", environ["PATH_INFO"].encode()]


async def _asgi(scope: Any, receive: Any, send: Any) -> None:
    assert scope["type"] == "http"
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"asgi"})


class HandlerTests(ExposeTestCase):
    """An application of the program itself."""

    def test_function(self) -> None:
        """A function is given the request, and what it returns is the answer."""
        url = self.expose(handler=_hello).url
        asking = urllib.request.Request(url, headers={"X-Test": "a header"})
        with urllib.request.urlopen(asking) as answer:
            self.assertEqual(answer.read(), b"GET a header")
        answered = json.loads(_get(f"{url}/json?a=1&a=2", b'["x"]'))
        self.assertEqual(answered, {"query": {"a": ["1", "2"]}, "body": ["x"]})
        with self.assertRaises(urllib.error.HTTPError) as raised:
            _get(f"{url}/status")
        error = raised.exception
        self.assertEqual((error.code, error.headers["X-Pot"]), (418, "short"))

    def test_wrong(self) -> None:
        """One that raises is answered 500, and the next request is answered."""
        url = self.expose(handler=_hello).url
        with self.assertRaises(urllib.error.HTTPError) as raised:
            _get(f"{url}/wrong")
        self.assertEqual(raised.exception.code, 500)
        self.assertIn(b"GET", _get(url))
        self.flushLoggedErrors(ValueError)

    def test_async(self) -> None:
        """It may be a coroutine function."""
        self.assertEqual(_get(f"{self.expose(handler=_later).url}/x"), b"/x")

    def test_wsgi(self) -> None:
        """A WSGI application learns the visitor's address."""
        url = self.expose(handler=_wsgi).url
        self.assertEqual(_get(f"{url}/a%20b"), b"127.0.0.1 /a b")
        # Whatever a visitor calls this host.
        where = urllib.parse.urlsplit(url)
        with socket.create_connection((where.hostname, where.port), 10) as visitor:
            visitor.sendall(b"GET / HTTP/1.0\r\nHost: \xa0:1\r\n\r\n")
            answer = b"".join(iter(lambda: visitor.recv(65536), b""))
        self.assertIn(b" 200 ", answer.partition(b"\r\n")[0])

    def test_asgi(self) -> None:
        """An ASGI application starts, learns who visits, and stops."""
        app = FastAPI()
        told = []
        app.router.on_startup.append(lambda: told.append("start"))
        app.router.on_shutdown.append(lambda: told.append("stop"))

        async def who(request: Any) -> Any:
            from starlette.responses import PlainTextResponse

            return PlainTextResponse(request.client.host)

        app.add_route("/", who)
        with self.expose(handler=app) as tunnel:
            for _ in range(3):
                self.assertEqual(_get(tunnel.url), b"127.0.0.1")
        self.assertEqual(told, ["start", "stop"])

    def test_ways(self) -> None:
        """Whatever calls an application is one of its kind: methods, partial
        functions, and wrappers, async or not."""

        class Own:
            async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
                await _asgi(scope, receive, send)

        async def around(*arguments: Any) -> None:
            await _asgi(*arguments)

        for handler in (
            _asgi,
            Own().asgi,
            functools.partial(_asgi),
            lambda scope, receive, send: _asgi(scope, receive, send),
            around,
        ):
            with self.expose(handler=handler) as tunnel:
                self.assertEqual(_get(tunnel.url), b"asgi")
        for wsgi in (functools.partial(_wsgi), lambda *arguments: _wsgi(*arguments)):
            with self.expose(handler=wsgi) as tunnel:
                self.assertEqual(_get(tunnel.url), b"127.0.0.1 /")

    def test_notStarted(self) -> None:
        """One that does not start says why, in one line."""

        async def failing(scope: Any, receive: Any, send: Any) -> None:
            await receive()
            message = "Traceback ...\nOSError: no database"
            await send({"type": "lifespan.startup.failed", "message": message})

        with self.assertRaises(tristunnel.TunnelError) as raised:
            self.expose(handler=failing)
        self.assertIn("OSError: no database", raised.exception.message)
        self.assertNotIn("Traceback", raised.exception.message)

    def test_answers(self) -> None:
        """A function that returns what is no answer is told what would be one."""
        for answer in ({1}, ("x", "y"), (200, "a", "b", "c"), (1, "x")):
            with self.expose(handler=lambda _, answer=answer: answer) as tunnel:
                self.assertRaises(urllib.error.HTTPError, _get, tunnel.url)
            (error,) = self.flushLoggedErrors(TypeError)
            self.assertIn("a tuple of the status", error.getErrorMessage())

    def test_slowVisitor(self) -> None:
        """An application waits for a visitor that does not read."""
        most, piece = 64, bytes(1024 * 1024)
        made: list[int] = []

        def make(number: int) -> bytes:
            made.append(number)
            return piece

        def wsgi(environ: dict[str, Any], start: Any) -> Any:
            start("200 OK", [])
            if environ["PATH_INFO"] == "/made":
                return [str(len(made)).encode()]
            return map(make, range(most))

        async def asgi(scope: Any, receive: Any, send: Any) -> None:
            await send({"type": "http.response.start", "status": 200, "headers": []})
            if scope["path"] == "/made":
                body = str(len(made)).encode()
                await send({"type": "http.response.body", "body": body})
                return
            for _ in range(most):
                made.append(1)
                part = {"body": bytes(piece), "more_body": True}
                await send({"type": "http.response.body", **part})

        for application in (wsgi, asgi):
            made.clear()
            with self.expose(handler=application) as tunnel:
                where = urllib.parse.urlsplit(tunnel.url)
                with socket.create_connection((where.hostname, where.port)) as visitor:
                    visitor.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
                    before, now = -1, 0
                    while now != before or not now:
                        asked = [int(_get(f"{tunnel.url}/made")) for _ in range(20)]
                        before, now = asked[0], asked[-1]
                    self.assertLess(now, most)


class AsyncTests(ExposeTestCase):
    """The same in asyncio."""

    def test_with(self) -> None:
        """It is served while the loop does something else; events are told."""

        async def program() -> list[str]:
            async with aio.expose(self.port, server=self.server) as tunnel:
                page = await asyncio.to_thread(_get, tunnel.url)
                self.assertEqual(page, b"a page")
            await tunnel.wait()
            return [event.kind async for event in tunnel.events()]

        kinds = asyncio.run(program())
        self.assertEqual((kinds[0], kinds[-1]), ("opened", "closed"))

    def test_await(self) -> None:
        """It can be awaited, and closed; errors are those of the other form."""

        async def program() -> None:
            tunnel = await aio.expose(self.port, server=self.server)
            waiting = asyncio.ensure_future(tunnel.wait())
            await asyncio.sleep(0)
            waiting.cancel()
            self.assertTrue(tunnel.isOpen)
            await tunnel.close()
            with self.assertRaises(tristunnel.TunnelError):
                await aio.expose(self.port, server="tcp:127.0.0.1")

        asyncio.run(program())

    def test_inLoop(self) -> None:
        """The other form works within a running loop, as in a notebook."""

        async def program() -> bytes:
            with self.expose(self.port) as tunnel:
                return await asyncio.to_thread(_get, tunnel.url)

        self.assertEqual(asyncio.run(program()), b"a page")

    def test_cancel(self) -> None:
        """An attempt that is cancelled is over."""

        async def program(where: str) -> None:
            async with asyncio.timeout(0.05):
                await aio.expose(self.port, server=where)

        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            where = f"tcp:127.0.0.1:{silent.getsockname()[1]}"
            self.assertRaises(TimeoutError, asyncio.run, program(where))
            connection, _ = silent.accept()
            with connection:
                connection.settimeout(30)
                with contextlib.suppress(ConnectionResetError):
                    while connection.recv(4096):
                        pass
