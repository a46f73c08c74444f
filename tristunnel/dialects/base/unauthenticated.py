"""Peers of the server of whom nothing is known yet."""

from __future__ import annotations

from typing import Protocol

from tristunnel.errors import TunnelError
from tristunnel.wire.first_bytes import describeFirstBytes, looksLikeTLS

__all__ = ["HANDSHAKE_TIMEOUT", "PendingLogin", "whyNotFramed"]

HANDSHAKE_TIMEOUT = 10.0
"""Seconds in which a peer must have said who it is."""


class PendingLogin(Protocol):
    """Counts connections that have not authenticated."""

    def known(self) -> None:
        """The peer of this one has authenticated."""

    def failed(self) -> None:
        """A login of this one's has failed."""


def whyNotFramed(data: bytes) -> TunnelError:
    """
    Name the likely mistake of a peer that does not speak the protocol.

    @param data: Its first bytes.
    """
    seen = describeFirstBytes(data)
    cure = ""
    if looksLikeTLS(data):
        cure = "; this port does not use TLS: give the server a certificate, or connect"
        cure += " with tcp: instead of tls:"
    elif seen == "an HTTP request":
        cure = "; this port serves no HTTP"
    elif seen == "a PROXY protocol header":
        cure = "; behind such a proxy, use --port haproxy:tcp:PORT"
    return TunnelError("protocol-error", f"the peer sent {seen}{cure}")
