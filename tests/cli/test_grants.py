"""Tests for L{tristunnel.cli.grants}."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.cli import question
from tristunnel.cli.call import CallFailed, CallRequest
from tristunnel.cli.main import parser
from tristunnel.config.servers import KnownServer, ServerStore
from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.pending import RemoteError

WHERE = "http://10.0.0.2:9000"
PIN = "ab" * 32


class GrantTests(SynchronousTestCase):
    """What C{tristunnel access grant} asks and prints."""

    def setUp(self) -> None:
        self.answer: Any = None
        self.asked: list[CallRequest] = []
        self.patch(question, "ask", self.ask)
        self.out = io.StringIO()
        self.patch(sys, "stdout", self.out)
        home = os.path.abspath(self.mktemp())
        places = {"XDG_CONFIG_HOME": home, "XDG_STATE_HOME": home}
        self.patch(os, "environ", {"HOME": home, **places})

    async def ask(self, reactor: object, request: CallRequest) -> Any:
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    def run_(self, *words: str) -> Deferred[None]:
        options = parser().parse_args(["access", *words])
        return Deferred.fromCoroutine(options.run(Clock(), options))

    def refusal(self, *words: str) -> str:
        error: Any = self.failureResultOf(self.run_(*words), TunnelError).value
        self.assertNotIn("\n", error.message)
        return str(error.message)

    def join(self, connect: str) -> None:
        ServerStore().keep(KnownServer("home", connect, (PIN,), "secret"))

    def test_grant(self) -> None:
        self.answer = "https://blog.example/.tristunnel/link?id=1"
        words = ("--ttl", "2h", "--uses", "1", "--address", "10.0.0.0/8")
        self.successResultOf(self.run_("grant", "blog", *words, "--server", WHERE))
        self.assertEqual(self.out.getvalue(), f"{self.answer}\n")
        (request,) = self.asked
        self.assertEqual(request.method, "grantAccess")
        told = {"service": "blog", "ttl": 7200.0, "uses": 1, "address": "10.0.0.0/8"}
        self.assertEqual(request.params, told)
        self.assertIsNone(request.authorization)

    def test_joined(self) -> None:
        """The server that this user has joined is asked, with its token."""
        self.join("tls:server.example:9000")
        self.successResultOf(self.run_("revoke", "1"))
        (request,) = self.asked
        self.assertEqual(request.target.url, "https://server.example:9000/rpc")
        self.assertEqual(request.authorization, "Bearer secret")
        self.assertEqual([each.hex() for each in request.pins], [PIN])
        self.assertEqual(request.params, {"id": "1"})
        self.successResultOf(self.run_("revoke", "1", "--server", WHERE))
        self.assertIsNone(self.asked[1].authorization)

    def test_granted(self) -> None:
        """What has been granted is listed, without control characters."""
        plain = {"owner": "", "address": "", "token": "", "usesLeft": None}
        self.answer = [
            {"id": "1", "service": "blog\x1b[1m", "timeLeft": 90.0, **plain},
            {
                **{"id": "2", "service": "ssh", "owner": "me", "timeLeft": None},
                **{"address": "10.0.0.0/8", "token": "anna", "usesLeft": 1},
            },
        ]
        self.successResultOf(self.run_("granted", "--server", WHERE))
        first, second = self.out.getvalue().splitlines()
        self.assertNotIn("\x1b", first)
        self.assertIn("1m30s left", first)
        self.assertEqual(second, "2  ssh, by me, 1 use left, from 10.0.0.0/8, for anna")

    def test_refused(self) -> None:
        self.answer = RemoteError(-32602, "there is no service 'x'")
        self.assertIn("no service 'x'", self.refusal("grant", "x", "--server", WHERE))
        self.answer = CallFailed("refused")
        self.assertIn("name one with --server", self.refusal("granted"))
        self.assertIn("--server", self.refusal("granted", "--server", "x"))
        self.join("wss://server.example/tunnel")
        self.assertIn("name the URL", self.refusal("granted"))
