"""
Calls that are posted over HTTP: who may post, what, and how it is answered.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import ClassVar

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import NO_CONTENT, OK
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from tristunnel.errors import TunnelError
from tristunnel.http.origin import OriginRule
from tristunnel.http.plain import errorText, refusalText
from tristunnel.http.site import MAX_BODY
from tristunnel.rpc.jsonrpc import Dispatcher

__all__ = ["CallerFor", "JSONRPCResource", "PostedCalls"]

CallerFor = Callable[[Request], object]
"""Finds out who sent a request: returns the caller, a Deferred of it or a
coroutine; raises C{TunnelError}, mostly C{auth-refused}."""


def _contentType(request: Request) -> str:
    header = (request.getHeader(b"content-type") or b"").decode("latin-1")
    return header.partition(";")[0].strip().lower()


class PostedCalls(Resource):
    """
    Takes a body by POST, from a caller who is known, and answers with a body.

    Everything that HTTP has an error for is refused here: the method, a web
    page from elsewhere, the content type, the length, the credentials.

    @cvar contentTypes: What may be posted.
    @cvar answerType: The content type of an answer.
    """

    isLeaf = True
    contentTypes: ClassVar[tuple[str, ...]]
    answerType: ClassVar[str]
    _calls = Logger()

    def __init__(
        self,
        callerFor: CallerFor,
        *,
        hostnames: Collection[str] | None = None,
        maxBody: int = MAX_BODY,
    ) -> None:
        """
        @param callerFor: Finds out who sent a request.
        @param hostnames: The names of this server, see L{OriginRule}.
        @param maxBody: Bytes that a body may have. A
            L{LimitedSite<tristunnel.http.site.LimitedSite>} refuses a longer
            one before it is read.
        """
        super().__init__()
        self._callerFor = callerFor
        self._originRule = OriginRule(hostnames)
        self._maxBody = maxBody

    async def answer(self, caller: object, body: bytes) -> bytes | None:
        """
        Answer what was posted; for subclasses.

        @return: The body of the answer, or C{None} if there is none.
        """
        raise NotImplementedError

    def emptyStatus(self, request: Request) -> int:
        """
        The HTTP status when there is no answer; for subclasses.
        """
        return NO_CONTENT

    def render(self, request: Request) -> bytes | int:
        refusal = self._refusal(request)
        if refusal is not None:
            return errorText(request, *refusal)
        serving = Deferred.fromCoroutine(self._serve(request))
        gone: list[Failure] = []

        def disconnected(reason: Failure) -> None:
            gone.append(reason)
            serving.cancel()

        def finish(body: bytes) -> None:
            if gone:
                return
            if request.code != NO_CONTENT:
                request.setHeader(b"Content-Length", b"%d" % len(body))
            request.write(body)
            request.finish()

        def failed(reason: Failure) -> None:
            if not gone:
                self._calls.failure("A call could not be answered", failure=reason)
                finish(errorText(request, 500, "Internal error"))

        request.notifyFinish().addErrback(disconnected)
        serving.addCallback(finish).addErrback(failed)
        return NOT_DONE_YET

    def _refusal(self, request: Request) -> tuple[int, str] | None:
        """
        What is wrong with the outside of a request.

        @return: The HTTP status and one line, or C{None}.
        """
        if request.method != b"POST":
            request.setHeader(b"Allow", b"POST")
            return 405, "Calls are made by POST, nothing else."
        objection = self._originRule.objection(request)
        if objection is not None:
            return 403, objection
        if _contentType(request) not in self.contentTypes:
            return 415, f"The Content-Type must be {self.contentTypes[0]}."
        content = request.content
        if content is not None and content.seek(0, 2) > self._maxBody:
            return 413, f"A body may have {self._maxBody} bytes, not more."
        return None

    async def _serve(self, request: Request) -> bytes:
        """
        Answer a request that is in order on the outside.

        @return: The body of the answer.
        """
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

    A body sent as a form is taken for JSON too, since that is what C{curl -d}
    calls it; that a browser can send such a body for any page is why
    L{OriginRule} is asked first.
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
        *,
        hostnames: Collection[str] | None = None,
        maxBody: int = MAX_BODY,
    ) -> None:
        """
        @param dispatcher: Answers the calls.
        @param callerFor: Finds out who sent a request.
        @param hostnames: The names of this server, see L{OriginRule}.
        @param maxBody: Bytes that a body may have.
        """
        super().__init__(callerFor, hostnames=hostnames, maxBody=maxBody)
        self._dispatcher = dispatcher

    def emptyStatus(self, request: Request) -> int:
        """
        204; but 200 for who calls it C{application/json-rpc}, the name of old:
        jsonrpclib and its descendants take every status but 200 for an error.
        """
        return OK if _contentType(request) == "application/json-rpc" else NO_CONTENT

    async def answer(self, caller: object, body: bytes) -> bytes | None:
        """
        Answer JSON with JSON.
        """
        answer = await self._dispatcher.dispatch(caller, body)
        # The line end is for whoever reads it in a terminal.
        return None if answer is None else answer + b"\n"
