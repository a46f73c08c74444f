"""
The dashboard's addresses.

Reading needs no script; acting is a form that is posted, after a question.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from twisted.web.resource import IResource, Resource
from twisted.web.server import Request
from twisted.web.template import Element

from tristunnel.dashboard.actions import DONE, VERBS, Actions, kindOf
from tristunnel.dashboard.forms import GrantedPage, GrantPage, QuestionPage
from tristunnel.dashboard.live import Broadcast
from tristunnel.dashboard.render import (
    DashboardPage,
    htmlOf,
    partOf,
)
from tristunnel.dashboard.view import Board
from tristunnel.errors import TunnelError
from tristunnel.http.browsers import Guard
from tristunnel.http.plain import errorText
from tristunnel.http.resource import CallerPage
from tristunnel.util.hosts import hostAndPort

if TYPE_CHECKING:
    from tristunnel.http.callers import HTTPCallers
    from tristunnel.service.caller import Caller

__all__ = ["Act", "End", "Events", "Grant", "IndexPage", "Part", "dashboardPages"]

_GONE = ("It is gone", "What was to be ended is over already.")

_POLICY = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self';"
    b" connect-src 'self'; form-action 'self'; base-uri 'none';"
    b" frame-ancestors 'none'"
)


def _protect(request: Request) -> None:
    for name, value in (
        (b"Content-Security-Policy", _POLICY),
        (b"X-Frame-Options", b"DENY"),
        (b"X-Content-Type-Options", b"nosniff"),
        # Not no-referrer, with which browsers post forms without an Origin.
        (b"Referrer-Policy", b"same-origin"),
        (b"Cross-Origin-Resource-Policy", b"same-origin"),
        (b"Cross-Origin-Opener-Policy", b"same-origin"),
        (b"Cache-Control", b"no-store"),
    ):
        request.setHeader(name, value)


def _argument(request: Request, name: bytes) -> str:
    values = (request.args or {}).get(name, [b""])
    return bytes(values[0][:200]).decode("utf-8", "replace")


class _HTMLPage(CallerPage):
    """
    A page for browsers.

    @param callers: Finds out who asks.
    @param board: What is shown.
    @param guard: Judges browsers' requests.
    """

    def __init__(self, callers: HTTPCallers, board: Board, guard: Guard) -> None:
        super().__init__(callers, guard)
        self.board = board
        self.deeds = Actions(board)

    def render_GET(self, request: Request) -> bytes | int:
        _protect(request)
        return super().render_GET(request)

    async def html(self, request: Request, element: Element) -> bytes:
        page = await htmlOf(request, element)
        request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
        return page

    async def message(
        self, request: Request, status: int, title: str, text: str
    ) -> bytes:
        page = await self.html(request, QuestionPage(title, text))
        request.setResponseCode(status)
        return page


class IndexPage(_HTMLPage):
    """
    C{/}: the dashboard.
    """

    async def answer(self, request: Request, caller: Caller) -> bytes:
        """
        Show everything.
        """
        return await self.html(
            request,
            DashboardPage(
                await self.board.view(caller),
                hostAndPort(caller.host, caller.port) if caller.port else caller.host,
                caller.identity.name,
                DONE.get(_argument(request, b"done"), ""),
                caller.secure,
            ),
        )


class End(_HTMLPage):
    """
    C{/dashboard/end?id=ID}: asks whether to end something.
    """

    async def answer(self, request: Request, caller: Caller) -> bytes:
        """
        Ask.
        """
        identifier = _argument(request, b"id")
        question = await self.deeds.describe(caller, identifier)
        if question is None:
            return await self.message(request, 404, *_GONE)
        form = {
            "token": self.guard.formToken(request, caller),
            "id": identifier,
            "verb": VERBS[kindOf(identifier)],
        }
        return await self.html(request, QuestionPage(*question, form))


class Grant(_HTMLPage):
    """
    C{/dashboard/grant?id=ID}: asks who may have access to a tunnel, and for how
    long.
    """

    async def answer(self, request: Request, caller: Caller) -> bytes:
        """
        Ask.
        """
        tunnel = await self.deeds.grantable(caller, _argument(request, b"id"))
        if tunnel is None:
            return await self.message(
                request,
                404,
                "No access can be granted",
                "The tunnel is over already, or it has no name.",
            )
        form = self.guard.formToken(request, caller)
        return await self.html(request, GrantPage(tunnel, form))


class Act(_HTMLPage):
    """
    C{/dashboard/act}: does something, when our own form was posted.
    """

    def render_GET(self, request: Request) -> bytes | int:
        request.setHeader(b"Allow", b"POST")
        return errorText(request, 405, "Use POST here, nothing else.")

    def render_POST(self, request: Request) -> bytes | int:
        _protect(request)
        objection = self.guard.objectionToActing(request)
        if objection is not None:
            return errorText(request, 403, objection)
        header = (request.getHeader(b"content-type") or b"").decode("latin-1")
        kind = header.partition(";")[0]
        if kind.strip().lower() != "application/x-www-form-urlencoded":
            return errorText(request, 415, "This takes the dashboard's forms only.")
        return self.serve(request, self._act)

    async def _act(self, request: Request, caller: Caller) -> bytes:
        body = b""
        if request.content is not None:
            request.content.seek(0)
            body = request.content.read(4096)
        try:
            given = parse_qs(body.decode("utf-8", "replace"), max_num_fields=8)
        except ValueError:
            given = {}
        fields = {name: values[0].strip() for name, values in given.items()}
        if not self.guard.isGoodToken(request, caller, fields.get("form", "")):
            return await self.message(
                request,
                403,
                "Please ask again",
                "This form is not, or no longer, good: the server was started anew,"
                " or the browser keeps no cookies. Nothing was done.",
            )
        identifier = fields.get("id", "")
        if fields.get("do") == "grant":
            return await self._grant(request, caller, identifier, fields)
        try:
            await self.deeds.end(caller, identifier)
        except TunnelError as refusal:
            if refusal.code.name == "bad-option":
                return await self.message(request, 409, "Not done", refusal.message)
            status = 404 if refusal.code.name == "unknown-session" else 403
            return await self.message(request, status, *_GONE)
        request.setResponseCode(303)
        where = f"../?done={kindOf(identifier)}"
        request.setHeader(b"Location", where.encode("ascii"))
        return b""

    async def _grant(
        self, request: Request, caller: Caller, identifier: str, fields: dict[str, str]
    ) -> bytes:
        tunnel = await self.deeds.grantable(caller, identifier)
        if tunnel is None:
            return await self.message(request, 404, *_GONE)
        wanted = {name: fields.get(name, "") for name in GrantPage.FIELDS}
        try:
            uri = await self.deeds.grant(caller, tunnel, **wanted)
        except TunnelError as refusal:
            form = self.guard.formToken(request, caller)
            page = GrantPage(tunnel, form, wanted, refusal.message)
            body = await self.html(request, page)
            request.setResponseCode(400)
            return body
        return await self.html(request, GrantedPage(tunnel, uri, wanted["ttl"]))


class Events(_HTMLPage):
    """
    C{/dashboard/events}: a snapshot a second.
    """

    def __init__(
        self, callers: HTTPCallers, board: Board, guard: Guard, broadcast: Broadcast
    ) -> None:
        super().__init__(callers, board, guard)
        self._broadcast = broadcast

    async def answer(self, request: Request, caller: Caller) -> bytes | None:
        """
        Begin to send.
        """
        objection = self.guard.objectionToActing(request)
        if objection is not None:
            return errorText(request, 403, objection)
        if request.method == b"HEAD":
            return b""
        self._broadcast.join(request, caller)
        return None


class Part(Resource):
    """
    A file of this package; the same for everybody.

    @param name: Its name.
    @param kind: Its content type.
    """

    isLeaf = True

    def __init__(self, name: str, kind: bytes) -> None:
        super().__init__()
        self._kind = kind
        self._data = partOf(name)

    def render_GET(self, request: Request) -> bytes:
        _protect(request)
        request.setHeader(b"Content-Type", self._kind)
        # Asked for again each time, so that a new server's page fits.
        request.setHeader(b"Cache-Control", b"no-cache")
        return self._data


def dashboardPages(
    callers: HTTPCallers, board: Board, guard: Guard
) -> dict[bytes, IResource]:
    """
    Make the pages, by path.
    """
    broadcast = Broadcast(board)
    return {
        b"": IndexPage(callers, board, guard),
        b"dashboard/end": End(callers, board, guard),
        b"dashboard/grant": Grant(callers, board, guard),
        b"dashboard/act": Act(callers, board, guard),
        b"dashboard/events": Events(callers, board, guard, broadcast),
        b"dashboard/style.css": Part("style.css", b"text/css; charset=utf-8"),
        b"dashboard/live.js": Part("live.js", b"text/javascript; charset=utf-8"),
        b"dashboard/icon.svg": Part("icon.svg", b"image/svg+xml"),
    }
