"""
Addresses as people read them.
"""

from __future__ import annotations

from tristunnel.util.hosts import hostAndPort
from tristunnel.util.words import printable

__all__ = ["addressText"]


def addressText(address: object) -> str:
    """
    Write an address as C{HOST:PORT}, and one of IPv4 on a dual-stack socket
    as what it is.
    """
    host, port = getattr(address, "host", None), getattr(address, "port", 0)
    if host is None:
        if onion := getattr(address, "onion_uri", None):
            # Of txtorcon's; the name of an onion service is not known before.
            return f"{onion}:{address.onion_port}"  # type: ignore[attr-defined]
        name = getattr(address, "name", None)
        # Whoever connects may have given its socket any name.
        return printable(f"unix:{name.decode(errors='replace')}") if name else "unix"
    if host.startswith("::ffff:") and "." in host:
        host = host[7:]
    return printable(hostAndPort(host, port))
