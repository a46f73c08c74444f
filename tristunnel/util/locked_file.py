"""A file that one process has to itself, and that is whole whenever anybody looks."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path
from typing import IO

from tristunnel.util.descriptor_calls import MOVABLE, lockFile
from tristunnel.util.platform import NO_FOLLOW, NOT_INHERITED

__all__ = ["LockedFile"]


def _opened(path: Path) -> IO[bytes]:
    """
    Open a file for locking and reading, but not for writing, so that it can still be
    used on a disk that has become read-only.

    @raise OSError: If there is none, and it cannot be made.
    """
    flags = os.O_RDONLY | os.O_CREAT | NOT_INHERITED
    return os.fdopen(os.open(path, flags, 0o600), "rb")


class LockedFile:
    """
    A file that only its user can read, and that is locked until it is closed.

    @param path: Where it is; its directory is made with it.

    @ivar path: The same.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: IO[bytes] | None = None

    def take(self) -> IO[bytes]:
        """
        Lock it, unless that is done already; make it, if there is none.

        @return: The file, for reading.
        @raise BlockingIOError: If another process has it.
        @raise OSError: If there can be no such file.
        """
        if self._lock is not None:
            return self._lock
        path = self.path
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        while True:
            lock = _opened(path)
            descriptor = lock.fileno()
            try:
                lockFile(descriptor)
                # Its owner may have replaced it meanwhile.
                current = os.path.samestat(os.fstat(descriptor), os.stat(path))
            except OSError:
                lock.close()
                raise
            if current:
                self._lock = lock
                return lock
            lock.close()

    def replace(self, content: bytes) -> None:
        """
        Write another file, and give it the name of the old one, so that whenever this
        program is killed, one of the two is there and complete.

        @raise BlockingIOError: If another process has it.
        @raise OSError: If there is no room; the old file is as it was.
        """
        lock, path = self.take(), self.path
        # The name is always the same, so that what a kill leaves is overwritten later.
        temporary = path.with_name(f"{path.name}.new")
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | NO_FOLLOW
        descriptor = os.open(temporary, flags, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as stream:
                stream.write(content)
                stream.flush()
                os.fsync(descriptor)
            new = _opened(temporary)
            try:
                lockFile(new.fileno())
                if not MOVABLE:
                    # It is locked again in a moment, below.
                    new.close()
                    lock.close()
                os.replace(temporary, path)
                if not MOVABLE:
                    new = _opened(path)
                    lockFile(new.fileno())
            except OSError:
                new.close()
                raise
        except OSError:
            with suppress(OSError):
                os.unlink(temporary)
            raise
        lock.close()
        self._lock = new

    def remove(self) -> None:
        """Delete it, if it is ours, and let go of it."""
        if self._lock is not None:
            with suppress(OSError):
                os.unlink(self.path)
            self.close()

    def close(self) -> None:
        """Let go of it. Doing it twice is no error."""
        lock, self._lock = self._lock, None
        if lock is not None:
            with suppress(OSError):
                lock.close()
