"""C{twistd tunnel --demo}: everything in one process, for a first look."""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib.resources import files
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.iweb import IRequest
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from twisted.web.static import Data
from twisted.web.template import Element, Tag, XMLString, renderElement, renderer

from tristunnel.client.log import LoggingClientObserver
from tristunnel.connect.address import Trust, parseConnect
from tristunnel.dashboard.render import partOf
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.forwards.forward import parseForward
from tristunnel.http.site import LimitedSite
from tristunnel.server.service import TunnelServerService
from tristunnel.util.output import outputOf

__all__ = ["Demo"]

_PARTS = {
    b"style.css": "text/css; charset=utf-8",
    b"copy.js": "text/javascript; charset=utf-8",
    b"icon.svg": "image/svg+xml",
}
"""The files that the page shares with the dashboard."""


class _Page(Element):
    loader = XMLString(files(__package__).joinpath("demo.xml").read_bytes())

    def __init__(self, public: str, service: str, dashboard: str) -> None:
        super().__init__()
        self._public, self._service = public, service
        self._dashboard = dashboard

    @renderer
    def page(self, request: IRequest, tag: Tag) -> Tag:
        return tag.fillSlots(public=self._public, service=self._service)

    @renderer
    def dashboard(self, request: IRequest, tag: Tag) -> Tag | str:
        return tag.fillSlots(url=self._dashboard) if self._dashboard else ""


class _Pages(Resource):
    def __init__(self, dashboard: str) -> None:
        super().__init__()
        self._dashboard = dashboard
        for name, kind in _PARTS.items():
            self.putChild(name, Data(partOf(name.decode()), kind))
        self.putChild(b"", self)

    def render_GET(self, request: Request) -> int:
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        public = (request.getHeader(b"host") or b"").decode("ascii", "replace")
        service = f"127.0.0.1:{request.getHost().port}"
        renderElement(request, _Page(public, service, self._dashboard))
        return NOT_DONE_YET


class _DemoObserver(LoggingClientObserver):
    """Prints the addresses to open."""

    def __init__(self, dashboard: str) -> None:
        super().__init__()
        self._dashboard = dashboard

    def tunnelReady(self, address: str, target: str) -> None:
        super().tunnelReady(address, target)
        page = address.replace("tcp://", "http://", 1) + "/"
        # The address stands alone on its line, for pasting and for scripts.
        text = f"Open this page in a browser; it comes through a tunnel:\n{page}\n"
        if self._dashboard:
            text += f"The server's dashboard is at:\n{self._dashboard}\n"
        out = outputOf(sys.__stdout__)
        if out is not None:
            out.write(text)
            out.flush()


class Demo(MultiService):
    """
    The rest of the demonstration beside the server: a sample page, and a client that
    offers it.

    @param reactor: Listens and connects.
    @param server: The server, which starts first.
    @param dashboard: Says where the server's dashboard is, once it listens; empty
        if it has none.
    """

    def __init__(
        self, reactor: Any, server: TunnelServerService, dashboard: Callable[[], str]
    ) -> None:
        super().__init__()
        self._dashboard = dashboard
        self._reactor = reactor
        self._server = server
        self._page: Any = None

    def startService(self) -> None:
        super().startService()
        if self._server.listening:
            site = LimitedSite(_Pages(self._dashboard()), reactor=self._reactor)
            # Twisted's own would log requests with dates by the reactor's clock, in
            # 1970.
            site.noisy = False
            endpoint = TCP4ServerEndpoint(self._reactor, 0, interface="127.0.0.1")
            endpoint.listen(site).addCallback(self._offer)

    def _offer(self, page: Any) -> None:
        self._page = page
        at: Any = self._server.listening[0].getHost()
        client = TunnelClientService(
            self._reactor,
            parseConnect(self._reactor, f"tcp:127.0.0.1:{at.port}", Trust()),
            [parseForward(self._reactor, f"0=127.0.0.1:{page.getHost().port}")],
            {"id": "demo"},
            _DemoObserver(self._dashboard()),
            grace=0.0,
        )
        client.setServiceParent(self)

    def stopService(self) -> Any:
        stopping = super().stopService()
        if self._page is not None:
            page, self._page = self._page, None
            stopping.addCallback(lambda _: page.stopListening())
        return stopping
