"""Coroutines inside, Deferreds at the boundary."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred

__all__ = ["returnsDeferred"]

_P = ParamSpec("_P")
_T = TypeVar("_T")


def returnsDeferred(
    function: Callable[_P, Coroutine[Deferred[Any], Any, _T]],
) -> Callable[_P, Deferred[_T]]:
    """Have a coroutine function begin at once, and return a Deferred."""

    @wraps(function)
    def begin(*args: _P.args, **kwargs: _P.kwargs) -> Deferred[_T]:
        return Deferred.fromCoroutine(function(*args, **kwargs))

    return begin
