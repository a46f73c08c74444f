"""
Ports that cannot be had: what to say, and to say it while somebody listens.

A program in the background has no terminal any more when it opens its ports,
and has told its shell that all is well. So it tries them before.
"""

from __future__ import annotations

import errno
import sys
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.tcp import Port
from twisted.python.failure import Failure

from tristunnel.errors import TunnelError

__all__ = ["cannotListen", "checkBeforeFork", "checkWritable", "inBackground"]

_CURES: dict[int | None, tuple[str, str]] = {
    errno.EADDRINUSE: ("port-taken", "choose another or stop what holds it"),
    errno.EACCES: (
        "port-not-permitted",
        "choose one above 1023, or give this program CAP_NET_BIND_SERVICE",
    ),
    errno.EADDRNOTAVAIL: ("bad-option", "this machine has no such address"),
}
"""What a port cannot be had for, and what to do about it."""


def cannotListen(what: str, failure: Failure) -> TunnelError:
    """
    Say why a port cannot be had.

    @param what: The option, and the endpoint it names.
    @param failure: How listening failed.
    """
    error = getattr(failure.value, "socketError", failure.value)
    why = getattr(error, "strerror", None) or str(error)
    number = getattr(error, "errno", None)
    code, cure = _CURES.get(number, ("bad-option", "choose another"))
    return TunnelError(code, f"{what} cannot be listened on: {why}; {cure}")


def inBackground(outer: Mapping[str, Any] | None) -> bool:
    """
    @param outer: The options of C{twistd} itself, or C{None}.
    @return: Whether it is to leave its terminal.
    """
    return (
        outer is not None
        and "nodaemon" in outer
        and not (outer["nodaemon"] or outer.get("debug"))
    )


def checkBeforeFork(
    outer: Mapping[str, Any] | None,
    ports: Iterable[tuple[str, IStreamServerEndpoint]],
    directory: Path | None = None,
) -> None:
    """
    End the process with one line on standard error, and status 1, if it is to go
    to the background and would fail there.

    @param outer: The options of C{twistd} itself.
    @param ports: What is to be listened on, each with the option and the endpoint
        that the user wrote.
    @param directory: Where state is to be kept.
    """
    # In another root directory, paths mean something else.
    if not inBackground(outer) or (outer or {}).get("chroot"):
        return
    for what, endpoint in ports:
        # Sockets of systemd's are there already, and can be taken once.
        if "systemd:" not in what:
            _try(what, endpoint)
    if directory is not None:
        try:
            checkWritable(directory)
        except TunnelError as reason:
            _cannotStart(reason)


def checkWritable(directory: Path) -> None:
    """
    Find out whether a directory, which may have to be made, can be written to.

    @raise TunnelError: C{bad-option}.
    """
    there = directory
    while not there.exists():
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise TunnelError(
            "bad-option",
            f"{directory} cannot be written to ({error.strerror}): give --state-dir, or"
            " let this user write there",
        ) from None


def _try(what: str, endpoint: IStreamServerEndpoint) -> None:
    factory = Factory.forProtocol(Protocol)
    factory.noisy = False
    listening = maybeDeferred(endpoint.listen, factory)
    failures: list[Failure] = []
    opened: list[Any] = []
    listening.addCallbacks(opened.append, failures.append)
    for failure in failures:
        _cannotStart(cannotListen(what, failure))
    for port in opened:
        if isinstance(port, Port):
            # At once: the reactor does not run before the fork.
            port.connectionLost(Failure(ConnectionDone()))
        else:
            port.stopListening()


def _cannotStart(reason: TunnelError) -> None:
    sys.exit(f"Cannot start: {reason}")
