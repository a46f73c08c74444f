"""
Whether a client that was turned away comes again.
"""

from __future__ import annotations

from tristunnel.connect.address import ServerAddress
from tristunnel.errors import TunnelError

__all__ = ["STEADY", "Refusals"]

STEADY = 100
"""As many failures mean that the next attempt comes at the longest interval."""


class Refusals:
    """
    What a client makes of refusals that another attempt would not change.

    At the very first try the user is there, and learns of a mistake at once. Later
    on a client that ends is missed, and much can say no for a while that is not the
    server: a proxy, a firewall, a captive portal, over plain TCP anybody on the way.
    So it ends only if the server itself has said so, by verified TLS.
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
        @param final: Whether it is final whatever its code, if the server said it.
        @return: C{None} if there is no other attempt. C{reason}, if the next one
            comes as after any failure. Else the next one comes at the longest
            interval, and this is the reason in words that say so.
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
