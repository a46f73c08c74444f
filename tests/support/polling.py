"""What a test waits for that nobody tells it of."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.task import deferLater

from tristunnel.dataplane.poller import pollerOf
from tristunnel.dataplane.reactor import ourReactor

__all__ = ["until", "untilClosed"]


async def until(condition: Callable[..., object], seconds: float = 0.002) -> None:
    """
    Let the reactor turn until something holds; trial's timeout ends it.

    @param condition: Called without arguments; defaults may bind a loop's variables.
    @param seconds: How often to look.
    """
    from twisted.internet import reactor

    while not condition():
        await deferLater(reactor, seconds)


async def untilClosed() -> None:
    """
    Wait until no socket of ours is left, also none whose owner has left it to take its
    time; for a test, or its C{tearDown}, that has told all of them to close.
    """
    poller = pollerOf(ourReactor())
    if poller is not None:
        await until(lambda: not len(poller))
