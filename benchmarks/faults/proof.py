"""
What a proof is given, and what it says.

A proof is a module of this package with a function C{prove(options)}, which
yields a L{Row} for each thing it has seen, as soon as it has seen it; and a
line in L{benchmarks.faults.table.PROOFS}. It runs in a process of its own, so
it may use the reactor, limits and signals as it likes. It prints nothing on
its standard output; what it prints on standard error is seen as it comes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Options", "Proof", "ProofFunction", "Row"]


@dataclass(frozen=True)
class Options:
    """
    How to run.

    @ivar quick: A small form that takes a minute at most.
    @ivar seed: What all chance starts from.
    @ivar directory: An empty directory for logs and state.
    @ivar words: What else was asked of this proof, C{--set NAME=VALUE}.
    """

    quick: bool
    seed: int
    directory: Path
    words: dict[str, str]

    def number(self, name: str, usual: float, quick: float) -> float:
        """
        Read a number from C{words}.

        @param usual: What it is if nobody said.
        @param quick: What it is in the small form.
        """
        return float(self.words.get(name, quick if self.quick else usual))


@dataclass(frozen=True)
class Row:
    """
    One line of the result.

    @ivar what: What was done.
    @ivar seen: What came of it, with figures and units.
    @ivar good: Whether this is as promised; C{None} for a mere figure, or for
        what could not be tried here (C{seen} says why).
    """

    what: str
    seen: str
    good: bool | None = None


ProofFunction = Callable[[Options], Iterator[Row]]


@dataclass(frozen=True)
class Proof:
    """
    A line of the table of proofs.

    @ivar module: The module's name in this package.
    @ivar promise: What is shown, in a few words.
    @ivar seconds: When the whole form is given up, in seconds.
    """

    module: str
    promise: str
    seconds: float = 3600.0
