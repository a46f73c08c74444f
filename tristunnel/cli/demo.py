"""C{twistd tunnel --demo}: everything in one process, for a first look."""

from __future__ import annotations

import sys
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.interfaces import IListeningPort
from twisted.web.resource import Resource
from twisted.web.server import Request

from tristunnel.client.log import LoggingClientObserver
from tristunnel.connect.address import ServerAddress
from tristunnel.dataplane.dial import HostEndpoint
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.forwards.forward import Forward
from tristunnel.http.site import LimitedSite
from tristunnel.server.service import TunnelServerService
from tristunnel.util.output import outputOf

__all__ = ["makeDemo"]

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
        return _PAGE.format(
            public="".join(
                c
                for c in public.decode("ascii", "replace")
                if c.isalnum() or c in ".:-"
            ),
            service=f"127.0.0.1:{here.port}",
        ).encode()


class _DemoObserver(LoggingClientObserver):
    def tunnelReady(self, address: str, target: str) -> None:
        page = address.replace("tcp://", "http://", 1) + "/"
        super().tunnelReady(page, target)


class _Demo(MultiService):
    def __init__(self, reactor: Any, server: TunnelServerService) -> None:
        super().__init__()
        self._reactor = reactor
        self._server = server
        self._page: IListeningPort | None = None

    def startService(self) -> None:
        super().startService()
        if self._server.listening:
            # Twisted's own Site would log requests, dated by the reactor's clock:
            # 1970.
            site = LimitedSite(_Page(), reactor=self._reactor)
            site.noisy = False
            opening = TCP4ServerEndpoint(
                self._reactor, 0, interface="127.0.0.1"
            ).listen(site)
            opening.addCallback(self._offer)

    def _offer(self, page: IListeningPort) -> None:
        self._page = page
        at: Any = page.getHost()
        service = at.port
        at = self._server.listening[0].getHost()
        port = at.port
        forward = Forward(
            "demo",
            0,
            "",
            f"127.0.0.1:{service}",
            HostEndpoint(self._reactor, "127.0.0.1", service),
        )
        client = TunnelClientService(
            self._reactor,
            ServerAddress(
                f"tcp:127.0.0.1:{port}",
                "localhost",
                HostEndpoint(self._reactor, "127.0.0.1", port),
            ),
            [forward],
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


def makeDemo(reactor: Any, server: TunnelServerService) -> Service:
    """
    Make what the demonstration has beside a server.

    @param server: The server, which starts first.
    """
    return _Demo(reactor, server)
