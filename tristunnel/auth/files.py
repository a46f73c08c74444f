"""
Reading small files whole and at once, noticing that they changed, and replacing
them in one step.
"""

from __future__ import annotations

import os
import stat
import tempfile
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Self

from twisted.logger import Logger

from tristunnel.errors import badOption
from tristunnel.util.descriptor_calls import lockFile
from tristunnel.util.files import warnIfOpen, withoutMark
from tristunnel.util.watch import Signature, signatureOf

__all__ = [
    "MAX_FILE_SIZE",
    "FollowedFile",
    "Lines",
    "Problem",
    "onlyWriter",
    "readAtOnce",
    "readSecret",
    "reasonOf",
    "replaceFile",
]

MAX_FILE_SIZE = 16 * 1024 * 1024
"""The largest file that is read, in bytes."""

_MAX_PROBLEMS = 20


def _refuseUnusual(mode: int, size: int) -> None:
    if not stat.S_ISREG(mode):
        raise OSError("it is not a regular file")
    if size > MAX_FILE_SIZE:
        raise OSError(f"it is larger than {MAX_FILE_SIZE // 1024 // 1024} MiB")


def _openAtOnce(path: str, flags: int) -> int:
    """
    Open without waiting: opening a FIFO would otherwise block the server until there is
    a writer.
    """
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def readAtOnce(path: str) -> tuple[os.stat_result, bytes]:
    """
    Read a text file; all of ours are read by this function.

    @return: The file's status, and its content, without a byte order mark.
    @raise OSError: when the file cannot be read whole and at once.
    @raise ValueError: when the path is impossible, or the file is not UTF-8.
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


def readSecret(said: str, path: str, what: str = "a secret") -> bytes:
    """
    Read the secret in a file that an option names, and warn if others can read the
    file.

    @param said: The option with its value, for messages.
    @param what: The kind of secret, for the warning.
    @raise TunnelError: C{bad-option}, if it cannot be read whole and at once.
    """
    try:
        status, data = readAtOnce(path)
    except (OSError, ValueError) as error:
        raise badOption(
            f"{said} cannot be read: {reasonOf(error)}; it takes the path of a file"
        ) from None
    warnIfOpen(path, status.st_mode, what)
    return data


@contextmanager
def onlyWriter(path: str, make: bool = False) -> Iterator[None]:
    """
    Keep other writers of a file out. The lock is on its directory, since the file
    itself is replaced.

    @param make: Whether to make the directory, if there is none.
    @raise TunnelError: C{bad-option}, if it cannot be used.
    """
    directory = os.path.dirname(path)
    try:
        if make:
            os.makedirs(directory, mode=0o700, exist_ok=True)
        descriptor = os.open(directory, os.O_RDONLY)
    except OSError as error:
        raise badOption(
            f"cannot use directory {directory!r}: {error.strerror}"
        ) from None
    try:
        lockFile(descriptor, wait=True)
        yield
    finally:
        os.close(descriptor)


def replaceFile(path: str, data: bytes) -> None:
    """
    Replace a file in one step, readable only by its owner; an existing one keeps its
    owner, so that a server can still read what root changes.

    @raise TunnelError: C{bad-option}, if it cannot be written.
    """
    try:
        _replace(path, data)
    except OSError as error:
        raise badOption(f"cannot write {path!r}: {error.strerror}") from None


def _replace(path: str, data: bytes) -> None:
    directory, name = os.path.split(path)
    # Made with mode 0600.
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=directory)
    try:
        with open(descriptor, "wb") as stream:
            stream.write(data)
            stream.flush()
            if os.path.exists(path):
                old = os.stat(path)
                new = os.fstat(descriptor)
                if (old.st_uid, old.st_gid) != (new.st_uid, new.st_gid):
                    os.fchown(descriptor, old.st_uid, old.st_gid)
                # A group that may read it was allowed to on purpose.
                os.chmod(temporary, 0o600 | (old.st_mode & 0o040))
            os.fsync(descriptor)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


@dataclass(frozen=True)
class Problem:
    """
    A line that was left out.

    @ivar line: Its number, counted from 1.
    @ivar reason: What is wrong with it, without its text, which may be secret.
    """

    line: int
    reason: str


@dataclass
class Lines(ABC):
    """
    The content of a file of lines, without blank ones and comments.

    @ivar problems: The first lines that are broken; at most 20 are kept.
    @ivar problemCount: How many lines are broken.
    """

    problems: list[Problem] = field(default_factory=list)
    problemCount: int = 0

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """
        Read the content of a file. This never fails: broken lines are left out
        and reported.
        """
        lines = cls()
        for number, line in enumerate(data.split(b"\n"), 1):
            line = line.strip()
            if not line or line.startswith(b"#"):
                continue
            problem = lines.readLine(line, number)
            if problem is not None:
                lines.problemCount += 1
                if len(lines.problems) < _MAX_PROBLEMS:
                    lines.problems.append(Problem(number, problem))
        return lines

    @abstractmethod
    def readLine(self, line: bytes, number: int) -> str | None:
        """
        Take one line; for subclasses.

        @return: What is wrong with it, or C{None}.
        """


class FollowedFile:
    """
    A file that is read again whenever it has changed.

    @param path: The file. A relative path counts from the directory that is
        current now, wherever a daemon goes later.
    @param kind: The kind of file, for the log, such as C{"clients file"}.
    @param cure: What to do if it cannot be read at first; C{{path}} is its path.
    @param log: The log to write to.
    @param load: Called with the file's status, and its content.

    @ivar path: The absolute path.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        kind: str,
        cure: str,
        log: Logger,
        load: Callable[[os.stat_result, bytes], None],
    ) -> None:
        self.path = os.path.abspath(path)
        self._kind = kind
        self._cure = cure
        self._log = log
        self._load = load
        self._signature: Signature = None
        self._trouble: str | None = None

    def begin(self) -> None:
        """
        Put the present content in force for the first time.

        @raise TunnelError: C{bad-option} when the file cannot be read.
        """
        try:
            self._read()
        except (OSError, ValueError) as error:
            raise badOption(
                f"cannot read the {self._kind} {self.path!r}: {reasonOf(error)};"
                f" {self._cure.format(path=self.path)}"
            ) from None

    def _read(self) -> None:
        status, data = readAtOnce(self.path)
        self._signature = signatureOf(status)
        self._load(status, data)

    def logProblems(self, lines: Lines) -> None:
        """Log which lines are broken, without their text."""
        kind = self._kind.capitalize()
        for problem in lines.problems:
            self._log.error(
                "{kind} {path!r}, line {line}: {reason}; the line is ignored",
                kind=kind,
                path=self.path,
                line=problem.line,
                reason=problem.reason,
            )
        more = lines.problemCount - len(lines.problems)
        if more > 0:
            self._log.error(
                "{kind} {path!r}: {count} more lines are invalid and ignored",
                kind=kind,
                path=self.path,
                count=more,
            )

    def follow(self) -> None:
        """
        Read the file again if it has changed. If it cannot be read, the last good
        content stays in force, and this is logged once.
        """
        try:
            if signatureOf(os.stat(self.path)) != self._signature:
                self._read()
            trouble = None
        except (OSError, ValueError) as error:
            trouble = reasonOf(error)
            if trouble != self._trouble:
                self._log.error(
                    "Cannot read the {kind} {path!r}: {reason}; its last content stays"
                    " in use until it can be read again",
                    kind=self._kind,
                    path=self.path,
                    reason=trouble,
                )
        self._trouble = trouble
