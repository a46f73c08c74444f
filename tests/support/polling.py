"""What a test waits for that nobody tells it of."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import deferLater

__all__ = ["until"]


async def until(condition: Callable[..., object], seconds: float = 0.002) -> None:
    """
    Let the reactor turn until something holds; trial's timeout ends it.

    @param condition: Called without arguments; defaults may bind a loop's variables.
    @param seconds: How often to look.
    """
    from twisted.internet import reactor

    while not condition():
        await deferLater(reactor, seconds)
