"""Requests of one connection, each to its own tunnel."""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv6Address

from tests.names.rig import Transport, VisitorTestCase, Waits, request, response
from tests.wire.test_http import SMUGGLING
from tristunnel.errors import TunnelError
from tristunnel.names.pages import Pages
from tristunnel.names.visitor import VisitorConnection


class HeadTests(VisitorTestCase):
    """Heads as they go on."""

    def test_request(self) -> None:
        """A service gets a head of our own, with where the visitor comes from."""
        visitor = self.connect()
        lines = (
            "X-Forwarded-For: 1.2.3.4\r\nForwarded: for=1.2.3.4\r\n"
            "X-Real-IP: 1.2.3.4\r\n"
            "X_Forwarded_Proto: https\r\nX-forwarded-host: evil\r\n"
            "X-Forwarded.For: 1.2.3.4\r\nX.Real~IP: 1.2.3.4\r\n"
            "X-Forwarded-Prefix: /evil\r\nX_Real-IP: 1.2.3.4\r\nContent_Length: 9\r\n"
            "Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nTE: x\r\n"
            "Proxy-Authorization: x\r\naCCept: \t*/* \r\nX_Own: 1\r\n"
        )
        visitor.dataReceived(request(target="/x?y", lines=lines))
        self.assertEqual(
            self.service().take().decode().split("\r\n"),
            [
                "GET /x?y HTTP/1.1",
                "Host: a.example",
                "aCCept: */*",
                "X_Own: 1",
                "X-Forwarded-For: 192.0.2.7",
                "X-Forwarded-Proto: http",
                "X-Forwarded-Host: a.example",
                'Forwarded: for=192.0.2.7;proto=http;host="a.example"',
                "",
                "",
            ],
        )
        self.assertEqual(self.service().address, "192.0.2.7:5555")
        self.assertFalse(self.waits.waiting)

    def test_leaving(self) -> None:
        """A server that stops answers, and has visitors connect anew."""
        visitor = self.connect()
        visitor.dataReceived(request())
        self.service().say(response())
        self.assertNotIn(b"Connection: close", self.answer())
        self.names.isLeaving = True
        visitor.dataReceived(request())
        self.service().say(response())
        self.assertIn(b"Connection: close", self.answer())
        self.assertTrue(self.transport.disconnecting)

    def test_families(self) -> None:
        """An address is written in one way, and in quotes where a colon is in it."""
        for host, address, node in (
            ("::ffff:192.0.2.9", "192.0.2.9", "192.0.2.9"),
            ("2001:db8::1", "2001:db8::1", '"[2001:db8::1]"'),
        ):
            visitor = VisitorConnection(self.site, False, Waits(), 10.0)
            transport = Transport()
            transport.peerAddr = IPv6Address("TCP", host, 1)
            visitor.makeConnection(transport)
            visitor.dataReceived(request())
            got = self.service().take().decode()
            self.assertIn(f"X-Forwarded-For: {address}\r\n", got)
            self.assertIn(f"Forwarded: for={node};", got)

    def test_response(self) -> None:
        """A visitor gets a head of our own, without what concerns one connection."""
        visitor = self.connect()
        visitor.dataReceived(request())
        lines = "Connection: X-Hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nServer: y\r\n"
        self.service().say(response(lines=lines))
        self.assertEqual(
            self.answer(),
            b"HTTP/1.1 200 OK\r\nServer: y\r\nContent-Length: 2\r\n\r\nok",
        )

    def test_changed(self) -> None:
        """An owner changes the host and headers, both ways."""
        self.route(
            "c.example",
            hostHeader="app.lan:80",
            requestHeaders=["X-Key: a b", "-User-Agent"],
            responseHeaders=["-Server", "X-Frame-Options: DENY"],
        )
        visitor = self.connect(secure=True)
        visitor.dataReceived(
            request("c.example", lines="User-Agent: x\r\nX-Key: z\r\nX_Key: z\r\n")
        )
        got = self.service("c.example").take().decode().split("\r\n")
        self.assertIn("Host: app.lan:80", got)
        self.assertIn("X-Key: a b", got)
        self.assertIn("X-Forwarded-Proto: https", got)
        self.assertNotIn("User-Agent: x", got)
        self.assertNotIn("Key: z", "".join(got).replace("_", "-"))
        lines = (
            "Server: y\r\nLocation: http://app.lan:80/login?a=b\r\n"
            "Set-Cookie: a=b; Domain=.App.lan; Path=/\r\nSet-Cookie: c=d; Domain=e\r\n"
        )
        self.service("c.example").say(response(b"", lines, "302 Found"))
        got = self.answer().decode().split("\r\n")
        self.assertIn("Location: https://c.example/login?a=b", got)
        self.assertIn("Set-Cookie: a=b; Path=/", got)
        self.assertIn("Set-Cookie: c=d; Domain=e", got)
        self.assertIn("X-Frame-Options: DENY", got)
        self.assertNotIn("Server: y", got)

    def test_redirects(self) -> None:
        """A redirect of an application that knows of no TLS stays within TLS."""
        for said, expected in (
            ("http://a.example/x", "https://a.example/x"),
            ("http://A.Example", "https://A.Example"),
            ("http://other.example/x", "http://other.example/x"),
            ("/x", "/x"),
            ("//a.example/x", "//a.example/x"),
        ):
            visitor = self.connect(secure=True)
            visitor.dataReceived(request())
            self.service().say(response(b"", f"Location: {said}\r\n", "301 Moved"))
            self.assertIn(
                f"Location: {expected}\r\n".lower().encode(), self.answer().lower()
            )

    def test_redirectsHome(self) -> None:
        """
        A redirect to where the service is itself, by any of its names or by its own
        port, leads to the tunnel's name; one to another place does not.
        """
        self.route("d.example", ownHost="localhost:3000")
        for said, expected in (
            ("http://localhost:3000/x?y", "https://d.example/x?y"),
            ("http://127.0.0.1:3000", "https://d.example"),
            ("https://[::1]:3000/", "https://d.example/"),
            ("http://d.example:3000/new", "https://d.example/new"),
            ("http://localhost:3001/", "http://localhost:3001/"),
            ("http://localhost/", "http://localhost/"),
            ("http://d.example:3001/", "http://d.example:3001/"),
            ("http://e.example:3000/", "http://e.example:3000/"),
        ):
            visitor = self.connect(secure=True)
            visitor.dataReceived(request("d.example"))
            lines = f"Location: {said}\r\nSet-Cookie: a=b; Domain=LocalHost; Secure\r\n"
            self.service("d.example").say(response(b"", lines, "302 Found"))
            answer = self.answer()
            self.assertIn(f"Location: {expected}\r\n".encode(), answer)
            self.assertIn(b"Set-Cookie: a=b; Secure\r\n", answer)

    def test_wrongOptions(self) -> None:
        """What would break a head is no option."""
        wrong: tuple[tuple[str, Any], ...] = (
            ("requestHeaders", ["X: a\r\nY: b"]),
            ("requestHeaders", ["Host: x"]),
            ("requestHeaders", ["Content-Length: 3"]),
            ("responseHeaders", ["-Transfer-Encoding"]),
            ("responseHeaders", ["X y: z"]),
            ("responseHeaders", ["X"]),
            ("hostHeader", "a b"),
            ("hostHeader", "a\r\nX: y"),
            ("ownHost", "a b:3"),
            ("ownHost", "a\r\nX: y:3"),
        )
        for name, value in wrong:
            with self.assertRaises(TunnelError, msg=repr(value)) as caught:
                self.route("d.example", **{name: value})
            self.assertEqual(caught.exception.code.name, "bad-option")

    def test_proxies(self) -> None:
        """What a trusted proxy says counts, and is told on."""

        class Trusted:
            def speaksFor(self, host: str) -> bool:
                return host == "192.0.2.7"

            def clientOf(self, host: str, said: str) -> str:
                return said.rpartition(",")[2].strip() or host

        self.site.proxies = Trusted()
        visitor = self.connect()
        for address in ("198.51.100.1", "2001:db8::1"):
            # As HAProxy does it: behind the line that a visitor has sent.
            said = (
                f"X-Forwarded-For: 9.9.9.9\r\nX-Forwarded-For: {address}\r\n"
                "X-Forwarded-Proto: https\r\n"
            )
            visitor.dataReceived(request(lines=said))
            got = self.service().take().decode()
            self.assertIn(f"X-Forwarded-For: 9.9.9.9, {address}, 192.0.2.7\r\n", got)
            self.assertIn("X-Forwarded-Proto: https\r\n", got)
            self.service().say(response())
        # Each has a connection to the service, since each is somebody else.
        self.assertEqual(
            [each.address for each in self.services["a.example"]],
            ["198.51.100.1:0", "[2001:db8::1]:0"],
        )


