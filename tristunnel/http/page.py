"""
Pages for a caller who is known.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from tristunnel.errors import TunnelError
from tristunnel.http.plain import BROWSERS, errorText, refusalText

if TYPE_CHECKING:
    from tristunnel.http.callers import HTTPCallers
    from tristunnel.http.guard import Guard
    from tristunnel.service.tunnel_service import Caller

__all__ = ["CallerPage"]


class CallerPage(Resource):
    """
    A page that asks who wants to see it.

    @param callers: Finds out who sent a request.
    @param guard: Judges browsers' requests.
    """

    isLeaf = True
    _pages = Logger()

    def __init__(self, callers: HTTPCallers, guard: Guard) -> None:
        super().__init__()
        self._callers = callers
        self.guard = guard

    async def answer(self, request: Request, caller: Caller) -> bytes | None:
        """
        Answer a request; for subclasses.

        @return: The body, or C{None} if the answer goes on.
        @raise TunnelError: To refuse.
        """
        raise NotImplementedError

    def render_GET(self, request: Request) -> bytes | int:
        objection = self.guard.objectionToReading(request)
        if objection is not None:
            return errorText(request, 403, objection)
        return self.serve(request, self.answer)

    def serve(
        self,
        request: Request,
        answer: Callable[[Request, Caller], Awaitable[bytes | None]],
    ) -> int:
        """
        Find out who asks, and have C{answer} called.
        """
        gone: list[Failure] = []

        async def work() -> bytes | None:
            try:
                return await answer(request, await self._callers(request))
            except TunnelError as refusal:
                return refusalText(request, refusal, BROWSERS)

        def finish(body: bytes | None) -> None:
            if body is not None and not gone:
                request.setHeader(b"Content-Length", b"%d" % len(body))
                request.write(body)
                request.finish()

        def failed(reason: Failure) -> None:
            if not gone:
                self._pages.failure("A page could not be made", failure=reason)
                finish(errorText(request, 500, "Internal error"))

        serving = Deferred.fromCoroutine(work())

        def disconnected(reason: Failure) -> None:
            gone.append(reason)
            serving.cancel()

        request.notifyFinish().addErrback(disconnected)
        serving.addCallback(finish).addErrback(failed)
        return NOT_DONE_YET
