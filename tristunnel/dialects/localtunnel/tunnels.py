"""
The tunnels of localtunnel's clients: each has a port of its own, to which the client
opens some connections that wait for visitors, and new ones in place of those that have
had a visitor.
"""

from __future__ import annotations

from typing import Any

from tristunnel.errors import TunnelError
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.caller import Caller
from tristunnel.service.tunnel_service import TunnelService

__all__ = ["ABSENT", "LocalTunnels"]

ABSENT = 30.0
"""Seconds after which a tunnel ends to which its client has no connection."""

_NAMES = "http"
"""The kind of listener for names."""


class LocalTunnels:
    """
    All of them.

    @param reactor: Tells time.
    @param service: Opens them.
    """

    def __init__(self, reactor: Any, service: TunnelService) -> None:
        self._reactor = reactor
        self._service = service
        self._named: dict[str, tuple[Tunnel, str]] = {}

    async def open(self, caller: Caller, name: str) -> Tunnel:
        """
        Open one.

        @param caller: Connections are accepted only from its address.
        @param name: What the client would like to be called; empty for anything. If
            that is taken, it gets another name, as at localtunnel's server.
        @raise TunnelError: Why there is none.
        """
        options: dict[str, object] = {
            "via": "tcp",
            "openerOnly": bool(caller.address),
            "scheme": "http",
        }
        if _NAMES not in self._service.listeners:
            return await self._opened(caller, options)
        options["listener"] = _NAMES
        if name:
            await self._endLeft(name, caller)
            try:
                tunnel = await self._opened(caller, {**options, "name": name})
            except TunnelError as refusal:
                if refusal.code.name != "name-taken":
                    raise
            else:
                self._named[name] = tunnel, caller.address
                return tunnel
        return await self._opened(caller, options)

    async def _endLeft(self, name: str, caller: Caller) -> None:
        """End the tunnel that the client had by a name before it was started again."""
        self._named = {
            known: (tunnel, address)
            for known, (tunnel, address) in self._named.items()
            if tunnel.closed is None
        }
        if name not in self._named:
            return
        tunnel, address = self._named[name]
        side: Any = tunnel.clientSide
        if address == caller.address and not side.served():
            reason = TunnelError("displaced", "its client has asked for it again")
            await self._service.destroy(tunnel, reason)

    async def _opened(self, caller: Caller, options: dict[str, object]) -> Tunnel:
        tunnel = await self._service.open(caller, options)
        side: Any = tunnel.clientSide
        # Such a tunnel is for one visitor, unless it is told otherwise.
        tunnel.visitorLimit = 0
        self._service.keepWhile(tunnel, ABSENT, side.served)
        return tunnel
