"""
Runs the commands of a page, in order, in a directory of its own.

What is changed in a command before it runs, and nothing else is:

* Names of public machines (L{HOSTS<tests.docs.texts.HOSTS>}) become C{localhost}.
* Every port in L{PORTS<tests.docs.texts.PORTS>} is moved by one and the same
  number, so that ranges stay ranges and nobody else's ports are in the way.
* The server listens on the loopback interface only, and a service that has the
  same port as its tunnel has another.
* C{--check} does not wait for a connection to have been silent for long.
* Where a client trusts the authorities of the platform, it trusts the one that
  has signed the certificates of the test.
* What a page shows as a program's output is compared with the real output.
  Numbers, keys and addresses there that are different each time are remembered,
  and replaced in later commands; so is C{FINGERPRINT}, by what the server logs.
* Whatever a L{Story} says.

Servers and clients run in the background until another takes their place. A
client's tunnels are visited once.
"""

from __future__ import annotations

import os
import random
import re
import shlex
import stat
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.ssl import CertificateOptions
from twisted.trial.unittest import TestCase

from tests.docs.pages import Command, File, items
from tests.docs.standins import REQUEST, Banner, Echoing, Knocking, Site, StandIn
from tests.docs.texts import (
    BACKGROUND,
    ENDS,
    HOSTS,
    PORTS,
    SHIFTS,
    SPEAKING_FIRST,
    TRUST,
    TRUSTING,
    isServer,
    patternOf,
    readyLines,
    takenBy,
)
from tests.support.processes import (
    Program,
    leavePorts,
    pythonWords,
    startProgram,
    takePorts,
)
from tests.support.protocols import Hearing
from tests.support.short import shortDirectory
from tests.tls.authority import makeAuthority

__all__ = ["PageTestCase", "Story"]

Check = Callable[["PageTestCase"], Awaitable[None]]


@dataclass(frozen=True)
class Story:
    """
    What a page takes for granted.

    @ivar before: Commands that run before those of the page.
    @ivar beforeEach: Commands that run before a command of the page that begins
        so.
    @ivar replace: Texts in commands, and what they are here.
    @ivar own: Ports of services that the page, or a check, sees to.
    @ivar statuses: Exit statuses other than 0, by how a command begins.
    @ivar after: What is looked at when a command that begins so has run.
    @ivar unvisited: Clients, by what is in their commands, whose tunnels let
        nobody in who comes from this machine, or lead nowhere here.
    @ivar needs: Programs without which the page cannot be tried.
    @ivar kinds: Protocols of stand-ins that are neither a web page nor a banner,
        by their ports.
    @ivar prepare: What is done before a command that begins so.
    @ivar setUp: What is done first.
    """

    before: tuple[str, ...] = ()
    beforeEach: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    replace: Mapping[str, str] = field(default_factory=dict)
    own: tuple[int, ...] = ()
    statuses: Mapping[str, int] = field(default_factory=dict)
    after: Mapping[str, Check] = field(default_factory=dict)
    unvisited: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    kinds: Mapping[int, Any] = field(default_factory=dict)
    prepare: Mapping[str, Check] = field(default_factory=dict)
    setUp: Check | None = None


@dataclass
class _Running:
    """
    A program in the background.

    @ivar command: Its command, as it was run.
    @ivar takes: The ports and names that no two programs share.
    """

    program: Program
    command: str
    takes: frozenset[str]


