"""
Tests for L{tristunnel.dataplane.pipes}.
"""

from __future__ import annotations

import os

from twisted.trial.unittest import SynchronousTestCase

from tristunnel.dataplane import pipes
from tristunnel.dataplane.pipes import PipePool, canSplice


class PipePoolTests(SynchronousTestCase):
    """Pipes are few, and used again."""

    if not canSplice():
        skip = "this system has no splice"

    def setUp(self) -> None:
        self.pool = PipePool(most=2, kept=1)
        self.addCleanup(self.pool.clear)

    def test_reused(self) -> None:
        """An empty pipe is handed out again."""
        first = self.pool.take()
        assert first is not None
        self.pool.give(first)
        self.assertIs(self.pool.take(), first)
        self.assertEqual(self.pool.opened, 1)
        self.pool.give(first)

    def test_large(self) -> None:
        """A pipe holds what it says."""
        pipe = self.pool.take()
        assert pipe is not None
        self.assertEqual(os.write(pipe.into, bytes(pipe.size)), pipe.size)
        self.assertRaises(BlockingIOError, os.write, pipe.into, b"x")
        pipe.held = pipe.size
        self.pool.give(pipe)

    def test_bounded(self) -> None:
        """Beyond the bound there is none, until one comes back."""
        taken = [self.pool.take(), self.pool.take()]
        self.assertIsNone(self.pool.take())
        for pipe in taken:
            assert pipe is not None
            self.pool.give(pipe)
        # One is kept, the other one was closed.
        self.assertEqual(self.pool.opened, 1)
        self.pool.clear()
        self.assertEqual(self.pool.opened, 0)

    def test_notEmpty(self) -> None:
        """
        A pipe that still holds a broken stream's bytes is closed: the next
        stream must not get them.
        """
        pipe = self.pool.take()
        assert pipe is not None
        os.write(pipe.into, b"somebody else's")
        pipe.held = 15
        self.pool.give(pipe)
        self.assertEqual(self.pool.opened, 0)
        self.assertRaises(OSError, os.fstat, pipe.out)

    def test_noDescriptors(self) -> None:
        """Without descriptors there is no pipe, and no error."""

        def pipe2(flags: int) -> tuple[int, int]:
            raise OSError(24, "Too many open files")

        self.patch(os, "pipe2", pipe2)
        self.assertIsNone(self.pool.take())
        self.assertEqual(self.pool.opened, 0)

    def test_smallPipes(self) -> None:
        """Where the kernel grants only small pipes, copying is faster."""
        self.patch(pipes, "_enlarge", lambda descriptor: 4096)
        self.assertIsNone(self.pool.take())
        self.assertEqual(self.pool.opened, 0)
