"""
Where state is kept.
"""

from __future__ import annotations

import os
from pathlib import Path

from tristunnel.errors import TunnelError

__all__ = ["defaultStateDirectory", "stateVariable"]


def defaultStateDirectory() -> Path:
    """
    The directory for state that nobody named another one for: what systemd
    gives the unit, else what the XDG base directory specification says.

    @raise TunnelError: C{bad-option} for a user without a home.
    """
    given = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
    if given:
        return Path(given)
    base = os.environ.get("XDG_STATE_HOME", "")
    if base:
        return Path(base) / "tristunnel"
    try:
        return Path.home() / ".local" / "state" / "tristunnel"
    except RuntimeError:
        raise TunnelError(
            "bad-option", "this user has no home directory: give --state-dir"
        ) from None


def stateVariable() -> str:
    """
    The environment variable that L{defaultStateDirectory} goes by, if any.
    """
    for name in ("STATE_DIRECTORY", "XDG_STATE_HOME"):
        if os.environ.get(name):
            return name
    return ""
