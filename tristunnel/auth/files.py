"""Reading small files whole and at once, and noticing that they changed."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable

from twisted.logger import Logger

from tristunnel.util.files import withoutMark

__all__ = [
    "MAX_FILE_SIZE",
    "FollowedFile",
    "Signature",
    "readAtOnce",
    "reasonOf",
    "signatureOf",
]

MAX_FILE_SIZE = 16 * 1024 * 1024
"""The largest file that is read, in bytes."""

Signature = tuple[int, int, int, int, int]


def signatureOf(status: os.stat_result) -> Signature:
    """
    What is different after every change of a file, a replaced one and new
    permissions included.
    """
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def _refuseUnusual(mode: int, size: int) -> None:
    if not stat.S_ISREG(mode):
        raise OSError("it is not a regular file")
    if size > MAX_FILE_SIZE:
        raise OSError(f"it is larger than {MAX_FILE_SIZE // 1024 // 1024} MiB")


def _openAtOnce(path: str, flags: int) -> int:
    """
    Open without waiting: a FIFO would otherwise wait for a writer, and the
    server with it.
    """
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def readAtOnce(path: str) -> tuple[os.stat_result, bytes]:
    """
    The one reader of our text files.

    @return: What the file is, and its content, without a byte order mark.
    @raise OSError: when the file cannot be read whole and at once.
    @raise ValueError: when there can be no such path, or the file is no UTF-8.
    """
    with open(path, "rb", opener=_openAtOnce) as stream:
        status = os.fstat(stream.fileno())
        _refuseUnusual(status.st_mode, status.st_size)
        # It may grow while it is read.
        data = stream.read(MAX_FILE_SIZE + 1)
    _refuseUnusual(status.st_mode, len(data))
    return status, withoutMark(data)


def reasonOf(error: OSError | ValueError) -> str:
    """@return: The cause of a failed read, in words and without the path."""
    return (isinstance(error, OSError) and error.strerror) or str(error)


class FollowedFile:
    """
    A file that is read again whenever it is not the one that was read.

    @param path: The file. A relative path counts from the directory that is
        current now, wherever a daemon goes later.
    @param kind: What it is, for the log, such as C{"clients file"}.
    @param log: Whose log that is.
    @param load: Called with what the file is, and its content.

    @ivar path: The absolute path.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        kind: str,
        log: Logger,
        load: Callable[[os.stat_result, bytes], None],
    ) -> None:
        self.path = os.path.abspath(path)
        self._kind = kind
        self._log = log
        self._load = load
        self._signature: Signature | None = None
        self._trouble: str | None = None

    def read(self) -> None:
        """
        Put the present content in force.

        @raise OSError: when the file cannot be read.
        @raise ValueError: when there can be no such path.
        """
        status, data = readAtOnce(self.path)
        self._signature = signatureOf(status)
        self._load(status, data)

    def follow(self) -> None:
        """
        Read the file again if it is not the one that was read. What cannot be
        read leaves the last good content in force, and is logged once.
        """
        try:
            if signatureOf(os.stat(self.path)) != self._signature:
                self.read()
            trouble = None
        except (OSError, ValueError) as error:
            trouble = reasonOf(error)
            if trouble != self._trouble:
                self._log.error(
                    "Cannot read the {kind} {path!r}: {reason}; its last content stays"
                    " in force until it can be read again",
                    kind=self._kind,
                    path=self.path,
                    reason=trouble,
                )
        self._trouble = trouble