class RoutingTests(VisitorTestCase):
    """Where requests go."""

    def test_hosts(self) -> None:
        """One connection has requests for several names and paths."""
        self.route("a.example", "/api")
        visitor = self.connect()
        for name, target, key in (
            ("a.example", "/", "a.example"),
            ("A.EXAMPLE.:8080", "/2", "a.example"),
            ("b.example", "/", "b.example"),
            ("a.example", "/api/x", "a.example/api"),
            ("a.example", "/apix", "a.example"),
        ):
            visitor.dataReceived(request(name, target))
            self.assertIn(f"GET {target} ".encode(), self.service(key).take())
            self.service(key).say(response())
            self.assertIn(b"200 OK", self.answer())
        first, second = self.services["a.example"]
        self.assertTrue(first.finished)
        self.assertFalse(second.finished)
        # Whoever was left in good order is through when it has closed.
        first.run.finish()
        self.assertEqual(first.closed, [None])
        self.assertFalse(self.clock.getDelayedCalls() == [])

    def test_unclear(self) -> None:
        """A path that services read in several ways reaches none of them."""
        self.route("a.example", "/api")
        for target in ("/api/../x", "/%61pi"):
            self.connect().dataReceived(request(target=target))
            self.assertIn(b"HTTP/1.1 400 ", self.answer())
        self.assertEqual(
            (self.services["a.example"], self.services["a.example/api"]), ([], [])
        )

    def test_unknown(self) -> None:
        """Nobody's name has a page: for browsers, or a line."""
        for lines, kind in (("", b"text/plain"), ("Accept: text/html\r\n", b"<title>")):
            visitor = self.connect()
            visitor.dataReceived(request("<b>.example".replace("<b>", "c"), "/", lines))
            answer = self.answer()
            self.assertIn(b"HTTP/1.1 404 Not Found\r\n", answer)
            self.assertIn(kind, answer)
            self.assertIn(b"c.example", answer)
            self.assertTrue(self.transport.disconnecting)

    def test_smuggling(self) -> None:
        """
        Behind what is refused nothing is read: no request gets to another tunnel, and
        to its own only what was whole before.
        """
        hidden = request("b.example", "/hidden")
        for _, data in SMUGGLING:
            for piece in (len(data), 1):
                visitor = self.connect()
                whole = data + hidden
                pieces = (
                    [whole] if piece > 1 else [whole[i : i + 1] for i in range(400)]
                )
                for each in pieces:
                    if not self.transport.disconnecting:
                        visitor.dataReceived(each)
                self.assertEqual(self.services["b.example"], [], data[:99])
                got = b"".join(each.take() for each in self.services["a.example"])
                self.assertNotIn(b"hidden", got, data[:99])
                self.lose(visitor)
                if got:
                    self.assertEqual(self.service().broken is None, False, data[:99])
                self.services["a.example"].clear()

    def test_refusals(self) -> None:
        """Why a visitor is turned away decides on the status."""
        for code, retry, status in (
            ("client-away", None, 503),
            ("not-permitted", None, 403),
            ("limit-reached", None, 503),
            ("limit-reached", 2.2, 429),
            ("service-refused", None, 502),
            ("service-timeout", None, 504),
        ):
            self.refusal = TunnelError(code, "why", retry)
            visitor = self.connect()
            visitor.dataReceived(request(method="POST", lines="Content-Length: 5\r\n"))
            answer = self.answer()
            self.assertIn(f"HTTP/1.1 {status} ".encode(), answer)
            self.assertEqual(b"Retry-After: 2\r\n" in answer, retry is not None)
            if status in (502, 504):
                # Where the service is, is for its owner to know.
                self.assertNotIn(b"why", answer)
            visitor.dataReceived(b"abcde" + request())
            self.assertEqual(len(self.services["a.example"]), 1)
            self.services["a.example"].clear()

    def test_ownPages(self) -> None:
        """An operator's page is shown to browsers, and none to HEAD."""
        self.names.pages = Pages({404: b"<p>ours"})
        for method, expected in (("GET", True), ("HEAD", False)):
            visitor = self.connect()
            lines = "Accept: text/html\r\n"
            visitor.dataReceived(request("c.example", lines=lines, method=method))
            answer = self.answer()
            self.assertEqual(answer.endswith(b"<p>ours"), expected)
            self.assertIn(b"Content-Length: 7\r\n", answer)

    def test_redirect(self) -> None:
        """In clear text a visitor is sent on, where TLS will be believed."""
        self.names.opened("http", 80)
        self.names.opened("https", 8443)
        self.names.isCovered = lambda host: host == "a.example"
        for host, method, status in (
            ("a.example", "GET", 301),
            ("a.example", "POST", 308),
            ("b.example", "GET", 0),
        ):
            visitor = self.connect()
            visitor.dataReceived(request(host, "/x?y", method=method))
            answer = self.answer()
            if status:
                self.assertIn(f"HTTP/1.1 {status} ".encode(), answer)
                self.assertIn(b"Location: https://a.example:8443/x?y\r\n", answer)
            else:
                self.assertEqual(answer, b"")
        self.names.redirects = False
        self.connect().dataReceived(request())
        self.assertIn(b"GET / ", self.service().take())

    def test_challenge(self) -> None:
        """Proof of a name is the server's to give, and all else the service's."""
        self.names.challenge = lambda path: b"proof" if path.endswith(b"/t") else None
        where = "/.well-known/acme-challenge/"
        self.connect().dataReceived(request(target=f"{where}t"))
        self.assertTrue(self.answer().endswith(b"\r\n\r\nproof"))
        self.connect().dataReceived(request(target=f"{where}u"))
        self.assertIn(b"GET /.well-known", self.service().take())


