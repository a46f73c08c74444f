"""
Where state is kept.
"""

from __future__ import annotations

import os
from pathlib import Path

__all__ = ["defaultStateDirectory"]


def defaultStateDirectory() -> Path:
    """
    The directory for state that nobody named another one for: what systemd
    gives the unit, else what the XDG base directory specification says.
    """
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME", "")
    return (Path(base) if base else Path.home() / ".local" / "state") / "tristunnel"
