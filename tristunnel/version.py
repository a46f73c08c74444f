"""The version of this package."""

from __future__ import annotations

__all__ = ["VERSION"]

VERSION = "0.2.0.dev0"
"""As PEP 440 has it."""
