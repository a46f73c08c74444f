"""
JSON as RFC 8259 has it, with bounds: what Python's parser lets through beyond
it (NaN, infinities, any depth) is refused, and every refusal is one exception.
"""

from __future__ import annotations

import json
from math import isfinite

__all__ = ["MAX_DEPTH", "BadJSON", "decode", "depthWithin", "encode"]

MAX_DEPTH = 64
"""How many arrays and objects may be nested in each other."""


class BadJSON(ValueError):
    """
    Something is not JSON, or is JSON beyond our bounds.

    @ivar detail: Why, in a few words, or empty for plain bad syntax.
    """

    def __init__(self, detail: str = "") -> None:
        self.detail = detail
        super().__init__(detail or "not JSON")


def _finite(text: str) -> float:
    value = float(text)
    if not isfinite(value):
        raise BadJSON("a number is out of range")
    return value


def _noConstant(text: str) -> object:
    raise BadJSON(f"{text} is not JSON")


_decoder = json.JSONDecoder(parse_float=_finite, parse_constant=_noConstant)


def depthWithin(value: object, limit: int) -> bool:
    """
    Whether at most C{limit} containers are nested in each other.

    @param value: What a JSON parser returned.
    """
    level: list[object] = [value]
    for _ in range(limit):
        level = [
            inner
            for outer in level
            if isinstance(outer, (list, dict))
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return True
    return not any(isinstance(outer, (list, dict)) for outer in level)


def decode(text: bytes | str, *, maxDepth: int = MAX_DEPTH) -> object:
    """
    Parse one JSON value. Of a key that comes twice, the last value counts.

    @param text: UTF-8, or text.
    @raise BadJSON: For everything that is wrong with it.
    """
    if isinstance(text, bytes):
        try:
            text = text.decode("utf-8")
        except UnicodeDecodeError:
            raise BadJSON("it is not UTF-8") from None
    try:
        value: object = _decoder.decode(text)
    except BadJSON:
        raise
    except json.JSONDecodeError:
        raise BadJSON from None
    except RecursionError:
        raise BadJSON("nested too deeply") from None
    except ValueError:
        # Python's limit on the digits of an integer.
        raise BadJSON("a number is out of range") from None
    if not depthWithin(value, maxDepth):
        raise BadJSON("nested too deeply")
    return value


def encode(value: object) -> str:
    """
    Write one JSON value, in ASCII.

    @raise ValueError: If C{value} has no JSON form.
    """
    try:
        return json.dumps(value, allow_nan=False)
    except (TypeError, RecursionError) as error:
        raise ValueError(str(error)) from error
