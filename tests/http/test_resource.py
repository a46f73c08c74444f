"""Tests for L{tristunnel.http.resource}, over real connections."""

from __future__ import annotations

import json

from twisted.internet.defer import Deferred, succeed
from twisted.web.resource import Resource
from twisted.web.server import Request

from tests.jsonrpc.loopback import LoopbackTestCase, call, post
from tristunnel.errors import TunnelError
from tristunnel.http.resource import JSONRPCResource
from tristunnel.jsonrpc.dispatcher import Dispatcher


class JSONRPCResourceTests(LoopbackTestCase):
    async def test_call(self) -> None:
        """A call is answered with JSON on one line."""
        status, headers, body = await self.exchange(post(call("subtract", "[42, 23]")))
        self.assertEqual(status, 200)
        self.assertEqual(headers["content-type"], "application/json")
        self.assertEqual(headers["content-length"], str(len(body)))
        self.assertEqual(headers["cache-control"], "no-store")
        self.assertEqual(body, b'{"jsonrpc": "2.0", "id": 1, "result": 19}\n')

    async def test_contentTypes(self) -> None:
        """JSON is accepted under its names, and as the form that curl makes of it."""
        for kind in (
            "application/json",
            "Application/JSON; charset=utf-8",
            "application/json-rpc",
            "application/x-www-form-urlencoded",
        ):
            status, _, _ = await self.exchange(
                post(call("echo"), f"Content-Type: {kind}")
            )
            self.assertEqual(status, 200, kind)

    async def test_otherContentTypes(self) -> None:
        """Anything else is 415, above all what a web form can send."""
        for kind in ("text/plain", "multipart/form-data", "", "text/xml"):
            status, _, body = await self.exchange(
                post(call("echo"), f"Content-Type: {kind}")
            )
            self.assertEqual(status, 415, kind)
            self.assertEqual(body, b"The Content-Type must be application/json.\n")

    async def test_onlyPost(self) -> None:
        """Other methods are 405, and the answer says which one is right."""
        for method in (b"GET", b"HEAD", b"PUT", b"OPTIONS", b"DELETE", b"FOO"):
            status, headers, body = await self.exchange(
                method + b" /rpc HTTP/1.1\r\nHost: localhost\r\n\r\n"
            )
            self.assertEqual((status, headers["allow"]), (405, "POST"))
            self.assertNotIn(b"<", body)

    async def test_notification(self) -> None:
        """When there is nothing to answer, the answer is 204 and empty."""
        status, _, body = await self.exchange(
            post(b'{"jsonrpc": "2.0", "method": "update"}')
        )
        self.assertEqual((status, body), (204, b""))
        self.assertEqual(self.published.callers, ["anybody"])

    async def test_keptAlive(self) -> None:
        """One connection takes any number of calls."""
        client = await self.connect()
        client.say(post(b'{"jsonrpc": "2.0", "method": "update"}'))
        client.say(post(call("echo", '["first"]')))
        client.say(post(call("echo", '["second"]')))
        received = (await client.until(lambda it: b"second" in it.data)).data
        self.assertEqual(received.count(b"HTTP/1.1 200"), 2)
        self.assertEqual(received.count(b"HTTP/1.1 204"), 1)

    async def test_foreignPage(self) -> None:
        """A page from elsewhere is refused before its body is looked at."""
        for header in ("Origin: http://evil.example", "Sec-Fetch-Site: cross-site"):
            status, _, body = await self.exchange(post(call("update"), header))
            self.assertEqual(status, 403)
            self.assertIn(b"another site", body)
        self.assertEqual(self.published.callers, [])

    async def test_garbage(self) -> None:
        """A body that is no JSON is a parse error with status 200."""
        status, _, body = await self.exchange(post(b"\xff"))
        self.assertEqual((status, json.loads(body)["error"]["code"]), (200, -32700))

    async def test_leaves(self) -> None:
        """When the caller leaves, its call is cancelled and nothing is logged."""
        client = await self.connect()
        client.say(post(call("wait")))
        # Another connection's answer shows that the call has come by now.
        while not self.published.pending:
            await self.exchange(post(call("echo")))
        client.abort()
        await client.gone()
        await self.site.whenQuiet()
        self.assertEqual(self.published.cancelled, 1)
        self.assertEqual(self.flushLoggedErrors(), [])

    async def test_leavesForGood(self) -> None:
        """The late result of a call that cannot be cancelled is dropped quietly."""
        late: Deferred[object] = Deferred()
        called: Deferred[None] = Deferred()

        async def stubborn(caller: object) -> object:
            called.callback(None)
            shielded: Deferred[object] = Deferred(lambda _: shielded.callback(1))
            await shielded
            return await late

        self.published.rpc_stubborn = stubborn
        client = await self.connect()
        client.say(post(call("stubborn")))
        await called
        client.abort()
        await self.site.whenQuiet()
        late.callback("late")
        self.assertEqual(self.flushLoggedErrors(), [])


