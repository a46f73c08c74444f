"""Noticing that files changed, without asking the disk for each connection."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from twisted.logger import Logger

from tristunnel.errors import TunnelError
from tristunnel.util.files import PathLike, pathText

__all__ = ["CHECK_INTERVAL", "Reloading", "Signature", "signature", "signatureOf"]

CHECK_INTERVAL = 1.0
"""The usual seconds between two checks of the disk."""

Signature = tuple[int, int, int, int, int] | None
"""What changes when a file does; C{None} for a file that is not there."""

_T = TypeVar("_T")


def signatureOf(status: os.stat_result) -> Signature:
    """
    Take from a file's status what is different after every change of the file,
    its replacement and new permissions included.
    """
    return (
        status.st_dev,
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
    )


def signature(path: str) -> Signature:
    """
    Look at a file.

    @param path: The file; a symbolic link is followed, so that one that is
        pointed elsewhere (as certbot does) counts as a change.
    """
    try:
        return signatureOf(os.stat(path))
    except (OSError, ValueError):
        return None


def _below(path: str) -> list[str]:
    """A path, and the files in it: its own time says nothing of theirs."""
    try:
        return [path, *sorted(os.path.join(path, each) for each in os.listdir(path))]
    except (OSError, ValueError):
        return [path]


class Reloading(Generic[_T]):
    """
    Something loaded from files, which is loaded again when they change.

    @ivar current: What was loaded last without an error.
    """

    _log = Logger()

    def __init__(
        self,
        paths: Sequence[PathLike],
        load: Callable[[], _T],
        seconds: Callable[[], float],
        interval: float | None = None,
    ) -> None:
        """
        Load for the first time.

        @param paths: The files to watch, or directories of files.
        @param load: Makes the thing out of the files.
        @param seconds: A clock that counts seconds.
        @param interval: The seconds that must pass between two checks of the disk;
            L{CHECK_INTERVAL} if it is not given.
        @raise TunnelError: Whatever C{load} raises.
        """
        self._paths = tuple(dict.fromkeys(pathText(path) for path in paths))
        self._load = load
        self._seconds = seconds
        self._interval = CHECK_INTERVAL if interval is None else interval
        # Check first, load later: a change in between is then seen next time.
        self._signatures = self._check()
        self.current = load()

    def _check(self) -> tuple[Signature, ...]:
        self._lastCheck = self._seconds()
        return tuple(signature(each) for path in self._paths for each in _below(path))

    def get(self) -> _T:
        """
        Give what the files hold now, as far as they can be used.

        The disk is asked at most once per interval. A file that became
        unusable is logged once, and what was there before stays.

        @return: The newest thing that could be loaded.
        """
        if self._seconds() - self._lastCheck < self._interval:
            return self.current
        signatures = self._check()
        if signatures == self._signatures:
            return self.current
        self._signatures = signatures
        try:
            self.current = self._load()
        except TunnelError as error:
            self._log.error(
                "What was loaded before stays in use: {reason}", reason=error.message
            )
        else:
            self._log.info("Loaded again: {paths}", paths=", ".join(self._paths))
        return self.current
