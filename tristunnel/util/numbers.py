"""
Numbers on a command line.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["decimalOf", "wholeOf"]


def decimalOf(option: str) -> Callable[[str], float]:
    """
    Make what reads an option's number.

    @param option: Its name, which the message for a mistake says.
    @return: A function of the text that raises C{ValueError}, as
        C{twisted.python.usage} expects.
    """

    def read(text: str) -> float:
        try:
            return float(text)
        except ValueError:
            raise ValueError(f"--{option} takes a number, not {text!r}") from None

    return read


def wholeOf(option: str) -> Callable[[str], int]:
    """
    Make what reads an option's whole number.

    @param option: As for L{decimalOf}.
    """

    def read(text: str) -> int:
        try:
            return int(text)
        except ValueError:
            raise ValueError(f"--{option} takes a whole number, not {text!r}") from None

    return read
