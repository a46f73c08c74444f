"""
All dialects. A new one is a folder, or a file, and one line here.
"""

from __future__ import annotations

from collections.abc import Sequence

from tristunnel.dialects.base.dialect import Dialect, PortProtocol
from tristunnel.dialects.base.server import ServerSessions
from tristunnel.dialects.framed.dialect import FramedDialect
from tristunnel.dialects.relay.dialect import RelayDialect
from tristunnel.dialects.vtunnel.dialect import VTunnelDialect
from tristunnel.dialects.zlayer.dialect import ZLayerDialect

__all__ = ["DEFAULT", "DIALECTS", "labelOf", "portProtocols"]

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (FramedDialect(), VTunnelDialect(), ZLayerDialect(), RelayDialect())
}
"""The first one is what is spoken where nothing is said. A WebSocket's first message
is shown to the last one first, so that the first two take what nobody else knows."""

DEFAULT = next(iter(DIALECTS))


def labelOf(spoken: str) -> str:
    """
    Say for people what a session says that it speaks.

    @return: Nothing, where that goes without saying.
    """
    for dialect in DIALECTS.values():
        if spoken in dialect.labels:
            return dialect.labels[spoken]
    return spoken


def portProtocols(sessions: ServerSessions) -> Sequence[PortProtocol]:
    """What a port serves, beside HTTP, by the first bytes of a connection."""
    return [
        protocol
        for dialect in DIALECTS.values()
        for protocol in dialect.portProtocols(sessions)
    ]
