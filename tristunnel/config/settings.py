"""
What was said about an option, and by whom.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tristunnel.config.file import ConfigFile
from tristunnel.config.positions import Path

__all__ = ["DEFAULT", "OPTION", "Setting", "settingsOf"]

DEFAULT = "default"
OPTION = "option"


@dataclass(frozen=True)
class Setting:
    """
    A value and where it comes from.

    @ivar value: As TOML has it.
    @ivar origin: For people: C{tunnel.toml:7}, C{environment NAME},
        L{OPTION} or L{DEFAULT}.
    @ivar file: The file it is from, or C{None}.
    @ivar path: Where it is in that file.
    """

    value: Any
    origin: str
    file: ConfigFile | None = None
    path: Path = ()

    def placeOf(self, *inner: str | int) -> str:
        """
        Where a part of it is.
        """
        if self.file is None:
            return self.origin
        return self.file.placeOf((*self.path, *inner))


def settingsOf(
    file: ConfigFile, place: Path, values: Mapping[str, Any]
) -> dict[str, Setting]:
    """
    Make settings of a table's values.

    @param place: The way to the table.
    """
    return {
        name: Setting(value, file.placeOf((*place, name)), file, (*place, name))
        for name, value in values.items()
    }
