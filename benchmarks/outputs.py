"""
What the programs that make load say, as numbers.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass

from benchmarks.processes import Failed

__all__ = ["Wrk", "establishedAt", "parseIperf", "parsePull", "parseWrk"]

_UNITS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}
_ESTABLISHED = "01"


def parseIperf(text: str) -> tuple[float, float]:
    """
    Read what C{iperf3 -J} printed.

    @return: Gbit/s and bytes, as received.
    @raise Failed: If it could not measure.
    """
    try:
        result = json.loads(text or "{}")
        if "error" in result:
            raise Failed(f"iperf3: {result['error']}")
        end = result["end"]["sum_received"]
        return end["bits_per_second"] / 1e9, float(end["bytes"])
    except (ValueError, LookupError, TypeError):
        raise Failed("iperf3: no result") from None


@dataclass(frozen=True)
class Wrk:
    """
    What wrk found.

    @ivar rate: Requests per second.
    @ivar total: Requests.
    @ivar percentiles: Milliseconds by percent.
    @ivar errors: Connections, reads and writes that failed or took too long.
    """

    rate: float
    total: int
    percentiles: dict[int, float]
    errors: int


def parseWrk(text: str) -> Wrk:
    """
    Read what C{wrk --latency} printed.

    @raise Failed: If nothing was answered.
    """
    rate = re.search(r"Requests/sec:\s+([\d.]+)", text)
    total = re.search(r"(\d+) requests in", text)
    if rate is None or total is None or not int(total[1]):
        raise Failed(f"wrk: {text.strip() or 'no result'}")
    errors = re.search(r"Socket errors: (.*)", text)
    return Wrk(
        float(rate[1]),
        int(total[1]),
        {
            int(percent): float(took) * _UNITS[unit]
            for percent, took, unit in re.findall(
                r"^\s+(\d+)%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE
            )
        },
        sum(map(int, re.findall(r"\d+", errors[1]))) if errors else 0,
    )


def parsePull(text: str, since: float) -> float:
    """
    Read what C{benchmarks.service pull} wrote.

    @param text: Lines of a time and the bytes that had come by then.
    @param since: The time from which on it counts.
    @return: Gbit/s.
    @raise Failed: If there is too little.
    """
    marks = [tuple(map(float, line.split())) for line in text.splitlines()]
    marks = [mark for mark in marks if mark[0] >= since]
    if len(marks) < 2 or marks[-1][0] == marks[0][0]:
        raise Failed("the bulk visitor received nothing")
    (began, before), (ended, after) = marks[0], marks[-1]
    return (after - before) * 8 / (ended - began) / 1e9


def establishedAt(table: str, port: int) -> int:
    """
    Count connections at a port of this machine.

    @param table: C{/proc/net/tcp}.
    """
    ending = f":{port:04X}"
    return sum(
        1
        for fields in map(str.split, table.splitlines())
        if len(fields) > 3 and fields[1].endswith(ending) and fields[3] == _ESTABLISHED
    )
