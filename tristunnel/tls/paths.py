"""
The kinds of objects by which callers name files.
"""

from __future__ import annotations

import os

from twisted.python.filepath import FilePath

__all__ = ["PathLike", "pathText"]

PathLike = str | os.PathLike[str] | FilePath[str]
"""What names a file: text, a C{pathlib.Path} or a C{FilePath}."""


def pathText(path: PathLike) -> str:
    """
    Get what the operating system calls a file.

    @param path: The file.
    @return: Its path.
    """
    # Twisted's paths do not know os.fspath.
    return path.path if isinstance(path, FilePath) else os.fspath(path)
