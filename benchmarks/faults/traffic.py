"""
Visitors whose every transfer is checked, and the service that they visit.

A transfer is whole, or it failed visibly, or it was cut short and looked as if
it were whole: an orderly end before the last byte. The last must not be.
"""

from __future__ import annotations

import random
import socket
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field

__all__ = ["Counters", "Service", "Visitors", "download", "upload"]

_BLOCK = 65536
_PATTERN = random.Random(1).randbytes(_BLOCK) * 2
_PIECE = 32 * 1024


@dataclass
class Counters:
    """
    What came of the transfers.

    @ivar whole: That were complete.
    @ivar failed: That broke, and were seen to.
    @ivar refused: That did not begin.
    @ivar truncated: That ended in order too soon; a line for each.
    @ivar slowest: The longest that a whole one took, in seconds.
    """

    whole: int = 0
    failed: int = 0
    refused: int = 0
    truncated: list[str] = field(default_factory=list)
    slowest: float = 0.0
    lock: threading.Lock = field(default_factory=threading.Lock)

    def count(self, what: str, seconds: float = 0.0, why: str = "") -> None:
        """
        Count a transfer.

        @param what: C{whole}, C{failed}, C{refused} or C{truncated}.
        """
        with self.lock:
            if what == "truncated":
                self.truncated.append(why)
                return
            setattr(self, what, getattr(self, what) + 1)
            if what == "whole":
                self.slowest = max(self.slowest, seconds)

    def reset(self) -> tuple[int, int, int, float]:
        """
        Begin anew; what was truncated stays.

        @return: Whole, failed, refused and slowest so far.
        """
        with self.lock:
            so = (self.whole, self.failed, self.refused, self.slowest)
            self.whole = self.failed = self.refused = 0
            self.slowest = 0.0
            return so


def _line(connection: socket.socket) -> bytes:
    """Read up to the end of a short line."""
    line = b""
    while not line.endswith(b"\n"):
        byte = connection.recv(1)
        if not byte:
            break
        line += byte
    return line


class Service:
    """
    Sends as many bytes as it is asked for, slowly, and ends; or takes bytes
    until the end, and says how many they were.

    @param tally: Told of uploads that ended too soon in good order.
    @param rate: Bytes per second that it sends; 0 for any number.

    @ivar port: Where it listens.
    """

    def __init__(self, tally: Counters, rate: float = 0.0) -> None:
        self._tally = tally
        self._rate = rate
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=4096)
        self.port: int = self._listening.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        """Serve everybody."""
        while True:
            try:
                connection, _ = self._listening.accept()
            except OSError:
                return
            threading.Thread(
                target=self._serve, args=(connection,), daemon=True
            ).start()

    def _serve(self, connection: socket.socket) -> None:
        """Serve one."""
        with connection, suppress(OSError):
            connection.settimeout(60)
            kind, _, number = _line(connection).partition(b" ")
            if kind == b"D":
                self._send(connection, int(number))
            elif kind == b"U":
                self._take(connection, int(number))

    def _send(self, connection: socket.socket, size: int) -> None:
        """Send bytes; the end is all that says that they were all."""
        for at in range(0, size, _PIECE):
            piece = min(_PIECE, size - at)
            start = at % _BLOCK
            connection.sendall(_PATTERN[start : start + piece])
            if self._rate:
                time.sleep(piece / self._rate)

    def _take(self, connection: socket.socket, size: int) -> None:
        """Take bytes."""
        taken = 0
        while data := connection.recv(_BLOCK):
            taken += len(data)
        if taken < size:
            self._tally.count(
                "truncated", why=f"the service got {taken} of {size} bytes and an end"
            )
        else:
            connection.sendall(b"ok\n")

    def close(self) -> None:
        """Take nobody any more."""
        self._listening.close()


def download(port: int, size: int, tally: Counters, seconds: float = 30.0) -> bool:
    """
    Fetch bytes through a tunnel.

    @return: Whether all came.
    """
    began = time.monotonic()
    try:
        connection = socket.create_connection(("127.0.0.1", port), 5)
    except OSError:
        tally.count("refused")
        return False
    with connection:
        connection.settimeout(seconds)
        got = 0
        try:
            connection.sendall(b"D %d\n" % size)
            while data := connection.recv(_BLOCK):
                start = got % _BLOCK
                if data != _PATTERN[start : start + len(data)]:
                    tally.count("truncated", why=f"wrong bytes after {got}")
                    return False
                got += len(data)
        except OSError:
            tally.count("failed")
            return False
    if got < size:
        tally.count("truncated", why=f"a visitor got {got} of {size} bytes and an end")
        return False
    tally.count("whole", time.monotonic() - began)
    return True


def upload(
    port: int, size: int, tally: Counters, rate: float = 0.0, seconds: float = 30.0
) -> bool:
    """
    Bring bytes through a tunnel.

    @return: Whether the service said that it has all.
    """
    began = time.monotonic()
    try:
        connection = socket.create_connection(("127.0.0.1", port), 5)
    except OSError:
        tally.count("refused")
        return False
    with connection:
        connection.settimeout(seconds)
        try:
            connection.sendall(b"U %d\n" % size)
            for at in range(0, size, _PIECE):
                piece = min(_PIECE, size - at)
                connection.sendall(_PATTERN[:piece])
                if rate:
                    time.sleep(piece / rate)
            connection.shutdown(socket.SHUT_WR)
            said = _line(connection)
        except OSError:
            tally.count("failed")
            return False
    if said != b"ok\n":
        tally.count("truncated", why=f"an upload of {size} bytes ended with {said!r}")
        return False
    tally.count("whole", time.monotonic() - began)
    return True


class Visitors:
    """
    Visitors that come all the time, until they are stopped.

    @param ports: Where to.
    @param tally: Counts what comes of it.
    @param many: Visitors at once.
    @param most: Bytes of the longest transfer.
    @param rate: Bytes per second of an upload; 0 for any number.
    @param pause: Seconds between one visitor's transfers.
    """

    def __init__(
        self,
        ports: Sequence[int],
        tally: Counters,
        many: int,
        most: int,
        rate: float = 0.0,
        pause: float = 0.02,
        seed: int = 1,
    ) -> None:
        self.tally = tally
        self._ports = list(ports)
        self._most = most
        self._rate = rate
        self._pause = pause
        self._over = threading.Event()
        self._threads = [
            threading.Thread(target=self._visit, args=(seed + number,), daemon=True)
            for number in range(many)
        ]
        for thread in self._threads:
            thread.start()

    def _visit(self, seed: int) -> None:
        """Come again and again."""
        chance = random.Random(seed)
        while not self._over.is_set():
            port, size = chance.choice(self._ports), chance.randint(1, self._most)
            if chance.random() < 0.5:
                download(port, size, self.tally)
            else:
                upload(port, size, self.tally, self._rate)
            self._over.wait(self._pause)

    def stop(self) -> None:
        """Come no more, and wait for those who are there."""
        self._over.set()
        for thread in self._threads:
            thread.join(60)
