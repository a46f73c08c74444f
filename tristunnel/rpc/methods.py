"""
The remote methods by name: what JSON-RPC, XML-RPC and control frames call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from twisted.internet.defer import Deferred

from tristunnel.errors import TunnelError

if TYPE_CHECKING:
    from tristunnel.service import Caller, TunnelService

__all__ = ["methodsOf"]


def methodsOf(service: TunnelService) -> dict[str, Callable[..., object]]:
    """
    Make the table of methods.

    @return: Functions of a L{Caller<tristunnel.service.Caller>} and the
        call's own parameters, by name.
    """

    def openTunnel(
        caller: Caller, options: object = None, /, **named: object
    ) -> Deferred[str]:
        """
        Options come by name, or as one object in first place.
        """
        if options is not None:
            if not isinstance(options, dict):
                raise TunnelError(
                    "bad-option", "openTunnel takes its options by name, in an object"
                )
            named = {**options, **named}
        return service.openTunnel(caller, named)

    def getTunnelAddress(caller: Caller, uri: str) -> Deferred[str]:
        """
        The address of a tunnel.
        """
        return service.getTunnelAddress(caller, _uri(uri))

    def closeTunnel(caller: Caller, uri: str) -> Deferred[None]:
        """
        The end of a tunnel.
        """
        return service.closeTunnel(caller, _uri(uri))

    def listTunnels(caller: Caller) -> Deferred[list[dict[str, object]]]:
        """
        The caller's tunnels.
        """
        return service.listTunnels(caller)

    return {
        "openTunnel": openTunnel,
        "getTunnelAddress": getTunnelAddress,
        "closeTunnel": closeTunnel,
        "listTunnels": listTunnels,
    }


def _uri(value: object) -> str:
    """
    Check a parameter that names a tunnel.
    """
    if not isinstance(value, str):
        raise TunnelError("bad-option", "a tunnel is named by its URI, a string")
    return value
