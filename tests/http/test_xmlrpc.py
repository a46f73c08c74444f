"""Tests for L{tristunnel.http.xmlrpc}."""

from __future__ import annotations

import xmlrpc.client
from xmlrpc.client import Fault

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from tests.jsonrpc.loopback import LoopbackTestCase, post
from tests.jsonrpc.test_dispatcher import Published
from tests.jsonrpc.test_strictjson import VALUES
from tristunnel.http.xmlrpc import TunnelXMLRPC

BOMB = """<?xml version="1.0"?>
<!DOCTYPE lolz [<!ENTITY a "lol"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;">]>
<methodCall><methodName>echo</methodName>
<params><param><value>&b;</value></param></params></methodCall>"""

OUTSIDE = """<?xml version="1.0"?>
<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/passwd">]>
<methodCall><methodName>echo</methodName>
<params><param><value>&a;</value></param></params></methodCall>"""


class TunnelXMLRPCTests(SynchronousTestCase):
    """Tests for L{TunnelXMLRPC}, without a network."""

    def setUp(self) -> None:
        self.published = Published()
        self.resource = TunnelXMLRPC(self.published.lookup, lambda request: "me")

    def ask(self, body: bytes) -> object:
        answering = Deferred.fromCoroutine(self.resource.answer("me", body))
        answer = self.successResultOf(answering)
        assert answer is not None
        try:
            (result,), _ = xmlrpc.client.loads(answer)
        except Fault as fault:
            return fault
        return result

    def call(self, method: str, *args: object) -> object:
        text = xmlrpc.client.dumps(args, method, allow_none=True)  # type: ignore[arg-type] # what JSON has
        return self.ask(text.encode("utf-8"))

    def fault(self, answer: object) -> tuple[int, str]:
        assert isinstance(answer, Fault), answer
        return answer.faultCode, answer.faultString

    def test_positional(self) -> None:
        """Parameters go by position."""
        self.assertEqual(self.call("subtract", 42, 23), 19)
        self.assertEqual(self.call("sum"), 0)

    def test_named(self) -> None:
        """A single struct holds parameters by name."""
        self.assertEqual(self.call("subtract", {"subtrahend": 23, "minuend": 42}), 19)
        self.assertEqual(self.call("echo", {"value": {"a": 1}}), {"a": 1})

    def test_types(self) -> None:
        """What JSON can carry goes both ways."""
        for value in ("ü<&>", 5, -(2**31), 2.5, True, None, [1, ["a"]]):
            self.assertEqual(self.call("echo", value), value)

    def test_results(self) -> None:
        """Results beyond XML-RPC are brought into its form."""
        for value, expected in (
            (2**40, float(2**40)),
            (2**60 + 1, str(2**60 + 1)),
            ("a\x00b\x1b\ud800c", "a\ufffdb\ufffd\ufffdc"),
            ({"a": (1, 2**40)}, {"a": [1, float(2**40)]}),
        ):
            self.published.rpc_give = lambda caller, value=value: value
            self.assertEqual(self.call("give"), expected)

    def test_otherTypes(self) -> None:
        """What JSON cannot carry is refused."""
        for value in (
            b"bytes",
            xmlrpc.client.DateTime(0),
            float("inf"),
            [float("nan")],
        ):
            number, _ = self.fault(self.call("echo", value))
            self.assertEqual(number, -32602)

    def test_faults(self) -> None:
        """Errors are faults with the numbers of JSON-RPC."""
        self.assertEqual(self.fault(self.call("foobar")), (-32601, "Method not found"))
        self.assertEqual(
            self.fault(self.call("refuse", "port-taken", None)),
            (-32004, "No, because."),
        )
        number, message = self.fault(self.call("subtract", 1))
        self.assertEqual(number, -32602)
        self.assertIn("expected subtract(minuend, subtrahend)", message)

    def test_failures(self) -> None:
        """A failure is logged, and the caller learns nothing of it."""
        for method, exception in (("fail", RuntimeError), ("unencodable", TypeError)):
            self.assertEqual(self.fault(self.call(method)), (-32603, "Internal error"))
            self.assertEqual(len(self.flushLoggedErrors(exception)), 1)

    def test_documentType(self) -> None:
        """A document type is refused in any encoding, so that no entity expands."""
        for text in (BOMB, OUTSIDE, "<!DOCTYPE methodCall><methodCall/>"):
            for encoding in ("utf-8", "utf-16"):
                self.assertEqual(
                    self.fault(self.ask(text.encode(encoding))),
                    (-32700, "Parse error: a document type is not accepted"),
                )

    def test_depth(self) -> None:
        """Elements are nested so deep and not deeper."""
        for text in (
            b"<a>" * 100_000,
            b"<methodCall><methodName>echo</methodName><params><param>"
            + b"<value><array><data>" * 10_000,
        ):
            self.assertEqual(
                self.fault(self.ask(text)), (-32700, "Parse error: nested too deeply")
            )
        value: object = 1
        for _ in range(50):
            value = [value]
        self.assertEqual(self.call("echo", value), value)

    def test_malformed(self) -> None:
        """What is no call is a fault, and quotes nothing."""
        for text in (
            b"",
            b"x",
            b"<a/>",
            b"<methodCall></methodCall>",
            b"<methodCall><methodName>echo</methodName><params><param><value><int>"
            b"x</int></value></param></params></methodCall>",
            b"<methodResponse><fault><value><struct/></value></fault></methodResponse>",
            xmlrpc.client.dumps(Fault(1, "secret")).encode(),
        ):
            self.assertEqual(
                self.fault(self.ask(text)), (-32700, "Parse error: not an XML-RPC call")
            )

    @given(st.binary() | st.text().map(lambda text: text.encode("utf-8", "replace")))
    def test_garbage(self, body: bytes) -> None:
        """Garbage is answered with a fault."""
        self.assertIsInstance(self.ask(body), Fault)

    @given(VALUES)
    def test_anyResult(self, value: object) -> None:
        """Every result that has a JSON form has an XML form."""
        self.published.rpc_give = lambda caller: value
        self.assertNotIsInstance(self.call("give"), Fault)


class PostedTests(LoopbackTestCase):
    """The outside of XML-RPC calls, which is that of all posted calls."""

    demanded = "Bearer right"
    BODY = xmlrpc.client.dumps((1, 2), "sum").encode("ascii")

    async def test_outside(self) -> None:
        """Content type, origin, length and credentials are judged."""
        kind, right = "Content-Type: text/xml", "Authorization: Bearer right"
        for expected, headers in (
            (200, (kind, right)),
            (401, (kind,)),
            (403, (kind, right, "Origin: http://evil.example")),
            (415, ("Content-Type: application/x-www-form-urlencoded", right)),
        ):
            status, _, _ = await self.exchange(post(self.BODY, *headers, path="/RPC2"))
            self.assertEqual(status, expected)
        status, _, _ = await self.exchange(
            post(self.BODY.ljust(2**20 + 1), kind, right, path="/RPC2")
        )
        self.assertEqual(status, 413)
