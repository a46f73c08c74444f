"""
The inspector's site: who may see it, and what is where.

It is for the user of this machine alone, but others can reach it: web sites through the
user's browser, and other users through the port. So C{Host} must be an address, calls
must come from its own pages, and a browser must first show the token in the page's
address, for which a cookie stands from then on. Cookies do not depend on the port: the
page is below a path that nobody can guess, so that other services of the same host do
not get the cookie.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Mapping
from importlib.resources import files

from twisted.internet.interfaces import IReactorTime
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request

from tristunnel.errors import TunnelError
from tristunnel.http.assets import Asset, protect
from tristunnel.http.browsers import OriginRule
from tristunnel.http.plain import ErrorText, errorText
from tristunnel.http.resource import JSONRPCResource
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import rootOf
from tristunnel.inspect.calls import matching
from tristunnel.inspect.har import harOf
from tristunnel.inspect.record import Record
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.util.secret import isSecret, newSecret

__all__ = ["COOKIE", "InspectSite"]

COOKIE = b"tristunnel_requests"
"""The name of the cookie."""

_ASSETS = {
    "inspect.css": (__package__, b"text/css; charset=utf-8"),
    "inspect.js": (__package__, b"text/javascript; charset=utf-8"),
    "show.js": (__package__, b"text/javascript; charset=utf-8"),
    "style.css": ("tristunnel.dashboard", b"text/css; charset=utf-8"),
    "icon.svg": ("tristunnel.dashboard", b"image/svg+xml"),
}

_NO_TOKEN = (
    "Open this page at the address that the client has printed, which has a token:"
    " tristunnel requests page"
)


def _argument(request: Request, name: bytes) -> str:
    values = (request.args or {}).get(name, [b""])
    return bytes(values[0][:500]).decode("utf-8", "replace")


class _Door(Resource):
    """C{/?token=TOKEN}: gives a cookie for the token, and redirects to the page."""

    def __init__(self, site: InspectSite) -> None:
        super().__init__()
        self._site = site

    def render_GET(self, request: Request) -> bytes:
        protect(request)
        if not self._site.isToken(_argument(request, b"token")):
            return errorText(request, 403, _NO_TOKEN)
        place = b"/" + self._site.place + b"/"
        request.addCookie(
            COOKIE, self._site.token, path=place, httpOnly=True, sameSite="strict"
        )
        request.setResponseCode(303)
        request.setHeader(b"Location", place)
        return b""


class _Inside(Resource):
    """A page that is shown only to those who have the cookie."""

    def __init__(self, site: InspectSite, answer: Callable[[Request], bytes]) -> None:
        super().__init__()
        self._site = site
        self._answer = answer

    def render_GET(self, request: Request) -> bytes:
        protect(request)
        try:
            self._site.caller(request)
            return self._answer(request)
        except TunnelError as refusal:
            return errorText(request, 403, refusal.message)


class InspectSite(LimitedSite):
    """
    The site.

    @param reactor: Tells time.
    @param record: What is shown.
    @param calls: The calls, by name.

    @ivar token: The token in its address.
    @ivar place: The path below which the page is.
    """

    noisy = False

    def __init__(
        self,
        reactor: IReactorTime,
        record: Record,
        calls: Mapping[str, Callable[..., object]],
    ) -> None:
        self.token, self._hash = newSecret()
        self.place = secrets.token_hex(8).encode("ascii")
        self._rule = OriginRule(())
        self._record = record
        rpc = JSONRPCResource(Dispatcher(calls.get), self.caller, hostnames=())
        page = files(__package__).joinpath("page.html").read_bytes()
        pages: dict[bytes, IResource] = {
            b"": _Door(self),
            self.place + b"/": _Inside(self, lambda request: self._page(request, page)),
            self.place + b"/rpc": rpc,
            self.place + b"/requests.har": _Inside(self, self._archive),
        }
        for name, (package, kind) in _ASSETS.items():
            data = files(package).joinpath(name).read_bytes()
            pages[name.encode("ascii")] = Asset(data, kind)
        super().__init__(rootOf(pages), reactor=reactor)

    def isToken(self, said: str) -> bool:
        """Whether a text is the token."""
        return isSecret(said, self._hash)

    def caller(self, request: Request) -> str:
        """
        Find out whether a request comes from somebody who had the token.

        @return: Who that is.
        @raise TunnelError: C{not-permitted}, if not.
        """
        cookie: bytes = request.getCookie(COOKIE) or b""
        if not self.isToken(cookie.decode("latin-1")):
            raise TunnelError("not-permitted", _NO_TOKEN)
        return "the user"

    def getResourceFor(self, request: Request) -> IResource:
        objection = self._rule.objection(request)
        if objection is not None:
            return ErrorText(403, objection)
        return super().getResourceFor(request)

    def _page(self, request: Request, page: bytes) -> bytes:
        request.setHeader(b"Content-Type", b"text/html; charset=utf-8")
        return page

    def _archive(self, request: Request) -> bytes:
        found = matching(self._record, _argument(request, b"filter"))
        request.setHeader(b"Content-Type", b"application/json")
        request.setHeader(
            b"Content-Disposition", b'attachment; filename="requests.har"'
        )
        har = harOf(found, _argument(request, b"reveal") == "yes")
        return json.dumps(har, indent=1).encode("ascii") + b"\n"
