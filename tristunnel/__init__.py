"""
A self-hosted reverse tunnel.

A machine behind NAT connects out to a public server, and visitors reach its
services through that server. In a program::

    with tristunnel.expose(3000) as tunnel:
        print(tunnel.url)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from tristunnel.version import VERSION as __version__

if TYPE_CHECKING:
    from tristunnel.errors import TunnelError
    from tristunnel.program.tunnel import Tunnel, expose

__all__ = ["Tunnel", "TunnelError", "__version__", "expose"]


def __getattr__(name: str) -> Any:
    """Import what a program uses when it does: the commands need none of it."""
    if name == "TunnelError":
        from tristunnel.errors import TunnelError

        return TunnelError
    if name == "aio":
        import tristunnel.aio

        return tristunnel.aio
    if name in __all__:
        from tristunnel.program import tunnel

        return getattr(tunnel, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
