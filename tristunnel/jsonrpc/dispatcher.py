"""
JSON-RPC 2.0 without a transport: bytes or objects in, bytes or objects out.

The specification is U{https://www.jsonrpc.org/specification}. Where it leaves
us free: a batch's calls run at the same time and are answered in the order of
the requests; a request that is wrong but has a usable id is answered with that
id; a request with C{"id": null} is a call and is answered.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from twisted.internet.defer import Deferred, gatherResults
from twisted.logger import Logger

from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.calls import (
    INVALID_REQUEST,
    PARSE_ERROR,
    CallError,
    Lookup,
    Params,
    invoke,
)
from tristunnel.jsonrpc.pending import PendingCalls, RemoteError
from tristunnel.jsonrpc.strictjson import (
    MAX_DEPTH,
    BadJSON,
    decode,
    depthWithin,
    encode,
)
from tristunnel.util.deferreds import returnsDeferred

__all__ = ["MAX_BATCH", "Dispatcher", "PendingCalls", "RemoteError"]

MAX_BATCH = 100
"""The most requests in a batch."""

_ID_BITS = 4096
"""A longer integer is not an id: Python may refuse to write it."""


@dataclass(frozen=True)
class _Request:
    """
    A valid request.

    @ivar wantsAnswer: False for a notification.
    """

    method: str
    params: Params
    ident: object
    wantsAnswer: bool


Response = dict[str, object]
"""An answer that is known to have a JSON form."""


def _usableId(obj: object) -> bool:
    """Whether C{obj} may be an id: a string, a number or null."""
    if isinstance(obj, int):
        return not isinstance(obj, bool) and obj.bit_length() <= _ID_BITS
    if isinstance(obj, float):
        return isfinite(obj)
    return obj is None or isinstance(obj, str)


def _invalid(why: str = "") -> CallError:
    text = f"Invalid Request: {why}" if why else "Invalid Request"
    return CallError(INVALID_REQUEST, text)


def _parseRequest(obj: object) -> _Request:
    """
    Check a request object.

    @raise CallError: INVALID_REQUEST.
    """
    if not isinstance(obj, dict) or "jsonrpc" not in obj:
        raise _invalid()
    if obj["jsonrpc"] != "2.0":
        raise _invalid('"jsonrpc" must be "2.0"')
    method = obj.get("method")
    if not isinstance(method, str):
        raise _invalid()
    ident = obj.get("id")
    if not _usableId(ident):
        raise _invalid('"id" must be a string, number or null')
    params = obj.get("params", [])
    if not isinstance(params, (list, dict)):
        raise _invalid('"params" must be an array or an object')
    return _Request(method, params, ident, "id" in obj)


def _errorResponse(ident: object, error: CallError) -> Response:
    member: dict[str, object] = {"code": error.number, "message": error.message}
    if error.data is not None:
        member["data"] = error.data
    return {"jsonrpc": "2.0", "id": ident, "error": member}


def errorResponse(ident: object, error: TunnelError) -> Response:
    """
    The answer to a call that cannot be given its result.

    @param ident: The call's id.
    """
    return _errorResponse(ident, CallError.fromTunnelError(error))


class Dispatcher:
    """
    Answers JSON-RPC 2.0 requests by calling published methods.

    It never fails: whatever comes in, what goes out is JSON-RPC 2.0 or nothing.
    Cancelling one of its Deferreds cancels the calls that still run.

    @param lookup: Finds the method of a name. A method takes the caller and then the
        parameters; it may raise C{TunnelError}, whose code and message the caller
        sees. Other exceptions are logged, and the caller learns nothing of them.

    @ivar maxBatch: The most requests in a batch.
    @ivar maxDepth: How many arrays and objects may be nested in each other.
    """

    _log = Logger()

    def __init__(
        self, lookup: Lookup, *, maxBatch: int = MAX_BATCH, maxDepth: int = MAX_DEPTH
    ) -> None:
        self._lookup = lookup
        self.maxBatch = maxBatch
        self.maxDepth = maxDepth

    @returnsDeferred
    async def dispatch(self, caller: object, payload: bytes | str) -> bytes | None:
        """
        Answer the text of a request or of a batch.

        @param caller: Who asks; handed to the methods as it is.
        @param payload: The text; its size is for the transport to limit.
        @return: The text of the answer, in ASCII, or C{None} if there is
            nothing to answer.
        """
        try:
            obj = decode(payload, maxDepth=self.maxDepth)
        except BadJSON as bad:
            message = f"Parse error: {bad.detail}" if bad.detail else "Parse error"
            error = CallError(PARSE_ERROR, message)
            return encode(_errorResponse(None, error)).encode("ascii")
        answer = await self._answer(caller, obj)
        return None if answer is None else encode(answer).encode("ascii")

    @returnsDeferred
    async def dispatchObject(self, caller: object, obj: object) -> object | None:
        """
        Answer a request or a batch that is parsed already.

        @param caller: Who asks; handed to the methods as it is.
        @param obj: The request or batch, as a JSON parser returned it.
        @return: The answer, which has a JSON form, or C{None} if there is
            nothing to answer.
        """
        if not depthWithin(obj, self.maxDepth):
            error = CallError(PARSE_ERROR, "Parse error: nested too deeply")
            return _errorResponse(None, error)
        return await self._answer(caller, obj)

    async def _answer(
        self, caller: object, obj: object
    ) -> Response | list[Response] | None:
        if not isinstance(obj, list):
            return await self._answerOne(caller, obj)
        if not obj:
            return _errorResponse(None, _invalid())
        if len(obj) > self.maxBatch:
            why = f"a batch may have {self.maxBatch} requests, not {len(obj)}"
            error = _invalid(why)
            return _errorResponse(None, error)
        # All are begun before any is awaited, so that they run at the same time.
        answers = await gatherResults(
            [Deferred.fromCoroutine(self._answerOne(caller, one)) for one in obj]
        )
        return [answer for answer in answers if answer is not None] or None

    async def _answerOne(self, caller: object, obj: object) -> Response | None:
        """
        Answer one request.

        @return: The answer, or C{None} for a notification.
        """
        try:
            request = _parseRequest(obj)
        except CallError as error:
            ident = obj.get("id") if isinstance(obj, dict) else None
            return _errorResponse(ident if _usableId(ident) else None, error)
        try:
            result = await invoke(self._lookup, caller, request.method, request.params)
        except CallError as error:
            return _errorResponse(request.ident, error) if request.wantsAnswer else None
        if not request.wantsAnswer:
            return None
        value: Response = {"jsonrpc": "2.0", "id": request.ident, "result": result}
        try:
            encode(value)
            return value
        except ValueError:
            self._log.failure(
                "The result of {method} has no JSON form", method=request.method
            )
            return _errorResponse(request.ident, CallError.internal())
