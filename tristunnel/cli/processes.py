"""A server in several processes: which options cannot be divided, and the parent."""

from __future__ import annotations

import select
from typing import Any

from twisted.application.service import MultiService, Service
from twisted.internet.posixbase import PosixReactorBase
from twisted.logger import Logger

from tristunnel.cli.name_options import NAME_PORTS
from tristunnel.errors import TunnelError, badOption
from tristunnel.processes.channel import MOST_DESCRIPTORS
from tristunnel.processes.copies import CopyingReactor, checkCopied
from tristunnel.processes.parent import ParentService, PortPlace, memberCommand
from tristunnel.server.options import ServerOptions
from tristunnel.util.logs import Log
from tristunnel.util.platform import HANG_UP
from tristunnel.util.process import (
    ReloadSignalService,
    exitWith,
    hurryOnSecondSignal,
    stopSoon,
)

__all__ = ["MOST_PROCESSES", "checkProcesses", "makeParent"]

MOST_PROCESSES = 64
"""The most processes of a server: each has a channel to each other one."""

_log = Logger(namespace="tristunnel.parent")


def checkProcesses(options: ServerOptions) -> None:
    """
    @raise TunnelError: C{bad-option}, for options that several processes cannot serve.
    """
    if options.processes == 1:
        return
    if options["demo"]:
        raise badOption("--demo runs in one process: leave --processes out")
    outer = getattr(options, "parent", None) or {}
    if outer.get("chroot"):
        raise badOption(
            "--processes starts programs, which twistd's --chroot hides: leave one of"
            " them out"
        )
    if not hasattr(select, "epoll"):
        raise badOption("--processes needs Linux: leave it out")
    if len(options.allPorts) > MOST_DESCRIPTORS:
        raise badOption(
            f"--processes goes with {MOST_DESCRIPTORS} ports at most: leave it out, or"
            " some of --port"
        )
    for port in options.allPorts:
        checkCopied(port.option, port.description)


def _commandOf(options: Any) -> list[str]:
    """
    Write the command line of a member.

    @param options: The parent's, within those of C{twistd}.
    """
    outer = options.parent
    own = "own" if getattr(outer, "program", "") else "twistd"
    more = [
        f"--{name}={outer[name]}" for name in ("reactor", "logger") if outer.get(name)
    ]
    words = [own, *more, outer.subCommand, *options.arguments]
    # The ports in the file as it is now: a member that is started again has the sockets
    # of this parent, whatever the file says then.
    for option in ("port", *NAME_PORTS):
        if option not in options.told:
            for port in options[option]:
                words += [f"--{option}", port]
    if options["rpc"] and "rpc" not in options.told:
        words += ["--rpc", options["rpc"]]
    return memberCommand("tristunnel.cli.member", *words)


def makeParent(reactor: Any, options: Any, log: Log) -> Service:
    """
    Make what runs the members.

    @param reactor: The process's.
    @param options: The server's, which no member has taken yet.
    @param log: Where the members' log lines go, too.
    """
    below = getattr(getattr(reactor, "poller", None), "reactor", reactor)
    if not isinstance(below, PosixReactorBase):
        raise SystemExit("Cannot start: --processes needs another --reactor: epoll")
    copying = CopyingReactor(below, options.processes)
    options.makePorts(copying)

    def failed(reason: TunnelError) -> None:
        _log.critical("Cannot start: {reason}", reason=reason)
        exitWith(1)
        stopSoon(below)

    parent = ParentService(
        below,
        copying,
        [
            PortPlace(f"{port.option} {port.description}", port.endpoint)
            for port in options.allPorts
        ],
        _commandOf(options),
        options["lease"],
        log.line,
        failed,
        options["grace"],
    )

    def reload() -> None:
        assert HANG_UP is not None
        parent.signal(HANG_UP)

    both = MultiService()
    ReloadSignalService(below, log, reload).setServiceParent(both)
    parent.setServiceParent(both)
    below.addSystemEventTrigger(
        "before", "shutdown", hurryOnSecondSignal, below, parent.hurry
    )
    return both
