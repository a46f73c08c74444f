"""Tests for L{tristunnel.jsonrpc.dispatcher}."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, succeed
from twisted.internet.testing import EventLoggingObserver
from twisted.logger import globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from tests.jsonrpc.test_strictjson import VALUES
from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.dispatcher import MAX_BATCH, Dispatcher


class Published:
    """Methods to call; some tests have one of their own."""

    rpc_give: Callable[..., object]
    rpc_stubborn: Callable[..., object]

    def __init__(self) -> None:
        self.callers: list[object] = []
        self.pending: list[Deferred[object]] = []
        self.cancelled = 0

    def lookup(self, name: str) -> Callable[..., object] | None:
        if name == "lookup.fails":
            raise RuntimeError("secret")
        found: Callable[..., object] | None = getattr(
            self, "rpc_" + name.replace(".", "_"), None
        )
        return found

    def rpc_subtract(self, caller: object, minuend: int, subtrahend: int) -> int:
        self.callers.append(caller)
        return minuend - subtrahend

    def rpc_sum(self, caller: object, *numbers: int) -> Deferred[int]:
        return succeed(sum(numbers))

    async def rpc_get_data(self, caller: object) -> list[object]:
        return ["hello", 5]

    def rpc_update(self, caller: object, *args: int) -> None:
        self.callers.append(caller)

    rpc_notify_hello = rpc_notify_sum = rpc_update

    def rpc_echo(self, caller: object, value: object = None) -> object:
        return value

    def rpc_named(self, caller: object, /, **options: object) -> object:
        return options

    def rpc_refuse(self, caller: object, code: str, retryAfter: float | None) -> None:
        raise TunnelError(code, "No, because.", retryAfter)

    def rpc_fail(self, caller: object) -> None:
        raise RuntimeError("secret")

    def rpc_typeError(self, caller: object) -> None:
        raise TypeError("missing a required argument: 'secret'")

    def rpc_unencodable(self, caller: object) -> object:
        return {"a": object()}

    def rpc_wait(self, caller: object) -> Deferred[object]:
        def cancel(_: Deferred[object]) -> None:
            self.cancelled += 1

        self.pending.append(Deferred(cancel))
        return self.pending[-1]


class DispatcherTestCase(SynchronousTestCase):
    """A dispatcher to ask."""

    def setUp(self) -> None:
        self.published = Published()
        self.dispatcher = Dispatcher(self.published.lookup)

    def ask(self, payload: bytes | str) -> object:
        answer = self.successResultOf(self.dispatcher.dispatch("me", payload))
        return None if answer is None else json.loads(answer)

    def call(self, method: str, params: object = None) -> object:
        request = {"jsonrpc": "2.0", "method": method, "id": 1}
        if params is not None:
            request["params"] = params
        return self.ask(json.dumps(request))

    def error(self, code: int, message: str, ident: object = None) -> object:
        return {
            "jsonrpc": "2.0",
            "error": {"code": code, "message": message},
            "id": ident,
        }


EXAMPLES = [
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [42, 23], "id": 1}',
        '{"jsonrpc": "2.0", "result": 19, "id": 1}',
    ),
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": [23, 42], "id": 2}',
        '{"jsonrpc": "2.0", "result": -19, "id": 2}',
    ),
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"subtrahend": 23,'
        ' "minuend": 42}, "id": 3}',
        '{"jsonrpc": "2.0", "result": 19, "id": 3}',
    ),
    (
        '{"jsonrpc": "2.0", "method": "subtract", "params": {"minuend": 42,'
        ' "subtrahend": 23}, "id": 4}',
        '{"jsonrpc": "2.0", "result": 19, "id": 4}',
    ),
    ('{"jsonrpc": "2.0", "method": "update", "params": [1,2,3,4,5]}', None),
    ('{"jsonrpc": "2.0", "method": "foobar"}', None),
    (
        '{"jsonrpc": "2.0", "method": "foobar", "id": "1"}',
        '{"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not'
        ' found"}, "id": "1"}',
    ),
    (
        '{"jsonrpc": "2.0", "method": "foobar, "params": "bar", "baz]',
        '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"},'
        ' "id": null}',
    ),
    (
        '{"jsonrpc": "2.0", "method": 1, "params": "bar"}',
        '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid'
        ' Request"}, "id": null}',
    ),
    (
        """[
  {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
  {"jsonrpc": "2.0", "method"
]""",
        '{"jsonrpc": "2.0", "error": {"code": -32700, "message": "Parse error"},'
        ' "id": null}',
    ),
    (
        "[]",
        '{"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid'
        ' Request"}, "id": null}',
    ),
    (
        "[1]",
        """[
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}
]""",  # noqa: E501
    ),
    (
        "[1,2,3]",
        """[
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
  {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null}
]""",  # noqa: E501
    ),
    (
        """[
        {"jsonrpc": "2.0", "method": "sum", "params": [1,2,4], "id": "1"},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]},
        {"jsonrpc": "2.0", "method": "subtract", "params": [42,23], "id": "2"},
        {"foo": "boo"},
        {"jsonrpc": "2.0", "method": "foo.get", "params": {"name": "myself"}, "id": "5"},
        {"jsonrpc": "2.0", "method": "get_data", "id": "9"}
    ]""",  # noqa: E501
        """[
        {"jsonrpc": "2.0", "result": 7, "id": "1"},
        {"jsonrpc": "2.0", "result": 19, "id": "2"},
        {"jsonrpc": "2.0", "error": {"code": -32600, "message": "Invalid Request"}, "id": null},
        {"jsonrpc": "2.0", "error": {"code": -32601, "message": "Method not found"}, "id": "5"},
        {"jsonrpc": "2.0", "result": ["hello", 5], "id": "9"}
    ]""",  # noqa: E501
    ),
    (
        """[
        {"jsonrpc": "2.0", "method": "notify_sum", "params": [1,2,4]},
        {"jsonrpc": "2.0", "method": "notify_hello", "params": [7]}
    ]""",
        None,
    ),
]
"""The examples of section 7 of the specification, in its order."""


class SpecificationTests(DispatcherTestCase):
    """The examples of the specification."""

    def test_examples(self) -> None:
        """Every example of section 7 is answered as it says, order included."""
        for request, expected in EXAMPLES:
            self.assertEqual(
                self.ask(request), None if expected is None else json.loads(expected)
            )

    def test_objects(self) -> None:
        """Requests that are parsed already get the same answers."""
        for request, expected in EXAMPLES:
            try:
                obj = json.loads(request)
            except ValueError:
                continue
            self.assertEqual(
                self.successResultOf(self.dispatcher.dispatchObject("me", obj)),
                None if expected is None else json.loads(expected),
            )


class RequestTests(DispatcherTestCase):
    """What is a request, beyond the specification's examples."""

    def test_answerText(self) -> None:
        """An answer begins with the version and the id, on one line."""
        self.assertEqual(
            self.successResultOf(
                self.dispatcher.dispatch(
                    "me", '{"jsonrpc":"2.0","id":1,"method":"echo","params":["x"]}'
                )
            ),
            b'{"jsonrpc": "2.0", "id": 1, "result": "x"}',
        )

    def test_caller(self) -> None:
        """A method gets the caller first, as it is."""
        caller = object()
        self.successResultOf(
            self.dispatcher.dispatch(
                caller, '{"jsonrpc": "2.0", "method": "update", "id": 0}'
            )
        )
        self.assertIs(self.published.callers[0], caller)

    def test_ids(self) -> None:
        """Strings, numbers and null are ids, and come back as they were."""
        for ident in ("", "ü", "\ud800", 0, -1, 1.5, 2**63, 10**500, None):
            request = {"jsonrpc": "2.0", "method": "echo", "id": ident}
            self.assertEqual(
                self.ask(json.dumps(request)),
                {"jsonrpc": "2.0", "result": None, "id": ident},
            )

    def test_badIds(self) -> None:
        """Nothing else is an id, and the answer to it has none."""
        bad: tuple[object, ...] = (True, [], {}, [1])
        for ident in bad:
            request = {"jsonrpc": "2.0", "method": "echo", "id": ident}
            self.assertEqual(
                self.ask(json.dumps(request)),
                self.error(
                    -32600, 'Invalid Request: "id" must be a string, number or null'
                ),
            )

    def test_foreignIds(self) -> None:
        """Ids that only a more tolerant parser lets in are refused."""
        for ident in (float("nan"), float("inf"), 10**5000):
            answer: Any = self.successResultOf(
                self.dispatcher.dispatchObject(
                    "me", {"jsonrpc": "2.0", "method": "echo", "id": ident}
                )
            )
            self.assertEqual(answer["error"]["code"], -32600)

    def test_wrongVersion(self) -> None:
        """Another version is refused by name, and the id is known."""
        self.assertEqual(
            self.ask('{"jsonrpc": "1.0", "method": "echo", "id": 7}'),
            self.error(-32600, 'Invalid Request: "jsonrpc" must be "2.0"', 7),
        )

    def test_wrongParams(self) -> None:
        """Parameters are an array or an object."""
        self.assertEqual(
            self.call("echo", "text"),
            self.error(
                -32600, 'Invalid Request: "params" must be an array or an object', 1
            ),
        )

    def test_parseErrors(self) -> None:
        """What is no JSON within the bounds is a parse error."""
        for payload in (
            b"",
            b"[" * 100_000,
            b'{"a":' * 100_000,
            b'{"jsonrpc": "2.0", "method": "echo", "params": [NaN], "id": 1}',
            b'{"jsonrpc": "2.0", "method": "echo", "id": 1e999}',
            b'{"jsonrpc": "2.0", "method": "echo", "id": ' + b"1" * 5000 + b"}",
            b'{"jsonrpc": "2.0", "method": "\xff", "id": 1}',
            b'{"jsonrpc": "2.0", "method": "echo", "params": [%b%b], "id": 1}'
            % (b"[" * 70, b"]" * 70),
        ):
            answer = self.ask(payload)
            assert isinstance(answer, dict)
            self.assertEqual((answer["error"]["code"], answer["id"]), (-32700, None))

    def test_deepObject(self) -> None:
        """An object that is nested too deeply is refused, too."""
        deep: Any = []
        for _ in range(100_000):
            deep = [deep]
        answer: Any = self.successResultOf(self.dispatcher.dispatchObject("me", deep))
        self.assertEqual(answer["error"]["code"], -32700)
        while deep:
            deep = deep.pop()


