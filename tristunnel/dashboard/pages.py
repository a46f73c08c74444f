"""
The pages for those who run a server: the dashboard's, and the metrics.

Reading needs no script; actions are forms that are posted, after a question.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.web.resource import IResource
from twisted.web.server import Request
from twisted.web.template import Element

from tristunnel.dashboard.actions import KINDS, Actions, kindOf
from tristunnel.dashboard.events import ServerEvents
from tristunnel.dashboard.history import SPANS, RateHistory
from tristunnel.dashboard.live import Broadcast
from tristunnel.dashboard.metrics import metricsPage
from tristunnel.dashboard.render import (
    DashboardPage,
    Granted,
    GrantForm,
    Invited,
    InviteForm,
    ManagedPage,
    Question,
    TunnelPage,
    htmlOf,
    partOf,
)
from tristunnel.dashboard.view import FIRST, Board
from tristunnel.errors import TunnelError
from tristunnel.http.assets import Asset, protect
from tristunnel.http.browsers import Guard
from tristunnel.http.plain import errorText
from tristunnel.http.resource import CallerPage, contentType, formOf
from tristunnel.model.observer import ServerObserver, severalObservers
from tristunnel.service.counters import Counters, ReactorLag

if TYPE_CHECKING:
    from tristunnel.auth.tokens import TokenFile
    from tristunnel.http.callers import HTTPCallers
    from tristunnel.service.caller import Caller
    from tristunnel.service.preauth import PreauthLimiter
    from tristunnel.service.tunnel_service import TunnelService

__all__ = ["Watch", "dashboardPages"]


_GONE = partial(Question, "It has already ended", "There is nothing left to end.")


def _argument(request: Request, name: bytes) -> str:
    values = (request.args or {}).get(name, [b""])
    return bytes(values[0][:200]).decode("utf-8", "replace")


def _shown(request: Request) -> tuple[str, str]:
    """Read which tunnel a page is about, or empty, and the span of its graph."""
    span = _argument(request, b"span")
    return _argument(request, b"tunnel"), span if span in SPANS else FIRST


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
        self.actions = Actions(board)

    def render_GET(self, request: Request) -> bytes | int:
        protect(request)
        return super().render_GET(request)

    async def html(
        self, request: Request, element: Element, status: int = 200
    ) -> bytes:
        page = await htmlOf(request, element)
        request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
        request.setResponseCode(status)
        return page


class IndexPage(_HTMLPage):
    """C{/}: the dashboard, and with C{?tunnel=ID} the page of a tunnel."""

    async def answer(self, request: Request, caller: Caller) -> bytes:
        tunnel, span = _shown(request)
        found = await self.board.tunnelView(caller, tunnel, span) if tunnel else None
        if found is not None:
            about = TunnelPage(found, caller, span, {"tunnel": tunnel})
            return await self.html(request, about)
        done = KINDS.get(_argument(request, b"done"), ("", ""))[1]
        if tunnel:
            done = "This tunnel has been closed."
        view = await self.board.view(caller, span)
        page = DashboardPage(
            view,
            caller,
            span,
            done,
            self.board.warnings(caller),
            self.board.commands(caller),
            self.actions.mayInvite(caller),
        )
        return await self.html(request, page, 404 if tunnel else 200)


class EndPage(_HTMLPage):
    """C{/dashboard/end?id=ID}: asks whether to end something."""

    async def answer(self, request: Request, caller: Caller) -> bytes:
        identifier = _argument(request, b"id")
        question = await self.actions.describe(caller, identifier)
        if question is None:
            return await self.html(request, _GONE(), 404)
        form = {
            "token": self.guard.formToken(request, caller),
            "id": identifier,
            "verb": KINDS[kindOf(identifier)][0],
        }
        return await self.html(request, Question(*question, form))


class GrantPage(_HTMLPage):
    """
    C{/dashboard/grant?id=ID}: asks who may have access to a tunnel, and for how
    long.
    """

    async def answer(self, request: Request, caller: Caller) -> bytes:
        tunnel = await self.actions.grantable(caller, _argument(request, b"id"))
        if tunnel is None:
            title = "No access can be granted"
            text = "The tunnel has already been closed, or has no name."
            return await self.html(request, Question(title, text), 404)
        form = self.guard.formToken(request, caller)
        return await self.html(request, GrantForm(tunnel, form))


class InvitePage(_HTMLPage):
    """C{/dashboard/invite}: asks whom to invite."""

    async def answer(self, request: Request, caller: Caller) -> bytes:
        if not self.actions.mayInvite(caller):
            title = "No client can be added"
            text = (
                "This needs a token that may admin, and a server with tokens: start it"
                " with 'tristunnel server', or with --auth tokens:FILE."
            )
            return await self.html(request, Question(title, text), 404)
        form = self.guard.formToken(request, caller)
        return await self.html(request, InviteForm(form))


class ManagedClientsPage(_HTMLPage):
    """C{/dashboard/managed}: the tunnels of managed clients."""

    async def answer(self, request: Request, caller: Caller) -> bytes:
        if not self.actions.mayInvite(caller):
            title = "No client can be managed"
            text = "This needs a token that may admin, and a server with tokens."
            return await self.html(request, Question(title, text), 404)
        form = self.guard.formToken(request, caller)
        page = ManagedPage(await self.actions.managed(caller), form)
        return await self.html(request, page)


class ActionPage(_HTMLPage):
    """C{/dashboard/act}: does something, when our own form was posted."""

    def render_GET(self, request: Request) -> bytes | int:
        request.setHeader(b"Allow", b"POST")
        return errorText(request, 405, "Only POST is allowed here.")

    def render_POST(self, request: Request) -> bytes | int:
        protect(request)
        objection = self.guard.objectionToActing(request)
        if objection is not None:
            return errorText(request, 403, objection)
        if contentType(request) != "application/x-www-form-urlencoded":
            return errorText(
                request, 415, "Only the dashboard's own forms are accepted here."
            )
        return self.serve(request)

    async def answer(self, request: Request, caller: Caller) -> bytes:
        fields = {name: value.strip() for name, value in formOf(request).items()}
        if not self.guard.isGoodToken(request, caller, fields.get("form", "")):
            page = Question(
                "Please ask again",
                "This form has expired: the server was restarted,"
                " or the browser does not accept cookies. Nothing was done.",
            )
            return await self.html(request, page, 403)
        identifier = fields.get("id", "")
        if fields.get("do") == "grant":
            return await self._grant(request, caller, identifier, fields)
        if fields.get("do") in ("invite", "token"):
            return await self._letIn(request, caller, fields)
        if fields.get("do") in ("manage", "unmanage"):
            return await self._manage(request, caller, fields)
        try:
            await self.actions.end(caller, identifier)
        except TunnelError as refusal:
            if refusal.code.name == "bad-option":
                page = Question("Not done", refusal.message)
                return await self.html(request, page, 409)
            status = 404 if refusal.code.name == "unknown-session" else 403
            return await self.html(request, _GONE(), status)
        request.setResponseCode(303)
        where = f"../?done={kindOf(identifier)}"
        request.setHeader(b"Location", where.encode("ascii"))
        return b""

    async def _manage(
        self, request: Request, caller: Caller, fields: dict[str, str]
    ) -> bytes:
        if not self.actions.mayInvite(caller):
            return await self.html(request, _GONE(), 404)
        wanted = {name: fields.get(name, "") for name in ManagedPage.FIELDS}
        try:
            if fields["do"] == "manage":
                self.actions.manage(caller, wanted)
            else:
                self.actions.unmanage(caller, fields.get("id", ""))
        except TunnelError as refusal:
            form = self.guard.formToken(request, caller)
            known = await self.actions.managed(caller)
            again = ManagedPage(known, form, wanted, refusal.message)
            return await self.html(request, again, 400)
        request.setResponseCode(303)
        request.setHeader(b"Location", b"managed")
        return b""

    async def _letIn(
        self, request: Request, caller: Caller, fields: dict[str, str]
    ) -> bytes:
        if not self.actions.mayInvite(caller):
            return await self.html(request, _GONE(), 404)
        actions = self.actions
        make = actions.invite if fields["do"] == "invite" else actions.makeToken
        wanted = {name: fields.get(name, "") for name in InviteForm.FIELDS}
        try:
            made = make(caller, wanted)
        except TunnelError as refusal:
            form = self.guard.formToken(request, caller)
            again = InviteForm(form, wanted, refusal.message)
            return await self.html(request, again, 400)
        return await self.html(request, Invited(*made))

    async def _grant(
        self, request: Request, caller: Caller, identifier: str, fields: dict[str, str]
    ) -> bytes:
        tunnel = await self.actions.grantable(caller, identifier)
        if tunnel is None:
            return await self.html(request, _GONE(), 404)
        wanted = {name: fields.get(name, "") for name in GrantForm.FIELDS}
        try:
            uri = await self.actions.grant(caller, tunnel, **wanted)
        except TunnelError as refusal:
            form = self.guard.formToken(request, caller)
            again = GrantForm(tunnel, form, wanted, refusal.message)
            return await self.html(request, again, 400)
        if uri.startswith("http"):
            text = "Whoever opens it is let in, until it expires."
            made = Invited("A link", f"{text} It is shown only now.", uri)
            return await self.html(request, made)
        return await self.html(request, Granted(tunnel, uri, wanted["ttl"]))


class EventsPage(_HTMLPage):
    """C{/dashboard/events}: a snapshot a second."""

    def __init__(self, callers: HTTPCallers, board: Board, guard: Guard) -> None:
        super().__init__(callers, board, guard)
        self._broadcast = Broadcast(board)

    async def answer(self, request: Request, caller: Caller) -> bytes | None:
        objection = self.guard.objectionToActing(request)
        if objection is not None:
            return errorText(request, 403, objection)
        if request.method == b"HEAD":
            return b""
        self._broadcast.join(request, caller, *_shown(request))
        return None


def dashboardPages(
    callers: HTTPCallers, board: Board, guard: Guard
) -> dict[bytes, IResource]:
    """Make the pages, by path."""
    pages: dict[bytes, Callable[[HTTPCallers, Board, Guard], _HTMLPage]] = {
        b"": IndexPage,
        b"dashboard/end": EndPage,
        b"dashboard/grant": GrantPage,
        b"dashboard/invite": InvitePage,
        b"dashboard/managed": ManagedClientsPage,
        b"dashboard/act": ActionPage,
        b"dashboard/events": EventsPage,
    }
    parts = {
        "style.css": b"text/css; charset=utf-8",
        "copy.js": b"text/javascript; charset=utf-8",
        "live.js": b"text/javascript; charset=utf-8",
        "icon.svg": b"image/svg+xml",
    }
    found: dict[bytes, IResource] = {
        path: page(callers, board, guard) for path, page in pages.items()
    }
    return found | {
        b"dashboard/" + name.encode("ascii"): Asset(partOf(name), kind)
        for name, kind in parts.items()
    }


class Watch:
    """
    Counts what happens at a server, and makes the pages that show it.

    @param reactor: Tells time.
    @param observers: Who else is told what happens.

    @ivar observer: To be told what happens.
    @ivar counters: What was counted.
    @ivar lag: Measures how late the reactor is, and times the graphs.
    """

    def __init__(self, reactor: Any, *observers: ServerObserver) -> None:
        self.counters = Counters(reactor.seconds)
        self.lag = ReactorLag(reactor)
        self._reactor = reactor
        self._events = ServerEvents()
        self.observer = severalObservers(
            ServerObserver, *observers, self.counters, self._events
        )

    def pages(
        self,
        service: TunnelService,
        callers: HTTPCallers,
        limiter: PreauthLimiter,
        asked: bool,
        names: Collection[str] | None = None,
        dashboard: bool = True,
        tokens: Sequence[TokenFile] = (),
        certificates: bool = False,
    ) -> dict[bytes, IResource]:
        """
        Make the pages, by path.

        @param asked: Whether callers have to log in.
        @param names: The names of this server, or C{None} if they are not known.
        @param dashboard: Whether there is a dashboard.
        @param tokens: The tokens that are taken, for admins to revoke.
        @param certificates: Whether clients have to show certificates.
        """
        key = b"" if service.siblings is None else service.siblings.key
        guard = Guard(asked, names, key)
        metrics = metricsPage(callers, service, self.counters, self.lag, limiter, guard)
        pages = {b"metrics": metrics}
        if dashboard:
            service.looksAtAnswers = True
            history = RateHistory(self._reactor)
            board = Board(
                service,
                self.counters,
                self._events,
                history,
                asked,
                files=tokens,
                open=not (asked or certificates),
            )
            pages.update(dashboardPages(callers, board, guard))
            self.lag.tick = lambda: history.sample(self.counters.tunnels)
        return pages

    def start(self) -> None:
        """Begin to measure, once the reactor runs, until it stops."""
        self._reactor.callWhenRunning(self.lag.start)
        self._reactor.addSystemEventTrigger("before", "shutdown", self.lag.stop)
