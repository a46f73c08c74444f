"""What happens in the book of a cluster, as a stream of Redis tells it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tristunnel.cluster.engine import Engine
from tristunnel.errors import TunnelError
from tristunnel.model.record import Change, Place
from tristunnel.model.watchers import Watcher, Watchers
from tristunnel.util.deferreds import returnsDeferred

__all__ = ["BLOCK", "Changes", "runOf"]

BLOCK = 2.0
"""Seconds for which one question waits for something to happen."""

_PAUSE = 0.2
_AT_ONCE = 512


class Changes:
    """
    Reads a stream from where it has come to. Unlike publish and subscribe, a stream
    forgets nothing while a connection is made anew.

    @param reactor: Tells time.
    @param reader: A connection that nothing else waits for.

    @ivar tell: Tells all who watch.
    @ivar missed: Called when something may have happened that was not told.
    """

    _log = Logger()

    def __init__(self, reactor: IReactorTime, reader: Engine) -> None:
        self._reactor = reactor
        self._reader = reader
        self._watchers = Watchers()
        self.tell = self._watchers.tell
        self._cursor = ""
        self._run = ""
        self._waiting: list[Deferred[None]] = []
        self._reading: Deferred[None] | None = None
        self._stopped = False
        self.missed: Callable[[], object] = lambda: None
        reader.whenUp = self._begin

    def start(self) -> None:
        """Connect."""
        self._reader.start()

    @returnsDeferred
    async def stop(self) -> None:
        """Read no more."""
        self._stopped = True
        if self._reading is not None:
            self._reading.cancel()
        await self._reader.stop()

    @returnsDeferred
    async def watch(self, changed: Watcher) -> Callable[[], None]:
        """
        Tell somebody what happens from now on.

        @return: Ends that.
        """
        end = self._watchers.add(changed)
        if not self._cursor:
            placed: Deferred[None] = Deferred()
            self._waiting.append(placed)
            await placed
        return end

    def follow(self, run: str) -> None:
        """
        Read from that engine.

        @param run: What L{runOf} finds of it.
        """
        if self._run not in ("", run):
            # After a failover, the old engine may still be there.
            self._reader.drop()

    def _begin(self) -> None:
        if self._reading is None and not self._stopped:
            self._reading = Deferred.fromCoroutine(self._read())
            self._reading.addErrback(lambda failure: failure.trap(CancelledError))
            self._reading.addErrback(
                lambda failure: self._log.failure("Changes cannot be read", failure)
            )

    async def _read(self) -> None:
        while not self._stopped:
            try:
                await self._place()
                await self._readOn()
            except TunnelError:
                await deferLater(self._reactor, _PAUSE)
        self._reading = None

    async def _place(self) -> None:
        """
        Find out where the stream ends. One that ends before our place is another one,
        and so is one that has lost what came next.
        """
        key = self._reader.stream
        self._run = runOf(str(await self._reader.command("INFO", "server")))
        ends = [
            await self._reader.command(*words, "COUNT", 1)
            for words in (("XREVRANGE", key, "+", "-"), ("XRANGE", key, "-", "+"))
        ]
        end, begin = (_order(each[0][0]) if each else (0, 0) for each in ends)
        here = _order(self._cursor or "0-0")
        if not self._cursor or end < here or begin > here:
            known, self._cursor = self._cursor, f"{end[0]}-{end[1]}"
            if known:
                self.missed()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)

    async def _readOn(self) -> None:
        block = int(BLOCK * 1000)
        while not self._stopped:
            found: Any = await self._reader.command(
                *("XREAD", "COUNT", _AT_ONCE, "BLOCK", block),
                *("STREAMS", self._reader.stream, self._cursor),
            )
            for identifier, words in found[0][1] if found else ():
                self._cursor = identifier
                said = dict(zip(words[::2], words[1::2], strict=False))
                place = Place(said["member"], int(said["fence"]))
                self.tell(Change(said["kind"], said["id"], place))


def runOf(info: str) -> str:
    """Find the line that is different for each engine, and after each start of one."""
    lines = info.split("\r\n")
    return next((each for each in lines if each.startswith("run_id:")), "")


def _order(identifier: str) -> tuple[int, int]:
    first, _, second = identifier.partition("-")
    return int(first), int(second or 0)
