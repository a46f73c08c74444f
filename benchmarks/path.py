"""
A path with a rate, a delay and a router's queue, between two network namespaces
whose TCP is the kernel's own. For Linux and for root.

A TUN device in each namespace hands its packets to one process, which passes them on to
the other one's when they are due. Congestion control, autotuning of windows and
C{TCP_NOTSENT_LOWAT} are as on a real way. On a fast path a device hands over as many of
TCP's segments at once as the kernel has, as a network card with segmentation offload
gets them; one such piece shares its luck.

Run as C{python -m benchmarks.path RATE DELAY QUEUE NEAR FAR}, it is that process.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import select
import struct
import subprocess
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from benchmarks.contestant import FAR, NEAR, Route
from benchmarks.processes import Failed, Room

__all__ = ["LONG", "SLOW", "Line", "Way"]

_NAMESPACE = "/proc/self/ns/net"

# linux/if_tun.h and linux/sched.h.
_TUNSETIFF, _TUNSETOFFLOAD = 0x400454CA, 0x400454D0
_TUN, _NO_INFORMATION, _HEADER = 0x0001, 0x1000, 0x4000
_CHECKSUMS, _SEGMENTS = 0x01, 0x02
_NEW_NETWORK = 0x40000000
_HEADER_SIZE = 10
_PACKET = _HEADER_SIZE + 65536

_FAST = 12_500_000.0
"""Bytes per second from which on a device hands over many segments at once."""


@dataclass(frozen=True)
class Way:
    """
    What a path is like, in each direction.

    @ivar rate: Bytes per second.
    @ivar delay: Seconds that a packet is under way at least.
    @ivar queue: Seconds' worth of bytes that wait for their turn at the most; what
        comes on top is lost.
    @ivar congestion: The kernel's congestion control.
    @ivar buffers: What the kernel may hold for a connection, in bytes; 0 for its own
        defaults.
    """

    rate: float
    delay: float
    queue: float
    congestion: str = "cubic"
    buffers: int = 0

    @contextmanager
    def laid(self, room: Room) -> Iterator[Route]:
        """
        Run what the context does, and what it starts, at the path's near end.

        @raise Failed: If this machine cannot.
        """
        with ExitStack() as left:
            try:
                near, nearDevice = self._end(left, NEAR, FAR)
                far, farDevice = self._end(left, FAR, NEAR)
            except (OSError, subprocess.CalledProcessError) as problem:
                raise Failed(f"there can be no path: {problem}") from None
            _enter(near)
            room.start(
                "path",
                [
                    *("env", f"PYTHONPATH={Path(__file__).parent.parent}"),
                    *(sys.executable, "-m", "benchmarks.path", str(self.rate)),
                    *(str(self.delay), str(self.queue)),
                    *(str(nearDevice), str(farDevice)),
                ],
                keep=(nearDevice, farDevice),
            )
            enter = f"--net=/proc/{os.getpid()}/fd/{far}"
            yield Route(NEAR, FAR, ("nsenter", enter))

    def _end(self, left: ExitStack, own: str, other: str) -> tuple[int, int]:
        """
        Be in a new namespace with a device.

        @param left: Goes back to the one before, and closes these, in the end.
        @return: Their descriptors.
        """
        before = _opened(left, _NAMESPACE, os.O_RDONLY)
        _unshare()
        left.callback(_enter, before)
        namespace = _opened(left, _NAMESPACE, os.O_RDONLY)
        device = _opened(left, "/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
        flags = _TUN | _NO_INFORMATION | _HEADER
        fcntl.ioctl(device, _TUNSETIFF, struct.pack("16sH22x", b"path", flags))
        if self.rate >= _FAST:
            fcntl.ioctl(device, _TUNSETOFFLOAD, _CHECKSUMS | _SEGMENTS)
        for words in (
            "link set lo up",
            f"addr add {own} peer {other} dev path",
            "link set path txqueuelen 10000 up",
            f"route replace {other} dev path src {own} congctl {self.congestion}",
        ):
            subprocess.run(["ip", *words.split()], check=True)
        if self.buffers:
            for name in ("tcp_rmem", "tcp_wmem"):
                limits = f"4096 131072 {self.buffers}"
                Path(f"/proc/sys/net/ipv4/{name}").write_text(limits)
        return namespace, device


SLOW = Way(1.25e6, 0.02, 0.1)
"""10 Mbit/s, and 40 ms there and back."""

LONG = Way(125e6, 0.05, 0.05, "bbr", 64 * 1024 * 1024)
"""
1 Gbit/s, and 100 ms there and back. With the kernel's own limit of 4 MiB a connection
could not fill it, and CUBIC needs a minute for that.
"""


def _opened(left: ExitStack, path: str, flags: int) -> int:
    """Open a file that C{left} closes."""
    descriptor = os.open(path, flags)
    left.callback(os.close, descriptor)
    return descriptor


def _call(name: str, *arguments: int) -> None:
    """Call the C library."""
    library = ctypes.CDLL(None, use_errno=True)
    if getattr(library, name)(*arguments):
        number = ctypes.get_errno()
        raise OSError(number, f"{name}: {os.strerror(number)}")


def _unshare() -> None:
    """Be in a new network namespace."""
    _call("unshare", _NEW_NETWORK)


def _enter(namespace: int) -> None:
    """Be in another network namespace."""
    _call("setns", namespace, _NEW_NETWORK)


class Line:
    """
    One direction.

    @ivar under: When packets that are under way are due, and what they are.
    @ivar lost: Packets for which the queue had no room.
    """

    def __init__(self, path: Way) -> None:
        self.under: deque[tuple[float, bytes]] = deque()
        self.lost = 0
        self._path = path
        self._free = 0.0

    def take(self, now: float, packet: bytes) -> None:
        """A packet comes to the router."""
        begins = max(now, self._free)
        if begins - now > self._path.queue:
            self.lost += 1
            return
        size = len(packet) - _HEADER_SIZE
        self._free = begins + size / self._path.rate
        self.under.append((self._free + self._path.delay, packet))


def _pass(path: Way, near: int, far: int) -> None:
    """Pass packets between two devices for ever."""
    lines = {near: (far, Line(path)), far: (near, Line(path))}
    readable: list[int] = [near, far]
    while True:
        for each in readable:
            line = lines[each][1]
            for _ in range(64):
                try:
                    packet = os.read(each, _PACKET)
                except BlockingIOError:
                    break
                line.take(time.monotonic(), packet)
        now, nextDue = time.monotonic(), float("inf")
        for sink, line in lines.values():
            under = line.under
            while under and under[0][0] <= now:
                os.write(sink, under.popleft()[1])
            if under:
                nextDue = min(nextDue, under[0][0])
        wait = None if nextDue == float("inf") else max(0.0, nextDue - now)
        readable = select.select([near, far], [], [], wait)[0]


if __name__ == "__main__":
    # Whatever else is to be done on this machine, a path does not wait.
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    rate, delay, queue, near, far = sys.argv[1:]
    _pass(Way(float(rate), float(delay), float(queue)), int(near), int(far))
