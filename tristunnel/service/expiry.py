"""Tunnels that end at a given time, or when nobody has served them for a while."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from tristunnel.errors import TunnelError
from tristunnel.model.tunnel import Tunnel

__all__ = ["Expiries"]


class Expiries:
    """
    Ends tunnels by timers, of which each tunnel has one at most.

    @param reactor: Tells time.
    @param discard: Ends tunnels.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        discard: Callable[[list[Tunnel], TunnelError], object],
    ) -> None:
        self._reactor = reactor
        self._discard = discard
        self._timers: dict[Tunnel, IDelayedCall] = {}

    def after(self, tunnel: Tunnel, seconds: float, until: float) -> None:
        """
        End a tunnel.

        @param seconds: For how long it was opened, to be said.
        @param until: When, in seconds of the reactor's clock.
        """
        tunnel.until = until
        self._timers[tunnel] = self._reactor.callLater(
            max(0.0, until - self._reactor.seconds()),
            self._discard,
            [tunnel],
            TunnelError(
                "expired", f"the {seconds:g} s that it was opened for have passed"
            ),
        )

    def keepWhile(
        self, tunnel: Tunnel, seconds: float, served: Callable[[], bool]
    ) -> None:
        """
        Look at a tunnel now and then, and end it if nobody serves it.

        @param seconds: From one look to the next.
        """
        self.forget(tunnel)

        def look() -> None:
            if served():
                self.keepWhile(tunnel, seconds, served)
            else:
                reason = f"no client connected to its URI for {seconds:g} s"
                self._discard([tunnel], TunnelError("expired", reason))

        self._timers[tunnel] = self._reactor.callLater(seconds, look)

    def forget(self, tunnel: Tunnel) -> None:
        """Stop the timer of a tunnel that is over, if it has one."""
        timer = self._timers.pop(tunnel, None)
        if timer is not None and timer.active():
            timer.cancel()
