"""
The table of proofs: each name is a line of C{python -m benchmarks.faults}.
"""

from __future__ import annotations

from benchmarks.faults.proof import Proof

__all__ = ["PROOFS"]

PROOFS: dict[str, Proof] = {
    "readers": Proof(
        "readers", "a stalled visitor neither slows the others nor costs memory"
    ),
    "crowd": Proof("crowd", "many stalled visitors on one session at once"),
    "memory": Proof("memory", "what is held for stalled visitors has a bound"),
    "cuts": Proof("cuts", "cut, hung and resumed ways never truncate a stream"),
    "soak": Proof(
        "soak", "half an hour of coming and going leaves nothing behind", 7200.0
    ),
    "fuzz": Proof(
        "fuzz", "unauthenticated bytes: nothing crashes, hangs or grows", 7200.0
    ),
    "kills": Proof(
        "kills", "who is killed at any moment is back at its ports, whole", 5400.0
    ),
    "clocks": Proof(
        "clocks", "the time of day, stepped by a day, disturbs no stream", 600.0
    ),
    "state": Proof(
        "state", "a full or read-only disk stops nothing and breaks nothing", 600.0
    ),
    "floods": Proof(
        "floods", "unauthenticated crowds at every door disturb no tunnel", 1800.0
    ),
    "attacks": Proof(
        "attacks", "unread answers and unasked bytes are bounded, in bytes and time"
    ),
    "renewals": Proof(
        "renewals", "a bad certificate is not taken up, a good one is", 900.0
    ),
}
