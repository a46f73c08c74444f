"""
Files that one process has to itself, L{tristunnel.util.locked_file}; what a kill and a
full disk leave of them is in the tests of a client's lease.
"""

from __future__ import annotations

from tests.tls.files import FileTestCase
from tristunnel.util.locked_file import LockedFile


class LockedFileTests(FileTestCase):
    """One has the file; the next one gets what the last one has left."""

    def file(self) -> LockedFile:
        file = LockedFile(self.directory / "state" / "file")
        self.addCleanup(file.close)
        return file

    def test_replaced(self) -> None:
        """It stays locked when it is replaced, until it is closed."""
        first, second = self.file(), self.file()
        self.assertEqual(first.take().read(), b"")
        first.replace(b"one")
        for use in (second.take, lambda: second.replace(b"two")):
            self.assertRaises(BlockingIOError, use)
        second.remove()
        self.assertEqual(first.path.read_bytes(), b"one")
        first.close()
        self.assertEqual(second.take().read(), b"one")

    def test_removed(self) -> None:
        """Whoever comes after it was removed begins anew."""
        first, second = self.file(), self.file()
        first.replace(b"one")
        first.remove()
        self.assertFalse(first.path.exists())
        self.assertEqual(second.take().read(), b"")
