"""
Python's collector of cycles, for a process that lives long.
"""

from __future__ import annotations

import gc

__all__ = ["tuneCollector"]

YOUNG = 20_000
"""Objects made, less those that went by themselves, between two looks at the
youngest; a connection is a few dozens of them."""


def tuneCollector() -> None:
    """
    Look for garbage less often than a short program needs it, and never again
    among what was there at the start: modules, classes and code.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)
