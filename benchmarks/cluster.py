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

from tests.support.redis import RedisServer
from tristunnel.cluster.engine import Engine
from tristunnel.cluster.redis_book import RedisBook, Times
from tristunnel.model.record import Place, TunnelLimits, TunnelRecord

AT_ONCE = 256
"""Questions under way at a time."""


async def _each(
    engine: Engine, what: str, count: int, work: Callable[[int], Awaitable[None]]
) -> float:
    """
    Do something for each client, and print how often that is possible.

    @return: How many seconds it took.
    """
    numbers = iter(range(count))

    async def worker() -> None:
        for number in numbers:
            await work(number)

    began, here, there = time.perf_counter(), time.process_time(), await _used(engine)
    await gatherResults([Deferred.fromCoroutine(worker()) for _ in range(AT_ONCE)])
    took = time.perf_counter() - began
    each = 1e6 / count
    here, there = time.process_time() - here, await _used(engine) - there
    print(
        f"{what}: {count / took:.0f} per second, of the processor {here * each:.0f} us"
        f" here and {there * each:.0f} us in the engine for each",
        flush=True,
    )
    return took


async def _said(engine: Engine, section: str, name: str) -> float:
    """What the engine says of itself."""
    info = str(await engine.command("INFO", section))
    return float(info.partition(f"{name}:")[2].partition("\r")[0])


async def _used(engine: Engine) -> float:
    """Seconds of the processor that the engine has had."""
    user = await _said(engine, "cpu", "used_cpu_user")
    return user + await _said(engine, "cpu", "used_cpu_sys")


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

    engine = one._engine
    print(f"{count} clients, each with a lease and a tunnel")
    before = await _said(engine, "memory", "used_memory")
    await _each(engine, "opened, by two scripts", count, open_)
    each = (await _said(engine, "memory", "used_memory") - before) / count
    print(f"memory of the engine: {each:.0f} bytes for each")
    storm = await _each(engine, "claimed at another machine", count, claim)
    print(f"a storm of all of them: {storm:.1f} s")
    await _each(engine, "looked up", count, find)
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
