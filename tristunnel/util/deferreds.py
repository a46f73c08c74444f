"""Coroutines inside, Deferreds at the boundary."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

__all__ = ["Coalesced", "doAll", "returnsDeferred"]

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


class Coalesced:
    """
    Work that is asked for many times and done one time after the other. What is asked
    for while it is being done may have come too late for it, so it is done once more.

    @param work: Does it.
    @param failed: Called with the reason where it fails.

    @ivar isDone: Whether nothing is being done.
    """

    def __init__(
        self,
        work: Callable[[], Coroutine[Deferred[Any], Any, object]],
        failed: Callable[[Failure], object],
    ) -> None:
        self._work = work
        self._failed = failed
        self._again = False
        self.isDone = True

    def ask(self) -> None:
        """Have it done, from now on."""
        self._again = not self.isDone
        if self.isDone:
            self.isDone = False
            doing = Deferred.fromCoroutine(self._work())
            doing.addErrback(self._failed).addBoth(self._ended)

    def _ended(self, result: object) -> None:
        self.isDone = True
        if self._again:
            self.ask()
