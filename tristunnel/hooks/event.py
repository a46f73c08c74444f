"""What hooks are told: the kinds of events, and their bodies."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from tristunnel.errors import badOption, printable
from tristunnel.util.words import nearest

__all__ = ["KINDS", "HookEvent", "kindsNamed", "signature"]

KINDS: Mapping[str, str] = {
    "client-up": "A client was let in; at a client: its session stands.",
    "client-down": "A client's session is over.",
    "client-refused": "A client was not let in.",
    "tunnel-opened": "A tunnel is open for visitors.",
    "tunnel-closed": "A tunnel is closed.",
    "tunnel-refused": "A tunnel was not opened.",
    "service-unwell": "A tunnel's service has failed its health checks.",
    "service-well": "It has passed them again, or for the first time.",
    "visitor-came": "A visitor connected.",
    "visitor-left": "A visitor left.",
    "visitor-refused": "A visitor was turned away.",
    "certificate-trouble": "A certificate cannot be read, or will expire soon.",
    "limit-reached": "A limit turned somebody away.",
    "hook-overrun": "Events were lost, since this hook was too slow.",
}
"""Every kind, and when it happens."""


@dataclass(frozen=True)
class HookEvent:
    """
    Something that happened.

    @ivar id: Different for each; the same when it is delivered again.
    @ivar kind: One of L{KINDS}.
    @ivar time: Seconds since the epoch.
    @ivar text: What has happened, in one line.
    @ivar program: C{server} or C{client}.
    @ivar fields: What there is to know, by name: text and numbers.
    """

    id: str
    kind: str
    time: float
    text: str
    program: str
    fields: Mapping[str, object] = field(default_factory=dict)

    def describe(self) -> dict[str, object]:
        """The event as plain data."""
        own = {"id": self.id, "kind": self.kind, "time": round(self.time, 3)}
        return {**own, "program": self.program, "text": self.text, **self.fields}

    def json(self) -> bytes:
        """The event as JSON."""
        return json.dumps(self.describe()).encode()

    def environment(self) -> dict[str, str]:
        """The event as variables: C{TRISTUNNEL_EVENT_KIND} and the like."""
        return {
            f"TRISTUNNEL_EVENT_{name.upper()}": str(value).replace("\0", "")
            for name, value in self.describe().items()
        }


def kindsNamed(text: str) -> frozenset[str]:
    """
    Read a list of kinds.

    @param text: Separated by commas, with C{*} for any letters.
    @raise TunnelError: C{bad-option}, with the nearest kind.
    """
    found: set[str] = set()
    for pattern in text.split(","):
        matching = {kind for kind in KINDS if fnmatchcase(kind, pattern.strip())}
        if not matching:
            near = nearest(pattern, KINDS, lists=False)
            raise badOption(
                f"unknown event {printable(pattern, 60)!r}"
                + (near or f"; choose from {', '.join(KINDS)}")
            )
        found |= matching
    return frozenset(found)


def signature(secret: bytes, time: int, body: bytes) -> str:
    """
    Sign a body, so that its receiver knows where it comes from.

    @param time: Seconds since the epoch, so that old messages cannot be sent again.
    @return: The value of the header C{Tristunnel-Signature}.
    """
    digest = hmac.new(secret, b"%d.%s" % (time, body), hashlib.sha256).hexdigest()
    return f"t={time},v1={digest}"
