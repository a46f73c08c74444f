"""The configuration file: what is in it, and on which line."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tristunnel.auth.files import readAtOnce, reasonOf
from tristunnel.errors import TunnelError, badOption

__all__ = [
    "MAX_FILE_SIZE",
    "ConfigFile",
    "Path",
    "linesOf",
    "parseConfig",
    "readConfig",
]

Path = tuple[str | int, ...]
"""The path to a value: keys, and indexes of arrays."""

MAX_FILE_SIZE = 1024 * 1024
"""The largest file that is read, in bytes."""

_PLACE = re.compile(r" \(at (?:line (\d+), column \d+|end of document)\)$")

_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\\n]++|\\.)*+"')
_LITERAL = re.compile(r"'[^'\n]*'")
# As many as two quotes may come before the three that end it.
_LONG_BASIC = re.compile(r'"""(?:[^"\\]++|\\.|"{1,2}(?!"))*+"{3,5}', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''(?:[^']++|'{1,2}(?!'))*+'{3,5}", re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]*")


@dataclass(frozen=True)
class ConfigFile:
    """
    A configuration file as it was read.

    @ivar shown: Its name in messages: as the user wrote it.
    @ivar path: Its absolute path, for a daemon may change its directory.
    @ivar table: Its content.
    @ivar lines: The line of each part of the content.
    @ivar private: Whether nobody else can read it.
    """

    shown: str
    path: str
    table: Mapping[str, Any]
    lines: Mapping[Path, int] = field(default_factory=dict)
    private: bool = True

    def placeOf(self, path: Path) -> str:
        """Say where a part of it is, as C{tunnel.toml:7}."""
        while path and path not in self.lines:
            path = path[:-1]
        return f"{self.shown}:{self.lines.get(path, 1)}"

    def wrong(self, path: Path, why: str) -> TunnelError:
        """Make the error for a part of it."""
        return badOption(f"{self.placeOf(path)}: {why}")


def readConfig(shown: str, path: str = "", option: str = "--config ") -> ConfigFile:
    """
    Read a file.

    @param shown: C{--config}, as it was written.
    @param path: Its path, if it is known already.
    @param option: What messages say in front of its name.
    @raise TunnelError: C{bad-option}, with the line if the text is wrong.
    """
    path = path or os.path.abspath(os.path.expanduser(shown))
    try:
        status, data = readAtOnce(path)
        if len(data) > MAX_FILE_SIZE:
            raise OSError(f"it is larger than {MAX_FILE_SIZE // 1024} KiB")
    except (OSError, ValueError) as error:
        raise badOption(f"{option}{shown} cannot be read: {reasonOf(error)}") from None
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
        raise badOption(f"{shown}:1: its brackets are nested too deeply") from None
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


def linesOf(text: str) -> dict[Path, int]:
    """
    Find the lines of all keys and values in a text.

    C{tomllib} tells what a text means, but not on which lines. This reads only enough
    of it to know the lines, and relies on C{tomllib} having accepted the text.

    @param text: A text that C{tomllib.loads} has accepted.
    @return: The line, from 1, where each key, table and array element begins.
    """
    reading = _Reading(text.replace("\r\n", "\n"))
    reading.document()
    return reading.lines


class _Reading:
    def __init__(self, text: str) -> None:
        self.lines: dict[Path, int] = {}
        self._text = text
        self._at = 0
        self._line = 1
        self._lineAt = 0
        # The number of elements so far of each array of tables.
        self._arrays: dict[Path, int] = {}

    def document(self) -> None:
        table: Path = ()
        self._skip(_GAP)
        while self._at < len(self._text):
            if self._looksAt("["):
                table = self._header()
            else:
                self._pair(table)
            self._skip(_GAP)

    def _looksAt(self, beginning: str) -> bool:
        return self._text.startswith(beginning, self._at)

    def _skip(self, pattern: re.Pattern[str]) -> str:
        match = pattern.match(self._text, self._at)
        assert match is not None, "tomllib takes nothing else"
        self._at = match.end()
        return match[0]

    def _note(self, path: Path) -> None:
        """Note that a part of the document begins here, unless it has begun before."""
        self._line += self._text.count("\n", self._lineAt, self._at)
        self._lineAt = self._at
        self.lines.setdefault(path, self._line)

    def _key(self) -> list[str]:
        parts: list[str] = []
        while True:
            self._skip(_BLANK)
            if self._looksAt('"'):
                raw = self._skip(_BASIC)
                parts.append(str(tomllib.loads(f"key = {raw}")["key"]))
            elif self._looksAt("'"):
                parts.append(self._skip(_LITERAL)[1:-1])
            else:
                parts.append(self._skip(_BARE))
            self._skip(_BLANK)
            if not self._looksAt("."):
                return parts
            self._at += 1

    def _header(self) -> Path:
        isArray = self._looksAt("[[")
        brackets = 2 if isArray else 1
        start = self._at
        self._at += brackets
        parts = self._key()
        end = self._at + brackets
        # The line of a header is that of its bracket, wherever its name is.
        self._at = start
        path: Path = ()
        for number, part in enumerate(parts):
            path = (*path, part)
            self._note(path)
            if isArray and number == len(parts) - 1:
                self._arrays[path] = self._arrays.get(path, 0) + 1
            if path in self._arrays:
                path = (*path, self._arrays[path] - 1)
                self._note(path)
        self._at = end
        return path

    def _pair(self, table: Path) -> None:
        start = self._at
        parts = self._key()
        end, self._at = self._at, start
        path = table
        for part in parts:
            path = (*path, part)
            self._note(path)
        self._at = end + 1
        self._skip(_BLANK)
        self._value(path)

    def _value(self, path: Path) -> None:
        if self._looksAt("["):
            self._array(path)
        elif self._looksAt("{"):
            self._inline(path)
        elif self._looksAt('"""'):
            self._skip(_LONG_BASIC)
        elif self._looksAt("'''"):
            self._skip(_LONG_LITERAL)
        elif self._looksAt('"'):
            self._skip(_BASIC)
        elif self._looksAt("'"):
            self._skip(_LITERAL)
        else:
            self._skip(_SCALAR)

    def _array(self, path: Path) -> None:
        index = 0
        self._at += 1
        self._skip(_GAP)
        while not self._looksAt("]"):
            element = (*path, index)
            self._note(element)
            self._value(element)
            index += 1
            self._skip(_GAP)
            if self._looksAt(","):
                self._at += 1
                self._skip(_GAP)
        self._at += 1

    def _inline(self, path: Path) -> None:
        self._at += 1
        self._skip(_GAP)
        while not self._looksAt("}"):
            self._pair(path)
            self._skip(_GAP)
            if self._looksAt(","):
                self._at += 1
                self._skip(_GAP)
        self._at += 1