class CallerForTests(LoopbackTestCase):
    """Who may call."""

    demanded = "Bearer right"

    async def test_refused(self) -> None:
        """Without the right credentials the answer is 401, and names both schemes."""
        for header in ("X: y", "Authorization: Bearer wrong"):
            status, headers, body = await self.exchange(post(call("update"), header))
            self.assertEqual(status, 401)
            self.assertEqual(
                headers["www-authenticate"],
                'Bearer realm="tristunnel", Basic realm="tristunnel"',
            )
            self.assertEqual(body, b"The credentials were not accepted.\n")
        self.assertEqual(self.published.callers, [])

    async def test_accepted(self) -> None:
        """With them, methods get to know the caller."""
        status, _, _ = await self.exchange(
            post(call("update"), "Authorization: Bearer right")
        )
        self.assertEqual(status, 200)
        self.assertEqual(self.published.callers, ["somebody"])


class CallerForAnswersTests(LoopbackTestCase):
    """What C{callerFor} may return and raise."""

    def callerFor(self, request: Request) -> object:
        what = request.getHeader("X-What") or ""
        if what == "deferred":
            return succeed("deferred")
        if what == "coroutine":

            async def coroutine() -> str:
                return "coroutine"

            return coroutine()
        if what == "fails":
            raise RuntimeError("secret")
        if what == "wait":
            return self.published.rpc_wait(None)
        raise TunnelError(what, "Because.", 1.5)

    async def test_returned(self) -> None:
        """It may return a Deferred or a coroutine."""
        for what in ("deferred", "coroutine"):
            status, _, _ = await self.exchange(post(call("update"), f"X-What: {what}"))
            self.assertEqual(status, 200)
        self.assertEqual(self.published.callers, ["deferred", "coroutine"])

    async def test_refusals(self) -> None:
        """Each refusal has its status, and says when to come back."""
        for what, expected in (
            ("auth-refused", 401),
            ("not-permitted", 403),
            ("limit-reached", 429),
            ("shutting-down", 503),
            ("expired", 403),
        ):
            status, headers, body = await self.exchange(
                post(call("echo"), f"X-What: {what}")
            )
            self.assertEqual((status, headers["retry-after"]), (expected, "2"))
            self.assertEqual(body, b"Because.\n")

    async def test_fails(self) -> None:
        """Its failure is logged, and is status 500 without a reason."""
        status, _, body = await self.exchange(post(call("echo"), "X-What: fails"))
        self.assertEqual((status, body), (500, b"Internal error\n"))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    async def test_leaves(self) -> None:
        """When the caller leaves while it is being judged, that is cancelled."""
        client = await self.connect()
        client.say(post(call("update"), "X-What: wait"))
        while not self.published.pending:
            await self.exchange(post(call("echo"), "X-What: deferred"))
        client.abort()
        await self.site.whenQuiet()
        self.assertEqual(self.published.cancelled, 1)
        self.assertEqual(self.published.callers, [])


class OwnLimitTests(LoopbackTestCase):
    """A resource with limits of its own."""

    def root(self) -> Resource:
        root = Resource()
        dispatcher = Dispatcher(self.published.lookup)
        page = JSONRPCResource(dispatcher, self.callerFor, ["tunnel.example"])
        page.maxBody = 100
        root.putChild(b"rpc", page)
        return root

    async def test_maxBody(self) -> None:
        """A body of more than that is 413."""
        status, _, _ = await self.exchange(post(call("echo").ljust(100)))
        self.assertEqual(status, 200)
        status, _, body = await self.exchange(post(call("echo").ljust(101)))
        self.assertEqual((status, body), (413, b"A body may have 100 bytes at most.\n"))

    async def test_hostnames(self) -> None:
        """Only the names of the server may be used for it."""
        status, _, _ = await self.exchange(post(call("echo"), "Host: Tunnel.Example:1"))
        self.assertEqual(status, 200)
        status, _, body = await self.exchange(post(call("echo"), "Host: other.example"))
        self.assertEqual(status, 403)
        self.assertIn(b"not known as other.example", body)
