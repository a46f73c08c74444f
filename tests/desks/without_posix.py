"""
A program run without what Windows and macOS lack: C{python -m tests.desks.without_posix
REACTOR PROGRAM ARGUMENT...}.

The modules of L{REFUSED} cannot be imported by C{tristunnel}; Twisted itself, which has
other ways there, may have them here. There is no epoll, and no splice.
"""

from __future__ import annotations

import builtins
import os
import runpy
import select
import signal
import socket
import sys
from types import ModuleType
from typing import Any

REFUSED = {"fcntl", "resource", "termios", "tty", "pty", "pwd", "grp"}

GONE: dict[Any, tuple[str, ...]] = {
    # Its numbers stay: the selectors of asyncio have them.
    select: ("epoll",),
    os: ("splice", "pipe2", "fchmod", "sysconf"),
    socket: ("MSG_DONTWAIT",),
    signal: ("SIGUSR1", "SIGTSTP", "SIGQUIT"),
}


def _locks() -> Any:
    """What Windows has to lock files, made of what there is here."""
    import fcntl

    made: Any = ModuleType("msvcrt")
    made.LK_LOCK, made.LK_NBLCK = 1, 2

    def locking(descriptor: int, mode: int, size: int) -> None:
        how = fcntl.LOCK_NB if mode == made.LK_NBLCK else 0
        fcntl.flock(descriptor, fcntl.LOCK_EX | how)

    made.locking = locking
    return made


def refuse() -> None:
    sys.modules["msvcrt"] = _locks()
    imported = builtins.__import__

    def check(name: str, globals: Any = None, *others: Any, **more: Any) -> Any:
        importer = str((globals or {}).get("__name__", ""))
        ours = importer.partition(".")[0] == "tristunnel"
        if ours and name.partition(".")[0] in REFUSED:
            raise ImportError(f"{importer} may not import {name}")
        return imported(name, globals, *others, **more)

    builtins.__import__ = check
    for module, names in GONE.items():
        for name in names:
            if hasattr(module, name):
                delattr(module, name)


def main() -> None:
    reactor, program, *arguments = sys.argv[1:]
    # What Twisted and Python need of it is there before.
    import subprocess
    import tempfile

    import platformdirs
    import twisted.internet.process
    import twisted.internet.unix
    from twisted.application.reactors import installReactor

    del platformdirs, subprocess, tempfile, twisted
    refuse()
    installReactor(reactor)
    sys.argv = [program, *arguments]
    if os.sep in program:
        runpy.run_path(program, run_name="__main__")
    else:
        runpy.run_module(program, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
