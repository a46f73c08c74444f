"""Tests for L{tristunnel.util.stale_sockets}."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import TestCase

from tests.support.short import shortDirectory
from tristunnel.util.stale_sockets import (
    ClearedEndpoint,
    clearLeftovers,
    serverEndpoint,
)


class LeftoverTests(TestCase):
    """A UNIX socket whose program was killed."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.path = shortDirectory(self) / "s"
        self.lock = Path(f"{self.path}.lock")

    def leave(self, owner: int | None) -> None:
        """
        Leave what a program leaves that is killed.

        @param owner: Its number, or C{None} for no lock.
        """
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(self.path))
        if owner is not None:
            self.lock.symlink_to(str(owner))

    async def listens(self, words: str = "") -> None:
        description = f"unix:{self.path}{words}"
        port: Any = await serverEndpoint(self.reactor, description).listen(
            Factory.forProtocol(Protocol)
        )
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.path))
        await port.stopListening()
        self.assertEqual(list(self.path.parent.iterdir()), [])

    async def test_sameNumber(self) -> None:
        """The number in the lock is our own, as in a container that starts again."""
        self.leave(os.getpid())
        await self.listens()

    async def test_othersNumber(self) -> None:
        """The number is another program's by now."""
        self.leave(os.getppid())
        await self.listens()

    async def test_noLock(self) -> None:
        """The lock is gone, the socket is not."""
        self.leave(None)
        await self.listens()

    async def test_unlocked(self) -> None:
        """A socket that is to have no lock."""
        self.leave(None)
        await self.listens(":lockfile=0")

    async def test_onlyLock(self) -> None:
        """The program was killed before it had the socket."""
        self.lock.symlink_to(str(os.getpid()))
        await self.listens()

    async def test_nothing(self) -> None:
        """There is nothing to tidy up."""
        await self.listens()

    async def test_inUse(self) -> None:
        """A socket where somebody listens is left alone, with its lock."""
        self.lock.symlink_to(str(os.getppid()))
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(self.path))
            other.listen()
            with self.assertRaises(CannotListenError):
                await self.listens()
            self.assertTrue(self.path.is_socket())
            self.assertTrue(self.lock.is_symlink())

    def test_noSocket(self) -> None:
        """A file that is no socket is nobody's leftover, nor is what has no file."""
        self.path.write_text("dear diary")
        self.lock.symlink_to(str(os.getpid()))
        clearLeftovers(str(self.path))
        clearLeftovers("")
        clearLeftovers("\0abstract")
        self.assertEqual(self.path.read_text(), "dear diary")
        self.assertTrue(self.lock.is_symlink())

    def test_others(self) -> None:
        """Endpoints of other kinds are Twisted's."""
        for description in ("tcp:0", "tcp:0:interface=[::1]"):
            endpoint = serverEndpoint(self.reactor, description)
            self.assertNotIsInstance(endpoint, ClearedEndpoint)
