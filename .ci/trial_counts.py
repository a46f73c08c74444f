"""
Repeat trial's summary, and put its counts alone on the last line.

Exits with 1 unless trial ran some tests and all of them were successful.

Usage: trial_counts.py LOG
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

_RAN = re.compile(r"^Ran (\d+) tests? in [\d.]+s$")
_STATUS = re.compile(r"^(PASSED|FAILED)(?: \((.*)\))?$")


def summary(log: str) -> tuple[list[str], dict[str, int]]:
    """
    Find the last summary in the output of trial.

    @param log: All that trial wrote.

    @return: The lines to repeat, and what they count: C{"passed"},
        C{"failed"} and C{"ran"}.

    @raise LookupError: Trial did not come to its summary.
    """
    lines = log.splitlines()
    for at in range(len(lines) - 1, -1, -1):
        status = _STATUS.match(lines[at])
        if status is None:
            continue
        ran = next(
            (match for line in reversed(lines[:at]) if (match := _RAN.match(line))),
            None,
        )
        if ran is None:
            break
        words = dict(re.findall(r"(\w+)=(\d+)", status[2] or ""))
        counts = {name: int(number) for name, number in words.items()}
        failed = sum(counts.get(name, 0) for name in ("failures", "errors"))
        return [ran[0], "", status[0]], {
            "passed": counts.get("successes", 0),
            # Trial says FAILED only for these, but its word is the last one.
            "failed": failed or int(status[1] == "FAILED"),
            "ran": int(ran[1]),
        }
    raise LookupError("trial did not come to its summary")


def main(name: str) -> int:
    """
    Print the summary of one log.

    @param name: The file with trial's output.

    @return: The exit status.
    """
    try:
        lines, counts = summary(Path(name).read_text(errors="replace"))
    except LookupError as e:
        print(e)
        return 1
    print("\n".join(lines))
    if not counts["ran"]:
        print("there were no tests")
    print(f"{counts['passed']} passed, {counts['failed']} failed")
    return int(bool(counts["failed"]) or not counts["ran"])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
