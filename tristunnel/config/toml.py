"""
Values as TOML.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

__all__ = ["tomlText", "tomlValue"]


def tomlText(text: str) -> str:
    """
    Write a string on one line.
    """
    # JSON's escapes are all TOML's too; TOML has one control character more,
    # and what is no character at all cannot be printed.
    clean = text.encode("utf-8", "replace").decode("utf-8")
    return json.dumps(clean, ensure_ascii=False).replace("\x7f", "\\u007f")


def tomlValue(value: object) -> str:
    """
    Write a value on one line.
    """
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
