"""
Files with text or state: where they are, how they are written, and who else can
read them.
"""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from twisted.logger import Logger
from twisted.python.filepath import FilePath

from tristunnel.errors import badOption, printable

__all__ = [
    "PathLike",
    "defaultStateDirectory",
    "pathText",
    "stateVariable",
    "warnIfOpen",
    "withoutMark",
    "writeNewSecret",
]

PathLike = str | os.PathLike[str] | FilePath[str]
"""What names a file: text, a C{pathlib.Path} or a C{FilePath}."""


def defaultStateDirectory() -> Path:
    """
    The directory for state that nobody named another one for: what systemd
    gives the unit, else what the XDG base directory specification says.

    @raise TunnelError: C{bad-option} for a user without a home.
    """
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME", "")
    if base:
        return Path(base) / "tristunnel"
    try:
        return Path.home() / ".local" / "state" / "tristunnel"
    except RuntimeError:
        raise badOption("this user has no home directory: give --state-dir") from None


def stateDirectory(told: str | None) -> Path:
    """
    Read C{--state-dir}.

    @param told: What it says; empty for L{defaultStateDirectory}.
    @raise TunnelError: C{bad-option}, if that cannot become a directory.
    """
    if not told:
        return defaultStateDirectory()
    path, shown = Path(told), printable(told, 160)
    try:
        there = next(each for each in (path, *path.parents) if each.exists())
    except OSError as error:
        why = f"{error.strerror}; write another path"
        raise badOption(f"--state-dir {shown!r} cannot be used: {why}") from None
    if not there.is_dir():
        what = f"{printable(str(there), 160)} is a file; name a directory"
        raise badOption(f"--state-dir {shown!r} cannot be used: {what}")
    return path


def stateVariable() -> str:
    """The environment variable that L{defaultStateDirectory} goes by, if any."""
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        if os.environ.get(name):
            return name
    return ""


_log = Logger(namespace="tristunnel.files")

_UTF8_MARK = b"\xef\xbb\xbf"
_UTF16_MARKS = (b"\xff\xfe", b"\xfe\xff", b"\x00\x00\xfe\xff")


def withoutMark(data: bytes) -> bytes:
    """
    The content of a text file that was saved as UTF-8, perhaps with a mark in
    front, as some editors write one.

    @raise ValueError: If it was saved as UTF-16 or UTF-32.
    """
    # Without a mark, every other byte of what is ASCII is 0.
    if data.startswith(_UTF16_MARKS) or b"\x00" in data[:2]:
        raise ValueError("it is UTF-16, not UTF-8; save it as UTF-8")
    return data.removeprefix(_UTF8_MARK)


def warnIfOpen(path: object, mode: int, what: str = "a secret") -> None:
    """
    Say so if others can read a file with a secret.

    @param mode: The file's.
    """
    if mode & 0o077:
        _log.warn(
            "{path} has {what}, which others on this machine can read:"
            " chmod 600 {path}",
            path=str(path),
            what=what,
        )


def pathText(path: PathLike) -> str:
    """
    Get what the operating system calls a file.

    @param path: The file.
    @return: Its path.
    """
    # Twisted's paths do not know os.fspath.
    return path.path if isinstance(path, FilePath) else os.fspath(path)


def writeNewSecret(path: Path, data: bytes) -> None:
    """
    Write a secret file all at once, unless there is one.

    @raise OSError: If it cannot be written.
    """
    # The whole content under another name first, so that nobody ever sees
    # half a file; a link, because unlike a renaming it never replaces.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        try:
            os.link(temporary, path)
        except FileExistsError:
            pass
        except OSError:
            # A file system without links.
            if not path.exists():
                os.rename(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
