"""The command C{tristunnel}: what an operator does beside running C{twistd}."""

from __future__ import annotations

import sys
from argparse import Namespace
from collections.abc import Sequence
from inspect import iscoroutinefunction
from typing import Any

from tristunnel.cli.access import addAccessCommands
from tristunnel.cli.completion import addCompletionCommand, commandLines
from tristunnel.cli.install import addInstallCommand
from tristunnel.cli.invite import addInviteCommand
from tristunnel.cli.join import addJoinCommand
from tristunnel.cli.status import addStatusCommand
from tristunnel.cli.token import addTokenCommands
from tristunnel.errors import TunnelError
from tristunnel.util.command_line import Parser
from tristunnel.version import VERSION

__all__ = ["main", "parser"]


def parser() -> Parser:
    """All commands."""
    made = Parser(
        prog="tristunnel",
        description="What goes with the server, twistd tunnel, and the client,"
        " twistd tunnel-client.",
    )
    version = f"tristunnel {VERSION}"
    made.add_argument("--version", action="version", version=version)
    commands = made.add_subparsers(metavar="COMMAND", required=True)
    addTokenCommands(commands)
    addInviteCommand(commands)
    addJoinCommand(commands)
    addInstallCommand(commands, lambda words: made.parse_args(words))
    addCompletionCommand(commands, lambda: list(commandLines(made)))
    addAccessCommands(commands)
    addStatusCommand(commands)
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command.

    @param arguments: Without the name of the program; the command line's, if
        they are left out.
    @return: The exit status: 0, or 1 after one line on the standard error
        output. A wrong command line ends the program with 2.
    """
    options = parser().parse_args(arguments)
    try:
        if iscoroutinefunction(options.run):
            _await(options)
        else:
            options.run(options)
    except TunnelError as error:
        print(f"tristunnel: {error.message}", file=sys.stderr)
        return 1
    except BrokenPipeError:
        # Whoever read the output has seen enough; nothing else to flush.
        sys.stderr.close()
        return 1
    return 0


def _await(options: Namespace) -> None:
    """Run a command that connects somewhere."""
    from twisted.internet import reactor
    from twisted.internet.task import react

    problems: list[TunnelError | BrokenPipeError] = []

    async def command(reactor: Any) -> None:
        try:
            await options.run(reactor, options)
        except (TunnelError, BrokenPipeError) as error:
            problems.append(error)

    try:
        react(command, [], _reactor=reactor)
    except SystemExit as error:
        if error.code:
            raise
    if problems:
        raise problems[0]
