"""
C{--print-config}: what is in force, and where it comes from.
"""

from __future__ import annotations

from collections.abc import Mapping

from tristunnel.config.redact import redacted
from tristunnel.config.settings import Setting
from tristunnel.config.toml import tomlValue
from tristunnel.util.words import printable

__all__ = ["shownSettings"]


def shownSettings(settings: Mapping[str, Setting]) -> list[str]:
    """
    Write settings as TOML, each on a line of its own with its origin beside it.
    What is not set at all is a comment, since TOML has no word for nothing.
    """
    return [_line(name, settings[name]) for name in sorted(settings)]


def _line(name: str, setting: Setting) -> str:
    if setting.value is None:
        return f"# {name} is not set  # {printable(setting.origin)}"
    value = redacted(name, setting.value)
    hidden = "" if value == setting.value else ", a secret is hidden"
    return f"{name} = {tomlValue(value)}  # {printable(setting.origin)}{hidden}"
