"""
Whether a client that was turned away comes again.
"""

from __future__ import annotations

from tristunnel.connect.address import ServerAddress
from tristunnel.errors import TunnelError

__all__ = ["STEADY", "Refusals"]

STEADY = 100
"""After so many failures, the next attempt comes at the longest interval."""


class Refusals:
    """
    What a client makes of refusals that another attempt would not change.

    At the very first try the user is there, and learns of a mistake at once. Later on,
    a client that ends is missed, and others than the server can refuse it for a while:
    a proxy, a firewall, a captive portal, and over plain TCP anybody on the way. So it
    ends only if the server itself has refused it, over verified TLS.
    """

    def __init__(self) -> None:
        self._isFirst = True

    def passed(self) -> None:
        """The client was let in."""
        self._isFirst = False

    def judge(
        self,
        reason: TunnelError,
        server: ServerAddress,
        refused: bool = True,
        final: bool = False,
    ) -> TunnelError | None:
        """
        Judge the end of an attempt.

        @param reason: Why it ended.
        @param server: Where it led.
        @param refused: Whether we were not let in.
        @param final: Whether it is final, whatever its code, if the server has said it.
        @return: C{None} if there is to be no other attempt; C{reason}, if the next one
            comes as after any failure. Otherwise the next one comes at the longest
            interval, and this is the reason with words that say so.
        """
        isFirst, self._isFirst = self._isFirst and refused, False
        if not (final or (refused and reason.code.permanent)):
            return reason
        if isFirst or (reason.stated and server.isVerified):
            return None
        return TunnelError(
            reason.code.name,
            f"{reason.message}; this may come from something on the network path and"
            " be temporary:"
            " trying again at the longest interval",
            reason.retryAfter,
        )
