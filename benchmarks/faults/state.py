"""
A disk that is full, and one that cannot be written to, below what our programs
remember and write.

Needs root, for a small file system of its own; without it nothing is tried.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from benchmarks.faults.programs import Programs
from benchmarks.faults.proof import Options, Row
from benchmarks.faults.traffic import Counters, Service, Visitors, download
from benchmarks.processes import Failed, Room, freePort

__all__ = ["prove"]

_AGAIN = {
    "tristunnel.dialects.base.lease": {"TRY_AGAIN": 1.0},
    "tristunnel.dialects.base.client": {"SETTLED": 0.0},
}

_BACK = 30.0


class _Disk:
    """
    A small file system.

    @ivar path: Where it is.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"
        path.mkdir()
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=2m,mode=700", "none", str(path)],
            check=True,
            capture_output=True,
        )

    def fill(self) -> None:
        """Leave no room."""
        with open(self._ballast, "ab", buffering=0) as file, suppress(OSError):
            while True:
                file.write(bytes(4096))

    def makeRoom(self) -> None:
        """Have room again."""
        self._ballast.unlink()

    def remount(self, how: str) -> None:
        """Allow writing, C{rw}, or forbid it, C{ro}."""
        subprocess.run(
            ["mount", "-o", f"remount,{how}", str(self.path)],
            check=True,
            capture_output=True,
        )

    def unmount(self) -> None:
        """Be gone."""
        subprocess.run(["umount", "-l", str(self.path)], capture_output=True)


@contextmanager
def _disk(path: Path) -> Iterator[_Disk]:
    """Have a small file system for a while."""
    disk = _Disk(path)
    try:
        yield disk
    finally:
        disk.unmount()


class _House:
    """
    A server and a client whose state and logs are on a disk of theirs.

    @param room: Where they run.
    @param disk: Theirs.
    @param target: The port of the service.
    """

    def __init__(self, room: Room, disk: _Disk, target: int) -> None:
        self._programs = Programs(room, _AGAIN)
        self._room = room
        self._disk = disk
        self._target = target
        self._port = freePort()
        self.serverLog = disk.path / "server.log"
        self.server = self.startServer()
        room.waitForPort(self._port)
        self.client = self.startClient()
        self.visitors = int(self._programs.address("client").rpartition(":")[2])

    def startServer(self) -> int:
        """Start the server, whose log is on the disk."""
        code = "from twisted.scripts.twistd import run; run()"
        return self._room.start(
            "server",
            [
                *(sys.executable, "-c", code, "-n", "--pidfile="),
                f"--logfile={self.serverLog}",
                "tunnel",
                f"--port=tcp:{self._port}:interface=127.0.0.1",
                *("--interface=127.0.0.1", "--hostname=127.0.0.1"),
                f"--state-dir={self._disk.path}/server",
            ],
        )

    def startClient(self) -> int:
        """Start the client, whose log is elsewhere."""
        return self._programs.start(
            "client",
            "tunnel-client",
            f"--connect=tcp:127.0.0.1:{self._port}",
            f"--forward=0=127.0.0.1:{self._target}",
        )

    def killServer(self) -> None:
        """
        Kill the server and start it again, so that the client has something
        to write down.
        """
        self._room.stop([self.server], signal.SIGKILL)
        self.server = self.startServer()

    def killClient(self) -> None:
        """Kill the client and start it again."""
        self._room.stop([self.client], signal.SIGKILL)
        self.client = self.startClient()

    def untilBack(self) -> bool:
        """Wait until the tunnel works at its port."""
        until, tally = time.monotonic() + _BACK, Counters()
        while time.monotonic() < until:
            if download(self.visitors, 1000, tally, 5.0):
                return True
            time.sleep(0.05)
        return False

    def lease(self) -> dict[str, object]:
        """What the client has written down."""
        (path,) = self._disk.path.glob("lease-*.json")
        found: dict[str, object] = json.loads(path.read_bytes())
        return found

    def clientSaid(self, words: str) -> list[str]:
        """The client's lines that have some words in them."""
        said = self._room.said("client").splitlines()
        return [line for line in said if words in line]