class BatchTests(DispatcherTestCase):
    """Several requests at a time."""

    def test_concurrent(self) -> None:
        """All calls of a batch run at the same time, and are answered in order."""
        wait = {"jsonrpc": "2.0", "method": "wait"}
        batch = [{**wait, "id": 1}, wait, {**wait, "id": 2}]
        answering = self.dispatcher.dispatch("me", json.dumps(batch))
        first, second, third = self.published.pending
        third.callback("third")
        second.callback("second")
        self.assertNoResult(answering)
        first.callback("first")
        self.assertEqual(
            json.loads(self.successResultOf(answering) or b""),
            [
                {"jsonrpc": "2.0", "result": "first", "id": 1},
                {"jsonrpc": "2.0", "result": "third", "id": 2},
            ],
        )

    def test_limit(self) -> None:
        """A batch that is too long is one error, and nothing of it is called."""
        one = {"jsonrpc": "2.0", "method": "update", "id": 1}
        answer = self.ask(json.dumps([one] * MAX_BATCH))
        assert isinstance(answer, list)
        self.assertEqual(len(answer), MAX_BATCH)
        self.published.callers.clear()
        self.assertEqual(
            self.ask(json.dumps([one] * (MAX_BATCH + 1))),
            self.error(
                -32600, "Invalid Request: a batch may have 100 requests, not 101"
            ),
        )
        self.assertEqual(self.published.callers, [])

    def test_nestedBatch(self) -> None:
        """A batch in a batch is no request."""
        self.assertEqual(self.ask("[[]]"), [self.error(-32600, "Invalid Request")])

    def test_cancel(self) -> None:
        """To cancel the answer is to cancel all calls, and is no error."""
        wait = {"jsonrpc": "2.0", "method": "wait", "id": 1}
        answering = self.dispatcher.dispatch("me", json.dumps([wait, wait]))
        answering.cancel()
        self.assertEqual(self.published.cancelled, 2)
        self.successResultOf(answering)
        self.assertEqual(self.flushLoggedErrors(), [])


