"""Tests for L{tristunnel.client.listening}."""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path
from shutil import rmtree
from typing import Any
from unittest import skipUnless

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.client.listening import INTERVAL, ServiceWatch, isListening
from tristunnel.model.observer import ClientObserver

_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt\n"


class TableTests(SynchronousTestCase):
    """The kernel's tables, as Linux on a machine of little-endian writes them."""

    def setUp(self) -> None:
        self.tables = Path(self.mktemp())
        self.tables.mkdir()
        self.patch(sys, "byteorder", "little")

    def write(self, name: str, *rows: str) -> None:
        lines = [f"   0: {row} 00000000:00000000 00:00000000\n" for row in rows]
        (self.tables / name).write_text(_HEAD + "".join(lines))

    def test_addresses(self) -> None:
        """A listener counts if it is at the address, at all, or at any that a name for
        this machine may mean."""
        nobody = "00000000:0000"
        self.write(
            "tcp",
            f"0100007F:0BB8 {nobody} 0A",
            f"0200007F:0BB9 {nobody} 0A",
            f"00000000:0BBA {nobody} 0A",
            f"0A00000A:0BBB {nobody} 0A",
            "0100007F:0BBC 0100007F:0001 01",
            f"0100007F:0BBD {nobody} 0A",
        )
        for target, listens in (
            ("localhost:3000", True),
            ("LOCALHOST:3000", True),
            ("127.0.0.1:3000", True),
            ("127.0.0.2:3000", False),
            ("[::1]:3000", False),
            ("tcp:localhost:3000", True),
            ("tls:127.0.0.1:3000", True),
            ("localhost:3001", True),
            ("127.0.0.1:3001", False),
            ("127.0.0.9:3002", True),
            ("[::1]:3002", True),
            # At another address of this machine.
            ("localhost:3003", False),
            # A connection, and what comes behind the first of them.
            ("localhost:3004", False),
            ("localhost:3005", False),
            # Elsewhere, and what is no address.
            ("192.0.2.1:3000", None),
            ("db.example:3000", None),
            ("udp:localhost:3000", None),
            ("nonsense", None),
            ("", None),
        ):
            self.assertIs(isListening(target, self.tables), listens, target)

    def test_version6(self) -> None:
        """IPv6 is in a table of its own, which may be missing."""
        self.write("tcp")
        self.assertIs(isListening("[::1]:3000", self.tables), False)
        nobody = f"{'0' * 32}:0000"
        self.write(
            "tcp6",
            f"00000000000000000000000001000000:0BB8 {nobody} 0A",
            f"0000000000000000FFFF00000100007F:0BB9 {nobody} 0A",
        )
        for target, listens in (
            ("[::1]:3000", True),
            ("localhost:3000", True),
            ("127.0.0.1:3000", False),
            ("127.0.0.1:3001", True),
        ):
            self.assertIs(isListening(target, self.tables), listens, target)

    def test_sockets(self) -> None:
        """A UNIX socket listens if the kernel says that it accepts."""
        (self.tables / "unix").write_text(
            "Num       RefCount Protocol Flags    Type St Inode Path\n"
            "0000000000000000: 00000002 00000000 00010000 0001 01 1 /run/my app.sock\n"
            "0000000000000000: 00000003 00000000 00000000 0001 03 2 /run/other.sock\n"
            "0000000000000000: 00000003 00000000 00000000 0001 03 3\n"
        )
        for target, listens in (
            ("unix:/run/my app.sock", True),
            ("unix:path=/run/my app.sock", True),
            ("unix:/run/other.sock", False),
            ("unix:/run/none.sock", False),
        ):
            self.assertIs(isListening(target, self.tables), listens, target)

    def test_noTables(self) -> None:
        """Where the kernel has no such tables, a port that cannot be bound to is one
        where somebody listens; of a socket that exists nobody knows."""
        nowhere = self.tables / "none"
        with socket.socket() as service:
            service.bind(("127.0.0.1", 0))
            service.listen()
            port = service.getsockname()[1]
            self.assertIs(isListening(f"localhost:{port}", nowhere), True)
            self.assertIs(isListening(f"127.0.0.1:{port}", nowhere), True)
        self.assertIs(isListening(f"localhost:{port}", nowhere), False)
        self.assertIs(isListening("unix:/run/no/x.sock", nowhere), False)
        self.assertIsNone(isListening(f"unix:{self.tables}", nowhere))
        self.assertIsNone(isListening("192.0.2.1:3000", nowhere))

    def test_unknown(self) -> None:
        """Of tables that nobody understands nobody knows anything."""
        (self.tables / "tcp").write_text(f"{_HEAD}nonsense\n")
        self.assertIsNone(isListening("localhost:3000", self.tables))


@skipUnless(os.path.exists("/proc/net/tcp"), "only Linux has these tables")
class KernelTests(SynchronousTestCase):
    """The kernel of this machine."""

    def test_port(self) -> None:
        """A port that is bound listens only once it does; nobody comes to it."""
        with socket.socket() as service:
            service.bind(("127.0.0.1", 0))
            target = f"localhost:{service.getsockname()[1]}"
            self.assertIs(isListening(target), False)
            service.listen()
            service.setblocking(False)
            self.assertIs(isListening(target), True)
            self.assertRaises(BlockingIOError, service.accept)
        self.assertIs(isListening(target), False)

    def test_socket(self) -> None:
        """So it is with a UNIX socket."""
        directory = tempfile.mkdtemp()
        self.addCleanup(rmtree, directory)
        path = f"{directory}/s"
        with socket.socket(socket.AF_UNIX) as service:
            service.bind(path)
            self.assertIs(isListening(f"unix:{path}"), False)
            service.listen()
            self.assertIs(isListening(f"unix:{path}"), True)


class Notes(ClientObserver):
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def serviceMissing(self, target: str) -> None:
        self.told.append(("missing", target))

    def serviceFound(self, target: str) -> None:
        self.told.append(("found", target))


class WatchTests(SynchronousTestCase):
    """When it is looked, and what is told."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.notes = Notes()
        self.listens: dict[str, Any] = {}
        self.watch = ServiceWatch(self.clock, self.notes, self.listens.get)

    def test_missing(self) -> None:
        """A service that does not listen is told of once, and again when it does."""
        self.listens.update({"a": False, "b": True, "c": None})
        for target in ("a", "b", "c", "a"):
            self.watch.tunnelReady("tcp://h:1", target)
        self.assertEqual(self.notes.told, [("missing", "a")])
        self.clock.pump([INTERVAL] * 3)
        self.assertEqual(len(self.notes.told), 1)
        self.listens["a"] = True
        self.clock.advance(INTERVAL)
        self.assertEqual(self.notes.told[1:], [("found", "a")])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_visitor(self) -> None:
        """A visitor that reaches it has found it."""
        self.listens["a"] = False
        self.watch.tunnelReady("tcp://h:1", "a")
        self.watch.serviceConnected("a")
        self.assertEqual(self.notes.told[1:], [("found", "a")])
        self.clock.advance(INTERVAL)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopped(self) -> None:
        """A client that stops looks no more."""
        self.listens["a"] = False
        self.watch.tunnelReady("tcp://h:1", "a")
        self.watch.stopped()
        self.assertEqual(self.clock.getDelayedCalls(), [])
