"""
Recorded exchanges with other programs; see C{README.rst} beside this file.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

__all__ = ["readVectors"]


def readVectors(name: str) -> list[dict[str, Any]]:
    """
    Read a file of vectors.

    @param name: Its name, without C{.jsonl}.
    @return: The object of each line.
    """
    text = Path(__file__).with_name(f"{name}.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines() if line]
