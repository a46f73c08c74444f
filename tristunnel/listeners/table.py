"""
All listeners. A new one is a file and one line here.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tristunnel.listeners.names import NameListeners
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.listeners.udp import UDPListeners
from tristunnel.listeners.unix import UNIXListeners
from tristunnel.model.ports import PortRange
from tristunnel.names.public import PublicNames

__all__ = ["EITHER", "LISTENERS", "ListenerSettings"]


@dataclass(frozen=True)
class ListenerSettings:
    """
    What a server's listeners are made of.

    @ivar reactor: Listens and tells time.
    @ivar interface: The address that ports are opened on; empty for all.
    @ivar localInterface: The one for those who expect the loopback interface.
    @ivar ports: Which ports may be opened.
    @ivar udpIdle: Seconds until a silent UDP visitor is gone.
    @ivar creator: Makes TLS connections for visitors, or C{None}.
    @ivar makeLimiter: Makes what counts TLS handshakes that are not over.
    @ivar names: Names and the ports that they share, or C{None}.
    @ivar unix: The directory of UNIX sockets, or empty, and who may connect.
    """

    reactor: Any
    interface: str
    localInterface: str
    ports: PortRange
    udpIdle: float
    creator: Any
    makeLimiter: Callable[[], Any]
    names: PublicNames | None = None
    unix: tuple[str, int] = ("", 0)


def _tcp(settings: ListenerSettings, creator: Any = None) -> TCPListeners:
    made = TCPListeners(settings.reactor, settings.interface, settings.ports, creator)
    made.handshakes = settings.makeLimiter()
    return made


def _names(
    settings: ListenerSettings, kind: str, scheme: str, certified: bool
) -> NameListeners | None:
    if settings.names is None or scheme not in settings.names.offered:
        return None
    return NameListeners(kind, settings.names, scheme, certified)


LISTENERS: dict[str, Callable[[ListenerSettings], Any]] = {
    "tcp": _tcp,
    "tls": lambda settings: (
        None if settings.creator is None else _tcp(settings, settings.creator)
    ),
    "udp": lambda settings: UDPListeners(
        settings.reactor, settings.interface, settings.ports, settings.udpIdle
    ),
    "loopback": lambda settings: TCPListeners(
        settings.reactor, settings.localInterface, settings.ports, kind="loopback"
    ),
    "http": lambda settings: (
        None if settings.names is None else NameListeners("http", settings.names)
    ),
    "tls-name": lambda settings: _names(settings, "tls-name", "tls", False),
    "minecraft": lambda settings: _names(settings, "minecraft", "minecraft", False),
    "postgres": lambda settings: _names(settings, "postgres", "postgresql", True),
    "unix": lambda settings: (
        UNIXListeners(settings.reactor, *settings.unix) if settings.unix[0] else None
    ),
}

EITHER = {"web": ("http",)}
"""Stands for the first of several listeners that a server has, or else for its
default."""

"""What opens tunnels' public sides, by what C{openTunnel} calls it; C{None} where
this server has none."""
