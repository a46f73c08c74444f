"""A Redis server for tests, on a UNIX socket."""

from __future__ import annotations

import atexit
import shutil
import subprocess
import tempfile
from pathlib import Path

__all__ = ["RedisServer"]


_shared: dict[str, RedisServer] = {}


class RedisServer:
    """
    A server that keeps nothing.

    @param options: More of its options.

    @ivar path: Its socket.
    """

    def __init__(self, *options: str) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tt"))
        self.path = self.directory / "redis"
        self._options = options
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def isThere() -> bool:
        """Whether it is installed."""
        return shutil.which("redis-server") is not None

    @classmethod
    def shared(cls) -> RedisServer:
        """The one of all tests of this process that do nothing to it."""
        server = _shared.get("server")
        if server is None:
            server = _shared["server"] = cls()
            server.start()
            atexit.register(server.stop)
        return server

    def start(self) -> None:
        """Start it, and wait until it says that it is ready."""
        self._process = subprocess.Popen(
            [
                *("redis-server", "--port", "0", "--unixsocket", str(self.path)),
                *("--save", "", "--appendonly", "no", "--daemonize", "no"),
                *("--dir", str(self.directory), *self._options),
            ],
            stdout=subprocess.PIPE,
        )
        said = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            said.append(line.decode("utf-8", "replace"))
            if b"ready to accept connections" in line.lower():
                return
        raise RuntimeError("redis-server does not start:\n" + "".join(said[-9:]))

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
