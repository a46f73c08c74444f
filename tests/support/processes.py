"""
Child processes of a test: our own programs, and others.

A test waits for what a program says, never for time to pass.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import socket
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.process import Process
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

import tristunnel
from tests.support.forkserver import ForkServer, canFork

__all__ = [
    "STEADY",
    "TWISTD",
    "Program",
    "ProgramEnded",
    "freePort",
    "freePorts",
    "leavePorts",
    "pythonWords",
    "runProgram",
    "startProgram",
    "startTristunnel",
    "takePorts",
]

_T = TypeVar("_T")

#: The directory from which C{tristunnel} and its C{twistd} plugins are imported.
_ROOT = Path(tristunnel.__file__).parent.parent

_PATH = os.pathsep.join(filter(None, [str(_ROOT), os.environ.get("PYTHONPATH", "")]))


_PORTS = range(12_000, 19_000)
"""Where no system chooses ports by itself, for outgoing connections above all: those
would take what was free a moment ago."""

STEADY = "19000-31999"
"""Such ports, as C{--ports} takes them, for visitors of a server that is to have them
again after it was away."""

_taken: dict[int, socket.socket] = {}
"""The ports that this process has taken, and what keeps others from taking them."""


def freePort() -> int:
    """
    Take a port that is free for TCP and UDP on the loopback interface.

    For programs that must be told a port; whatever can report its own port is
    given port 0 instead.
    """
    return freePorts(1)


def freePorts(count: int, host: str = "127.0.0.1") -> int:
    """
    Take ports that are free one after the other, for members of a server.

    @return: The first of them.
    """
    while True:
        first = _PORTS.start + secrets.randbelow(len(_PORTS) - count)
        if takePorts(range(first, first + count), host):
            return first


def takePorts(ports: Iterable[int], host: str = "127.0.0.1") -> bool:
    """
    Have ports taken by nobody else, also of the processes whose tests run beside
    ours, until this one ends or leaves them.

    @return: Whether all of them are free, and taken now.
    """
    taken = []
    for port in ports:
        if not _take(port):
            break
        taken.append(port)
        if not _isFree(host, port):
            break
    else:
        return True
    leavePorts(taken)
    return False


def leavePorts(ports: Iterable[int]) -> None:
    """Have no more of ports that were taken."""
    for port in ports:
        _taken.pop(port).close()


def _take(port: int) -> bool:
    if port in _taken:
        return False
    claim = socket.socket(socket.AF_UNIX)
    if sys.platform == "linux":
        try:
            # A name that is no file's, and free again when the process ends.
            claim.bind(f"\0tristunnel test port {port}")
        except OSError:
            claim.close()
            return False
    _taken[port] = claim
    return True


def _isFree(host: str, port: int) -> bool:
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
        with socket.socket(type=kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                return False
    return True


TWISTD = "from twisted.scripts.twistd import run; run()"
"""What runs our own commands."""


class ProgramEnded(Exception):
    """A program ended while a test still waited for it to say something."""


@dataclass
class _Wait:
    """
    One expectation of a line.

    @ivar match: gives something other than L{None} for the awaited line.
    @ivar result: fires with what C{match} gave.
    """

    match: Callable[[str], Any]
    result: Deferred[Any] = field(default_factory=Deferred)


class Program(ProcessProtocol):
    """
    A child process, and all it has said on stdout and stderr, by line.

    @ivar name: what to call it in failures and in the log of the test run.
    @ivar lines: everything said so far, both outputs, oldest first.
    @ivar status: how it ended: its exit status, or the negative number of the
        signal that ended it; C{None} while it runs.
    @ivar since: how many of the lines were looked at, where a test keeps count.
    @ivar place: where it listens, where a test wants to know.
    """

    since = 0
    place: tuple[str, int]

    _log = Logger()

    def __init__(self, name: str) -> None:
        """
        @param name: what to call the program.
        """
        self.name = name
        self.lines: list[str] = []
        self.status: int | None = None
        self._partial = {1: b"", 2: b""}
        self._waits: list[_Wait] = []
        self._ends: list[Deferred[None]] = []
        self._running = True

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """Keep whole lines, and wake whoever waits for one of them."""
        *whole, self._partial[childFD] = (self._partial[childFD] + data).split(b"\n")
        for raw in whole:
            self._said(raw.decode("utf-8", "replace").rstrip("\r"))

    def _said(self, line: str) -> None:
        """Record one line and give it to the expectations it meets."""
        self._log.debug("{name}: {line}", name=self.name, line=line)
        self.lines.append(line)
        for wait in list(self._waits):
            found = wait.match(line)
            if found is not None:
                self._waits.remove(wait)
                wait.result.callback(found)

    def processEnded(self, reason: Failure) -> None:
        """Fail what can no longer happen, and tell those who wait for the end."""
        self._running = False
        self.status = _statusOf(reason)
        said = "\n".join(self.lines[-40:])
        how = "" if reason.check(ProcessDone) else f" ({reason.getErrorMessage()})"
        waits, self._waits = self._waits, []
        for wait in waits:
            wait.result.errback(
                ProgramEnded(f"{self.name} ended{how}. Its last lines:\n{said}")
            )
        ends, self._ends = self._ends, []
        for end in ends:
            end.callback(None)

    def waitFor(
        self, match: Callable[[str], _T | None], since: int = 0
    ) -> Deferred[_T]:
        """
        Wait for a line.

        @param match: called with each line; any result other than L{None} ends
            the wait.
        @param since: skip this many of the lines said so far; C{len(lines)}
            waits for something new.
        @return: fires with what C{match} gave, or fails with L{ProgramEnded}.
        """
        wait = _Wait(match)
        for line in self.lines[since:]:
            found = match(line)
            if found is not None:
                wait.result.callback(found)
                return wait.result
        if self._running:
            self._waits.append(wait)
        else:
            wait.result.errback(ProgramEnded(f"{self.name} has ended already"))
        return wait.result

    def says(self, pattern: str, since: int = 0) -> Deferred[re.Match[str]]:
        """
        Wait for a line in which a regular expression is found.

        @param since: as for L{waitFor}.
        """
        return self.waitFor(re.compile(pattern).search, since)

    def waitForEvent(self, name: str, since: int = 0) -> Deferred[dict[str, Any]]:
        """
        Wait for an event of one of the drivers, which print JSON lines.

        @param name: the C{event} of the line.
        @param since: as for L{waitFor}.
        @return: fires with the whole event.
        """

        def match(line: str) -> dict[str, Any] | None:
            event = _event(line)
            return event if event is not None and event["event"] == name else None

        return self.waitFor(match, since)

    def count(self, name: str) -> int:
        """Count how often a driver has printed an event."""
        events = map(_event, self.lines)
        return sum(event is not None and event["event"] == name for event in events)

    def order(self, word: str) -> None:
        """Send a driver one of its orders."""
        assert self.transport is not None
        self.transport.write(word.encode("ascii") + b"\n")

    def whenEnded(self) -> Deferred[None]:
        """Wait for the end."""
        ended: Deferred[None] = Deferred()
        if self._running:
            self._ends.append(ended)
        else:
            ended.callback(None)
        return ended

    def signal(self, name: str) -> None:
        """Send a signal, C{"TERM"} or C{"KILL"}, unless it has ended."""
        # If it has exited already, the end itself is about to be reported.
        with suppress(ProcessExitedAlready):
            if self._running and self.transport is not None:
                self.transport.signalProcess(name)

    def stop(self) -> Deferred[None]:
        """
        End the program with SIGTERM.

        @return: fires when it has ended; at once if it has already.
        """
        self.signal("TERM")
        return self.whenEnded()

    def kill(self) -> Deferred[None]:
        """
        End the program with SIGKILL.

        @return: fires when it has ended.
        """
        self.signal("KILL")
        return self.whenEnded()


def _event(line: str) -> dict[str, Any] | None:
    """
    Read a line as a driver's event.

    @return: L{None} if the line is anything else.
    """
    if not line.startswith('{"event":'):
        return None
    event: dict[str, Any] = json.loads(line)
    return event


def startTristunnel(
    reactor: IReactorProcess,
    command: str,
    options: Sequence[str],
    directory: Path,
    environment: Mapping[str, str] | None = None,
    childFDs: Mapping[int, Any] | None = None,
    code: str = TWISTD,
    fresh: bool = False,
) -> Program:
    """
    Start our own server or client under C{twistd}.

    @param command: C{tunnel} or C{tunnel-client}.
    @param options: its options.
    @param directory: its working directory, which must exist.
    @param environment: what else is in its environment.
    @param childFDs: its descriptors, as for C{spawnProcess}.
    @param code: what runs C{twistd}.
    @param fresh: as for L{startProgram}.
    """
    return startProgram(
        reactor,
        f"our {command}",
        [sys.executable, "-c", code, "-n", "--pidfile=", command, *options],
        directory,
        environment,
        childFDs,
        fresh,
    )


def startProgram(
    reactor: IReactorProcess,
    name: str,
    command: Sequence[str],
    directory: Path,
    environment: Mapping[str, str] | None = None,
    childFDs: Mapping[int, Any] | None = None,
    fresh: bool = False,
) -> Program:
    """
    Start a program that can import this checkout. One of Python's is forked from a
    process that has imported it, if that makes no difference.

    @param name: what to call it.
    @param command: the program and its arguments.
    @param directory: as for L{startTristunnel}, like the rest.
    @param fresh: whether to execute it in any case: its imports, its memory or the
        command line that others see are what is tested.
    """
    program = Program(name)
    _spawn(reactor, program, command, str(directory), environment, childFDs, fresh)
    return program


def runProgram(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    directory: str = ".",
) -> Deferred[tuple[bytes, bytes, int]]:
    """
    Run a program to its end, as L{startProgram} would, without any input.

    @return: fires with its output, its error output and its exit status, or the
        negative number of the signal that ended it.
    """
    from twisted.internet import reactor

    run = _Run()
    starting: Any = reactor
    _spawn(starting, run, command, directory, environment)
    return run.ended


class _Run(ProcessProtocol):
    def __init__(self) -> None:
        self.ended: Deferred[tuple[bytes, bytes, int]] = Deferred()
        self._said = {1: b"", 2: b""}

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.closeStdin()

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        self._said[childFD] += data

    def processEnded(self, reason: Failure) -> None:
        self.ended.callback((self._said[1], self._said[2], _statusOf(reason)))


def _statusOf(reason: Failure) -> int:
    value: Any = reason.value
    return -value.signal if value.signal else (value.exitCode or 0)


def _spawn(
    reactor: IReactorProcess,
    protocol: ProcessProtocol,
    command: Sequence[str],
    directory: str,
    environment: Mapping[str, str] | None,
    childFDs: Mapping[int, Any] | None = None,
    fresh: bool = False,
) -> None:
    around = {**os.environ, "PYTHONPATH": _PATH, **(environment or {})}
    server = _forkServer()
    words = list(command)
    if fresh or server is None or not server.runs(words, around):
        reactor.spawnProcess(
            protocol, words[0], words, env=around, path=directory, childFDs=childFDs
        )
    else:
        _Forked(
            reactor, words[0], words, around, directory, protocol, childFDs=childFDs
        )


def pythonWords() -> list[str]:
    """
    What a shell, or C{subprocess}, writes in place of C{python} to run a program that
    can be forked, in front of C{-c}, C{-m} or a file.
    """
    server = _forkServer()
    return [sys.executable] if server is None else server.words


@cache
def _forkServer() -> ForkServer | None:
    wanted = not os.environ.get("TRISTUNNEL_FRESH") and canFork()
    return ForkServer(_PATH) if wanted else None


class _Forked(Process):
    """A process that was not executed."""

    def _trySpawnInsteadOfFork(
        self,
        path: str,
        uid: None,
        gid: None,
        executable: str,
        args: Sequence[str],
        environment: Mapping[str, str],
        kwargs: Mapping[str, Any],
    ) -> bool:
        server = _forkServer()
        assert server is not None
        self.pid = server.start(args[1:], environment, path, kwargs["fdmap"])
        self.status = -1
        return True
