"""
The addresses of a connection's two sides.
"""

from __future__ import annotations

from socket import AF_INET, AF_INET6, socket
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress

__all__ = ["addressOf", "hostOf", "noAddress", "peerOf"]


def addressOf(family: int, name: Any) -> IAddress:
    """
    Turn the kernel's address into Twisted's.

    @param name: What C{accept}, C{getpeername} or C{getsockname} returned.
    """
    if family == AF_INET:
        return IPv4Address("TCP", name[0], name[1])
    if family == AF_INET6:
        return IPv6Address("TCP", *name)
    return UNIXAddress(name or None)


def noAddress(connection: socket) -> IAddress:
    """What stands for an address of a connection that has gone already."""
    nobody = {AF_INET: ("0.0.0.0", 0), AF_INET6: ("::", 0)}
    return addressOf(connection.family, nobody.get(connection.family, ""))


def peerOf(connection: socket) -> IAddress | None:
    """Ask the kernel for the other side's address; C{None} if it has left."""
    try:
        return addressOf(connection.family, connection.getpeername())
    except OSError:
        return None


def hostOf(connection: socket) -> IAddress | None:
    """Ask the kernel for this side's address; C{None} if the other side has left."""
    try:
        return addressOf(connection.family, connection.getsockname())
    except OSError:
        return None
