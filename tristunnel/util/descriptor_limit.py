"""How many descriptors this process may have, where the platform counts them."""

from __future__ import annotations

from typing import Any

limits: Any
try:
    import resource as limits
except ImportError:
    # Windows: its sockets are no descriptors.
    limits = None

__all__ = ["descriptorLimit", "raiseDescriptorLimit"]

_WANTED = 65_536


def descriptorLimit() -> int:
    """
    Ask for the limit.

    @return: Descriptors; 0 for any number.
    """
    if limits is None:
        return 0
    soft, _ = limits.getrlimit(limits.RLIMIT_NOFILE)
    return 0 if soft == limits.RLIM_INFINITY else int(soft)


def raiseDescriptorLimit() -> None:
    """
    Have as many descriptors as the system lets us have, within reason: the
    soft limit is 1024 for the sake of old programs that use C{select}.
    """
    if limits is None:
        return
    soft, hard = limits.getrlimit(limits.RLIMIT_NOFILE)
    wanted = _WANTED if hard == limits.RLIM_INFINITY else min(hard, _WANTED)
    if soft != limits.RLIM_INFINITY and soft < wanted:
        try:
            limits.setrlimit(limits.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):
            # macOS says that there is no limit, and has one.
            return
