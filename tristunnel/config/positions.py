"""
Where in a TOML text each key and each value is.

C{tomllib} says what a text means and not where. This reads only as much of it
as is needed to know the lines, and only of texts that C{tomllib} has taken; so
it may rely on their being right.
"""

from __future__ import annotations

import re
import tomllib

__all__ = ["Path", "linesOf"]

Path = tuple[str | int, ...]
"""The way to a value: keys, and indexes of arrays."""

_BLANK = re.compile(r"[ \t]*")
_GAP = re.compile(r"(?:[ \t\n]|#[^\n]*)*")
_BARE = re.compile(r"[A-Za-z0-9_-]+")
_BASIC = re.compile(r'"(?:[^"\\\n]++|\\.)*+"')
_LITERAL = re.compile(r"'[^'\n]*'")
# As many as two quotes may come before the three that end it.
_LONG_BASIC = re.compile(r'"""(?:[^"\\]++|\\.|"{1,2}(?!"))*+"{3,5}', re.DOTALL)
_LONG_LITERAL = re.compile(r"'''(?:[^']++|'{1,2}(?!'))*+'{3,5}", re.DOTALL)
_SCALAR = re.compile(r"[^,\]}#\n]*")


def linesOf(text: str) -> dict[Path, int]:
    """
    Find the lines.

    @param text: What C{tomllib.loads} has taken.
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
        # How many elements each array of tables has so far.
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
        """A part of the document begins here, unless it was begun before."""
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
