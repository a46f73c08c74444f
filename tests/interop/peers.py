"""
Other programs as child processes of a test: the real peers, and ours.

A test waits for what a program says, never for time to pass. Programs are
named by the environment, because none of the peers is part of this project:

  - C{TRISTUNNEL_W3P}: the directory of a checkout of W3P's tunnel;
  - C{TRISTUNNEL_NODE}: a C{node} of version 23 or later.
"""

from __future__ import annotations

import json
import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.interfaces import IReactorProcess
from twisted.internet.protocol import ProcessProtocol
from twisted.logger import Logger
from twisted.python.failure import Failure

import tristunnel

_T = TypeVar("_T")

_HERE = Path(__file__).parent

#: The directory from which C{tristunnel} and its C{twistd} plugins are imported.
_ROOT = Path(tristunnel.__file__).parent.parent


def missingW3P() -> str | None:
    """
    Say why the tests against W3P's tunnel cannot run here.

    @return: the reason to skip, or L{None} if both programs are named.
    """
    if os.environ.get("TRISTUNNEL_W3P") and os.environ.get("TRISTUNNEL_NODE"):
        return None
    return (
        "set TRISTUNNEL_W3P to a checkout of W3P's tunnel and TRISTUNNEL_NODE "
        "to a node >= 23 to run the tests against the real programs"
    )


def freePort() -> int:
    """
    Find a TCP port that is free on the loopback interface at this moment.

    For programs that must be told a port; whatever can report its own port is
    given port 0 instead.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


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
    """

    _log = Logger()

    def __init__(self, name: str) -> None:
        """
        @param name: what to call the program.
        """
        self.name = name
        self.lines: list[str] = []
        self._partial = {1: b"", 2: b""}
        self._waits: list[_Wait] = []
        self._ends: list[Deferred[None]] = []
        self._running = True

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        """
        Keep whole lines, and wake whoever waits for one of them.
        """
        *whole, self._partial[childFD] = (self._partial[childFD] + data).split(b"\n")
        for raw in whole:
            self._said(raw.decode("utf-8", "replace").rstrip("\r"))

    def _said(self, line: str) -> None:
        """
        Record one line and give it to the expectations it meets.
        """
        self._log.debug("{name}: {line}", name=self.name, line=line)
        self.lines.append(line)
        for wait in list(self._waits):
            found = wait.match(line)
            if found is not None:
                self._waits.remove(wait)
                wait.result.callback(found)

    def processEnded(self, reason: Failure) -> None:
        """
        Fail what can no longer happen, and tell those who wait for the end.
        """
        self._running = False
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
        """
        Count how often a driver has printed an event.
        """
        events = map(_event, self.lines)
        return sum(event is not None and event["event"] == name for event in events)

    def order(self, word: str) -> None:
        """
        Send a driver one of its orders.
        """
        assert self.transport is not None
        self.transport.write(word.encode("ascii") + b"\n")

    def stop(self) -> Deferred[None]:
        """
        End the program with SIGTERM.

        @return: fires when it has ended; at once if it has already.
        """
        ended: Deferred[None] = Deferred()
        if not self._running:
            ended.callback(None)
            return ended
        self._ends.append(ended)
        assert self.transport is not None
        # If it has exited already, the end itself is about to be reported.
        with suppress(ProcessExitedAlready):
            self.transport.signalProcess("TERM")
        return ended


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
    reactor: IReactorProcess, command: str, options: list[str], directory: Path
) -> Program:
    """
    Start our own server or client.

    @param command: C{tunnel} or C{tunnel-client}.
    @param options: its options.
    @param directory: its working directory, which must exist.
    """
    paths = [str(_ROOT), os.environ.get("PYTHONPATH", "")]
    program = Program(f"our {command}")
    reactor.spawnProcess(
        program,
        sys.executable,
        [sys.executable, "-m", "twisted", "--log-format=text", command, *options],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths))},
        path=str(directory),
    )
    return program


def startW3P(
    reactor: IReactorProcess, end: str, settings: dict[str, object]
) -> Program:
    """
    Start W3P's own server or client under our driver.

    @param end: C{server} or C{client}.
    @param settings: what the driver C{w3p_server.mjs} or C{w3p_client.mjs} takes.
    """
    node = os.environ["TRISTUNNEL_NODE"]
    driver = str(_HERE / f"w3p_{end}.mjs")
    program = Program(f"W3P's {end}")
    reactor.spawnProcess(
        program,
        node,
        [node, driver, os.environ["TRISTUNNEL_W3P"], json.dumps(settings)],
        env=dict(os.environ),
    )
    return program
