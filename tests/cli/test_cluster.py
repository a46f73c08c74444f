"""Tests for L{tristunnel.cli.cluster}."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.cli import cluster as module
from tristunnel.cli import question
from tristunnel.cli.call import CallFailed, CallRequest
from tristunnel.cli.main import parser
from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.pending import RemoteError

WHERE = "http://10.0.0.2:9000"


def member(name: str, state: str, clients: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "member": name,
        "address": "tcp:10.0.0.1:9001",
        "clientAddress": "10.0.0.1:9000",
        "version": "1",
        "state": state,
        "clients": clients,
        "streams": 0,
        **more,
    }


class ClusterCommandTests(SynchronousTestCase):
    """What C{tristunnel cluster} asks and prints."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.answers: list[Any] = []
        self.asked: list[CallRequest] = []
        self.patch(question, "ask", self.ask)
        self.out = io.StringIO()
        self.patch(sys, "stdout", self.out)

    async def ask(self, reactor: object, request: CallRequest) -> Any:
        self.asked.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def run_(self, *words: str, waits: int = 0) -> list[str]:
        options = parser().parse_args(["cluster", *words, "--server", WHERE])
        running = Deferred.fromCoroutine(options.run(self.clock, options))
        for _ in range(waits):
            self.assertNoResult(running)
            self.clock.advance(module.INTERVAL)
        self.successResultOf(running)
        return self.out.getvalue().splitlines()

    def refusal(self, *words: str) -> str:
        options = parser().parse_args(["cluster", *words])
        running = Deferred.fromCoroutine(options.run(self.clock, options))
        error: Any = self.failureResultOf(running, TunnelError).value
        self.assertNotIn("\n", error.message)
        return str(error.message)

    def test_status(self) -> None:
        """A table, in which a silent member has no numbers; or JSON."""
        silent = {"member": "b", "state": "silent\x1b[1m", "why": "late"}
        found = [member("a", "serving", 2, seconds=90.0, load=0.5, engine="up"), silent]
        self.answers = [found, found]
        head, first, other, why = self.run_("status")
        self.assertEqual(head.split()[:3], ["MEMBER", "STATE", "VERSION"])
        self.assertEqual(first.split()[:3], ["a", "serving", "1"])
        self.assertIn("1m30s", first)
        self.assertEqual(other.split()[-1], "-")
        self.assertNotIn("\x1b", other)
        self.assertEqual(self.asked[0].method, "listMembers")
        self.assertEqual(why, "member b cannot be asked: late")
        lines = self.run_("status", "--json")[4:]
        self.assertEqual(json.loads(lines[0]), found[0])

    def test_drain(self) -> None:
        """A member is drained, and waited for until it has nothing any more."""
        self.answers = [
            [member("a", "draining", 1)],
            [member("a", "draining", 1), member("b", "serving", 9)],
            [member("a", "drained"), member("b", "serving", 9)],
        ]
        lines = self.run_("drain", "10.0.0.1", "--wait", waits=2)
        self.assertEqual(
            lines,
            [
                "member a is draining: 1 client and 0 streams left",
                "drained: the server can be stopped",
            ],
        )
        self.assertEqual(self.asked[0].params, {"member": "10.0.0.1"})
        self.answers = [[member("a", "serving")]]
        self.assertEqual(self.run_("undrain", "a")[-1], "member a is serving")
        self.assertEqual(self.asked[-1].method, "undrainMember")

    def test_late(self) -> None:
        """It is not waited for longer than was said."""
        busy = [member("a", "draining", 1)]
        self.answers = [busy] * 5
        words = ("drain", "a", "--wait", "2s", "--server", WHERE)
        options = parser().parse_args(["cluster", *words])
        running = Deferred.fromCoroutine(options.run(self.clock, options))
        self.clock.pump([1.0] * 3)
        error: Any = self.failureResultOf(running, TunnelError).value
        self.assertIn("not drained in time: member a is draining", error.message)

    def test_refused(self) -> None:
        """Each reason is one line."""
        for answer, why in (
            (
                RemoteError(-32000, "this server is not part of a cluster", {}),
                "not part of a cluster",
            ),
            (CallFailed("it asks who you are", 401), "give --token-file FILE"),
            (CallFailed("nobody is there", 0), "nobody is there"),
        ):
            self.answers = [answer]
            self.assertIn(why, self.refusal("status", "--server", WHERE))
        self.assertIn("--server", self.refusal("status", "--server", "x"))
