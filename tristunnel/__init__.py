"""
A self-hosted reverse tunnel.

A machine behind NAT connects out to a public server, and visitors reach its
services through that server. In a program::

    with tristunnel.expose(3000) as tunnel:
        print(tunnel.url)
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tristunnel.version import VERSION as __version__

__all__ = ["Tunnel", "TunnelError", "__version__", "aio", "expose"]

if TYPE_CHECKING:
    from tristunnel import aio
    from tristunnel.errors import TunnelError
    from tristunnel.program.tunnel import Tunnel, expose
else:
    # Imported when a program uses it: the commands need none of it.
    _PLACES = {
        "Tunnel": "tristunnel.program.tunnel",
        "TunnelError": "tristunnel.errors",
        "expose": "tristunnel.program.tunnel",
    }

    def __getattr__(name: str) -> Any:
        if name == "aio":
            return import_module("tristunnel.aio")
        if name in _PLACES:
            return getattr(import_module(_PLACES[name]), name)
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
