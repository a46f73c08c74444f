"""A Redis server for tests, on a UNIX socket."""

from __future__ import annotations

import atexit
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path

__all__ = ["RedisServer"]


_shared: dict[str, RedisServer] = {}


class RedisServer:
    """
    A server that keeps nothing.

    @ivar path: Its socket.
    """

    def __init__(self) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="tt"))
        self.path = self.directory / "redis"
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
        """Start it, and wait until it answers."""
        self._process = subprocess.Popen(
            [
                *("redis-server", "--port", "0", "--unixsocket", str(self.path)),
                *("--save", "", "--appendonly", "no", "--daemonize", "no"),
                *("--dir", str(self.directory)),
            ],
            stdout=subprocess.DEVNULL,
        )
        end = time.monotonic() + 20
        while time.monotonic() < end:
            with socket.socket(socket.AF_UNIX) as asking:
                try:
                    asking.connect(str(self.path))
                    asking.sendall(b"PING\r\n")
                    if asking.recv(64).startswith(b"+PONG"):
                        return
                except OSError:
                    time.sleep(0.01)
        raise RuntimeError("redis-server does not answer")

    def kill(self) -> None:
        """End it without a word: what it knew is lost."""
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.wait()

    def stop(self) -> None:
        """End it, and leave nothing behind."""
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)
