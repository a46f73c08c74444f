"""
Answers to callers who are known: pages, and calls that are posted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Coroutine
from typing import TYPE_CHECKING, Any, ClassVar
from urllib.parse import parse_qs

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import NO_CONTENT, OK
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from tristunnel.errors import TunnelError
from tristunnel.http.browsers import Guard, OriginRule
from tristunnel.http.plain import BROWSERS, errorText, refusalText
from tristunnel.http.site import MAX_BODY
from tristunnel.jsonrpc.dispatcher import Dispatcher

if TYPE_CHECKING:
    from tristunnel.http.callers import HTTPCallers
    from tristunnel.service.caller import Caller

__all__ = [
    "CallerFor",
    "CallerPage",
    "JSONRPCResource",
    "PostedCalls",
    "answerWith",
    "contentType",
    "formOf",
]

CallerFor = Callable[[Request], object]
"""Finds out who sent a request: returns the caller, a Deferred of it or a
coroutine; raises C{TunnelError}, mostly C{auth-refused}."""

_MOST_FORM = 8 * 1024

_log = Logger()


def contentType(request: Request) -> str:
    """The content type of a request's body, in lower case, without parameters."""
    header = (request.getHeader(b"content-type") or b"").decode("latin-1")
    return header.partition(";")[0].strip().lower()


def formOf(request: Request) -> dict[str, str]:
    """
    Read the form that was posted.

    @return: Its fields, each once; none if it is not a form, or is too long.
    """
    if request.content is None:
        return {}
    request.content.seek(0)
    body = request.content.read(_MOST_FORM).decode("utf-8", "replace")
    try:
        said = parse_qs(body, keep_blank_values=True, max_num_fields=20)
    except ValueError:
        return {}
    return {name: values[0] for name, values in said.items()}


def answerWith(
    request: Request, making: Coroutine[Any, Any, bytes | None], problem: str
) -> int:
    """
    Answer a request with something that takes a while to make, which is cancelled when
    the sender leaves.

    @param making: Makes the body, or C{None} if the answer goes on by itself.
    @param problem: What is logged if that fails.
    """
    gone: list[Failure] = []
    serving = Deferred.fromCoroutine(making)

    def disconnected(reason: Failure) -> None:
        gone.append(reason)
        serving.cancel()

    def finish(body: bytes | None) -> None:
        if body is None or gone:
            return
        if request.code != NO_CONTENT:
            request.setHeader(b"Content-Length", b"%d" % len(body))
        request.write(body)
        request.finish()

    def failed(reason: Failure) -> None:
        if not gone:
            _log.failure(problem, failure=reason)
            finish(errorText(request, 500, "Internal error"))

    request.notifyFinish().addErrback(disconnected)
    serving.addCallback(finish).addErrback(failed)
    return NOT_DONE_YET


class CallerPage(ABC, Resource):
    """
    A page that asks who wants to see it.

    @param callers: Finds out who sent a request.
    @param guard: Judges browsers' requests.
    """

    isLeaf = True

    def __init__(self, callers: HTTPCallers, guard: Guard) -> None:
        super().__init__()
        self._callers = callers
        self.guard = guard

    @abstractmethod
    async def answer(self, request: Request, caller: Caller) -> bytes | None:
        """
        Answer a request.

        @return: The body, or C{None} if the answer goes on.
        @raise TunnelError: To refuse.
        """

    def render_GET(self, request: Request) -> bytes | int:
        objection = self.guard.objectionToReading(request)
        if objection is not None:
            return errorText(request, 403, objection)
        return self.serve(request)

    def serve(self, request: Request) -> int:
        """Find out who asks, and have L{answer} called."""

        async def work() -> bytes | None:
            try:
                return await self.answer(request, await self._callers(request))
            except TunnelError as refusal:
                return refusalText(request, refusal, BROWSERS)

        return answerWith(request, work(), "A page could not be made")


class PostedCalls(ABC, Resource):
    """
    Takes a body by POST, from a caller who is known, and answers with a body.

    Everything for which HTTP has an error is refused here: the method, a web page from
    elsewhere, the content type, the length, the credentials.

    @param callerFor: Finds out who sent a request.
    @param hostnames: The names of this server, see L{OriginRule}.

    @ivar maxBody: Bytes that a body may have. A
        L{LimitedSite<tristunnel.http.site.LimitedSite>} refuses a longer one before
        it is read.

    @cvar contentTypes: What may be posted.
    @cvar answerType: The content type of an answer.
    """

    isLeaf = True
    contentTypes: ClassVar[tuple[str, ...]]
    answerType: ClassVar[str]
    maxBody = MAX_BODY

    def __init__(
        self, callerFor: CallerFor, hostnames: Collection[str] | None = None
    ) -> None:
        super().__init__()
        self._callerFor = callerFor
        self._originRule = OriginRule(hostnames)

    @abstractmethod
    async def answer(self, caller: object, body: bytes) -> bytes | None:
        """
        Answer what was posted.

        @return: The body of the answer, or C{None} if there is none.
        """

    def emptyStatus(self, request: Request) -> int:
        """The HTTP status of an answer without a body."""
        return NO_CONTENT

    def render(self, request: Request) -> bytes | int:
        refusal = self._refusal(request)
        if refusal is not None:
            return errorText(request, *refusal)
        return answerWith(request, self._serve(request), "A call could not be answered")

    def _refusal(self, request: Request) -> tuple[int, str] | None:
        if request.method != b"POST":
            request.setHeader(b"Allow", b"POST")
            return 405, "Only POST is allowed here."
        objection = self._originRule.objection(request)
        if objection is not None:
            return 403, objection
        if contentType(request) not in self.contentTypes:
            return 415, f"The Content-Type must be {self.contentTypes[0]}."
        content = request.content
        if content is not None and content.seek(0, 2) > self.maxBody:
            return 413, f"A body may have {self.maxBody} bytes at most."
        return None

    async def _serve(self, request: Request) -> bytes:
        body = b""
        if request.content is not None:
            request.content.seek(0)
            body = request.content.read()
        try:
            caller = await maybeDeferred(self._callerFor, request)
        except TunnelError as refusal:
            return refusalText(request, refusal)
        answer = await self.answer(caller, body)
        request.setHeader("Cache-Control", "no-store")
        if answer is None:
            request.setResponseCode(self.emptyStatus(request))
            return b""
        request.setHeader("Content-Type", self.answerType)
        request.setHeader("X-Content-Type-Options", "nosniff")
        return answer


class JSONRPCResource(PostedCalls):
    """
    JSON-RPC 2.0 over HTTP.

    A body sent as a form is read as JSON, too, since C{curl -d} labels it so; a browser
    can send such a body for any page, and therefore L{OriginRule} is asked first.

    @param dispatcher: Answers the calls.
    @param callerFor: As for L{PostedCalls}, and so is C{hostnames}.
    """

    contentTypes = (
        "application/json",
        "application/json-rpc",
        "application/jsonrequest",
        "application/x-www-form-urlencoded",
    )
    answerType = "application/json"

    def __init__(
        self,
        dispatcher: Dispatcher,
        callerFor: CallerFor,
        hostnames: Collection[str] | None = None,
    ) -> None:
        super().__init__(callerFor, hostnames)
        self._dispatcher = dispatcher

    def emptyStatus(self, request: Request) -> int:
        return OK if contentType(request) == "application/json-rpc" else NO_CONTENT

    async def answer(self, caller: object, body: bytes) -> bytes | None:
        answer = await self._dispatcher.dispatch(caller, body)
        # The line end is for people who read it in a terminal.
        return None if answer is None else answer + b"\n"
