"""Numbers on a command line: reading them, and their ranges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import inf
from typing import Any, TypeVar

from twisted.python import reflect

from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.util.quantities import parseDuration

__all__ = ["Number", "Row", "checkNumbers", "count", "readOption", "seconds"]

_Value = TypeVar("_Value")

Row = tuple[str, None, float | None, str, "Number"]
"""An option in C{optParameters}."""


def readOption(option: str, read: Callable[[str], _Value], text: str) -> _Value:
    """
    Read the value of an option.

    @raise TunnelError: C{bad-option}, with the option's name in front.
    """
    try:
        return read(text)
    except TunnelError as error:
        raise badOption(f"--{option}: {error.message}") from None


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        try:
            return parseDuration(text)
        except TunnelError as error:
            raise ValueError(error.message) from None


@dataclass(frozen=True)
class Number:
    """
    The reader of an option's number.

    @ivar option: The option's name, for messages.
    @ivar kind: C{int}, C{float}, or another reader.
    @ivar takes: The range of right numbers, for messages.
    @ivar least: The smallest number.
    @ivar most: The greatest number.
    @ivar orZero: Whether 0 is right, too.
    """

    option: str
    kind: Callable[[str], float]
    takes: str
    least: float
    most: float
    orZero: bool = False

    def __call__(self, text: str) -> float:
        """
        Read it.

        @raise ValueError: If it is not a number, as C{twisted.python.usage} expects.
        """
        try:
            return self.kind(text)
        except ValueError:
            whats: dict[object, str] = {int: "a whole number", float: "a number"}
            what = whats.get(self.kind, "a time such as 90 or 2m")
            told = printable(text, 60)
            raise ValueError(f"--{self.option} takes {what}, not {told!r}") from None

    def check(self, value: float) -> None:
        """
        @raise TunnelError: C{bad-option}, if a number is out of range.
        """
        if not (self.least <= value <= self.most or (self.orZero and value == 0)):
            raise badOption(f"--{self.option} takes {self.takes}")


def seconds(
    option: str,
    default: float | None,
    text: str,
    least: float = 0.0,
    upTo: float | None = None,
    most: float = 1e6,
    orZero: bool = False,
) -> Row:
    """
    Declare an option that takes seconds, or a time such as C{2m}.

    @param default: The default.
    @param text: The text for C{--help}.
    @param least: The fewest, in seconds.
    @param upTo: The most, if messages should mention it.
    @param most: The most otherwise: more than anyone would want.
    @param orZero: Whether 0 is right, too.
    """
    takes = f"seconds, from {least:g} {'up' if upTo is None else f'to {upTo:g}'}"
    takes += ", or 0" if orZero else ""
    number = Number(option, _seconds, takes, least, upTo or most, orZero)
    return (option, None, default, text, number)


def count(
    option: str,
    default: float,
    text: str,
    least: int = 0,
    upTo: int | None = None,
    most: float = inf,
    kind: type[int] | type[float] = int,
) -> Row:
    """
    Declare an option that takes a number of things; the parameters are those of
    L{seconds}.

    @param kind: C{float}, if it may be a fraction.
    """
    takes = f"a number{',' if upTo is None else ''} from {least} "
    takes += "up" if upTo is None else f"to {upTo}"
    return (
        option,
        None,
        default,
        text,
        Number(option, kind, takes, least, upTo or most),
    )


def checkNumbers(kind: type, options: Mapping[str, Any]) -> None:
    """
    Check the numbers of options.

    @param kind: The class with the C{optParameters}.
    @param options: Their values; C{None} stands for one that was not given.
    @raise TunnelError: C{bad-option}, for the first that is out of its range.
    """
    for number in _numbersOf(kind):
        value = options[number.option]
        if value is not None:
            number.check(value)


def _numbersOf(kind: type) -> Iterator[Number]:
    rows: list[Any] = []
    reflect.accumulateClassList(kind, "optParameters", rows)
    for _, _, _, _, *rest in rows:
        if rest and isinstance(rest[0], Number):
            yield rest[0]
