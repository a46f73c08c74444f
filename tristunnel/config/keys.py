"""The keys that a program's file may have: its options, by the same names."""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import signature
from typing import Any

from twisted.python import reflect

from tristunnel.config.file import ConfigFile, Path
from tristunnel.config.settings import redacted, tomlText

__all__ = ["COMMANDS", "FLAG", "NUMBER", "TEXT", "WHOLE", "Key", "keysOf", "valuesIn"]

FLAG = "true or false"
TEXT = "a string"
WHOLE = "a whole number"
NUMBER = "a number"

COMMANDS = frozenset(
    ("config", "print-config", "help", "version", "help-auth", "help-auth-type")
)
"""Options that make sense on a command line only."""


@dataclass(frozen=True)
class Key:
    """
    What a key takes.

    @ivar name: The option's, without dashes.
    @ivar kind: The kind of its value, for messages: L{FLAG}, L{TEXT}, L{WHOLE},
        L{NUMBER}.
    @ivar many: Whether it takes an array of such values.
    @ivar default: The default.
    @ivar read: Makes the option's value from text; raises C{ValueError}.
    @ivar fields: For arrays of tables: the keys of a table. Such an array may have
        strings as well, unless C{kind} is empty.
    """

    name: str
    kind: str = TEXT
    many: bool = False
    default: object = None
    read: Callable[[str], object] = str
    fields: Mapping[str, Key] | None = None

    @property
    def takes(self) -> str:
        """Describe what it takes, for messages."""
        if not self.many:
            return self.kind
        if self.fields is None:
            return "a list of strings"
        return "a list of strings or tables" if self.kind else "tables"


def keysOf(options: type) -> dict[str, Key]:
    """
    Make the keys of a class of options, C{twisted.python.usage.Options} or a class that
    is mixed into one. They are listed nowhere else, so that no option can be forgotten.
    """
    keys: dict[str, Key] = {}
    flags: list[Any] = []
    parameters: list[Any] = []
    methods: dict[str, Any] = {}
    reflect.accumulateClassList(options, "optFlags", flags)
    reflect.accumulateClassList(options, "optParameters", parameters)
    reflect.addMethodNamesToDict(options, methods, "opt_")
    for name, *_ in flags:
        keys[name] = Key(name, FLAG, default=False)
    for name, _, default, _, *rest in parameters:
        read = (rest or [str])[0] or str
        keys[name] = Key(name, _kindOf(read), default=default, read=read)
    for mangled in methods:
        name = mangled.replace("_", "-")
        takes = len(signature(getattr(options, f"opt_{mangled}")).parameters) - 1
        if takes and len(name) > 1:
            keys[name] = Key(name, many=True, default=())
    return {name: key for name, key in keys.items() if name not in COMMANDS}


def _kindOf(read: Callable[[str], object]) -> str:
    """
    Find the kind of an option's value by trying its reader on a number: an option may
    have no default to go by.
    """
    try:
        return {int: WHOLE, float: NUMBER}.get(type(read("1")), TEXT)
    except ValueError:
        return TEXT


def valuesIn(
    file: ConfigFile, place: Path, table: Mapping[str, Any], keys: Mapping[str, Key]
) -> dict[str, Any]:
    """
    Check a table of a file.

    @param place: The path to it.
    @param keys: The keys that it may have.
    @return: Its values.
    @raise TunnelError: C{bad-option}, with the line and a suggestion.
    """
    for name, value in table.items():
        where = (*place, name)
        if name not in keys:
            raise file.wrong(where, f"unknown key {name!r}{_instead(name, keys)}")
        _check(file, where, keys[name], value)
    return dict(table)


def _instead(name: str, known: Iterable[str]) -> str:
    if name in COMMANDS:
        return f"; --{name} only works on the command line"
    close = difflib.get_close_matches(
        name[:64].lower().replace("_", "-"), list(known), 1, 0.5
    )
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there is {', '.join(sorted(known))}"


def _check(file: ConfigFile, where: Path, key: Key, value: object) -> None:
    if not key.many:
        if not _isA(key.kind, value):
            raise file.wrong(
                where, f"{key.name} takes {key.kind}{_cure(key.name, key.kind, value)}"
            )
        return
    if not isinstance(value, list):
        example = f"; write {key.name} = [{_written(key, value)}]" if key.kind else ""
        if isinstance(value, dict):
            example = f"; write [[{key.name}]]" if key.fields else ""
        raise file.wrong(where, f"{key.name} takes {key.takes}{example}")
    for index, element in enumerate(value):
        at = (*where, index)
        if isinstance(element, dict) and key.fields is not None:
            valuesIn(file, at, element, key.fields)
        elif not (key.kind and isinstance(element, str)):
            raise file.wrong(at, f"{key.name} takes {key.takes}")


def _isA(kind: str, value: object) -> bool:
    """In TOML, unlike Python, C{true} is not a number."""
    if kind == FLAG:
        return isinstance(value, bool)
    if kind == TEXT:
        return isinstance(value, str)
    if isinstance(value, bool):
        return False
    if kind == WHOLE:
        return isinstance(value, int)
    # A whole number may be too long to be a float.
    return isinstance(value, int) or (isinstance(value, float) and math.isfinite(value))


def _cure(name: str, kind: str, value: object) -> str:
    """Show what to write if the value is only written in the wrong way."""
    if kind == TEXT and isinstance(value, int | float) and value not in (True, False):
        return f"; write {name} = {tomlText(str(value))}"
    text = value.strip().lower() if isinstance(value, str) else ""
    if kind == FLAG and text in ("true", "yes", "on", "1"):
        return f"; write {name} = true"
    if kind == FLAG and text in ("false", "no", "off", "0"):
        return f"; write {name} = false"
    if kind in (WHOLE, NUMBER) and text.isascii() and text.isdecimal():
        return f"; write {name} = {text.lstrip('0') or '0'}"
    return ""


def _written(key: Key, value: object) -> str:
    """Write a value as an element of an array, for an example; nothing secret."""
    if not isinstance(value, str | int):
        return '"..."'
    return tomlText(str(redacted(key.name, str(value)))[:60])