class ErrorTests(DispatcherTestCase):
    """What a caller learns when there is no result."""

    def test_paramsNamed(self) -> None:
        """Wrong parameters are told together with the right ones."""
        expected = "expected subtract(minuend, subtrahend)"
        for params, reason in (
            ([1], "missing a required argument: 'subtrahend'"),
            ([1, 2, 3], "too many positional arguments"),
            ({"minuend": 1}, "missing a required argument: 'subtrahend'"),
            (
                {"minuend": 1, "subtrahend": 1, "x": 1},
                "got an unexpected keyword argument 'x'",
            ),
            ({"caller": 1}, "multiple values for argument 'caller'"),
        ):
            self.assertEqual(
                self.call("subtract", params),
                self.error(-32602, f"Invalid params: {reason}; {expected}", 1),
            )
        answer = self.call("echo", [1, 2])
        self.assertIn("expected echo([value])", str(answer))

    def test_longName(self) -> None:
        """A parameter's name is not sent back at any length."""
        answer = self.call("subtract", {"x" * 100_000: 1})
        self.assertLess(len(str(answer)), 1000)

    def test_variableParams(self) -> None:
        """A method may take any names, even its first parameter's."""
        self.assertEqual(
            self.call("named", {"caller": 1, "b": 2}),
            {"jsonrpc": "2.0", "result": {"caller": 1, "b": 2}, "id": 1},
        )

    def test_tunnelError(self) -> None:
        """A refusal is told with number, message, code, and the time to come back."""
        self.assertEqual(
            self.call("refuse", ["port-taken", None]),
            {
                "jsonrpc": "2.0",
                "error": {
                    "code": -32004,
                    "message": "No, because.",
                    "data": {"code": "port-taken"},
                },
                "id": 1,
            },
        )
        answer: Any = self.call("refuse", ["limit-reached", 2.5])
        self.assertEqual(
            answer["error"]["data"], {"code": "limit-reached", "retryAfter": 2.5}
        )

    def test_failures(self) -> None:
        """A failure is logged, and the caller learns nothing of it."""
        for method, exception in (
            ("fail", RuntimeError),
            ("typeError", TypeError),
            ("lookup.fails", RuntimeError),
            ("unencodable", ValueError),
        ):
            self.assertEqual(self.call(method), self.error(-32603, "Internal error", 1))
            self.assertEqual(len(self.flushLoggedErrors(exception)), 1)

    def test_notifications(self) -> None:
        """Notifications are never answered, but their failures are logged."""
        for method in ("fail", "foobar", "unencodable"):
            self.assertIsNone(
                self.ask(json.dumps({"jsonrpc": "2.0", "method": method}))
            )
        self.assertIsNone(
            self.ask('{"jsonrpc": "2.0", "method": "subtract", "params": [1]}')
        )
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_cancelledByItself(self) -> None:
        """A method that was cancelled is an internal error, and no line in the log."""
        observer = EventLoggingObserver.createWithCleanup(
            self,  # type: ignore[arg-type] # any test will do
            globalLogPublisher,
        )
        answering = self.dispatcher.dispatch(
            "me", '{"jsonrpc": "2.0", "method": "wait", "id": 1}'
        )
        self.published.pending[0].cancel()
        self.assertIn(b"-32603", self.successResultOf(answering) or b"")
        self.assertEqual(list(observer), [])


