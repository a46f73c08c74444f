"""Coroutines inside, Deferreds at the boundary."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["doAll", "returnsDeferred"]

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


async def doAll(
    parts: Iterable[Callable[[], Awaitable[object] | None]],
    failed: Callable[[Failure], object],
) -> None:
    """
    Begin several things, and then wait for all of them. What fails or does not answer
    keeps nothing else from being done.

    @param failed: Called with the reason of each that fails.
    """

    async def wait(begin: Callable[[], Awaitable[object] | None]) -> None:
        waiting = begin()
        if waiting is not None:
            await waiting

    doing = [Deferred.fromCoroutine(wait(part)) for part in parts]
    for each in doing:
        each.addErrback(failed)
    for each in doing:
        await each
