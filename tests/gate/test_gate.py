"""
PIN and login before a name, L{tristunnel.gate.gate}.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from tests.gate.rig import ANNA, HTML, PIN, GateTestCase, cookieOf, quickly
from tests.names.rig import request, response
from tristunnel.gate.staying import LOOK
from tristunnel.names.gate import Closed
from tristunnel.names.pages import Pages


def basic(user: str, password: str) -> str:
    said = base64.b64encode(f"{user}:{password}".encode()).decode()
    return f"Authorization: Basic {said}\r\n"


class PinTests(GateTestCase):
    """A PIN by a form."""

    def setUp(self) -> None:
        super().setUp()
        self.asks(pin=PIN)

    def test_asked(self) -> None:
        """Nobody comes in unasked; a browser gets a form, a program a line."""
        page = self.get("/x?y=1", HTML)
        self.assertTrue(page.startswith("HTTP/1.1 401 "))
        self.assertIn('action="/.tristunnel/sign-in"', page)
        self.assertIn('name="next" value="/x?y=1"', page)
        self.assertNotIn("WWW-Authenticate", page)
        self.assertIn("frame-ancestors 'none'", page)
        line = self.get("/x")
        self.assertIn('WWW-Authenticate: Basic realm="a.example"', line)
        self.assertTrue(line.endswith("a.example asks visitors for a PIN.\n"))
        self.assertNotIn("WWW-Authenticate", self.get(lines="Sec-Fetch-Mode: cors\r\n"))
        self.assertEqual(self.services["a.example"], [])

    def test_right(self) -> None:
        """With the PIN a visitor comes in, and its service sees no cookie of ours."""
        answer = self.post("/.tristunnel/sign-in", pin="2580", next="/x?y=1")
        self.assertIn("HTTP/1.1 303 ", answer)
        self.assertIn("Location: /x?y=1\r\n", answer)
        self.assertRegex(answer, r"; Path=/; Max-Age=43200; HttpOnly; SameSite=Lax\r\n")
        cookie = cookieOf(answer)
        visitor = self.connect()
        lines = cookie.replace("\r\n", "; own=1\r\n")
        for _ in range(2):
            visitor.dataReceived(request(lines=lines))
            told = self.told()
            self.assertIn("Cookie: own=1\r\n", told)
            self.assertNotIn("tristunnel", told)
            self.assertNotIn("X-Forwarded-User", told)
            self.service().say(response())
            self.assertIn(b"200 OK", self.answer())
        self.assertEqual(len(self.services["a.example"]), 1)
        # Each request of a connection is asked.
        visitor.dataReceived(request())
        self.assertIn(b"HTTP/1.1 401 ", self.answer())

    def test_wrong(self) -> None:
        """With another PIN it stays out."""
        answer = self.post("/.tristunnel/sign-in", HTML, pin="2581")
        self.assertIn("HTTP/1.1 401 ", answer)
        self.assertIn("That is not the PIN.", answer)
        self.assertNotIn("Set-Cookie", answer)
        for fields in ({}, {"pin": ""}, {"pin": "2580\0"}, {"user": "x"}):
            answer = self.post("/.tristunnel/sign-in", **fields)
            self.assertNotIn("Set-Cookie", answer)

    def test_over(self) -> None:
        """After its time, and once the PIN is another, a visitor is asked again."""
        self.asks(pin=PIN, stay=3600.0)
        cookie = self.signIn(pin="2580")
        self.clock.advance(3590)
        self.get(lines=cookie)
        self.assertIn("GET / ", self.told())
        self.clock.advance(11)
        self.assertIn("HTTP/1.1 401 ", self.get(lines=cookie))
        cookie = self.signIn(pin="2580")
        self.asks(pin=quickly("2580"), stay=3600.0)
        self.assertIn("HTTP/1.1 401 ", self.get(lines=cookie))

    def test_elsewhere(self) -> None:
        """A cookie is good at one name and one path, and only for what it is."""
        self.asks("b.example", pin=PIN)
        self.route("a.example", "/in")
        self.asks("a.example", "/in", pin=PIN)
        cookie = self.signIn(pin="2580")
        self.assertIn("HTTP/1.1 401 ", self.get(lines=cookie, host="b.example"))
        self.assertIn("HTTP/1.1 401 ", self.get("/in/", lines=cookie))
        value = cookie.partition("=")[2]
        name = self.signIn("/in/.tristunnel/sign-in", pin="2580").partition("=")[0]
        self.assertIn("HTTP/1.1 401 ", self.get("/in/", lines=f"{name}={value}"))
        deep = base64.urlsafe_b64encode(b"[" * 2000).decode().rstrip("=")
        for forged in (
            *(value[:-4] + "xx\r\n", "", "a.b.c\r\n", "x" * 9000 + "\r\n"),
            *(f"{deep}.e30.x\r\n", f"{deep}.{deep[:900]}.x\r\n", "\x80.\x80.\x80\r\n"),
        ):
            line = f"{cookie.partition('=')[0]}={forged.strip()}\r\n"
            self.assertIn("HTTP/1.1 401 ", self.get(lines=line))

    def test_secure(self) -> None:
        """Over TLS a cookie has a name that only the host itself can set."""
        visitor = self.connect(True)
        body = b"pin=2580"
        lines = f"Content-Length: {len(body)}\r\n"
        visitor.dataReceived(
            request(target="/.tristunnel/sign-in", lines=lines, method="POST") + body
        )
        answer = self.answer().decode()
        self.assertRegex(answer, r"Set-Cookie: __Host-tristunnel-visitor-\w{8}=")
        self.assertIn("; SameSite=Lax; Secure\r\n", answer)
        # One without that name may be anybody's.
        cookie = cookieOf(answer).replace("__Host-", "")
        self.assertIn("HTTP/1.1 401 ", self.get(lines=cookie, secure=True))

    def test_signOut(self) -> None:
        """There is a page for signing out, whose button forgets the cookie."""
        self.assertIn("Sign out", self.get("/.tristunnel/sign-out", HTML))
        answer = self.post("/.tristunnel/sign-out", HTML)
        self.assertIn("HTTP/1.1 200 ", answer)
        self.assertIn("=; Path=/; Max-Age=0; HttpOnly", answer)

    def test_openRedirect(self) -> None:
        """Nobody is led away from the name."""
        for where in (
            *("//evil.example/", "/\\evil.example", "https://evil.example", "\\\\x"),
            *("/x\\y", "/\t/evil.example", "javascript:alert(1)", "x", "/ x", "/ü"),
            *("", "/.tristunnel/sign-out"),
        ):
            answer = self.post("/.tristunnel/sign-in", pin="2580", next=where)
            self.assertIn("\r\nLocation: /\r\n", answer, where)
        page = self.get("//evil.example/", HTML)
        self.assertIn('name="next" value="/"', page)

    def test_foreignForm(self) -> None:
        """A form of another page's, also of a neighbour's, signs nobody in."""
        for line in (
            *("Origin: http://b.example", "Origin: null", "Sec-Fetch-Site: same-site"),
            *("Sec-Fetch-Site: cross-site", "Referer: http://b.example/x"),
        ):
            for page in ("sign-in", "sign-out"):
                answer = self.post(f"/.tristunnel/{page}", f"{line}\r\n", pin="2580")
                self.assertIn("HTTP/1.1 403 ", answer)
                self.assertNotIn("Set-Cookie", answer)
        own = "Origin: http://a.example\r\nSec-Fetch-Site: same-origin\r\n"
        self.assertIn("303", self.post("/.tristunnel/sign-in", own, pin="2580"))

    def test_guessing(self) -> None:
        """Who guesses has to wait, at an address and at a name."""
        for _ in range(4):
            self.post("/.tristunnel/sign-in", pin="0000")
        answer = self.post("/.tristunnel/sign-in", pin="2580")
        self.assertIn("HTTP/1.1 429 ", answer)
        self.assertRegex(answer, r"Retry-After: [1-9]")
        self.clock.advance(600)
        told: list[str] = []
        attempts = self.gate.attempts
        attempts.told = told.append
        for _ in range(16):
            attempts.wrong("198.51.100.1", "a.example")
        for _ in range(15):
            attempts.wrongElsewhere("a.example")
        self.assertEqual(told, ["a.example"] * 16)
        answer = self.post("/.tristunnel/sign-in", pin="2580")
        self.assertIn("HTTP/1.1 429 ", answer)
        self.clock.advance(60)
        self.assertIn("303", self.post("/.tristunnel/sign-in", pin="2580"))

    def test_oddPaths(self) -> None:
        """No way of writing a path leads past the gate."""
        for target in (
            *("//", "/%2e%2e/", "/.tristunnel/%2e%2e/", "/.tristunnel/../x"),
            *("/.tristunnel/", "/.tristunnel", "/.Tristunnel/sign-in", "/x/../y"),
            *("/.tristunnel/sign-in/x", "/.tristunnel//sign-in", "/?/.tristunnel/"),
        ):
            for method in ("GET", "POST", "HEAD", "OPTIONS"):
                answer = self.get(target, method=method)
                self.assertRegex(answer, "^HTTP/1.1 (401|404) ", target)
        visitor = self.connect()
        visitor.dataReceived(b"GET / HTTP/1.0\r\n\r\n")
        self.assertIn(b"HTTP/1.1 400 ", self.answer())
        self.assertEqual(self.services["a.example"], [])

    def test_upgrade(self) -> None:
        """An upgrade is asked like any request."""
        lines = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        self.assertIn("HTTP/1.1 401 ", self.get("/ws", lines))
        cookie = self.signIn(pin="2580")
        self.get("/ws", lines + cookie)
        self.assertIn("Upgrade: websocket\r\n", self.told())

    def socket(self, cookie: str) -> Callable[[], bool]:
        """Open a WebSocket; whether it is still open."""
        lines = "Connection: Upgrade\r\nUpgrade: websocket\r\n"
        visitor = self.connect()
        transport: Any = self.transport
        visitor.dataReceived(request(target="/ws", lines=lines + cookie))
        self.service().say(
            b"HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\n"
            b"Upgrade: websocket\r\n\r\n"
        )
        self.assertIn(b"101", transport.value())
        return lambda: not transport.aborted

    def test_signedOutOfSocket(self) -> None:
        """Who signs out has no WebSocket any more, wherever that is."""
        told: list[str] = []
        self.gate.staying.told = told.append
        first, second = self.signIn(pin="2580"), ""
        self.clock.advance(1)
        second = self.signIn(pin="2580")
        mine, theirs = self.socket(first), self.socket(second)
        self.post("/.tristunnel/sign-out", lines=first)
        self.assertEqual((mine(), theirs()), (False, True))
        self.post("/.tristunnel/sign-out", lines=second)
        self.assertFalse(theirs())
        third = self.socket(second)
        self.gate.staying.signedOutElsewhere(told[1])
        self.assertFalse(third())

    def test_stays(self) -> None:
        """A WebSocket ends with the time of its visitor, or with other rules."""
        self.asks(pin=PIN, stay=60.0)
        cookie = self.signIn(pin="2580")
        stays = self.socket(cookie)
        self.clock.pump([LOOK] * 11)
        self.assertTrue(stays())
        self.clock.pump([LOOK] * 2)
        self.assertFalse(stays())
        stays = self.socket(self.signIn(pin="2580"))
        self.asks(pin=quickly("1111"))
        self.clock.advance(LOOK)
        self.assertFalse(stays())
        self.clock.advance(LOOK)
        self.assertEqual(len(self.gate.staying), 0)

    def test_longForm(self) -> None:
        """A form has its bounds in bytes and in time."""
        answer = self.post("/.tristunnel/sign-in", pin="1" * 9000)
        self.assertIn("HTTP/1.1 413 ", answer)
        visitor = self.connect()
        lines = "Content-Length: 10\r\n"
        visitor.dataReceived(
            request(target="/.tristunnel/sign-in", lines=lines, method="POST")
        )
        for _ in range(32):
            self.clock.advance(1)
        self.assertIn(b"HTTP/1.1 413 ", self.answer())
        many = {f"f{number}": "x" for number in range(50)}
        self.assertNotIn("Set-Cookie", self.post("/.tristunnel/sign-in", **many))

    def test_ownPage(self) -> None:
        """The operator's own page has our forms in it."""
        self.names.pages = Pages({}, b"<h1>Ours</h1><!-- sign-in -->")
        page = self.get(lines=HTML)
        self.assertIn("<h1>Ours</h1><form", page)


