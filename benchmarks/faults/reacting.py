"""Proofs that run the reactor: how they begin, wait and end."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from benchmarks.faults.proof import Options, Row
from benchmarks.processes import Room

__all__ = ["Reacting", "runReacting"]

_T = TypeVar("_T", bound="Reacting")


class Reacting:
    """
    What does such a proof.

    @ivar rows: What it has seen.
    """

    def __init__(self, reactor: Any, options: Options, room: Room) -> None:
        self.reactor = reactor
        self.options = options
        self.room = room
        self.rows: list[Row] = []

    def sleep(self, seconds: float) -> Deferred[None]:
        """Wait."""
        return deferLater(self.reactor, seconds)

    async def until(self, condition: Callable[..., object], seconds: float) -> bool:
        """
        Wait until something holds.

        @param condition: Called without arguments; defaults may bind a loop's
            variables.
        @return: Whether it did in time.
        """
        end = self.reactor.seconds() + seconds
        while not condition():
            if self.reactor.seconds() > end:
                return False
            await self.sleep(0.02)
        return True


def runReacting(
    options: Options,
    make: Callable[[Any, Options, Room], _T],
    work: Callable[[_T], Coroutine[Any, Any, None]],
) -> Iterator[Row]:
    """
    Run a proof.

    @param make: Makes what does it.
    @param work: Has it do it.
    """
    from twisted.internet import reactor

    running: Any = reactor
    kept = options.words.get("keep")
    with Room(options.directory if kept is None else Path(kept)) as room:
        proof = make(running, options, room)

        def over(result: object) -> None:
            if isinstance(result, Failure):
                proof.rows.append(Row("the proof", result.getTraceback(), False))
            running.stop()

        def start() -> None:
            Deferred.fromCoroutine(work(proof)).addBoth(over)

        running.callWhenRunning(start)
        running.run()
    yield from proof.rows
