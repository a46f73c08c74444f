"""Names behind a gate, in memory."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlencode

import bcrypt
from twisted.internet.defer import Deferred, succeed

from tests.names.rig import VisitorTestCase, request
from tristunnel.gate.attempts import Attempts
from tristunnel.gate.gate import VisitorGate
from tristunnel.gate.provider import Providers
from tristunnel.gate.seal import Seal
from tristunnel.model.gate import gateFrom
from tristunnel.model.memory_book import MemoryBook
from tristunnel.service.access import AccessGrants
from tristunnel.service.preauth import PreauthLimiter

HTML = "Accept: text/html\r\n"


def quickly(password: str) -> str:
    return bcrypt.hashpw(password.encode(), bcrypt.gensalt(4)).decode()


PIN = quickly("2580")
ANNA = f"anna:{quickly('a secret')}"


class GateTestCase(VisitorTestCase):
    """
    The name C{a.example} asks what a test says; C{b.example} asks nothing.

    @ivar working: What waits for a thread, if C{works} is not set.
    """

    works = True

    def setUp(self) -> None:
        super().setUp()
        self.clock.advance(1_000_000)
        self.limiter = PreauthLimiter(self.clock.seconds)
        self.seal = Seal(lambda: b"k" * 32, self.clock.seconds)
        self.working: list[tuple[Callable[[], bool], Deferred[bool]]] = []
        attempts = Attempts(self.clock, self.limiter, self._work)
        self.providers = Providers(self.clock)
        self.access = AccessGrants(self.clock, MemoryBook(self.clock))
        self.gate = self.site.gate = VisitorGate(
            self.clock, self.seal, attempts, self.names, self.providers, self.access
        )

    def _work(self, call: Callable[[], bool]) -> Deferred[bool]:
        if self.works:
            return succeed(call())
        later: Deferred[bool] = Deferred()
        self.working.append((call, later))
        return later

    def asks(self, host: str = "a.example", path: str = "", **asked: Any) -> None:
        route = self.names.table.find("http", host, path or "/")
        assert route is not None
        route.gate = gateFrom({k: v for k, v in asked.items() if v}) or None

    def get(self, target: str = "/", lines: str = "", **more: Any) -> str:
        """Make a request on a connection of its own; what the visitor got."""
        secure = more.pop("secure", False)
        visitor = self.connect(secure)
        visitor.dataReceived(request(target=target, lines=lines, **more))
        return self.answer().decode()

    def post(
        self, target: str, lines: str = "", host: str = "a.example", **fields: str
    ) -> str:
        body = urlencode(fields)
        visitor = self.connect("https" in lines)
        length = f"{lines}Content-Length: {len(body)}\r\n"
        head = request(host, target, length, "POST")
        visitor.dataReceived(head + body.encode())
        return self.answer().decode()

    def signIn(self, target: str = "/.tristunnel/sign-in", **fields: str) -> str:
        """Sign in, and return the header that shows it."""
        return cookieOf(self.post(target, **fields))

    def told(self) -> str:
        return self.service().take().decode()


def cookieOf(answer: str) -> str:
    found = re.search(r"Set-Cookie: ([^;]*);", answer)
    assert found, answer
    return f"Cookie: {found[1]}\r\n"
