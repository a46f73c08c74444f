"""The pages of a site, by their paths."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, cast

from twisted.internet.interfaces import IAddress, IProtocol
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

from tristunnel.http.callers import HTTPCallers
from tristunnel.http.resource import JSONRPCResource
from tristunnel.http.site import LimitedChannel
from tristunnel.http.xmlrpc import TunnelXMLRPC
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.service.methods import methodsOf
from tristunnel.service.preauth import PendingConnection
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.wire.first_bytes import HTTP_METHODS

__all__ = ["Either", "HTTPPortProtocol", "Health", "rootOf", "rpcPages"]


class Health(Resource):
    """
    Tells monitoring that the server is alive.

    @param isDraining: Whether it accepts no clients, so that a balancer should send
        them, and visitors, elsewhere.
    """

    isLeaf = True

    def __init__(self, isDraining: Callable[[], bool] = lambda: False) -> None:
        super().__init__()
        self._isDraining = isDraining

    def render_GET(self, request: Request) -> bytes:
        request.setHeader(b"content-type", b"text/plain; charset=utf-8")
        request.setHeader(b"cache-control", b"no-store")
        if self._isDraining():
            request.setResponseCode(503)
            return b"draining\n"
        return b"ok\n"


def rpcPages(
    service: TunnelService,
    callers: HTTPCallers,
    hostnames: Collection[str] | None = None,
) -> dict[bytes, IResource]:
    """
    Make the pages for remote calls of the service.

    @param hostnames: Names by which this server's web pages may make calls, besides
        addresses; C{None} for any name, but not from web pages.
    """
    methods = methodsOf(service)
    return {
        b"rpc": JSONRPCResource(Dispatcher(methods.get), callers, hostnames=hostnames),
        b"RPC2": TunnelXMLRPC(methods.get, callers, hostnames=hostnames),
    }


class Either(Resource):
    """
    Two pages with the same name.

    @param upgraded: For those who want a WebSocket.
    @param plain: For all others.
    """

    isLeaf = True

    def __init__(self, upgraded: IResource, plain: IResource) -> None:
        super().__init__()
        self._upgraded = upgraded
        self._plain = plain

    def render(self, request: Request) -> bytes | int:
        page = self._upgraded if request.getHeader(b"upgrade") else self._plain
        rendered: bytes | int = page.render(request)
        return rendered


class _Root(Resource):
    """
    The root above all pages.

    @param others: Asked first about each request.
    """

    def __init__(
        self, others: Sequence[Callable[[Request, bool], IResource | None]]
    ) -> None:
        super().__init__()
        self._others = others

    def getChildWithDefault(self, path: bytes, request: Request) -> IResource:
        for other in self._others:
            found = other(request, path in self.children)
            if found is not None:
                return found
        return cast(IResource, super().getChildWithDefault(path, request))


def rootOf(
    pages: Mapping[bytes, IResource],
    others: Sequence[Callable[[Request, bool], IResource | None]] = (),
) -> Resource:
    """
    Make a root with pages below it.

    @param pages: By path; a path of several parts also makes what is on its way.
    @param others: Find pages by more than their paths.
    """
    root = _Root(others)
    for path, page in pages.items():
        *way, name = path.split(b"/")
        place: Resource = root
        for part in way:
            if part not in place.children:
                place.putChild(part, Resource())
            place = place.children[part]
        place.putChild(name, page)
    return root


class HTTPPortProtocol:
    """
    HTTP among the dialects of a port.

    @param site: What is served.
    """

    beginnings: Sequence[bytes] = HTTP_METHODS

    def __init__(self, site: Site) -> None:
        self._site = site

    def open(
        self, address: IAddress | None, remaining: float, pending: PendingConnection
    ) -> IProtocol | None:
        # A connection without a request, or after its last one, is unauthenticated; the
        # site has time limits of its own.
        protocol: Any = self._site.buildProtocol(address)
        if isinstance(protocol, LimitedChannel):
            protocol.pending = pending
        else:
            pending.known()
        return cast("IProtocol | None", protocol)
