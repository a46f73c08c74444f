"""Close codes of WebSockets and our errors, in both directions."""

from __future__ import annotations

from tristunnel.errors import CODES, TunnelError
from tristunnel.wire.websocket import BAD_PAYLOAD, PROTOCOL_ERROR, TOO_BIG

__all__ = ["GOING_AWAY", "NORMAL", "closeOf", "reasonOfClose"]

NORMAL = 1000
"""An orderly end."""

GOING_AWAY = 1001
"""The program stops; a browser says so of a page that is left."""

UNSUPPORTED = 1003
POLICY = 1008
INTERNAL = 1011
TRY_LATER = 1013

_CLOSE_CODES = {
    "shutting-down": GOING_AWAY,
    "closed": GOING_AWAY,
    "session-lost": GOING_AWAY,
    "protocol-error": PROTOCOL_ERROR,
    "auth-refused": POLICY,
    "not-permitted": POLICY,
    "port-not-permitted": POLICY,
    "bad-option": POLICY,
    "unknown-tunnel": POLICY,
    "handshake-timeout": POLICY,
    "limit-reached": TRY_LATER,
    "ports-exhausted": TRY_LATER,
    "port-taken": TRY_LATER,
    "client-away": TRY_LATER,
    "expired": TRY_LATER,
}

_REASONS = {
    GOING_AWAY: "shutting-down",
    PROTOCOL_ERROR: "protocol-error",
    UNSUPPORTED: "protocol-error",
    BAD_PAYLOAD: "protocol-error",
    POLICY: "not-permitted",
    TOO_BIG: "protocol-error",
    TRY_LATER: "client-away",
}

_MOST = 123
"""The bytes for the reason in a close frame (RFC 6455, 5.5)."""


def closeOf(reason: TunnelError) -> tuple[int, str]:
    """
    Write C{reason} as a close code and a text, which has our own code in it, so that
    L{reasonOfClose} finds it again.
    """
    mark = f" [{reason.code.name}]"
    room = _MOST - len(mark)
    text = reason.message.encode("utf-8", "replace")[:room].decode("utf-8", "ignore")
    return _CLOSE_CODES.get(reason.code.name, INTERNAL), text + mark


def reasonOfClose(code: int | None, text: str | None) -> TunnelError | None:
    """
    Read a peer's close frame.

    @param code: C{None} if it said nothing.
    @return: C{None} after an orderly end. A page that is left counts as one.
    """
    message = text or ""
    if code in (None, NORMAL) or (code == GOING_AWAY and not message):
        return None
    if message.endswith("]"):
        said, _, name = message[:-1].rpartition(" [")
        if name in CODES:
            return TunnelError.said(name, said)
    return TunnelError(
        _REASONS.get(code or 0, "reset"),
        f"the peer closed the WebSocket with code {code}"
        + (f": {message}" if message else ""),
    )
