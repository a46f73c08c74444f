"""Redis servers for tests."""

from __future__ import annotations

import atexit
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.support.processes import freePort

__all__ = ["RedisServer", "SentinelServer"]

BINARY = os.environ.get("TRISTUNNEL_REDIS", "redis-server")
"""What is run: another version, or Valkey, may be named."""

_shared: dict[str, RedisServer] = {}


class RedisServer:
    """
    A server that keeps nothing, on a UNIX socket.

    @param options: More of its options.
    @param prefix: What to run it by, in another network.

    @ivar path: Its socket.
    """

    def __init__(self, *options: str, prefix: tuple[str, ...] = ()) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tt"))
        self.path = self.directory / "redis"
        self._options = options
        self._prefix = prefix
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def isThere() -> bool:
        """Whether it is installed."""
        return shutil.which(BINARY) is not None

    @staticmethod
    def kind() -> str:
        """What it calls itself: C{Redis} or C{Valkey}."""
        return subprocess.check_output([BINARY, "--version"], text=True).split()[0]

    @classmethod
    def shared(cls) -> RedisServer:
        """The one of all tests of this process that do nothing to it."""
        server = _shared.get("server")
        if server is None:
            server = _shared["server"] = cls()
            server.start()
            atexit.register(server.stop)
        return server

    def command(self) -> list[str]:
        """What starts it."""
        port = () if "--port" in self._options else ("--port", "0")
        return [
            *(BINARY, *port, "--unixsocket", str(self.path)),
            *("--save", "", "--appendonly", "no", "--daemonize", "no"),
            *("--dir", str(self.directory), *self._options),
        ]

    ready = b"ready to accept connections"

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        command = [*self._prefix, *self.command()]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE)
        said = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said.append(line.decode("utf-8", "replace"))
            if self.ready in line.lower():
                return
        raise RuntimeError("redis-server does not start:\n" + "".join(said[-9:]))

    def signal(self, number: int) -> None:
        """Send it a signal."""
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        """End it without a word: what it knew is lost."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()

    def stop(self) -> None:
        """End it, and leave nothing behind."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)


class SentinelServer(RedisServer):
    """
    A Sentinel of an engine that it calls C{book}, and takes for down after half a
    second.

    @param host: Where the engine is.
    @param port: Likewise.
    @param quorum: How many Sentinels must agree.
    @param address: Where it is itself.
    @param ownPort: Likewise; any, if none is given.
    @param password: What it asks for; nothing, if it is empty.

    @ivar port: Where it is itself.
    """

    ready = b"+monitor"

    def __init__(
        self,
        host: str,
        port: int,
        quorum: int = 1,
        prefix: tuple[str, ...] = (),
        address: str = "127.0.0.1",
        ownPort: int = 0,
        password: str = "",
    ) -> None:
        super().__init__(prefix=prefix)
        self.port = ownPort or freePort()
        self._config = self.directory / "sentinel.conf"
        self._config.write_text(
            f"port {self.port}\nbind {address}\nprotected-mode no\n"
            f"dir {self.directory}\n"
            f"sentinel monitor book {host} {port} {quorum}\n"
            "sentinel down-after-milliseconds book 500\n"
            "sentinel failover-timeout book 3000\n"
            + (f'requirepass "{password}"\n' if password else "")
        )

    def command(self) -> list[str]:
        return [BINARY, str(self._config), "--sentinel"]
