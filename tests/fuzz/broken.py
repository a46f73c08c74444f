"""
What must not come of anything that an unauthenticated peer says.
"""

from __future__ import annotations

__all__ = ["Broken"]


class Broken(Exception):
    """A parser did what it must not."""
