"""
Whether a service of this machine listens, by the kernel's tables, or, where there are
none, by binding to the same port: connecting would count as a visit, and some services
accept only one.
"""

from __future__ import annotations

import errno
import socket
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from tristunnel.connect.endpoints import EndpointParts, isKind
from tristunnel.model.observer import ClientObserver
from tristunnel.util.hosts import parsePlace

__all__ = ["INTERVAL", "ServiceWatch", "isListening"]

INTERVAL = 3.0
"""Seconds between two looks for a service that did not listen."""

_TABLES = Path("/proc/net")
_LISTEN = "0A"
_ACCEPTS = 0x10000
_Address = IPv4Address | IPv6Address


def isListening(target: str, tables: Path = _TABLES) -> bool | None:
    """
    Whether anything listens at a service's address, without connecting there.

    @param target: As a forward has it: C{HOST:PORT}, C{tls:HOST:PORT},
        C{unix:PATH}.
    @param tables: Where the kernel lists sockets, as Linux does in C{/proc/net}.
    @return: C{None} if that is on another machine, or is not known. Without tables, a
        port that anybody uses counts as one where somebody listens.
    """
    try:
        if not isKind(target):
            return _listensAt(*parsePlace(target), tables)
        parts = EndpointParts(target)
        if parts.kind == "unix":
            return _listensOn(parts["path"] or _pathOf(parts.text), tables)
        return _listensAt(parts.host, parts.port, tables) if parts.port else None
    except (OSError, ValueError, LookupError):
        return None


def _pathOf(text: str) -> str:
    return text.removeprefix("unix:").partition(":")[0]


def _listensAt(host: str, port: int, tables: Path) -> bool | None:
    loopback: _Address | None = None
    if host.lower().rstrip(".") != "localhost":
        loopback = ip_address(host.strip("[]"))
        if not loopback.is_loopback:
            return None
    if not tables.exists():
        hosts = ("127.0.0.1", "::1") if loopback is None else (str(loopback),)
        taken = [_isTaken(each, port) for each in hosts]
        return True if True in taken else None if None in taken else False
    listeners = _listeners(tables, "tcp"), _listeners(tables, "tcp6")
    for address, number in (each for table in listeners for each in table):
        if number == port and (
            address.is_unspecified
            or address == loopback
            or (loopback is None and address.is_loopback)
        ):
            return True
    return False


def _isTaken(host: str, port: int) -> bool | None:
    """
    Whether a port cannot be bound to because somebody has it. Otherwise, it is released
    at once.

    @return: C{None} if it cannot be bound to for another reason.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            # On Windows, ports are shared unless they are asked for exclusively.
            if alone := getattr(socket, "SO_EXCLUSIVEADDRUSE", 0):
                probe.setsockopt(socket.SOL_SOCKET, alone, 1)
            probe.bind((host, port))
    except OSError as error:
        if error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
            # There is no IPv6: nobody listens there.
            return False
        return True if error.errno == errno.EADDRINUSE else None
    return False


def _listeners(tables: Path, name: str) -> Iterator[tuple[_Address, int]]:
    try:
        lines = (tables / name).open()
    except FileNotFoundError:
        if name == "tcp":
            raise
        # There is no IPv6.
        return
    with lines:
        next(lines, None)
        for line in lines:
            _, local, _, state, *_ = line.split()
            if state != _LISTEN:
                # Those that listen come first, and there may be very many others.
                return
            address, _, port = local.partition(":")
            yield _address(address), int(port, 16)


def _address(text: str) -> _Address:
    """Read words of 32 bits in the order of this machine's bytes."""
    words = bytes.fromhex(text)
    turn = -1 if sys.byteorder == "little" else 1
    packed = b"".join(words[i : i + 4][::turn] for i in range(0, len(words), 4))
    found = ip_address(packed)
    return getattr(found, "ipv4_mapped", None) or found


def _listensOn(path: str, tables: Path) -> bool | None:
    if not tables.exists():
        return None if Path(path).exists() else False
    with (tables / "unix").open() as lines:
        next(lines, None)
        for line in lines:
            fields = line.split(maxsplit=7)
            if len(fields) == 8 and fields[7].rstrip("\n") == path:
                return bool(int(fields[3], 16) & _ACCEPTS)
    return False


@dataclass(eq=False)
class ServiceWatch(ClientObserver):
    """
    Checks whether a service listens when its tunnel opens, and if it does not, again
    until it does.

    @ivar reactor: Tells time.
    @ivar told: Told of services that do not listen, and that listen then.
    @ivar check: Finds out, like L{isListening}.
    """

    reactor: Any
    told: ClientObserver
    check: Callable[[str], bool | None] = isListening
    _missing: set[str] = field(init=False, default_factory=set)
    _next: IDelayedCall | None = field(init=False, default=None)

    def tunnelReady(self, address: str, target: str) -> None:
        if target not in self._missing and self.check(target) is False:
            self._missing.add(target)
            self.told.serviceMissing(target)
            if self._next is None:
                self._next = self.reactor.callLater(INTERVAL, self._look)

    def serviceConnected(self, target: str) -> None:
        if self._missing:
            self._found(target)

    def stopped(self) -> None:
        self._missing.clear()
        if self._next is not None:
            self._next.cancel()
            self._next = None

    def _look(self) -> None:
        self._next = None
        for target in list(self._missing):
            if self.check(target) is not False:
                self._found(target)
        if self._missing:
            self._next = self.reactor.callLater(INTERVAL, self._look)

    def _found(self, target: str) -> None:
        if target in self._missing:
            self._missing.discard(target)
            self.told.serviceFound(target)