def _carries(house: _House, seconds: float, seed: int) -> str:
    """
    See whether bytes pass.

    @return: What went wrong, or empty.
    """
    tally = Counters()
    visitors = Visitors([house.visitors], tally, 4, 200_000, seed=seed)
    time.sleep(seconds)
    visitors.stop()
    whole, failed, refused, _ = tally.reset()
    wrong = failed + refused + len(tally.truncated)
    return f"{wrong} of {whole + wrong} transfers failed" if wrong or not whole else ""


def prove(options: Options) -> Iterator[Row]:
    """Fill the disk, and forbid writing to it."""
    path = options.directory / "disk"
    try:
        with _disk(path):
            pass
        path.rmdir()
    except (OSError, subprocess.CalledProcessError):
        yield Row("a full disk", "this takes root, and a system with tmpfs")
        return
    for kind in ("full", "read-only"):
        tally = Counters()
        service = Service(tally)
        room = Room(options.directory / f"programs-{kind}")
        # Where our programs keep what belongs to the program called client.
        with _disk(room.directory / "client-state") as disk, room:
            house = _House(room, disk, service.port)
            yield from _broken(house, disk, kind, options)
        service.close()
    with _disk(options.directory / "disk-tokens") as disk:
        yield from _tokens(disk)


def _broken(house: _House, disk: _Disk, kind: str, options: Options) -> Iterator[Row]:
    """One way for a disk to be of no use."""
    house.untilBack()
    before = house.lease()
    size = house.serverLog.stat().st_size
    isFull = kind == "full"
    if isFull:
        disk.fill()
    else:
        # A log that is being written keeps a disk from becoming read-only.
        house.serverLog = Path(os.devnull)
        house.killServer()
        house.untilBack()
        before = house.lease()
        disk.remount("ro")
    house.killServer()
    back = house.untilBack()
    trouble = _carries(house, options.number("wait", 6, 3), options.seed)
    yield Row(
        f"{kind} disk: a server starts, its client comes back, bytes pass",
        trouble or f"back at its port: {back}",
        back and not trouble,
    )
    lines = house.clientSaid("was not written")
    yield Row(
        f"{kind} disk: what the client says",
        f"{len(lines)} line: {lines[0].partition('] ')[2][:150] if lines else ''}",
        len(lines) == 1 and "--state-dir" in lines[0],
    )
    yield Row(
        f"{kind} disk: what the client had written is as it was",
        f"ports {house.lease()['ports']}",
        house.lease() == before,
    )
    if isFull:
        disk.makeRoom()
    else:
        disk.remount("rw")
    written = _waitFor(lambda: bool(house.clientSaid("can be written again")))
    changed = house.lease() != before
    if isFull:
        _carries(house, 1, options.seed)
        grown = house.serverLog.stat().st_size > size
        yield Row("full disk: the log goes on when there is room", str(grown), grown)
    house.killClient()
    yield Row(
        f"{kind} disk, usable again: it is written, and the next client has its port",
        f"written: {written}, new lease in it: {changed}",
        written and changed and house.untilBack(),
    )


def _waitFor(condition: object, seconds: float = 15.0) -> bool:
    """Wait for something to be so."""
    assert callable(condition)
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


def _tokens(disk: _Disk) -> Iterator[Row]:
    """C{tristunnel token create} where there is no room."""
    path = disk.path / "tokens"

    def create(name: str) -> subprocess.CompletedProcess[str]:
        words = ["token", "create", "--name", name, "--file", str(path)]
        return subprocess.run(
            [sys.executable, "-m", "tristunnel.cli", *words],
            capture_output=True,
            text=True,
        )

    if create("first").returncode:
        raise Failed("no token could be made")
    before = path.read_bytes()
    for kind in ("full", "read-only"):
        if kind == "full":
            disk.fill()
        else:
            disk.makeRoom()
            disk.remount("ro")
        done = create("second")
        said = done.stderr.strip()
        yield Row(
            f"tristunnel token create on a {kind} disk",
            f"status {done.returncode}: {said[-120:]}; the file is as it was:"
            f" {path.read_bytes() == before}",
            bool(done.returncode)
            and said.count("\n") == 0
            and path.read_bytes() == before
            and len(list(disk.path.iterdir())) <= 2,
        )
    disk.remount("rw")
    done = create("second")
    yield Row(
        "and when there is room again",
        f"status {done.returncode}",
        not done.returncode and path.read_bytes().startswith(before.rstrip()),
    )
