"""
All dialects. A new one is a folder, or a file, and one line here.
"""

from __future__ import annotations

from collections.abc import Sequence

from tristunnel.dialects.base.dialect import Dialect, PortProtocol
from tristunnel.dialects.base.server import ServerSessions
from tristunnel.dialects.chisel.dialect import ChiselDialect
from tristunnel.dialects.framed.dialect import FramedDialect
from tristunnel.dialects.relay.dialect import RelayDialect
from tristunnel.dialects.ssh.dialect import SSHDialect
from tristunnel.dialects.vtunnel.dialect import VTunnelDialect
from tristunnel.dialects.zlayer.dialect import ZLayerDialect
from tristunnel.errors import badOption
from tristunnel.util.words import checkChoice

__all__ = [
    "DEFAULT",
    "DIALECTS",
    "Served",
    "labelOf",
    "ours",
    "parseDialects",
    "portProtocols",
]

Served = dict[str, Dialect]
"""The dialects that a server speaks, by their names."""

DIALECTS: dict[str, Dialect] = {
    dialect.name: dialect
    for dialect in (
        FramedDialect(),
        VTunnelDialect(),
        ZLayerDialect(),
        RelayDialect(),
        SSHDialect(),
        ChiselDialect(),
    )
}
"""The first one is what is spoken where nothing is said. A WebSocket's first message
is shown to the last one first, so that the first two take what nobody else knows."""

DEFAULT = next(iter(DIALECTS))


def ours() -> Served:
    """Those that our own clients speak."""
    return {name: each for name, each in DIALECTS.items() if each.hasClient}


def labelOf(spoken: str) -> str:
    """
    Say for people what a session says that it speaks.

    @return: Nothing, where that goes without saying.
    """
    for dialect in DIALECTS.values():
        if spoken in dialect.labels:
            return dialect.labels[spoken]
    return spoken


def parseDialects(names: str, certificatesOnly: bool) -> Served:
    """
    Read which dialects a server speaks.

    @param names: Their names, with commas between; empty for all.
    @param certificatesOnly: Whether all that says who a client is is its certificate.
        Then those are left out that can show none.
    @raise TunnelError: C{bad-option}.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        checkChoice("dialects", name, DIALECTS)
        if certificatesOnly and not DIALECTS[name].showsCertificate:
            raise badOption(
                f"--dialects {name}: its clients can show no certificate, and"
                " --client-ca alone asks for one: give --auth as well"
            )
    return {
        name: dialect
        for name, dialect in DIALECTS.items()
        if (not wanted or name in wanted)
        and (dialect.showsCertificate or not certificatesOnly)
    }


def portProtocols(
    sessions: ServerSessions, served: Served = DIALECTS, bare: bool = False
) -> Sequence[PortProtocol]:
    """
    What a port serves, beside HTTP, by the first bytes of a connection.

    @param bare: Whether before TLS, at a port that has that.
    """
    return [
        protocol
        for dialect in served.values()
        if dialect.encrypts or not bare
        for protocol in dialect.portProtocols(sessions)
    ]
