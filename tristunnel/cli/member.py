"""
The program of a member: the same server as its parent's, in the foreground, which
listens on what the parent has opened.
"""

from __future__ import annotations

import os
import socket
import sys
from dataclasses import dataclass
from typing import Any

# The platform's own.
from twisted.scripts.twistd import runApp

from tristunnel.cli.running import PROGRAMS, Outer, Program
from tristunnel.processes.membership import Membership
from tristunnel.processes.parent import CHANNEL

__all__ = ["run"]


@dataclass(frozen=True)
class _MemberProgram(Program):
    """A program whose options are told of their membership."""

    membership: Membership | None = None

    def options(self) -> Any:
        made = super().options()
        made.membership = self.membership
        return made


def _tap() -> Any:
    from tristunnel.cli import server_tap

    return server_tap


def run() -> None:
    """Run until the end."""
    # A terminal sends signals to all processes; the parent passes them on.
    os.setsid()
    connection = socket.socket(fileno=CHANNEL)
    connection.set_inheritable(False)
    own, *words = sys.argv[1:]
    name = next(word for word in words if not word.startswith("-"))
    module = PROGRAMS[name].module if own == "own" else _tap
    try:
        membership = Membership(connection)
    except OSError:
        # The parent ended while this process started.
        return
    program = _MemberProgram(name, module, "a member", "Options", membership)
    outer = Outer(program)
    if own != "own":
        outer.program = ""
    outer.parseOptions(["--nodaemon", "--pidfile=", *words])
    runApp(outer)
