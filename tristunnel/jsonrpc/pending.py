"""
The asking side of JSON-RPC 2.0: which calls wait for an answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from tristunnel.errors import CODES, TunnelError, boundedHint
from tristunnel.jsonrpc.calls import CallError
from tristunnel.util.words import printableIn

__all__ = ["PendingCalls", "RemoteError", "errorFrom"]


class RemoteError(CallError):
    """
    The other side answered with an error that is not one of ours: with its number, for
    example -32601, one line as it wrote it, and what else it sent.
    """

    def __str__(self) -> str:
        return f"{self.message} [{self.number}]"


def errorFrom(error: object) -> TunnelError | RemoteError:
    """
    The exception that an answer's C{error} member stands for.

    @param error: Whatever the other side put there.
    """
    if not isinstance(error, dict):
        return RemoteError(-32603, "The answer is not JSON-RPC 2.0")
    number, message = error.get("code"), error.get("message")
    if type(number) is not int or not isinstance(message, str):
        return RemoteError(-32603, "The answer is not JSON-RPC 2.0")
    data = error.get("data")
    if isinstance(data, dict):
        code = data.get("code")
        if isinstance(code, str) and code in CODES:
            return TunnelError.said(code, message, boundedHint(data.get("retryAfter")))
    return RemoteError(number, message, data)


class PendingCalls:
    """
    Makes requests with ids of their own, and matches the answers to them.

    @param verbatim: Whether text in results stays as it came, for callers that do not
        print it.

    @ivar maximum: The most calls that may wait for an answer at once.
    """

    def __init__(self, maximum: int = 1000, verbatim: bool = False) -> None:
        self.maximum = maximum
        self._verbatim = verbatim
        self._ids = count(1)
        self._waiting: dict[int, Deferred[object]] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def call(
        self, method: str, params: Sequence[object] | Mapping[str, object] = ()
    ) -> tuple[dict[str, object], Deferred[object]]:
        """
        Begin a call.

        @param params: By position or by name; left out of the request if empty.
        @return: The request to send, and its result: fails with a
            C{TunnelError} or L{RemoteError} that the other side answered. To
            cancel it is to forget the call.
        @raise TunnelError: C{limit-reached}, if too many calls wait already.
        """
        if len(self._waiting) >= self.maximum:
            raise TunnelError(
                "limit-reached", f"{self.maximum} calls wait for an answer already."
            )
        ident = next(self._ids)

        def forget(_: Deferred[object]) -> None:
            self._waiting.pop(ident, None)

        result: Deferred[object] = Deferred(forget)
        self._waiting[ident] = result
        request: dict[str, object] = {"jsonrpc": "2.0", "id": ident, "method": method}
        if params:
            request["params"] = (
                dict(params) if isinstance(params, Mapping) else list(params)
            )
        return request, result

    def answered(self, response: object) -> bool:
        """
        Take in an answer. Its text ends up in logs, on terminals and in the input of
        scripts, so unprintable characters are replaced, unless the caller does that.

        @param response: Parsed JSON, as it came; anything at all is tolerated.
        @return: Whether it answered a call. If not, it came too late, it is not an
            answer, or nothing was asked.
        """
        if not isinstance(response, dict):
            return False
        ident = response.get("id")
        if type(ident) is not int:
            return False
        result = self._waiting.pop(ident, None)
        if result is None:
            return False
        if response.get("error") is not None:
            result.errback(errorFrom(printableIn(response["error"])))
        elif "result" in response:
            found = response["result"]
            result.callback(found if self._verbatim else printableIn(found))
        else:
            result.errback(errorFrom(None))
        return True

    def abandon(self, failure: Failure | BaseException) -> None:
        """Fail every call that waits for an answer: none will come any more."""
        waiting, self._waiting = self._waiting, {}
        for result in waiting.values():
            result.errback(failure)
