"""C{twistd tunnel --demo}: everything in one process, for a first look."""

from __future__ import annotations

import re
import sys
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.web.resource import Resource
from twisted.web.server import Request

from tristunnel.client.log import LoggingClientObserver
from tristunnel.connect.address import Trust, parseConnect
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.forwards.forward import parseForward
from tristunnel.http.site import LimitedSite
from tristunnel.server.service import TunnelServerService
from tristunnel.util.output import outputOf

__all__ = ["Demo"]

_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>tristunnel</title>
<meta name="viewport" content="width=device-width">
<style>body{{font:1.1em/1.5 system-ui,sans-serif;max-width:36em;margin:4em auto;
padding:0 1em}}code{{background:#8882;padding:.1em .3em}}
:root{{color-scheme:light dark}}</style></head><body>
<h1>It works</h1>
<p>You are a <em>visitor</em>. Your request reached the server's port
<code>{public}</code>, went through a tunnel to a client, and from there to the
service at <code>{service}</code>, which wrote this page.</p>
<p>Offer a service of your own: run the server on a public machine with
<code>twistd -n --pidfile= tunnel</code>, and beside the service
<code>twistd -n --pidfile= tunnel-client --connect tcp:SERVER:9000 --forward
8080=localhost:3000</code>.</p>
</body></html>
"""


class _Page(Resource):
    isLeaf = True

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"text/html; charset=utf-8")
        public = request.getHeader(b"host") or b""
        here = request.getHost()
        harmless = re.sub("[^A-Za-z0-9.:-]", "", public.decode("ascii", "replace"))
        service = f"127.0.0.1:{here.port}"
        return _PAGE.format(public=harmless, service=service).encode()


class _DemoObserver(LoggingClientObserver):
    def tunnelReady(self, address: str, target: str) -> None:
        page = address.replace("tcp://", "http://", 1) + "/"
        super().tunnelReady(page, target)


class Demo(MultiService):
    """
    What the demonstration has beside a server: a sample page, and a client that
    offers it.

    @param reactor: Listens and connects.
    @param server: The server, which starts first.
    """

    def __init__(self, reactor: Any, server: TunnelServerService) -> None:
        super().__init__()
        self._reactor = reactor
        self._server = server
        self._page: Any = None

    def startService(self) -> None:
        super().startService()
        if self._server.listening:
            site = LimitedSite(_Page(), reactor=self._reactor)
            # Twisted's own would log requests, dated by the reactor's clock: 1970.
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
            observer=_DemoObserver(outputOf(sys.__stdout__)),
            grace=0.0,
        )
        client.setServiceParent(self)

    def stopService(self) -> Any:
        stopping = super().stopService()
        if self._page is not None:
            page, self._page = self._page, None
            stopping.addCallback(lambda _: page.stopListening())
        return stopping
