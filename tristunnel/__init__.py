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

__all__ = ["Tunnel", "TunnelError", "__version__", "aio", "expose"]

if TYPE_CHECKING:
    from tristunnel import aio
    from tristunnel.errors import TunnelError
    from tristunnel.program.tunnel import Tunnel, expose
else:

    def __getattr__(name: str) -> Any:
        # Imported when a program uses it: the commands need none of it.
        if name == "aio":
            import tristunnel.aio as found
        elif name == "TunnelError":
            from tristunnel.errors import TunnelError as found
        elif name == "Tunnel":
            from tristunnel.program.tunnel import Tunnel as found
        elif name == "expose":
            from tristunnel.program.tunnel import expose as found
        else:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return found

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
