"""What a tunnel requires of its visitors, in words."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tristunnel.model.gate import GateRules
from tristunnel.model.policy import VisitorPolicy
from tristunnel.util.quantities import formatDuration
from tristunnel.util.words import age, count, plural, rate

__all__ = ["gateWords", "policyWords"]

_POLICY: dict[str, Callable[[Any], str]] = {
    "allow": lambda value: f"only from {', '.join(value)}",
    "deny": lambda value: f"not from {', '.join(value)}",
    "countries": lambda value: f"only from {', '.join(value)}",
    "maxVisitors": lambda value: f"at most {plural(value, 'visitor')} at once",
    "visitorsPerAddress": lambda value: f"at most {count(value)} from one address",
    "visitorRate": lambda value: f"at most {count(value)} a minute from one address",
    "rate": lambda value: f"at most {rate(value)} each way",
    "idle": lambda value: f"ended after {age(value)} of silence",
    "maxAge": lambda value: f"ended after {age(value)}",
}


def policyWords(policy: VisitorPolicy) -> str:
    """Describe what is required of visitors."""
    asked = policy.describe().items()
    return "; ".join(_POLICY[name](value) for name, value in asked) or "nothing"


def gateWords(gate: GateRules) -> str:
    """Describe how visitors sign in."""
    words = {
        "pin": "a PIN",
        "login": f"a name and a password ({plural(len(gate.login), 'user')})",
        "oidc": "" if gate.oidc is None else f"an account at {gate.oidc.issuer}",
        "link": "a link",
    }
    asked = " or ".join(words[each] for each in gate.ways)
    if gate.knock:
        knock = f"a knock, good for {formatDuration(gate.knock)}"
        return f"{knock}, with {asked}" if asked else knock
    return asked or "nothing"
