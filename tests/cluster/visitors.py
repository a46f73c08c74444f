"""
Visitors who come one after another, and what became of them:
C{python visitors.py HOST PORT}.

Ten come each second, say something and wait for the echo. When a line comes on standard
input it says how many were refused, how long the longest of the others waited, and the
longest time in which nobody was answered, in seconds, and begins anew.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import sys
import time

EACH = 0.1
PATIENCE = 90.0


class Visitors:
    """All that came since the last report."""

    def __init__(self, host: str, port: int) -> None:
        self.host, self.port = host, port
        self.begin()

    def begin(self) -> None:
        self.came = self.refused = 0
        self.longest = 0.0
        self.answered = [time.monotonic()]
        self.why: dict[str, int] = {}

    async def visit(self) -> None:
        began = time.monotonic()
        self.came += 1
        try:
            async with asyncio.timeout(PATIENCE):
                reader, writer = await asyncio.open_connection(self.host, self.port)
                try:
                    writer.write(b"hello")
                    await reader.readexactly(5)
                finally:
                    writer.transport.abort()
        except (OSError, EOFError, TimeoutError) as error:
            self.refused += 1
            self.why[repr(error)] = self.why.get(repr(error), 0) + 1
        else:
            now = time.monotonic()
            self.longest = max(self.longest, now - began)
            self.answered.append(now)

    def report(self) -> None:
        times = [*sorted(self.answered), time.monotonic()]
        gaps = [after - before for before, after in itertools.pairwise(times)]
        said = {
            "event": "visitors",
            "came": self.came,
            "refused": self.refused,
            "longest": round(self.longest, 2),
            "gap": round(max(gaps), 2),
            "why": self.why,
        }
        print(json.dumps(said), flush=True)
        self.begin()


async def main(host: str, port: int) -> None:
    visitors = Visitors(host, port)

    def asked() -> None:
        if sys.stdin.readline():
            visitors.report()

    asyncio.get_running_loop().add_reader(sys.stdin, asked)
    under = set()
    while True:
        visit = asyncio.create_task(visitors.visit())
        under.add(visit)
        visit.add_done_callback(under.discard)
        await asyncio.sleep(EACH)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
