"""The configuration file: what is in it, and on which line."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tristunnel.auth.files import readAtOnce, reasonOf
from tristunnel.config.positions import Path, linesOf
from tristunnel.errors import TunnelError, badOption

__all__ = ["MAX_FILE_SIZE", "ConfigFile", "parseConfig", "readConfig"]

MAX_FILE_SIZE = 1024 * 1024
"""The largest file that is read, in bytes."""

_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")


@dataclass(frozen=True)
class ConfigFile:
    """
    A file as it was read.

    @ivar shown: What messages call it: as the user wrote it.
    @ivar path: Where it is, wherever a daemon goes later.
    @ivar table: What it says.
    @ivar lines: On which line each part of that is.
    @ivar private: Whether nobody else can read it.
    """

    shown: str
    path: str
    table: Mapping[str, Any]
    lines: Mapping[Path, int] = field(default_factory=dict)
    private: bool = True

    def placeOf(self, path: Path) -> str:
        """Where a part of it is, as C{tunnel.toml:7}."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.shown}:{self.lines.get(path, 1)}"

    def wrong(self, path: Path, why: str) -> TunnelError:
        """Say what is wrong with a part of it."""
        return badOption(f"{self.placeOf(path)}: {why}")


def readConfig(shown: str, path: str = "") -> ConfigFile:
    """
    Read a file.

    @param shown: C{--config}, as it was written.
    @param path: Where that is, if it was found out before.
    @raise TunnelError: C{bad-option}, with the line if the text is wrong.
    """
    path = path or os.path.abspath(os.path.expanduser(shown))
    try:
        status, data = readAtOnce(path)
        if len(data) > MAX_FILE_SIZE:
            raise OSError(f"it is larger than {MAX_FILE_SIZE // 1024} KiB")
    except (OSError, ValueError) as error:
        raise badOption(f"--config {shown} cannot be read: {reasonOf(error)}") from None
    return parseConfig(shown, path, data, not status.st_mode & 0o077)


def parseConfig(shown: str, path: str, data: bytes, private: bool = True) -> ConfigFile:
    """
    Read the content of a file.

    @raise TunnelError: C{bad-option}, with the line.
    """
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise badOption(f"{shown}:{line}: it is not UTF-8") from None
    try:
        table = tomllib.loads(text)
        lines = linesOf(text)
    except RecursionError:
        raise badOption(
            f"{shown}:1: it has too many brackets within each other"
        ) from None
    except ValueError as error:
        # Also of numbers that have more digits than Python reads.
        raise _syntaxError(shown, text, str(error)) from None
    return ConfigFile(shown, path, table, lines, private)


def _syntaxError(shown: str, text: str, words: str) -> TunnelError:
    place = _PLACE.search(words)
    if place is None:
        return badOption(f"{shown}:1: it is not TOML: {words[:200]}")
    line = int(place[1]) if place[1] else max(1, len(text.splitlines()))
    why = words[: place.start()]
    return badOption(f"{shown}:{line}: it is not TOML: {why[:200]}")
