"""What a token is, and what it permits, as people read it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from tristunnel.auth.tokens_format import Token
from tristunnel.model.permissions import RIGHTS, Permissions
from tristunnel.model.policy import POLICY_OPTIONS, VisitorPolicy
from tristunnel.util.quantities import formatDuration, formatRate

__all__ = ["permitted", "stateOf"]


def stateOf(token: Token, now: float) -> str:
    """
    Whether a token is good, in a word or two.

    @param now: Seconds since the epoch.
    """
    expires = token.permissions.expires
    if token.revoked is not None:
        return "revoked"
    if expires is None:
        return "valid"
    left = expires - now
    return f"valid for {formatDuration(left)}" if left > 0 else "expired"


def permitted(permissions: Permissions) -> str:
    """What a token permits, in a few words."""
    words = [right for right in RIGHTS if right in permissions.may] or ["nothing"]
    if permissions.ports is not None:
        words.append(f"ports {permissions.ports}")
    if permissions.protocols is not None:
        words.append("/".join(sorted(permissions.protocols)) or "no protocol")
    if permissions.maxTunnels is not None:
        words.append(f"{permissions.maxTunnels} tunnels")
    if permissions.maxVisitors is not None:
        words.append(f"{permissions.maxVisitors} visitors")
    if permissions.rate is not None:
        words.append(formatRate(permissions.rate))
    words.extend(_asked(permissions.policy))
    if permissions.services is not None:
        words.append(f"services {' '.join(permissions.services)}")
    return ", ".join(words)


def _asked(policy: VisitorPolicy) -> list[str]:
    return [
        part.metadata["words"].format(_WORDS.get(name, str)(getattr(policy, name)))
        for name, part in POLICY_OPTIONS.items()
        if getattr(policy, name)
    ]


def _joined(networks: Iterable[object]) -> str:
    return " ".join(map(str, networks))


_WORDS: dict[str, Callable[[Any], str]] = {
    "allow": _joined,
    "deny": _joined,
    "rate": formatRate,
    "idle": formatDuration,
    "maxAge": formatDuration,
}
