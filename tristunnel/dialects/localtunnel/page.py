"""
What localtunnel's client asks for: C{GET /?new}, or C{GET /NAME}.

Read from the source of its version 2.0.2 (C{lib/Tunnel.js}, C{lib/TunnelCluster.js}).
"""

from __future__ import annotations

import json
import re

from twisted.web.server import Request

from tristunnel.dialects.localtunnel.tunnels import LocalTunnels
from tristunnel.errors import TunnelError
from tristunnel.http.browsers import Guard, OriginRule
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.resource import CallerPage
from tristunnel.service.caller import Caller

__all__ = ["CONNECTIONS", "TunnelPage", "nameAsked"]

CONNECTIONS = 10
"""Connections that a client has waiting, as at localtunnel's own server."""

_NAME = re.compile("[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")

_REFUSED = 202
"""The status of a refusal: after an error, its client silently tries again each second;
for a success that is not 200 it shows the message, and ends."""


def nameAsked(request: Request, isTaken: bool) -> str | None:
    """
    Find out whether a request is localtunnel's.

    @param isTaken: Whether there is another page at its path.
    @return: The name that it asks for, or empty; C{None} for any other request.
    """
    if request.method != b"GET":
        return None
    if request.path == b"/" and request.uri.partition(b"?")[2] == b"new":
        return ""
    accepts = (request.getHeader(b"accept") or b"").startswith(b"application/json")
    name = request.path[1:].decode("latin-1").lower()
    return name if accepts and not isTaken and _NAME.fullmatch(name) else None


class _ForPrograms(Guard):
    """
    Admits requests from programs, whatever they call the server, but not from web pages
    of others.
    """

    def __init__(self) -> None:
        super().__init__(True)
        self._rule = OriginRule(None)

    def objectionToReading(self, request: Request) -> str | None:
        return self._rule.objection(request)


class TunnelPage(CallerPage):
    """
    Opens a tunnel.

    @param callers: Finds out who sent a request.
    @param tunnels: The tunnels.
    @param name: The name that is asked for; empty for any.
    """

    def __init__(self, callers: HTTPCallers, tunnels: LocalTunnels, name: str) -> None:
        super().__init__(callers, _ForPrograms())
        self._tunnels = tunnels
        self._name = name

    async def answer(self, request: Request, caller: Caller) -> bytes:
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        try:
            tunnel = await self._tunnels.open(caller, self._name)
        except TunnelError as refusal:
            request.setResponseCode(_REFUSED)
            return json.dumps({"message": str(refusal)}).encode()
        where = tunnel.clientListener
        assert where is not None
        name = tunnel.called or tunnel.id
        return json.dumps(
            {
                "id": name.partition(".")[0],
                "port": where.address[2],
                "max_conn_count": CONNECTIONS,
                "url": tunnel.page.rstrip("/"),
            }
        ).encode()
