"""
The values of options and their origins, which C{--print-config} shows as TOML, without
secrets.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tristunnel.config.file import ConfigFile, Path
from tristunnel.errors import printable
from tristunnel.util.command_line import SECRET_HEADERS

__all__ = [
    "DEFAULT",
    "HIDDEN",
    "OPTION",
    "Setting",
    "redacted",
    "settingsOf",
    "shownSettings",
    "tomlText",
    "tomlValue",
]

DEFAULT = "default"
OPTION = "option"
HIDDEN = "(hidden)"

_HOOK = re.compile(
    r"\s*(?:[a-z*,\s-]+=)?\s*"
    r"(?:exec:\s*\S+\s*|(?:\w+\+)?\w+://(?![^/?#]*@)[^/?#\s]*/?)"
)
"""The part of a hook that may be shown: the program without arguments, or the host."""

_LOGIN = re.compile(r"(?<=://)[^/@\s]*@")

_SENTINEL = re.compile(r"(?<=[?&]sentinel=)[^&#]+")

_HARMLESS_AUTH = ("anonymous", "clients", "file", "tokens", "unix", "sshkey", "pam")
"""Kinds of C{--auth} whose argument is a path, or nothing."""


@dataclass(frozen=True)
class Setting:
    """
    A value and its origin.

    @ivar value: The value, as a type of TOML.
    @ivar origin: For people: C{tunnel.toml:7}, C{environment NAME},
        L{OPTION} or L{DEFAULT}.
    @ivar file: The file it is from, or C{None}.
    @ivar path: Its path in that file.
    """

    value: Any
    origin: str
    file: ConfigFile | None = None
    path: Path = ()

    def placeOf(self, *inner: str | int) -> str:
        """Say where a part of it is."""
        if self.file is None:
            return self.origin
        return self.file.placeOf((*self.path, *inner))


def settingsOf(
    file: ConfigFile, place: Path, values: Mapping[str, Any]
) -> dict[str, Setting]:
    """
    Make settings of a table's values.

    @param place: The path to the table.
    """
    return {
        name: Setting(value, file.placeOf((*place, name)), file, (*place, name))
        for name, value in values.items()
    }


def redacted(name: str, value: Any) -> Any:
    """
    Write an option's value as it may be shown.

    @param name: The option.
    """
    if isinstance(value, list | tuple):
        return [redacted(name, each) for each in value]
    if isinstance(value, dict):
        return {key: redacted(key, each) for key, each in value.items()}
    if not isinstance(value, str):
        return value
    if name == "credentials":
        key, equals, _ = value.partition("=")
        return value if key == "id" else f"{key}{equals}{HIDDEN}"
    if name == "header":
        field = re.split("[=:]", value, maxsplit=1)[0]
        secret = field.strip().lower() in SECRET_HEADERS
        return f"{field}={HIDDEN}" if secret else value
    if name in ("tunnel", "access"):
        public, mark, _ = value.partition("#")
        return f"{public}{mark}{HIDDEN}" if mark else public
    if name == "auth":
        kind, colon, _ = value.partition(":")
        harmless = kind in _HARMLESS_AUTH or not colon
        return value if harmless else f"{kind}:{HIDDEN}"
    if name in ("on-event", "ask"):
        found = _HOOK.match(value)
        shown = "" if found is None else found[0]
        value = value if shown == value else f"{shown}{HIDDEN}"
    if name == "cluster":
        value = _SENTINEL.sub(HIDDEN, value)
    return _LOGIN.sub(f"{HIDDEN}@", value)


def tomlText(text: str) -> str:
    """Write a string on one line."""
    # JSON's escapes are all TOML's too; TOML has one control character more,
    # and what is no character at all cannot be printed.
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return json.dumps(clean, ensure_ascii=False).replace("\x7f", "\\u007f")


def tomlValue(value: object) -> str:
    """Write a value on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, Mapping):
        pairs = (f"{name} = {tomlValue(each)}" for name, each in value.items())
        return f"{{{', '.join(pairs)}}}"
    if isinstance(value, list | tuple):
        return f"[{', '.join(map(tomlValue, value))}]"
    return tomlText(str(value))


def shownSettings(settings: Mapping[str, Setting]) -> list[str]:
    """
    Write settings as TOML, each on a line of its own with its origin beside it. Options
    that are not set become comments, since TOML has no null.
    """
    return [_line(name, settings[name]) for name in sorted(settings)]


def _line(name: str, setting: Setting) -> str:
    if setting.value is None:
        return f"# {name} is not set  # {printable(setting.origin)}"
    value = redacted(name, setting.value)
    hidden = "" if value == setting.value else ", a secret is hidden"
    return f"{name} = {tomlValue(value)}  # {printable(setting.origin)}{hidden}"