class PageTestCase(TestCase):
    """
    Tests that run pages.

    @ivar directory: Where the commands run.
    @ivar shift: By how much ports are moved.
    """

    timeout = 90

    def setUp(self) -> None:
        """
        Make a directory with the programs, certificates and files that pages
        name without showing them.
        """
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = shortDirectory(self)
        self.shift = self._freeShift()
        self.learnt: dict[str, str] = {}
        self.prelude: list[str] = []
        self.running: list[_Running] = []
        self.last: Program
        self._served: set[tuple[bool, int]] = set()
        self._makePrograms()
        self._makeFiles()
        self.environment = {
            "HOME": str(self.directory),
            "XDG_STATE_HOME": str(self.directory / "state"),
            "PATH": f"{self.directory / 'bin'}:{os.environ['PATH']}:/usr/sbin",
            "STATE_DIRECTORY": "",
        }
        self.addCleanup(self._endAll)

    def _freeShift(self) -> int:
        """Find a number by which all ports can be moved, and take those."""
        for shift in random.sample(SHIFTS, len(SHIFTS)):
            ports = [port + shift for port in PORTS]
            if takePorts(ports):
                self.addCleanup(leavePorts, ports)
                return shift
        raise AssertionError("no ports are free")

    def _makePrograms(self) -> None:
        """Put this checkout's programs where a shell finds them."""
        programs = {
            "twistd": "-c 'from twisted.scripts.twistd import run; run()'",
            "tristunnel": "-m tristunnel",
            "python": "",
            "python3": "",
        }
        python = shlex.join(pythonWords())
        for name, arguments in programs.items():
            self.program(name, f'exec {python} {arguments} "$@"')

    def program(self, name: str, script: str) -> None:
        path = self.directory / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(stat.S_IRWXU)

    def _makeFiles(self) -> None:
        """Make certificates, and the files of ids and secrets."""
        authority = makeAuthority()
        certificate, key = authority.issue(["localhost"])
        authority.write(self.directory / "authority.pem")
        for name in ("cert.pem", "server-cert.pem", "fullchain.pem"):
            (self.directory / name).write_bytes(certificate)
        for name in ("key.pem", "server-key.pem", "privkey.pem"):
            (self.directory / name).write_bytes(key)
        (self.directory / "clients").write_text(
            "laptop:correct horse battery staple\nallowed-client:*\n"
        )
        (self.directory / "me.json").write_text(
            '{"id": "laptop", "secret": "correct horse battery staple"}'
        )

    def port(self, documented: int) -> int:
        """
        @return: The port that a documented one is here.
        """
        return documented + self.shift

    def here(self, text: str, story: Story, isOutput: bool = False) -> str:
        """Change a command, a file, or output, as the module says."""
        learnt = sorted(self.learnt.items(), key=lambda pair: -len(pair[0]))
        for shown, real in () if isOutput else learnt:
            text = text.replace(shown, real)
        for shown, real in story.replace.items():
            text = text.replace(shown, real)
        hosts = "|".join(map(re.escape, HOSTS))
        text = re.sub(
            # Not the command.
            rf"(?<=[:/@ =])(?<!tristunnel )(?:{hosts})(?=[:/;\\\s'\"]|$)",
            "localhost",
            text,
        )
        ports = "|".join(map(str, sorted(PORTS, reverse=True)))
        return re.sub(
            rf"(?<=[:=,\- /])(?:{ports})(?=[:=,#;\\\- /'\"]|$)(?!-\d\d-)",
            lambda found: str(self.port(int(found[0]))),
            text,
            flags=re.M,
        )

    def _confined(self, text: str) -> str:
        """
        Keep a server on the loopback interface, and have clients trust the
        authority of the test.
        """
        if isServer(text) and "--_shell-completion" not in text:
            text = re.sub(
                r"(--port|--rpc|--https?) ((?:tcp|ssl):\d+)(?=\s|$)",
                r"\1 \2:interface=127.0.0.1",
                text,
            )
            given = ("--port ", "--demo", "--config")
            if not any(option in text for option in given):
                # A server may be running that only another one is asked about.
                port = self.port(9010 if "--check" in text else 9000)
                kind = "tcp" if "twistd" in text else "ssl"
                text += f" --port {kind}:{port}:interface=127.0.0.1"
            if " --interface " not in text:
                text += " --interface 127.0.0.1"
        if re.search(r"tunnel-client .*--check\b(?!-)|^tristunnel check", text):
            # Not as long a silence as it takes to find a patient proxy out.
            text += " --check-idle 0"
        # A service cannot have the very port of its tunnel here.
        text = re.sub(
            r"(?<=[ /])(\d+)=localhost:\1\b",
            lambda found: f"{found[1]}=localhost:{self.port(10001)}",
            text,
        )
        ours = "tunnel-" in text or "tristunnel.rpc" in text
        if ours and TRUSTING.search(text) and not TRUST.search(text):
            text += " --ca authority.pem"
        return text

    async def runPage(
        self, name: str, story: Story, leftOut: Mapping[str, str]
    ) -> None:
        """Run all commands of a page but those that are left out."""
        if story.setUp is not None:
            await story.setUp(self)
        for text in story.before:
            await self._runCommand(Command(name, 0, text), story)
        for item in items(name):
            if isinstance(item, File):
                path = self.directory / item.name
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(
                    re.sub(
                        r'^(port = \["\w+:\d+)"',
                        r'\1:interface=127.0.0.1"',
                        self.here(item.text, story),
                        flags=re.M,
                    )
                )
            elif isinstance(item, Command) and not _starts(item.text, leftOut):
                for text in _starts(item.text, story.beforeEach) or ():
                    await self._runCommand(Command(name, 0, text), story)
                await self._runCommand(item, story)

    async def _runCommand(self, command: Command, story: Story) -> None:
        text = self._confined(self.here(command.text.partition("  #")[0], story))
        if re.match(r"(export|cd) ", text):
            self.prelude.append(text)
            return
        self._offer(text, story)
        prepare = _starts(command.text, story.prepare)
        if prepare is not None:
            await prepare(self)
        if BACKGROUND.search(text) and not ENDS.search(text):
            await self._background(command, text, story)
        else:
            await self._foreground(command, text, story)
        check = _starts(command.text, story.after)
        if check is not None:
            await check(self)

    async def done(self, text: str) -> None:
        program = self.start(text)
        await program.whenEnded()
        self.assertEqual(program.status, 0, "\n".join([text, *program.lines]))

    def start(self, text: str) -> Program:
        script = "\n".join(["set -e", *self.prelude, text])
        program = startProgram(
            self.reactor,
            text,
            ["/bin/bash", "-c", script],
            self.directory,
            self.environment,
        )
        self.addCleanup(program.kill)
        return program

    async def _foreground(self, command: Command, text: str, story: Story) -> None:
        program = self.last = self.start(text)
        assert program.transport is not None
        program.transport.closeStdin()
        await program.whenEnded()
        status = _starts(command.text, story.statuses) or 0
        self.assertEqual(program.status, status, _report(command, program))
        for shown in command.output:
            self._learn(command, program, self.here(shown, story, True))

    def _learn(self, command: Command, program: Program, shown: str) -> None:
        """Find a shown line in what a program said, and note what differs."""
        pattern, names = patternOf(shown)
        for line in program.lines:
            found = re.search(pattern, line)
            if found is not None:
                self.learnt.update(zip(names, found.groups(), strict=True))
                return
        self.fail(f"it did not say {shown!r}: {_report(command, program)}")

    async def _background(self, command: Command, text: str, story: Story) -> None:
        """Start a program, wait until it is ready, and use it."""
        takes = takenBy(text)
        for other in list(self.running):
            if other.takes & takes or (isServer(text) and isServer(other.command)):
                if isServer(text) and not other.takes & takes:
                    continue
                await self.end(other)
        assigned = re.match(r"(?:[A-Z_]+=(?:\$\([^)]*\)|\S)* )*", text)
        assert assigned is not None
        program = self.last = self.start(f"{assigned[0]}exec {text[assigned.end() :]}")
        self.running.append(_Running(program, text, takes))
        for _ in range(readyLines(text)):
            await self._ready(command, program)
        if " --port ssl:" in text and " --certificate " not in text:
            found = await program.says(r"--pin ([0-9a-f]{64})")
            self.learnt["FINGERPRINT"] = found[1]
        if any(part in text for part in ("--service ", "tunnel-access", "--managed ")):
            await program.says("The server has admitted this client")
        for shown in command.output:
            pattern, names = patternOf(self.here(shown, story, True))
            found = await program.says(pattern)
            self.learnt.update(zip(names, found.groups(), strict=True))
        if not any(part in command.text for part in story.unvisited):
            await self._visitAll(program)

    async def _ready(self, command: Command, program: Program) -> None:
        """Wait for one more line that says that a program is ready."""
        since = program.since
        pattern = re.compile(
            r"Listening for clients on|Visitors of .* reach|Serving HTTP|"
            r"(No tunnel for|Giving up|Not connected|Cannot start|Error|error:)"
        )
        await program.waitFor(pattern.search, since)
        for number, line in enumerate(program.lines[since:], since + 1):
            found = pattern.search(line)
            if found is not None:
                program.since = number
                self.assertIsNone(found[1], _report(command, program))
                return

    async def _visitAll(self, program: Program) -> None:
        """Visit everything that a client has made reachable."""
        for line in list(program.lines):
            found = re.search(
                r"Visitors of (?:(tcp|tls|udp|http)://[^:]+|127\.0\.0\.1):(\d+) reach",
                line,
            )
            if found is not None:
                await self.visit(found[1] or "tcp", int(found[2]))

    async def visit(self, kind: str, port: int, question: bytes = REQUEST) -> bytes:
        """
        Come as a visitor.

        @param kind: C{tls}, C{udp}, or what is over TCP.
        @return: What the service said first.
        """
        if kind == "udp":
            knocking = Knocking(port)
            at = self.reactor.listenUDP(0, knocking, interface="127.0.0.1")
            answer = await knocking.answer
            await at.stopListening()
            return answer
        endpoint: Any = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port)
        if kind == "tls":
            endpoint = wrapClientTLS(CertificateOptions(verify=False), endpoint)
        asking = await connectProtocol(endpoint, Hearing(question))
        answer = bytes((await asking.has(1)).data)
        asking.abort()
        await asking.gone()
        return answer

    def _offer(self, command: str, story: Story) -> None:
        """Run stand-ins for the services that a command leads to."""
        for found in re.finditer(
            r"(udp/|udp:)?[\w.-]*(?:=|--to )(udp:)?(?:tcp:)?"
            r"(?:localhost|127\.0\.0\.1):(\d+)",
            command,
        ):
            port = int(found[3]) - self.shift
            isUDP = bool(found[1] or found[2]) or command.startswith("tristunnel udp")
            if port in story.own or port not in PORTS or (isUDP, port) in self._served:
                continue
            self._served.add((isUDP, port))
            if isUDP:
                udp = self.reactor.listenUDP(
                    self.port(port), Echoing(), interface="127.0.0.1"
                )
                self.addCleanup(udp.stopListening)
            else:
                standard = Banner if port in SPEAKING_FIRST else Site
                self.serve(port, story.kinds.get(port) or standard)

    def serve(self, port: int, kind: Any) -> StandIn:
        standIn = StandIn(kind)
        at = self.reactor.listenTCP(self.port(port), standIn, interface="127.0.0.1")
        self.addCleanup(at.stopListening)
        self.addCleanup(standIn.end)
        return standIn

    async def end(self, running: _Running) -> None:
        self.running.remove(running)
        await running.program.kill()

    async def _endAll(self) -> None:
        for running in list(self.running):
            await self.end(running)


def _starts(text: str, table: Mapping[str, Any]) -> Any:
    """
    @return: The entry of the longest key that a text begins with.
    """
    keys = [key for key in table if text.startswith(key)]
    return table[max(keys, key=len)] if keys else None


def _report(command: Command, program: Program) -> str:
    said = "\n".join(program.lines[-30:])
    return (
        f"{command.page}:{command.line}: {command.text}\n"
        f"run as: {program.name}\nstatus {program.status}\n{said}"
    )
