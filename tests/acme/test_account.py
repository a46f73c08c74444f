"""What an account makes of an authority that refuses, limits, or speaks nonsense."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.trial.unittest import TestCase
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from tests.support.listening import listenHere
from tristunnel.acme.account import Account, reach
from tristunnel.acme.problems import AuthorityProblem
from tristunnel.acme.settings import AuthoritySettings
from tristunnel.acme.threads import inThread

_URN = "urn:ietf:params:acme:error:"


class Authority(Resource):
    """Answers as a test says; every answer has a nonce."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.answers: dict[str, tuple[int, Any, dict[str, str]]] = {}
        self.asked: list[str] = []

    def render(self, request: Request) -> bytes:
        path = request.path.decode()
        self.asked.append(path)
        status, body, headers = self.answers.get(path, (200, {}, {}))
        request.setResponseCode(status)
        request.setHeader("Replay-Nonce", "bm9uY2U")
        request.setHeader("Connection", "close")
        kind = "application/json" if status < 400 else "application/problem+json"
        request.setHeader("Content-Type", kind)
        for name, value in headers.items():
            request.setHeader(name, value)
        return body if isinstance(body, bytes) else json.dumps(body).encode()


class AccountTests(TestCase):
    def setUp(self) -> None:
        self.authority = Authority()
        port = listenHere(self, reactor, Site(self.authority))
        self.base = f"http://127.0.0.1:{port}"
        self.directory = Path(self.mktemp())
        self.settings = AuthoritySettings("me@test.example", f"{self.base}/dir")
        names = ("newNonce", "newAccount", "newOrder")
        paths = {name: f"{self.base}/{name}" for name in names}
        self.authority.answers["/dir"] = 200, paths, {}
        located = {"Location": f"{self.base}/account/1"}
        self.authority.answers["/newAccount"] = 201, {"status": "valid"}, located

    async def problem(self) -> AuthorityProblem:
        account = Account(self.settings, self.directory)
        with self.assertRaises(AuthorityProblem) as caught:
            await inThread(
                reactor, lambda: account.call(lambda client: client.new_order(b""))
            )
        self.assertNotIn("\n", caught.exception.message)
        return caught.exception

    def refuse(self, path: str, code: str, status: int, **headers: str) -> None:
        body = {"type": _URN + code, "detail": "because"}
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.authority.answers[path] = status, body, named

    async def test_limited(self) -> None:
        """A full rate limit is told of, with the time that the authority names."""
        self.refuse("/newAccount", "rateLimited", 429, Retry_After="3600")
        problem = await self.problem()
        self.assertIn("rateLimited", problem.message)
        self.assertIn("wildcard", problem.message)
        assert problem.retryAfter is not None
        self.assertTrue(3500 < problem.retryAfter <= 3600)

    async def test_nonces(self) -> None:
        """Nonces that are not taken are tried some times, and no more."""
        self.refuse("/newAccount", "badNonce", 400)
        problem = await self.problem()
        self.assertIn("badNonce", problem.message)
        self.assertLess(self.authority.asked.count("/newAccount"), 12)

    async def test_nonsense(self) -> None:
        """What is no ACME is told of in one line, whatever it is."""
        for status, body in (
            (200, b"<html>"),
            (200, []),
            (200, {}),
            (200, {"newNonce": 1, "newAccount": [], "newOrder": None}),
            (404, b"nothing"),
            (500, b"\xff" * 5000),
            (302, b""),
        ):
            self.authority.answers["/dir"] = status, body, {}
            problem = await self.problem()
            self.assertIn("/dir", problem.message, body)
            self.assertLess(len(problem.message), 600)

    async def test_unbound(self) -> None:
        """An authority that has customers only is told of, with the cure."""
        directory = self.authority.answers["/dir"][1]
        directory["meta"] = {"externalAccountRequired": True}
        problem = await self.problem()
        self.assertIn("--acme-eab", problem.message)
        with self.assertRaises(AuthorityProblem):
            await inThread(reactor, lambda: reach(self.settings))

    async def test_damaged(self) -> None:
        """An account that cannot be read is made anew."""
        self.refuse("/newOrder", "malformed", 400)
        await self.problem()
        (place,) = (self.directory / "accounts").iterdir()
        before = (place / "private_key.json").read_bytes()
        self.assertEqual((place / "private_key.json").stat().st_mode & 0o777, 0o600)
        (place / "private_key.json").write_bytes(b"{}")
        await self.problem()
        after = (place / "private_key.json").read_bytes()
        self.assertNotIn(after, (before, b"{}"))
        self.flushLoggedErrors()
