"""What the dashboard says about certificates."""

from __future__ import annotations

from collections.abc import Sequence

from tristunnel.names.public import CertificateState
from tristunnel.util.words import age

__all__ = ["certificateCounts", "certificateRow", "certificateWords", "stateFor"]


def stateFor(states: Sequence[CertificateState], host: str) -> CertificateState | None:
    """
    Find the state of a host's certificate.

    @return: C{None} if none is obtained for it.
    """
    wildcard = f"*.{host.partition('.')[2]}"
    for state in states:
        if host in state.names or wildcard in state.names:
            return state
    return None


def certificateWords(state: CertificateState | None, now: float) -> str:
    """
    Describe the state of a certificate.

    @param now: The time of day.
    """
    if state is None:
        return "none of its own"
    if not state.until:
        return f"none yet: {state.error}" if state.error else "being got"
    left = state.until - now
    words = f"valid for {age(left)}" if left > 0 else f"expired {age(-left)} ago"
    return f"{words}; not renewed: {state.error}" if state.error else words


def certificateCounts(
    states: Sequence[CertificateState], now: float
) -> dict[str, float]:
    """
    Count certificates by state.

    @return: By C{good}, C{missing}, C{expired}, and C{failing}: those whose last
        attempt failed, which also count under one of the others.
    """
    counts = dict.fromkeys(("good", "missing", "expired", "failing"), 0.0)
    for state in states:
        kind = "good" if state.until > now else "expired" if state.until else "missing"
        counts[kind] += 1
        counts["failing"] += bool(state.error)
    return counts


def certificateRow(state: CertificateState, now: float) -> dict[str, str]:
    """Make a line of the table."""
    return {
        "id": f"certificate:{state.names[0]}",
        "names": ", ".join(state.names),
        "since": age(now - state.since) if state.since else "",
        "left": age(state.until - now) if state.until > now else "none",
        "next": age(state.next - now) if state.next > now else "now",
        "trouble": state.error,
    }