class LoginTests(GateTestCase):
    """A name and a password, by form or header."""

    def setUp(self) -> None:
        super().setUp()
        self.asks(login=(ANNA, f"ben:{quickly('b')}"))

    def test_form(self) -> None:
        """The service learns who it is, and nobody can say so in another's place."""
        cookie = self.signIn(user="anna", password="a secret")
        forged = (
            "X-Forwarded-User: ben\r\nX_Forwarded_User: ben\r\n"
            "X-Forwarded.User: ben\r\n"
            "X-Forwarded-Email: x@y\r\nX-Forwarded-Groups: admin\r\n"
        )
        self.get(lines=cookie + forged)
        told = self.told()
        self.assertIn("X-Forwarded-User: anna\r\n", told)
        for word in ("ben", "x@y", "admin", "tristunnel"):
            self.assertNotIn(word, told)

    def test_wrong(self) -> None:
        """A wrong name and a wrong password look alike."""
        answers = [
            self.post("/.tristunnel/sign-in", user=user, password=password)
            for user, password in (("anna", "b"), ("nobody", "b"))
        ]
        self.assertEqual(answers[0], answers[1])
        self.assertIn("HTTP/1.1 401 ", answers[0])

    def test_gone(self) -> None:
        """Whose password has changed signs in again; others stay."""
        cookies = {
            user: self.signIn(user=user, password=password)
            for user, password in (("anna", "a secret"), ("ben", "b"))
        }
        self.asks(login=(ANNA, f"ben:{quickly('b')}"))
        self.get(lines=cookies["anna"])
        self.assertIn("X-Forwarded-User: anna", self.told())
        self.assertIn("HTTP/1.1 401 ", self.get(lines=cookies["ben"]))

    def test_header(self) -> None:
        """Programs say it with each request; the service does not see how."""
        self.get(lines=basic("anna", "a secret"))
        told = self.told()
        self.assertIn("X-Forwarded-User: anna\r\n", told)
        self.assertNotIn("Authorization", told)
        self.works = False
        self.get(lines=basic("anna", "a secret"))
        self.assertIn("X-Forwarded-User: anna\r\n", self.told())
        self.works = True
        for line in (
            *(basic("anna", "x"), basic("nobody", "x"), "Authorization: Basic %\r\n"),
            *(basic("nobody", ""), "Authorization: Bearer x\r\n"),
        ):
            answer = self.get(lines=line)
            self.assertIn("HTTP/1.1 401 ", answer)
            self.assertIn("WWW-Authenticate: Basic", answer)
            self.clock.advance(60)
        # What is not for the gate is for the service.
        cookie = self.signIn(user="anna", password="a secret")
        self.get(lines=cookie + "Authorization: Bearer x\r\n")
        self.assertIn("Authorization: Bearer x\r\n", self.told())

    def test_waits(self) -> None:
        """While a password is tried, a body waits, and pipelined requests do."""
        self.works = False
        visitor = self.connect()
        lines = basic("anna", "a secret") + "Content-Length: 3\r\n"
        visitor.dataReceived(request(lines=lines, method="POST") + b"abc" + request())
        self.assertEqual(self.services["a.example"], [])
        self.assertEqual(self.transport.producerState, "paused")
        call, later = self.working.pop()
        later.callback(call())
        self.assertTrue(self.told().endswith("\r\n\r\nabc"))
        self.service().say(response())
        self.assertIn(b"401", self.answer())

    def test_leaves(self) -> None:
        """
        Who leaves while a password is tried is not served, and has used up an attempt
        and a place; of those there are so many.
        """
        self.works = False
        for _ in range(4):
            visitor = self.connect()
            visitor.dataReceived(request(lines=basic("anna", "wrong")))
            self.lose(visitor)
        self.assertEqual(len(self.working), 2)
        while self.working:
            call, later = self.working.pop(0)
            later.callback(call())
        self.assertEqual(self.services["a.example"], [])
        self.assertIn("HTTP/1.1 429 ", self.get(lines=basic("anna", "a secret")))
        self.clock.advance(600)
        for _ in range(101):
            answer = self.get(lines=basic("anna", "wrong"))
        self.assertIn("too many visitors are signing in at once", answer.lower())

    def test_brokenMeanwhile(self) -> None:
        """What another service sends meanwhile is no answer."""
        visitor = self.connect()
        visitor.dataReceived(request("b.example"))
        self.service("b.example").say(response())
        self.answer()
        self.works = False
        visitor.dataReceived(request(lines=basic("anna", "a secret")))
        self.service("b.example").say(response(b"surprise"))
        self.assertEqual(self.answer(), b"")
        call, later = self.working.pop()
        later.callback(call())
        self.service().say(response(b"right"))
        self.assertIn(b"right", self.answer())


class NoGateTests(GateTestCase):
    """What is the same at other names."""

    def test_strippedEverywhere(self) -> None:
        """No service sees a cookie of a gate, also where nothing is asked."""
        self.get(lines="Cookie: __Host-tristunnel-visitor-12345678=x; y=z\r\n")
        self.assertIn("Cookie: y=z\r\n", self.told())
        self.get(lines="Cookie: tristunnel-visitor-12345678=x\r\n")
        self.assertNotIn("Cookie", self.told())
        self.get(lines="Cookie: a=tristunnel-x; b=2\r\n")
        self.assertIn("Cookie: a=tristunnel-x; b=2\r\n", self.told())

    def test_closed(self) -> None:
        """A site without a gate lets nobody in where one is asked for."""
        self.site.gate = Closed()
        self.asks(pin=PIN)
        self.assertIn("HTTP/1.1 503 ", self.get())
