"""
Explaining why a connection never became a session: what the peer seems to be, and what
to write instead.
"""

from __future__ import annotations

from tristunnel.errors import TunnelError
from tristunnel.wire.first_bytes import describeFirstBytes, looksLikeTLS

__all__ = ["explained", "whyClosed"]


def explained(
    reason: TunnelError, where: str, heard: bytes, isTLS: bool, timeout: float
) -> TunnelError:
    """
    Say why there is no session.

    @param reason: What is known of that.
    @param where: The server, as messages name it.
    @param heard: The first bytes from the peer.
    @param isTLS: Whether the connection is encrypted.
    @param timeout: Seconds that the peer had for its handshake.
    """
    if reason.code.name == "handshake-timeout" and not heard:
        return TunnelError(
            "handshake-timeout",
            f"{where} accepted the connection but sent nothing for {timeout:g} s;"
            " is it a tunnel server, and is its port right?"
            + ("" if isTLS else " If it speaks TLS, write tls: instead of tcp:"),
        )
    if reason.code.name != "protocol-error" or heard.startswith(b"W3PTUNL"):
        return reason
    seen = describeFirstBytes(heard)
    cure = "check the port"
    if looksLikeTLS(heard):
        cure = "the server speaks TLS: write tls: instead of tcp:"
    elif seen == "an HTTP answer":
        cure = "an HTTP server answers there: check the port"
    return TunnelError("protocol-error", f"{where} answered with {seen}; {cure}")


def whyClosed(where: str, isTLS: bool, saidCredentials: bool) -> TunnelError:
    """
    Say why a server may have closed the connection before it answered.

    @param where: The server, as messages name it.
    @param isTLS: Whether the connection is encrypted.
    @param saidCredentials: Whether it was told who we are.
    """
    why = f"{where} closed the connection before it answered"
    if not isTLS:
        why += "; if it speaks TLS, write tls: instead of tcp:"
    else:
        why += "; servers do so when too many logins failed or clients wait"
    if saidCredentials:
        why += "; a W3P server also when it refuses the credentials"
    return TunnelError("session-lost", why)
