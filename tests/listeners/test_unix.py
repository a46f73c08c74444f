"""UNIX sockets for visitors, L{tristunnel.listeners.unix}."""

from __future__ import annotations

import os
import socket
import stat
from typing import Any

from twisted.internet.endpoints import UNIXClientEndpoint, connectProtocol
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.support.loopback import LoopbackTestCase, Service, Talk
from tests.support.short import shortDirectory
from tests.support.waiting import reserved
from tristunnel.cli.server_tap import Options
from tristunnel.errors import TunnelError
from tristunnel.listeners.unix import UNIXListeners
from tristunnel.model.gate import GateRules
from tristunnel.model.options import TunnelOptions


class UNIXListenersTests(LoopbackTestCase):
    """Visitors of the server's own machine."""

    async def startServer(self, *arguments: Any, **more: Any) -> Any:
        server = await super().startServer(*arguments, **more)
        self.sockets = self.directory / "sockets"
        self.sockets.mkdir()
        made = UNIXListeners(self.reactor, str(self.sockets), 0o600)
        self.tunnels.listeners["unix"] = made
        self.unix = made
        return server

    async def come(self, name: str) -> Talk:
        talk = Talk()
        path = str(self.sockets / name)
        await connectProtocol(UNIXClientEndpoint(self.outside, path), talk)
        self._talks.append(talk)
        return talk

    def open(self, name: str) -> Any:
        options = TunnelOptions(listener="unix", name=name)
        return self.unix.open(options, lambda end, address: None, reserved)

    async def test_bytes(self) -> None:
        """Bytes pass both ways, half-closes too; the socket is its user's only, and
        gone with the tunnel."""
        await self.startServer()
        service = Service()
        await self.startClient(f"unix/app.sock=localhost:{self.offer(service)}")
        path = self.sockets / "app.sock"
        self.assertEqual(
            self.seen.named("tunnelReady")[0][0], f"unix:{path}", "its address"
        )
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        visitor = await self.come("app.sock")
        visitor.say(b"x" * 300_000)
        visitor.finish()
        talk = await service.arrivals.get()
        await talk.ended()
        self.assertEqual(len(talk.data), 300_000)
        talk.say(b"bye")
        talk.close()
        await visitor.gone()
        self.assertEqual(visitor.data, b"bye")
        await self.tunnels.discard(self.tunnels.tunnels, TunnelError("closed"))
        self.assertEqual(os.listdir(self.sockets), [])

    async def test_left(self) -> None:
        """A socket that a killed server has left is replaced; one that is in use, and
        a file that is no socket, are not."""
        await self.startServer()
        with socket.socket(socket.AF_UNIX) as stale:
            stale.bind(str(self.sockets / "app.sock"))
        listener = await self.open("app.sock")
        error = await self.assertFailure(self.open("app.sock"), TunnelError)
        self.assertEqual(error.code.name, "name-taken")
        await listener.close()
        (self.sockets / "file").write_text("mine")
        await self.assertFailure(self.open("file"), TunnelError)
        self.assertEqual((self.sockets / "file").read_text(), "mine")

    async def test_names(self) -> None:
        """A socket is in that directory and nowhere else."""
        await self.startServer()
        for name in ("", ".", "..", ".hidden", "../x", "/tmp/x", "a/b", "é", "x" * 65):
            error = await self.assertFailure(self.open(name), TunnelError)
            self.assertEqual(error.code.name, "bad-option", name)
        self.assertEqual(os.listdir(self.sockets), [])
        self.sockets.rmdir()
        error = await self.assertFailure(self.open("x"), TunnelError)
        self.assertEqual(error.code.name, "not-permitted")

    async def test_knock(self) -> None:
        """Nobody could ever be let in to a socket by an address."""
        await self.startServer()
        gate = GateRules(knock=60.0)
        wanted = TunnelOptions(listener="unix", name="app", gate=gate)
        opening: Any = self.unix.open(wanted, lambda end, address: None, reserved)
        error = await self.assertFailure(opening, TunnelError)
        self.assertEqual(error.code.name, "bad-option")
        self.assertEqual(os.listdir(self.sockets), [])


class StockUNIXListenersTests(UNIXListenersTests):
    """The same over Twisted's own transports."""

    stock = True


class DirectoryTests(SynchronousTestCase):
    """C{--unix-directory}."""

    def test_wrong(self) -> None:
        """It is a directory, by its whole path, where not everybody may write."""
        directory = shortDirectory(self)
        file = directory / "file"
        file.touch()
        opened = directory / "open"
        opened.mkdir()
        opened.chmod(0o777)
        for arguments, why in (
            (["--unix-directory", str(directory / "none")], "No such file"),
            (["--unix-directory", str(file)], "the whole path of a directory"),
            (["--unix-directory", "."], "the whole path of a directory"),
            (["--unix-directory", str(opened)], "everybody may write"),
            (["--unix-mode", "999"], "is not a mode"),
            (["--unix-mode", "rw"], "is not a mode"),
        ):
            options = ["--port", "tcp:1", "--state-dir", str(directory), *arguments]
            error = self.assertRaises(UsageError, Options().parseOptions, options)
            self.assertIn(why, str(error))
