"""
Text of the other side, by every way in which it comes in: nothing of it moves a
cursor, begins a line or turns one around.
"""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.test.requesthelper import DummyRequest

from tristunnel.dashboard.render import Question, htmlOf
from tristunnel.dialects.zlayer.messages import reasonIn
from tristunnel.errors import CODES, TunnelError
from tristunnel.jsonrpc.pending import PendingCalls
from tristunnel.util.hosts import addressText
from tristunnel.util.words import printableIn
from tristunnel.websocket.codes import reasonOfClose

# Escapes, line ends, C1, bidirectional marks, what is no character, and letters.
hostile = st.text(
    st.sampled_from("\x1b\x07\r\n\x00\x7f\x85\x9b\u200b\u202e\u2028\u2066\ud800]")
    | st.characters(),
    max_size=40,
)
values = st.recursive(
    st.none() | st.booleans() | st.integers() | hostile,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(hostile, inner, max_size=4)
    ),
    max_leaves=10,
)


def strings(value: object) -> list[str]:
    if isinstance(value, dict):
        inner = [*value, *value.values()]
    elif isinstance(value, list):
        inner = value
    else:
        return [value] if isinstance(value, str) else []
    return [text for each in inner for text in strings(each)]


class ComingInTests(SynchronousTestCase):
    """Refusals, reasons and answers."""

    def assertClean(self, *texts: str) -> None:
        for text in texts:
            self.assertTrue(text.isprintable(), repr(text))

    @given(hostile, st.sampled_from(sorted(CODES)))
    def test_reasons(self, said: str, code: str) -> None:
        """What ends a session, a stream or an attempt."""
        for error in (
            TunnelError(code, said),
            reasonIn(said, code, "the server says: "),
            reasonIn(f"{said} [{code}]", code),
            reasonOfClose(4000, said),
            reasonOfClose(4000, f"{said} [{code}]"),
        ):
            if error is not None:
                self.assertClean(str(error), error.message, *map(str, error.args))

    @given(st.dictionaries(st.sampled_from(["code", "message", "retryAfter"]), values))
    def test_dicts(self, fields: dict[str, object]) -> None:
        """What a frame gives as a reason, and that it comes back as it was written."""
        error = TunnelError.fromDict(fields, "reset")
        self.assertClean(error.message)
        again = TunnelError.fromDict(json.loads(json.dumps(error.asDict())), "closed")
        self.assertEqual(again.asDict(), error.asDict())

    @given(values)
    def test_results(self, value: object) -> None:
        """What a server answers: addresses, names, status."""
        calls = PendingCalls()
        request, result = calls.call("openTunnel")
        self.assertTrue(calls.answered({"id": request["id"], "result": value}))
        self.assertClean(*strings(self.successResultOf(result)))

    @given(hostile, values, st.sampled_from([*sorted(CODES), "another"]))
    def test_refusals(self, said: str, more: object, code: str) -> None:
        """What a server refuses."""
        calls = PendingCalls()
        request, result = calls.call("openTunnel")
        data = {"code": code, "more": more}
        answer = {"code": -32000, "message": said, "data": data}
        calls.answered({"id": request["id"], "error": answer})
        error: Any = self.failureResultOf(result).value
        self.assertClean(str(error), *strings(getattr(error, "data", None)))

    @given(hostile)
    def test_addresses(self, name: str) -> None:
        """Where somebody comes from; the name of a UNIX socket may be anything."""
        raw = name.encode("utf-8", "replace")
        for address in (UNIXAddress(raw), UNIXAddress(b"\xff" + raw)):
            self.assertClean(addressText(address))
        self.assertClean(addressText(IPv4Address("TCP", name, 1)))

    def test_page(self) -> None:
        """What a page of the dashboard quotes."""
        said = "a\x1b[2J\u202eb\x9b"
        request: Any = DummyRequest([])
        page = self.successResultOf(
            Deferred.fromCoroutine(htmlOf(request, Question(said, said)))
        )
        self.assertEqual(page.count(b"a?[2J?b?"), 3)
        self.assertClean(*page.decode().split("\n"))

    def test_long(self) -> None:
        """A reason is as long as a line may be, however much a peer says."""
        self.assertEqual(len(TunnelError("reset", "x" * 1_000_000).message), 2000)

    def test_deep(self) -> None:
        """JSON that is deeper than any answer does not exhaust the stack."""
        deep: Any = "\x1b"
        for _ in range(3000):
            deep = [deep]
        self.assertEqual(strings(printableIn(deep)), [])
