"""
All dialects. A new one is a folder, or a file, and one line here.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tristunnel.dialects.base.dialect import Dialect, PortProtocol
from tristunnel.dialects.base.server import ServerSessions
from tristunnel.dialects.bore.dialect import BoreDialect
from tristunnel.dialects.chisel.dialect import ChiselDialect
from tristunnel.dialects.framed.dialect import FramedDialect
from tristunnel.dialects.localtunnel.dialect import LocaltunnelDialect
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
    "ownerOf",
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
        BoreDialect(),
        LocaltunnelDialect(),
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


def parseDialects(
    names: str | None, ports: Collection[int], login: bool, certificates: bool
) -> Served:
    """
    Read which dialects a server speaks.

    @param names: Their names, with commas between; C{None} for all.
    @param ports: The ports that it has.
    @param login: Whether it asks who clients are by C{--auth}.
    @param certificates: Whether by C{--client-ca}.
    @return: Those, without what no client of theirs could do.
    @raise TunnelError: C{bad-option}.
    """
    wanted = [name.strip() for name in (names or "").split(",") if name.strip()]
    if names is not None and not wanted:
        raise badOption(
            "--dialects is empty: leave it out for all of them, or write some of"
            f" {','.join(DIALECTS)}"
        )
    for name in wanted:
        checkChoice("dialects", name, DIALECTS)
        if why := _whyNot(DIALECTS[name], ports, login, certificates):
            raise badOption(f"--dialects {name}: its clients {why}")
    return {
        name: dialect
        for name, dialect in DIALECTS.items()
        if (not wanted or name in wanted)
        and not _whyNot(dialect, ports, login, certificates)
    }


def _whyNot(
    dialect: Dialect, ports: Collection[int], login: bool, certificates: bool
) -> str:
    """Say why a dialect's clients could do nothing here; empty if they could."""
    if (login or certificates) and not dialect.takesLogin:
        return "cannot log in, but --auth or --client-ca requires it: leave it out"
    if certificates and not login and not dialect.showsCertificate:
        return (
            "cannot show a certificate, but --client-ca alone requires one: give --auth"
            " as well"
        )
    if dialect.ownPort and dialect.ownPort not in ports:
        number = dialect.ownPort
        return f"only know port {number}: give --port tcp:{number} as well"
    return ""


def ownerOf(port: int, served: Served = DIALECTS) -> Dialect | None:
    """Find the dialect whose port it is, and nobody else's."""
    owners = (each for each in served.values() if each.ownPort and each.ownPort == port)
    return next(owners, None)


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
        if (dialect.encrypts or not bare) and not dialect.ownPort
        for protocol in dialect.portProtocols(sessions)
    ]
