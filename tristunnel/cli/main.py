"""The command C{tristunnel}: it runs servers and clients, and looks after them."""

from __future__ import annotations

import os
import re
import sys
import textwrap
from argparse import Namespace, _SubParsersAction
from collections.abc import Mapping, Sequence
from dataclasses import replace
from inspect import iscoroutinefunction
from typing import Any

from tristunnel.cli.access import addAccessCommands
from tristunnel.cli.cluster import addClusterCommands
from tristunnel.cli.completion import (
    CommandLine,
    addCompletionCommand,
    commandLines,
    optionsOf,
)
from tristunnel.cli.install import addInstallCommand
from tristunnel.cli.invite import addInviteCommand
from tristunnel.cli.join import addJoinCommand
from tristunnel.cli.requests import addRequestsCommands
from tristunnel.cli.running import PROGRAMS, parseProgram, runProgram
from tristunnel.cli.status import addStatusCommand
from tristunnel.cli.token import addTokenCommands
from tristunnel.config.help import helpWidth
from tristunnel.errors import TunnelError, printable
from tristunnel.util.command_line import Parser, endWithUsage
from tristunnel.util.words import nearest
from tristunnel.version import VERSION

__all__ = ["main", "parser", "places"]


_USAGE = """\
Usage: tristunnel COMMAND ...

On a machine that visitors can reach, run a server;
on your own machine join it, and share what runs there:

  tristunnel server                     # prints an invitation
  tristunnel join t.example.com#CODE    # the invitation, once
  tristunnel http 3000                  # prints the public address

Sharing:
{programs}

Managing it:
{others}

'tristunnel COMMAND --help' explains each command.
"""


_SERVICE = re.compile(r"(https?://)?([^:/]*:)?[0-9]+/?|[./~].*", re.ASCII)


_MEANT = {
    **dict.fromkeys(("expose", "share", "forward", "web", "https"), "http"),
    "local": "tcp",
    **dict.fromkeys(("serve", "host", "daemon"), "server"),
    **dict.fromkeys(("start", "run", "up"), "server or client"),
    **dict.fromkeys(("login", "auth", "register", "accept", "enroll"), "join"),
    **dict.fromkeys(("list", "ls", "ps", "show", "info", "logs"), "status"),
    **dict.fromkeys(("uninstall", "remove", "stop", "down"), "install --remove"),
    **dict.fromkeys(("service", "enable", "systemd"), "install"),
    **dict.fromkeys(("doctor", "test", "ping"), "check"),
    **dict.fromkeys(("config", "configure"), "join, or client --config FILE"),
    **dict.fromkeys(("tunnel", "proxy", "visitor"), "http, tcp or udp"),
    "version": "--version",
}
"""Our commands by the words that other programs use for them."""


class _Whole(Parser):
    def format_help(self) -> str:
        programs = {name: each.description for name, each in PROGRAMS.items()}
        tables = [_table(programs), _table(self.others)]
        return _USAGE.format(programs=tables[0], others=tables[1])

    @property
    def others(self) -> dict[str, str]:
        """What each command that is not a program does."""
        (commands,) = (
            each for each in self._actions if isinstance(each, _SubParsersAction)
        )
        return {each.dest: each.help or "" for each in commands._choices_actions}


def _table(rows: Mapping[str, str]) -> str:
    return "\n".join(
        textwrap.fill(f"  {name:12}{text}", helpWidth(), subsequent_indent=" " * 14)
        for name, text in rows.items()
    )


def parser() -> _Whole:
    """Make the parser of all commands that end by themselves."""
    made = _Whole(prog="tristunnel")
    version = f"tristunnel {VERSION}"
    made.add_argument("--version", action="version", version=version)
    commands = made.add_subparsers(
        metavar="COMMAND", required=True, parser_class=Parser
    )
    addJoinCommand(commands)
    addInviteCommand(commands)
    addTokenCommands(commands)
    addStatusCommand(commands)
    addRequestsCommands(commands)
    addAccessCommands(commands)
    addClusterCommands(commands)
    addInstallCommand(commands, parseProgram)
    addCompletionCommand(commands, lambda: places(made))
    return made


def places(made: _Whole) -> list[CommandLine]:
    """All positions in our command lines, those of programs included."""
    *others, whole = commandLines(made)
    texts = {name: each.description for name, each in PROGRAMS.items()}
    return [
        *others,
        replace(whole, commands={**texts, **whole.commands}),
        *(
            CommandLine((name,), optionsOf(each.options()), {})
            for name, each in PROGRAMS.items()
        ),
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Run a command.

    @param arguments: Without the name of the program; the command line's, if
        they are left out.
    @return: The exit status: 0, or 1 after one line on the standard error
        output. A wrong command line ends the program with 2.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = _main(words)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:
        # The reader of our output has closed it; nothing is left to flush.
        sys.stderr.close()
        return 1
    except OSError as error:
        if error.filename is not None:
            raise
        print(
            f"tristunnel: the output cannot be written: {error.strerror}; make room, or"
            " send it elsewhere",
            file=sys.stderr,
        )
        # The rest must not be written again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    return status


def _main(words: list[str]) -> int:
    if words and words[0] in PROGRAMS:
        runProgram(words)
        return 0
    made = parser()
    if not words:
        print(made.format_help(), end="", file=sys.stderr)
        return 2
    if words[0] in ("help", "--help", "-h"):
        words = [*words[1:], "--help"] if words[1:2] else ["--help"]
        if words[0] in PROGRAMS:
            runProgram(words)
            return 0
    _checkFirst(made, words)
    options = made.parse_args(words)
    try:
        if iscoroutinefunction(options.run):
            _await(options)
        else:
            options.run(options)
    except TunnelError as error:
        print(f"tristunnel: {error.message}", file=sys.stderr)
        return 1
    return 0


def _checkFirst(made: _Whole, words: Sequence[str]) -> None:
    """End the program with one line if the first word is not a command."""
    known = [*made.others, *PROGRAMS]
    if words[0].startswith("-"):
        if words[0] not in made._option_string_actions:
            near = nearest(words[0].lstrip("-"), ("help", "version"), "--")
            if set(words) & set(known):
                near = "; the options of a command follow it"
            made.error(f"unknown option {words[0].partition('=')[0]}{near}")
    elif words[0] not in made.others:
        told = printable(words[0], 60)
        meant = _MEANT.get(told.lower())
        hint = f"; did you mean {meant}?" if meant else nearest(told, known)
        hint = hint or "; see tristunnel --help"
        if "#" in told:
            # Not repeated in the message: it is a secret.
            told, hint = "HOST#CODE", "; did you mean join, for an invitation?"
        elif _SERVICE.fullmatch(told):
            hint = f"; did you mean http {told}?"
        endWithUsage("tristunnel", f"unknown command {told!r}{hint}")


def _await(options: Namespace) -> None:
    """Run a command that needs the reactor."""
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
