"""
The long proofs, one after the other, and a table of what came of them.

C{python -m benchmarks.faults} runs all; C{--only readers,cuts} some, C{--quick}
a small form of each. Exit status 1 if anything was not as promised.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.faults.proof import Options, Proof, ProofFunction, Row
from benchmarks.faults.table import PROOFS

_ROOT = Path(__file__).parent.parent.parent
_MARK = {True: "ok", False: "FAILED", None: "-"}


def _child(name: str, options: Options) -> int:
    """Run one proof in this process, and say its rows as lines of JSON."""
    module = importlib.import_module(f"benchmarks.faults.{PROOFS[name].module}")
    prove: ProofFunction = module.prove
    for row in prove(options):
        print(json.dumps(asdict(row)), flush=True)
    return 0


def _run(name: str, proof: Proof, words: Sequence[str]) -> list[Row]:
    """
    Run a proof in a process of its own, and print its rows as they come.

    @param words: The options to give on.
    """
    print(f"\n{name}: {proof.promise}", flush=True)
    rows: list[Row] = []
    began = time.monotonic()
    child = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.faults", f"--child={name}", *words],
        stdout=subprocess.PIPE,
        text=True,
        cwd=_ROOT,
        env={**os.environ, "PYTHONPATH": str(_ROOT)},
        start_new_session=True,
    )

    def giveUp() -> None:
        os.killpg(child.pid, signal.SIGKILL)

    late = threading.Timer(proof.seconds, giveUp)
    late.start()
    assert child.stdout is not None
    try:
        for line in child.stdout:
            row = Row(**json.loads(line))
            rows.append(row)
            print(f"  {_MARK[row.good]:<6} {row.what}: {row.seen}", flush=True)
        status = child.wait()
    finally:
        late.cancel()
        if child.poll() is None:
            giveUp()
            child.wait()
    took = time.monotonic() - began
    if status:
        rows.append(Row("the proof itself", f"ended with status {status}", False))
        print(f"  FAILED it ended with status {status}")
    print(f"  {took:.0f} s")
    return rows


def main(arguments: Sequence[str]) -> int:
    """
    Run, and print the table.

    @return: The exit status.
    """
    parser = argparse.ArgumentParser(prog="benchmarks.faults", description=__doc__)
    parser.add_argument("--only", default="", help="names, with commas between")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument(
        "--set", action="append", default=[], metavar="NAME=VALUE", dest="words"
    )
    parser.add_argument("--list", action="store_true", help="only name the proofs")
    parser.add_argument("--child", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.child:
        with tempfile.TemporaryDirectory() as directory:
            pairs = (word.partition("=") for word in given.words)
            words = {key: value for key, _, value in pairs}
            options = Options(given.quick, given.seed, Path(directory), words)
            return _child(given.child, options)
    names = [name for name in given.only.split(",") if name] or list(PROOFS)
    unknown = [name for name in names if name not in PROOFS]
    if unknown:
        parser.error(
            f"no proof is called {', '.join(unknown)}; there are: " + ", ".join(PROOFS)
        )
    if given.list:
        for name in names:
            print(f"{name:<12} {PROOFS[name].promise}")
        return 0
    passed = [f"--seed={given.seed}"]
    passed += ["--quick"] * given.quick
    passed += [f"--set={word}" for word in given.words]
    results = {name: _run(name, PROOFS[name], passed) for name in names}
    print(f"\n{'proof':<12} {'ok':>5} {'failed':>6}  promise")
    for name, rows in results.items():
        good = sum(row.good is True for row in rows)
        bad = sum(row.good is False for row in rows)
        print(f"{name:<12} {good:>5} {bad:>6}  {PROOFS[name].promise}")
    every = [row for rows in results.values() for row in rows]
    return 1 if any(row.good is False for row in every) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
