"""
How much the book of a cluster takes: many clients with a tunnel each, and then all of
them coming to another machine at once.

    python -m benchmarks.cluster [CLIENTS]

It starts a redis-server of its own, and drives the book as a server does.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from hashlib import sha256
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.task import deferLater, react

from tests.cluster.server import RedisServer
from tristunnel.cluster.engine import Engine
from tristunnel.cluster.redis_book import RedisBook, Times
from tristunnel.model.record import Place, TunnelLimits, TunnelRecord

AT_ONCE = 256
"""Questions under way at a time."""


async def _each(count: int, work: Callable[[int], Awaitable[None]]) -> float:
    """
    Do something for each client.

    @return: How many per second.
    """
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    began = time.perf_counter()
    await gatherResults([Deferred.fromCoroutine(worker()) for _ in range(AT_ONCE)])
    return count / (time.perf_counter() - began)


async def _measure(reactor: Any, path: str, count: int) -> None:
    books = []
    for member in ("one", "other"):
        engine, reader = (
            Engine(UNIXClientEndpoint(reactor, path), "storm", patience=None)
            for _ in range(2)
        )
        book = RedisBook(reactor, engine, reader, member, times=Times(grace=0.0))
        book.start()
        books.append(book)
    one, other = books
    while not (one._isSaid and other._isSaid):
        await deferLater(reactor, 0.05)

    def secret(number: int) -> str:
        return sha256(str(number).encode()).hexdigest()

    async def memory() -> int:
        info = await one._engine.command("INFO", "memory")
        return int(str(info).partition("used_memory:")[2].partition("\r")[0])

    async def open_(number: int) -> None:
        place = await one.grant(f"l{number}", secret(number), "ann")
        record = TunnelRecord(
            f"t{number:016}",
            place,
            f"l{number}",
            "ann",
            uri=f"w3p://tunnel.example:9000/t{number:016}",
            reserved=(f"tcp:{number}",),
            address=f"tcp://tunnel.example:{number}",
            countedAs="client ann",
            options='{"port": 0}',
        )
        await one.open(record, TunnelLimits())

    async def claim(number: int) -> None:
        claimed = await other.claim(f"l{number}", secret(number), "ann")
        assert claimed is not None and claimed.place == Place("other", 2)

    async def find(number: int) -> None:
        await other.find(f"t{number:016}")

    before = await memory()
    opened = await _each(count, open_)
    each = (await memory() - before) / count
    print(f"{count} clients, each with a lease and a tunnel")
    print(f"opened: {opened:.0f} per second (two scripts each)")
    print(f"memory of the engine: {each:.0f} bytes for each")
    claimed = await _each(count, claim)
    print(f"claimed at another machine: {claimed:.0f} per second")
    print(f"a storm of all of them: {count / claimed:.1f} s")
    print(f"looked up: {await _each(count, find):.0f} per second")
    for book in books:
        await book.stop()


def main(reactor: Any, count: str = "100000") -> Deferred[None]:
    """Measure, and print."""
    server = RedisServer()
    server.start()
    measuring = Deferred.fromCoroutine(_measure(reactor, str(server.path), int(count)))
    return measuring.addBoth(_stop, server)


def _stop(result: Any, server: RedisServer) -> Any:
    server.stop()
    return result


if __name__ == "__main__":
    react(main, sys.argv[1:2])