class GarbageTests(DispatcherTestCase):
    """Whatever comes in, what goes out is JSON-RPC 2.0."""

    def check(self, answer: Any) -> None:
        if answer is None:
            return
        for one in answer if isinstance(answer, list) else [answer]:
            self.assertEqual(one["jsonrpc"], "2.0")
            self.assertIn("id", one)
            self.assertNotEqual("result" in one, "error" in one)

    @given(st.binary() | st.text())
    def test_bytes(self, payload: bytes | str) -> None:
        """Garbage is answered."""
        self.check(self.ask(payload))

    @given(VALUES)
    def test_values(self, value: object) -> None:
        """JSON that is no request is answered, parsed or not."""
        self.check(self.ask(json.dumps(value)))
        self.check(self.successResultOf(self.dispatcher.dispatchObject("me", value)))

    @given(
        st.fixed_dictionaries(
            {},
            optional={
                "jsonrpc": st.just("2.0") | VALUES,
                "method": st.sampled_from(["subtract", "echo", "sum", "named"])
                | st.text(),
                "params": st.lists(VALUES) | st.dictionaries(st.text(), VALUES),
                "id": VALUES,
            },
        )
    )
    def test_nearlyRequests(self, request: object) -> None:
        """What looks like a request is answered."""
        try:
            self.check(self.ask(json.dumps(request)))
        finally:
            # Adding up what are no numbers is the method's own failure.
            self.flushLoggedErrors(TypeError)
