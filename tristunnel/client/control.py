"""
Where C{tristunnel status} and C{tristunnel access} query running programs: JSON-RPC on
a socket that only its user can open, or on the loopback interface.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.endpoints import UNIXServerEndpoint
from twisted.internet.interfaces import IListeningPort, IStreamServerEndpoint
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.auth.realm import Authenticator
from tristunnel.client.status import VISITORS, ProcessStatus
from tristunnel.errors import TunnelError, badOption
from tristunnel.forwards.destinations import isOurs
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.resource import JSONRPCResource
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import rootOf
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.util.endpoints import (
    cannotListen,
    listenInFull,
    serverEndpoint,
    splitEndpoint,
    whyNoEndpoint,
)
from tristunnel.util.hosts import addressText

__all__ = [
    "OFF",
    "ClientControl",
    "ControlPort",
    "accessSocket",
    "accessSockets",
    "clientSocket",
    "clientSockets",
    "parseControl",
    "statusMethods",
]

OFF = "off"
"""The value of C{--rpc} for none."""

_HOSTNAMES = ("localhost", "127.0.0.1", "::1")
_MOST_VISITORS = 10_000


@dataclass(frozen=True)
class ControlPort:
    """
    Where calls are answered.

    @ivar description: As messages name it.
    @ivar endpoint: Where to listen.
    @ivar path: The path of the default socket, in a directory of its own; C{None} for a
        port that was asked for, without which the program ends.
    @ivar without: What is impossible without that socket, and the cure.
    """

    description: str
    endpoint: IStreamServerEndpoint
    path: Path | None = None
    without: str = ""


def clientSockets(stateDirectory: Path) -> Path:
    """Find the directory of running clients' sockets."""
    return stateDirectory / "clients"


def accessSockets(stateDirectory: Path) -> Path:
    """Find the directory of the sockets of on-demand access."""
    return stateDirectory / "access"


def clientSocket(reactor: Any, stateDirectory: Path) -> ControlPort:
    """
    Make the default socket of this process. It has a new name each time, since a
    process that was killed leaves its socket behind.
    """
    return _ownSocket(
        reactor,
        clientSockets(stateDirectory) / f"{secrets.token_hex(4)}.sock",
        "'tristunnel status' will not find this client; give it --rpc unix:PATH, or"
        " --rpc off",
    )


def accessSocket(reactor: Any, stateDirectory: Path, id: str) -> ControlPort:
    """
    Make the socket of an on-demand access.

    @param id: The name of the access in lists.
    """
    return _ownSocket(
        reactor,
        accessSockets(stateDirectory) / f"{id}.sock",
        "'tristunnel access' will not know of this access; give it a writable"
        " --state-dir with a short name",
    )


def _ownSocket(reactor: Any, path: Path, without: str) -> ControlPort:
    endpoint = UNIXServerEndpoint(reactor, str(path), mode=0o600)
    return ControlPort(f"unix:{path}", endpoint, path, without)


def parseControl(reactor: Any, description: str) -> ControlPort:
    """
    Read C{--rpc} of a client.

    @raise TunnelError: C{bad-option}.
    """
    written = listenInFull(description, interface="127.0.0.1")
    prefix, parts, keywords = splitEndpoint(written)
    if prefix == "unix":
        if "mode" not in keywords:
            written += ":mode=600"
    elif prefix not in ("tcp", "tcp6"):
        raise badOption(
            f"--rpc {description!r}: write unix:PATH, tcp:PORT:interface=127.0.0.1, or"
            f" {OFF}"
        )
    elif not _isLoopback(keywords.get("interface", "")):
        # Anybody who can connect may make calls: no password is needed.
        raise badOption(
            f"--rpc {description!r} would answer other machines; write"
            f" {prefix}:{parts[0] if parts else 'PORT'}:interface="
            + ("127.0.0.1" if prefix == "tcp" else "[::1]")
            + ", or unix:PATH"
        )
    try:
        endpoint = serverEndpoint(reactor, written)
    except Exception as error:
        # Endpoint parsers raise all kinds of errors.
        raise badOption(
            f"--rpc {description!r} is not a valid endpoint"
            f" ({whyNoEndpoint(prefix, error)});"
            " write unix:PATH or tcp:PORT:interface=127.0.0.1"
        ) from None
    return ControlPort(description, endpoint)


def _isLoopback(interface: str) -> bool:
    try:
        return ip_address(interface).is_loopback
    except ValueError:
        return False


def statusMethods(status: ProcessStatus) -> dict[str, Callable[..., object]]:
    """Make the calls about what a client does."""

    def listVisitors(caller: object, limit: int = VISITORS) -> list[dict[str, object]]:
        if type(limit) is not int or not 0 < limit <= _MOST_VISITORS:
            raise badOption(f"limit takes a number from 1 to {_MOST_VISITORS}")
        return status.visitors(limit)

    return {
        "status": lambda caller: status.describe(),
        "listTunnels": lambda caller: status.tunnels(),
        "listVisitors": listVisitors,
    }


@dataclass(eq=False, repr=False)
class ClientControl(Service):
    """
    Answers calls.

    @ivar reactor: Listens and tells time.
    @ivar port: Where.
    @ivar methods: What can be called, by name; others may add to it. Each takes
        the caller and its own parameters.
    @ivar failed: Called with the reason if a port that was asked for cannot be
        opened.
    """

    _log = Logger(namespace="tristunnel.client")

    reactor: Any
    port: ControlPort
    methods: Mapping[str, Callable[..., object]]
    failed: Callable[[TunnelError], None] = lambda reason: None

    def __post_init__(self) -> None:
        self._listening: IListeningPort | None = None

    def startService(self) -> None:
        super().startService()
        page = JSONRPCResource(
            Dispatcher(self.methods.get),
            HTTPCallers(Authenticator()),
            hostnames=_HOSTNAMES,
        )
        site = LimitedSite(rootOf({b"rpc": page}), reactor=self.reactor)
        site.noisy = False
        try:
            if (path := self.port.path) is not None:
                path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
                os.chmod(path.parent, 0o700)
            with _forNobodyElse():
                opening = maybeDeferred(self.port.endpoint.listen, site)
        except OSError as error:
            self._notOpened(Failure(error))
            return
        opening.addCallbacks(self._opened, self._notOpened)

    def _opened(self, listening: IListeningPort) -> None:
        self._listening = listening
        isOurs(listening)
        self._log.debug(
            "Answering calls at {where}", where=addressText(listening.getHost())
        )

    def _notOpened(self, failure: Failure) -> None:
        error = getattr(failure.value, "socketError", failure.value)
        why = getattr(error, "strerror", None) or str(error)
        if self.port.path is None:
            reason = cannotListen(f"--rpc {self.port.description}", failure)
            self._log.critical("Cannot start: {reason}", reason=reason)
            self.failed(reason)
            return
        self._log.info(
            "{where} cannot be opened ({why}): {without}",
            where=self.port.description,
            why=why,
            without=self.port.without,
        )

    def stopService(self) -> Deferred[object]:
        super().stopService()
        listening, self._listening = self._listening, None
        if listening is None:
            return succeed(None)
        isOurs(listening, False)
        return maybeDeferred(listening.stopListening)


@contextmanager
def _forNobodyElse() -> Iterator[None]:
    """
    Keep others out of a socket from its first moment: its mode is only set after it
    exists.
    """
    before = os.umask(0o177)
    try:
        yield
    finally:
        os.umask(before)
