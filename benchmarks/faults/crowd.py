"""
Many visitors read nothing, on one session that has no credit.

Fifty visitors work, as in L{benchmarks.faults.readers}. Then a hundred and fifty
come at once, ask for bytes without end and read none; and after that one who
does so again and again, as soon as it was reset. C{--set seconds=20} is how long
each of these lasts.

Nobody may be without an answer for much longer than a second, and memory is
bounded. The rates are told, but not judged: until they are stalled, so many
visitors take their share of what the way can carry, and so does one that comes
again and again.
"""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.faults.programs import resident
from benchmarks.faults.proof import Options, Row
from benchmarks.faults.reacting import runReacting
from benchmarks.faults.readers import ENDS, WORKING, Rig
from benchmarks.faults.visitors import Arrival

__all__ = ["prove"]

KINDS = ("plain", "vtunnel", "session/tcp")
"""The clients' ends that it is tried with."""

CROWD = 150
"""Visitors that read nothing."""

HELD = 48.0
"""MiB by which the server may grow for all of them: what a session may hold, and
what Python needs beside it."""

SILENCE = 1.6
"""Seconds in which nobody may get an answer, at most: the second of patience, and
what a busy machine adds."""

BIN = 0.1


def _wasReset(arrival: Arrival) -> bool:
    """
    Whether the stream of a visitor that reads nothing was ended: it does not see
    that itself.
    """
    service = arrival.tale.service
    return service is not None and service.gone is not None


class _Crowd:
    """A session and its visitors."""

    def __init__(self, rig: Rig, address: str) -> None:
        self.rig = rig
        self.address = address
        self.server = rig.servers["tcp"].pid
        self.working = [rig.visit(address, "E") for _ in range(WORKING)]

    async def count(
        self, seconds: float, again: list[Arrival] | None = None
    ) -> tuple[float, float, float, float]:
        """
        Count answers.

        @param again: Stalled visitors; each that was reset is followed by another.
        @return: How many a second, and how many in the last quarter; the longest
            time without any in seconds, and the server's growth in MiB.
        """
        rig, working = self.rig, self.working
        before, most = resident(self.server), 0.0
        began = at = last = rig.reactor.seconds()
        start = got = sum(each.tale.visitor.got for each in working)
        silence, late, lateAt = 0.0, start, began
        while at - began < seconds:
            await rig.sleep(BIN)
            at = rig.reactor.seconds()
            now = sum(each.tale.visitor.got for each in working)
            if now > got:
                got, last = now, at
            silence = max(silence, at - last)
            if at - began < seconds * 0.75:
                late, lateAt = now, at
            most = max(most, resident(self.server) - before)
            if again is not None and _wasReset(again[-1]):
                again[-1].leave()
                again.append(rig.visit(self.address, "D", True))
        rate = (got - start) / 200 / (at - began)
        return rate, (got - late) / 200 / (at - lateAt), silence, most

    async def measure(self, what: str, seconds: float) -> None:
        """The three parts."""
        rig = self.rig
        here = await rig.until(
            lambda: all(each.tale.visitor.got for each in self.working), 15
        )
        if not here:
            raise RuntimeError("not all visitors got an answer")
        rate, _, silence, _ = await self.count(seconds / 2)
        rig.rows.append(
            Row(what, f"{rate:,.0f} answers a second, {silence:.1f} s without any")
        )
        crowd = [rig.visit(self.address, "D", True) for _ in range(CROWD)]
        counted = await self.count(seconds)
        ended = sum(map(_wasReset, crowd))
        rig.rows.append(self._row(f"{what}, {CROWD} at once", rate, *counted, ended))
        for each in crowd:
            each.leave()
        await rig.sleep(1.0)
        rate, _, _, _ = await self.count(seconds / 2)
        again = [rig.visit(self.address, "D", True)]
        counted = await self.count(seconds, again)
        ended = len(again) - 1
        rig.rows.append(self._row(f"{what}, again and again", rate, *counted, ended))
        for each in [*again, *self.working]:
            each.leave()

    def _row(
        self,
        what: str,
        rate: float,
        beside: float,
        late: float,
        silence: float,
        grown: float,
        ended: int,
    ) -> Row:
        """Say what came of it."""
        lost = sum(each.tale.visitor.gone is not None for each in self.working)
        seen = (
            f"{beside:,.0f} answers a second ({beside / max(rate, 1) - 1:+.1%}),"
            f" {late:,.0f} in the end ({late / max(rate, 1) - 1:+.1%}),"
            f" {silence:.1f} s without any, {grown:.1f} MiB more, {ended} reset,"
            f" {lost} of the {WORKING} lost"
        )
        return Row(what, seen, not lost and silence < SILENCE and grown < HELD)


async def _crowds(rig: Rig) -> None:
    """Each kind."""
    seconds = rig.options.number("seconds", 20, 5)
    for end in ENDS:
        if end.name not in KINDS or (rig.options.quick and end.name != "plain"):
            continue
        address = end.start(rig, "tcp")
        try:
            await _Crowd(rig, address).measure(end.name, seconds)
        finally:
            rig.stopClients()
            await rig.until(lambda: not rig.service.open, 5.0)


def prove(options: Options) -> Iterator[Row]:
    """Run, and say what came of it."""
    return runReacting(options, Rig, _crowds)
