"""Tests for L{tristunnel.jsonrpc.pending}."""

from __future__ import annotations

from hypothesis import given
from twisted.internet.defer import CancelledError
from twisted.trial.unittest import SynchronousTestCase

from tests.jsonrpc.test_strictjson import VALUES
from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.pending import PendingCalls, RemoteError, errorFrom


class PendingCallsTests(SynchronousTestCase):
    def test_requests(self) -> None:
        """Requests have ids of their own, and parameters if there are any."""
        pending = PendingCalls()
        self.assertEqual(
            [
                pending.call("a")[0],
                pending.call("b", [1])[0],
                pending.call("c", {"d": 2})[0],
            ],
            [
                {"jsonrpc": "2.0", "id": 1, "method": "a"},
                {"jsonrpc": "2.0", "id": 2, "method": "b", "params": [1]},
                {"jsonrpc": "2.0", "id": 3, "method": "c", "params": {"d": 2}},
            ],
        )

    def test_answers(self) -> None:
        """Each call gets its own answer, in any order and only once."""
        pending = PendingCalls()
        _, first = pending.call("a")
        _, second = pending.call("b")
        answer = {"jsonrpc": "2.0", "id": 2, "result": "two"}
        self.assertTrue(pending.answered(answer))
        self.assertFalse(pending.answered(answer))
        self.assertEqual(self.successResultOf(second), "two")
        self.assertNoResult(first)
        self.assertTrue(pending.answered({"id": 1, "result": None, "error": None}))
        self.assertIsNone(self.successResultOf(first))
        self.assertEqual(len(pending), 0)

    def test_tunnelError(self) -> None:
        """An error with one of our codes is a C{TunnelError} again."""
        pending = PendingCalls()
        _, result = pending.call("a")
        pending.answered(
            {
                "jsonrpc": "2.0",
                "id": 1,
                "error": {
                    "code": -32010,
                    "message": "Too many.",
                    "data": {"code": "limit-reached", "retryAfter": 3},
                },
            }
        )
        error = self.failureResultOf(result, TunnelError).value
        self.assertEqual(error.code.name, "limit-reached")
        self.assertEqual((error.message, error.retryAfter), ("Too many.", 3))

    def test_remoteError(self) -> None:
        """Any other error is a L{RemoteError} with all that was sent."""
        error = errorFrom({"code": -5, "message": "No.", "data": {"code": "strange"}})
        assert isinstance(error, RemoteError)
        self.assertEqual(
            (error.number, error.message, error.data), (-5, "No.", {"code": "strange"})
        )
        self.assertEqual(str(error), "No. [-5]")

    def test_malformedErrors(self) -> None:
        """What is no error object is an error nevertheless."""
        for error in (None, 5, {}, {"code": "x", "message": "y"}, {"code": 1}):
            self.assertIsInstance(errorFrom(error), RemoteError)

    def test_neither(self) -> None:
        """An answer without result and error fails the call."""
        pending = PendingCalls()
        _, result = pending.call("a")
        self.assertTrue(pending.answered({"jsonrpc": "2.0", "id": 1}))
        self.failureResultOf(result, RemoteError)

    def test_limit(self) -> None:
        """So many calls wait, and not more."""
        pending = PendingCalls(maximum=1)
        pending.call("a")
        error = self.assertRaises(TunnelError, pending.call, "b")
        self.assertEqual(error.code.name, "limit-reached")
        pending.answered({"id": 1, "result": 0})
        pending.call("b")

    def test_cancel(self) -> None:
        """A call that is cancelled is forgotten, and its late answer ignored."""
        pending = PendingCalls()
        _, result = pending.call("a")
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertFalse(pending.answered({"id": 1, "result": 0}))

    def test_abandon(self) -> None:
        """When no answers will come, every call fails."""
        pending = PendingCalls()
        results = [pending.call("a")[1], pending.call("b")[1]]
        pending.abandon(TunnelError("session-lost"))
        for result in results:
            self.failureResultOf(result, TunnelError)
        self.assertEqual(len(pending), 0)

    @given(VALUES)
    def test_garbage(self, value: object) -> None:
        """Garbage is no answer, or fails the call it names, and no more."""
        pending = PendingCalls()
        _, result = pending.call("a")
        result.addErrback(lambda _: None)
        pending.answered(value)
        pending.answered({"id": value, "result": 0})
        pending.answered({"id": 1, "error": value})
