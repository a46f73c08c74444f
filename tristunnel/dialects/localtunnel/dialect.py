"""
localtunnel's dialect, as the program asks for it.
"""

from __future__ import annotations

from twisted.web.resource import IResource
from twisted.web.server import Request

from tristunnel.dialects.base.dialect import Dialect, OtherPage
from tristunnel.dialects.base.server import ServerSessions
from tristunnel.dialects.localtunnel.page import TunnelPage, nameAsked
from tristunnel.dialects.localtunnel.tunnels import LocalTunnels
from tristunnel.http.callers import HTTPCallers

__all__ = ["LocaltunnelDialect"]


class LocaltunnelDialect(Dialect):
    """localtunnel's client, which has no way to say who it is."""

    name = "localtunnel"
    hasClient = False
    showsCertificate = False
    takesLogin = False

    def otherPage(self, sessions: ServerSessions, callers: HTTPCallers) -> OtherPage:
        tunnels = LocalTunnels(sessions.reactor, sessions.service)

        def find(request: Request, isTaken: bool) -> IResource | None:
            name = nameAsked(request, isTaken)
            return None if name is None else TunnelPage(callers, tunnels, name)

        return find
