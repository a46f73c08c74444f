"""A client's screen as a process in a pseudo-terminal."""

from __future__ import annotations

import os
import re
import sys
import termios
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

import tristunnel
from tests.support.listening import listenHere
from tests.support.processes import TWISTD
from tristunnel.wire.framed import encodeHandshake

_ROOT = Path(tristunnel.__file__).parent.parent
_CODES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
_ENTER, _LEAVE = "\x1b[?1049h", "\x1b[?1049l"


class Typist(ProcessProtocol):
    """Sits at the terminal of a process."""

    def __init__(self, near: int) -> None:
        self.seen = ""
        self.near = near
        self.before = termios.tcgetattr(near)
        self.after: list[Any] = []
        self.ended: Deferred[Any] = Deferred()
        self._waiting: list[tuple[str, Deferred[None]]] = []

    def outReceived(self, data: bytes) -> None:
        self.seen += data.decode("utf-8", "replace")
        self._look()

    def _look(self) -> None:
        text = _CODES.sub(" ", self.seen)
        for each in list(self._waiting):
            if each[0] in text:
                self._waiting.remove(each)
                each[1].callback(None)

    def sees(self, text: str) -> Deferred[None]:
        waiting: Deferred[None] = Deferred()
        self._waiting.append((text, waiting))
        self._look()
        return waiting

    def type(self, keys: bytes) -> None:
        transport: Any = self.transport
        transport.write(keys)

    def processExited(self, reason: Failure) -> None:
        self.after = termios.tcgetattr(self.near)
        os.close(self.near)

    def processEnded(self, reason: Failure) -> None:
        for _, waiting in self._waiting:
            waiting.errback(AssertionError(f"it ended and wrote {self.seen!r}"))
        self._waiting = []
        self.ended.callback(reason.value)


class _Refusing(Protocol):
    def connectionMade(self) -> None:
        assert self.transport is not None
        refused = {"code": "auth-refused", "message": "the test knows nobody"}
        self.transport.write(encodeHandshake({"tristunnel": {"refused": refused}}))
        self.transport.loseConnection()


class ScreenProcessTests(TestCase):
    """C{twistd -n tunnel-client} in a terminal."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        self.far, self.near = os.openpty()
        termios.tcsetwinsize(self.near, (24, 80))

    def start(self, *options: str, connect: str, twistd: Sequence[str] = ()) -> Typist:
        typist = Typist(self.near)
        name = os.ttyname(self.near)
        words = ["-n", "--pidfile=", *twistd, "tunnel-client", "--connect", connect]
        words += ["--state-dir", str(self.directory), "--rpc", "off"]
        words += ["--forward", "0=localhost:1", *options]
        transport = self.reactor.spawnProcess(
            typist,
            sys.executable,
            [sys.executable, "-c", TWISTD, *words],
            {**os.environ, "PYTHONPATH": str(_ROOT), "TERM": "xterm-256color"},
            str(self.directory),
            usePTY=(self.far, os.dup(self.near), name),
        )

        async def end() -> None:
            if not typist.ended.called:
                transport.signalProcess("KILL")
                await typist.ended

        self.addCleanup(end)
        return typist

    def listen(self, protocol: type[Protocol]) -> str:
        """Run a server. @return: Where."""
        port = listenHere(self, self.reactor, Factory.forProtocol(protocol))
        return f"tcp:127.0.0.1:{port}"

    def assertRestored(self, typist: Typist) -> None:
        self.assertEqual(typist.after, typist.before)
        self.assertEqual(typist.seen.count(_ENTER), 1)
        self.assertEqual(typist.seen.count(_LEAVE), 1)
        rest = typist.seen.rpartition(_LEAVE)[2]
        self.assertEqual(_CODES.findall(rest), [])

    async def checkEnds(self, key: bytes) -> None:
        # The server there says nothing.
        typist = self.start(connect=self.listen(Protocol))
        await typist.sees("connecting")
        await typist.sees("q stops")
        modes = termios.tcgetattr(self.near)[3]
        self.assertFalse(modes & termios.ECHO)
        typist.type(key)
        await typist.ended
        self.assertRestored(typist)
        self.assertIn("0 visitors in", typist.seen.rpartition(_LEAVE)[2])

    async def test_interrupted(self) -> None:
        """The screen shows what the client is at; Ctrl-C ends it, and the terminal is
        as before."""
        await self.checkEnds(b"\x03")

    async def test_quit(self) -> None:
        """So does C{q}."""
        await self.checkEnds(b"q")

    async def test_gaveUp(self) -> None:
        """A client that is not let in says why below what was there before, and ends
        with 1."""
        typist = self.start("--credentials", "id=x", connect=self.listen(_Refusing))
        value = await typist.ended
        self.assertEqual(value.exitCode, 1, typist.seen)
        self.assertEqual(typist.after, typist.before)
        self.assertIn(
            "Giving up: the test knows nobody [auth-refused]",
            typist.seen.rpartition(_LEAVE)[2],
        )

    async def test_terminated(self) -> None:
        """So it is with a signal."""
        typist = self.start(connect=self.listen(Protocol))
        await typist.sees("connecting")
        transport: Any = typist.transport
        transport.signalProcess("TERM")
        await typist.ended
        self.assertRestored(typist)

    async def test_noScreen(self) -> None:
        """With C{--no-screen} there are lines of a log."""
        options = "--no-screen", "--credentials", "id=x"
        typist = self.start(*options, connect=self.listen(_Refusing))
        value = await typist.ended
        self.assertEqual(value.exitCode, 1)
        self.assertNotIn("\x1b", typist.seen)
        self.assertIn("Giving up: the test knows nobody", typist.seen)

    async def test_logFile(self) -> None:
        """C{--logfile} has the log; the screen has what is wrong."""
        log = self.directory / "client.log"
        typist = self.start(
            *("--credentials", "id=x", "--credentials", "password=y"),
            connect=self.listen(Protocol),
            twistd=["--logfile", str(log)],
        )
        await typist.sees("--credentials has a secret on the command line")
        typist.type(b"\x03")
        await typist.ended
        self.assertRestored(typist)
        self.assertIn("has a secret on the command line", log.read_text())
