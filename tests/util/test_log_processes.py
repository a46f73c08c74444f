"""
Logs of real programs: files that logrotate and newsyslog turn over, and readers
that stand still.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    UNIXClientEndpoint,
    connectProtocol,
)
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.internet.utils import getProcessOutputAndValue
from twisted.trial.unittest import SkipTest

from tests.cli.test_taps_processes import ProcessTestCase
from tests.support.loopback import Service, Talk
from tests.support.processes import TWISTD, Program, startProgram
from tests.support.short import shortDirectory

_FORMATS = ("text", "json")
_PORT = ("--port", "tcp:0:interface=127.0.0.1")


class FileTests(ProcessTestCase):
    """A server that logs to a file."""

    async def begin(self, kind: str) -> None:
        place = self.place = self.directory / kind
        place.mkdir()
        # logrotate refuses a directory that others may write to.
        place.chmod(0o755)
        self.log = place / "tunnel.log"
        command = [sys.executable, "-c", TWISTD, "-n", "--pidfile=pid"]
        command += ["--logfile=tunnel.log", "tunnel", *_PORT, "--log-format", kind]
        command += ["--state-dir", "state"]
        self.program = startProgram(self.reactor, "our tunnel", command, place)
        self.addCleanup(self.program.kill)
        found = await self.written(self.log, r"127\.0\.0\.1:(\d+)[^0-9]")
        self.number = int(found[1])

    async def written(self, path: Path, pattern: str) -> re.Match[str]:
        while True:
            text = path.read_text() if path.exists() else ""
            found = re.search(pattern, text)
            if found is not None:
                return found
            self.assertIs(self.program.status, None, text)
            await deferLater(self.reactor, 0.02)

    async def knock(self) -> None:
        where = TCP4ClientEndpoint(self.reactor, "127.0.0.1", self.number)
        knocking = await connectProtocol(where, Protocol())
        transport: Any = knocking.transport
        transport.write(b"\x00 is no protocol\r\n\r\n")

    async def turned(self) -> None:
        text = self.log.read_text() if self.log.exists() else ""
        while self.log.exists() is False or self.log.read_text() == text:
            await self.knock()
            await deferLater(self.reactor, 0.05)

    def kill(self, name: str) -> None:
        os.kill(int((self.place / "pid").read_text()), getattr(signal, f"SIG{name}"))

    async def logrotate(self, *rules: str) -> None:
        program = shutil.which("logrotate", path=f"{os.environ['PATH']}:/usr/sbin")
        if program is None:
            raise SkipTest("logrotate is not installed")
        config = self.place / "rotate.conf"
        lines = [f"{self.log} {{", "  rotate 2", "  missingok", *rules, "}", ""]
        config.write_text("\n".join(lines))
        config.chmod(0o644)
        out, err, status = await getProcessOutputAndValue(
            program, ["--force", "--state", str(self.place / "rotated"), str(config)]
        )
        self.assertEqual((out, err, status), (b"", b"", 0))

    async def stop(self) -> None:
        self.assertIs(self.program.status, None)
        await self.program.stop()

    async def test_logrotate(self) -> None:
        """With either signal, with and without a new file, and by copying."""
        kill = "postrotate\n kill -{} $(cat " + "{}/pid)\nendscript"
        for kind in _FORMATS:
            await self.begin(kind)
            for rules in (
                ("create", kill.format("HUP", self.place)),
                ("create", kill.format("USR1", self.place)),
                ("nocreate", kill.format("HUP", self.place)),
                ("nocreate", "delaycompress", kill.format("USR1", self.place)),
                ("copytruncate",),
            ):
                await self.logrotate(*rules)
                await self.turned()
                # No hole, and nothing but lines.
                self.assertNotIn("\0", self.log.read_text())
            names = {each.name for each in self.place.glob("tunnel.log*")}
            self.assertEqual(names, {"tunnel.log", "tunnel.log.1", "tunnel.log.2"})
            await self.stop()

    async def test_newsyslog(self) -> None:
        """It makes the next file itself, and writes a line there first."""
        for kind in _FORMATS:
            await self.begin(kind)
            for name in ("HUP", "USR1"):
                self.log.rename(self.place / "tunnel.log.0")
                self.log.write_text("newsyslog[1]: logfile turned over\n")
                self.kill(name)
                await self.turned()
                self.assertRegex(self.log.read_text(), "^newsyslog.*\n.")
                self.assertFalse((self.place / "tunnel.log.1").exists())
            await self.stop()

    async def test_ownRotation(self) -> None:
        """SIGUSR1 alone puts the file aside, and a bounded number of those is kept."""
        for kind in _FORMATS:
            await self.begin(kind)
            for number in (10, 500):
                (self.place / f"tunnel.log.{number}").write_text("old")
            self.kill("USR1")
            await self.written(self.place / "tunnel.log.1", "Listening")
            await self.turned()
            names = {each.name for each in self.place.glob("tunnel.log*")}
            self.assertEqual(names, {"tunnel.log", "tunnel.log.1"})
            await self.stop()


class ReaderTests(ProcessTestCase):
    """Programs whose output nobody reads."""

    def fullPipe(self) -> int:
        reader, writer = os.pipe()
        self.addCleanup(os.close, reader)
        self.addCleanup(os.close, writer)
        os.set_blocking(writer, False)
        for size in (1 << 16, 1):
            try:
                while True:
                    os.write(writer, b"\n" * size)
            except BlockingIOError:
                continue
        os.set_blocking(writer, True)
        return writer

    async def test_everybody(self) -> None:
        """Server, client and visitor do what they should, and end when they should."""
        place = shortDirectory(self)
        path, visit = place / "server", place / "visit"
        deaf = {0: "w", 1: self.fullPipe(), 2: self.fullPipe()}
        service = Service(b"hello")
        offered = f"web=127.0.0.1:{self.offer(service)}"
        programs = [
            self.start(command, *options, childFDs=deaf)
            for command, *options in (
                ("tunnel", "--port", f"unix:{path}", "--log-format", "json"),
                (
                    *("tunnel-client", "--connect", f"unix:{path}", "--rpc", "off"),
                    *("--forward", offered, "--private"),
                ),
                (
                    *("tunnel-client", "--connect", f"unix:{path}", "--rpc", "off"),
                    *("--listen", f"unix:{visit}", "--service", "web"),
                    *("--log-format", "json"),
                ),
            )
        ]
        await self.until(visit.exists, programs[-1])
        while not await self.greeted(visit):
            pass
        # Which half-closed: a visitor that is gone from a UNIX socket says no more.
        for talk in service.talks:
            talk.abort()
        for program in reversed(programs):
            self.assertIs(program.status, None)
            await program.stop()

    async def greeted(self, path: Path) -> bool:
        talk = await connectProtocol(
            UNIXClientEndpoint(self.reactor, str(path)), Talk()
        )
        await talk.until(lambda talk: talk.data or talk.eof or talk.lost)
        if talk.lost is None:
            talk.abort()
            await talk.gone()
        return bool(talk.data)

    async def until(self, isTrue: Callable[[], bool], program: Program) -> None:
        while not isTrue():
            self.assertIs(program.status, None)
            await deferLater(self.reactor, 0.02)