class BodyTests(VisitorTestCase):
    """What is behind the heads, both ways."""

    def test_lengths(self) -> None:
        """A body with a length passes as it comes; chunks are made anew."""
        visitor = self.connect()
        visitor.dataReceived(
            request(method="PUT", lines="Content-Length: 5\r\n") + b"ab"
        )
        got = self.service().take()
        self.assertIn(b"Content-Length: 5\r\n", got)
        self.assertTrue(got.endswith(b"\r\n\r\nab"))
        visitor.dataReceived(b"cde")
        self.assertEqual(self.service().take(), b"cde")
        self.service().say(response())
        chunked = "Transfer-Encoding: chunked\r\n"
        visitor.dataReceived(
            request(method="POST", lines=chunked)
            + b"1;x=y\r\na\r\n2\r\nbc\r\n0\r\nX-T: u\r\nX-Forwarded-For: z\r\n"
            + b"Host: b\r\n\r\n"
        )
        got = self.service().take()
        self.assertTrue(
            got.endswith(b"\r\n\r\n1\r\na\r\n2\r\nbc\r\n0\r\nX-T: u\r\n\r\n"), got
        )
        self.assertIn(b"\r\nTransfer-Encoding: chunked\r\n", got)

    def test_responses(self) -> None:
        """Where a response ends, in the words of the visitor's version."""
        old = b"GET / HTTP/1.0\r\nHost: a.example\r\n"
        new = b"GET / HTTP/1.1\r\nHost: a.example\r\n"
        chunks = b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX-T: u\r\n\r\n"
        for ask, said, ends, closes in (
            (
                new,
                b"HTTP/1.1 200 OK\r\n" + chunks,
                b"\r\n\r\n2\r\nab\r\n0\r\nX-T: u\r\n\r\n",
                False,
            ),
            (
                old,
                b"HTTP/1.1 200 OK\r\n" + chunks,
                b"Connection: close\r\n\r\nab",
                True,
            ),
            (
                old + b"Connection: keep-alive\r\n",
                response(),
                b"Connection: keep-alive\r\n\r\nok",
                False,
            ),
            (old, response(), b"Connection: close\r\n\r\nok", True),
            (
                new + b"Connection: close\r\n",
                response(),
                b"Connection: close\r\n\r\nok",
                True,
            ),
            (
                new,
                b"HTTP/1.1 204 No\r\nContent-Length: 0\r\n\r\n",
                b"204 No\r\n\r\n",
                False,
            ),
            (
                new,
                b"HTTP/1.1 304 Not\r\nContent-Length: 9\r\n\r\n",
                b"Content-Length: 9\r\n\r\n",
                False,
            ),
        ):
            visitor = self.connect()
            visitor.dataReceived(ask + b"\r\n")
            self.service().say(said)
            answer = self.answer()
            self.assertTrue(answer.endswith(ends), (ask, said, answer))
            self.assertEqual(self.transport.disconnecting, closes)

    def test_untilClose(self) -> None:
        """A response that ends with its connection is chunked, or ends ours."""
        for version, ends in (("1.1", b"2\r\nab\r\n0\r\n\r\n"), ("1.0", b"\r\n\r\nab")):
            visitor = self.connect()
            visitor.dataReceived(
                f"GET / HTTP/{version}\r\nHost: a.example\r\n\r\n".encode()
            )
            self.service().say(b"HTTP/1.1 200 OK\r\n\r\nab")
            self.assertFalse(self.transport.disconnecting)
            self.service().run.finish()
            self.assertTrue(self.answer().endswith(ends))
            self.assertEqual(self.transport.disconnecting, version == "1.0")

    def test_head(self) -> None:
        """A response to HEAD has no body, and the connection goes on."""
        visitor = self.connect()
        for _ in range(2):
            visitor.dataReceived(request(method="HEAD"))
            self.service().say(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
            self.assertTrue(self.answer().endswith(b"Content-Length: 9\r\n\r\n"))
        visitor.dataReceived(request())
        self.service().say(response())
        self.assertTrue(self.answer().endswith(b"\r\n\r\nok"))
        self.assertEqual(len(self.services["a.example"]), 1)

    def test_continue(self) -> None:
        """An interim response comes through, and the other one behind it."""
        visitor = self.connect()
        lines = "Content-Length: 2\r\nExpect: 100-continue\r\n"
        visitor.dataReceived(request(method="POST", lines=lines))
        self.assertIn(b"Expect: 100-continue\r\n", self.service().take())
        self.service().say(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.assertEqual(self.answer(), b"HTTP/1.1 100 Continue\r\n\r\n")
        visitor.dataReceived(b"ab")
        self.assertEqual(self.service().take(), b"ab")
        self.service().say(response())
        self.assertTrue(self.answer().endswith(b"ok"))

    def test_early(self) -> None:
        """A response may come before its request is whole, whose rest is still sent."""
        visitor = self.connect()
        visitor.dataReceived(
            request(method="POST", lines="Content-Length: 4\r\n") + b"a"
        )
        self.service().say(response(b"no", "", "413 Too Large"))
        self.assertIn(b"413", self.answer())
        visitor.dataReceived(b"bcd" + request())
        self.assertIn(b"bcdGET / ", self.service().take())
        # With its connection closed, the rest is for nobody.
        visitor = self.connect()
        visitor.dataReceived(
            request(method="POST", lines="Content-Length: 4\r\n") + b"a"
        )
        self.service().say(response(b"no", "Connection: close\r\n", "413 Too Large"))
        self.service().run.finish()
        self.assertIn(b"413", self.answer())
        self.assertTrue(self.transport.disconnecting)
