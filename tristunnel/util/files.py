"""
What there is to know of a text file before its text is read: how it is written,
and who else can read it.
"""

from __future__ import annotations

from twisted.logger import Logger

__all__ = ["warnIfOpen", "withoutMark"]

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
