"""
The programs that C{tristunnel} itself runs, as C{twistd} runs its own: in the
foreground, without a pid file, and with the log on the standard error output, so that
the standard output has only what is to be opened or pasted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from twisted.scripts.twistd import (  # type: ignore[attr-defined] # the platform's own
    ServerOptions,
    runApp,
)

__all__ = ["PROGRAMS", "Outer", "Program", "parseProgram", "runProgram"]


@dataclass(frozen=True)
class Program:
    """
    A program, as C{twistd} knows those of plugins.

    @ivar tapname: The command.
    @ivar module: Imports the module with C{makeService} and the options' class.
    @ivar description: What it does, for lists.
    @ivar name: The name of that class.
    """

    tapname: str
    module: Callable[[], Any]
    description: str
    name: str = "Options"

    def makeService(self, options: Any) -> Any:
        """Make the service to run."""
        return self.module().makeService(options)

    def options(self) -> Any:
        """Make the options."""
        return getattr(self.module(), self.name)()


# They are large modules, and each command needs at most one of them.
def _server() -> Any:
    from tristunnel.cli import server

    return server


def _client() -> Any:
    from tristunnel.cli import client

    return client


def _connect() -> Any:
    from tristunnel.cli import connect

    return connect


PROGRAMS: Mapping[str, Program] = {
    each.tapname: each
    for each in (
        Program("server", _server, "run a server"),
        Program("http", _client, "share a web server of this machine", "HTTPOptions"),
        Program("tcp", _client, "share a TCP service", "TCPOptions"),
        Program("udp", _client, "share a UDP service", "UDPOptions"),
        Program("client", _client, "share the services listed in a file"),
        Program("connect", _connect, "reach a service by standard input and output"),
        Program("check", _client, "test the connection to a server", "CheckOptions"),
    )
}
"""All programs, by command."""


class Outer(ServerOptions):
    """
    C{twistd}'s own options around those of a program.

    @ivar program: The name of the program on the command line.
    """

    def __init__(self, program: Program) -> None:
        super().__init__()
        self.program = f"tristunnel {program.tapname}"
        self.loadedPlugins: dict[str, Any] = {program.tapname: program}

    @property
    def subCommands(self) -> Iterator[tuple[str, None, Any, str]]:
        for name, program in self.loadedPlugins.items():
            yield name, None, program.options, program.description


def parseProgram(words: Sequence[str]) -> Any:
    """
    Read a command line; a mistake ends the process with one line.

    @param words: A program's name and its arguments.
    @return: The configuration that C{runApp} takes.
    """
    outer = Outer(PROGRAMS[words[0]])
    # Windows has neither daemons nor pid files.
    pidfile = ["--pidfile="] if "pidfile" in outer else []
    outer.parseOptions(["--nodaemon", *pidfile, *words])
    return outer


def runProgram(words: Sequence[str]) -> None:
    """Run a program until it ends; the parameter is that of L{parseProgram}."""
    runApp(parseProgram(words))
