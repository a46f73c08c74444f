"""
How long a session may be silent before something on its way ends it: held in
silence, and looked at afterwards.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList

from tristunnel.check.report import Finding, inTime, ok, warn
from tristunnel.dialects.framed.session import MOST_QUIET
from tristunnel.errors import TunnelError
from tristunnel.rpc.pending import RemoteError

__all__ = ["MARGIN", "Silence", "unmeasured"]

COMMON_IDLE = 60.0
"""Seconds after which nginx and Amazon's load balancers end a connection that
was silent, unless they are told otherwise; few others are that impatient."""

MARGIN = 5.0
"""Seconds by which a silence is longer than sessions ever are, so that it shows
whether these survive."""

_GONE = ("session-lost", "handshake-timeout")
"""What becomes of a call when nobody is there any more."""


class Silence:
    """
    A session without pings.

    @param reactor: Tells time.
    @param session: The session; its C{quiet} is for how long.

    @ivar ended: After how many seconds the session was over, or C{None}.
    @ivar forgotten: Whether it was over without anybody saying so.
    """

    def __init__(self, reactor: Any, session: Any) -> None:
        self.seconds: float = session.quiet
        self.ended: float | None = None
        self.forgotten = False
        self._reactor = reactor
        self._session = session

    async def hold(self) -> Silence:
        """
        Say nothing for as long, and then ask something.

        @return: This object, when what has happened is known.
        """
        began = self._reactor.seconds()
        passed: Deferred[None] = Deferred()
        timer = self._reactor.callLater(self.seconds, passed.callback, None)
        over = self._session.whenOver()
        # Errors are those of a wait that is cancelled, and then all there is.
        first = await DeferredList(
            [over, passed], fireOnOneCallback=True, consumeErrors=True
        )
        if timer.active():
            timer.cancel()
            if isinstance(first, list):
                raise CancelledError()
            self.ended = self._reactor.seconds() - began
            return self
        try:
            # Any answer is good, also a refusal.
            with suppress(RemoteError):
                await inTime(
                    self._reactor, self._session.call("listTunnels"), "no answer came"
                )
        except TunnelError as error:
            self.forgotten = error.code.name in _GONE
        return self

    def judge(self, interval: float) -> Finding:
        """
        Say what that means.

        @param interval: Seconds for which sessions are silent at the most.
        @raise TunnelError: If sessions would be ended.
        """
        long, enough = f"{self.seconds:g} s of silence", interval + MARGIN
        signs = f"sessions say something every {interval:g} s"
        cure = (
            f"raise that limit to 60 s or more, above {interval:g} s in any case:"
            " proxy_read_timeout and proxy_send_timeout in nginx, timeout tunnel in"
            " HAProxy, the idle timeout of a load balancer"
        )
        if self.ended is not None:
            told = f"something on the way ends a session after {self.ended:.0f} s of"
            told += " silence"
            if self.ended <= interval:
                raise TunnelError(
                    "session-lost", f"{told}, and {signs} at the most: {cure}"
                )
            return ok(f"{told}; {signs}, which is enough")
        if self.forgotten:
            told = f"something on the way forgets a session within {long}"
            if self.seconds <= enough:
                raise TunnelError(
                    "session-lost", f"{told}, as NAT and firewalls do: {cure}"
                )
            return warn(
                f"{told}; {signs}, which is enough if --check-idle {enough:g} says so"
            )
        if self.seconds < interval:
            return warn(
                f"a session outlived {long}, but they may be silent for {interval:g} s:"
                f" look for longer with --check-idle {enough:g}"
            )
        longer = min(4 * self.seconds, MOST_QUIET)
        more = f"; to look for longer: --check-idle {longer:g}"
        return ok(
            f"a session outlived {long}, and {signs}"
            + (more if longer > self.seconds else "")
        )


def unmeasured(interval: float) -> Finding:
    """
    Judge the signs of life of a dialect in which they cannot be left out.

    @param interval: Seconds between pings, 0 for none.
    """
    if not interval or interval > COMMON_IDLE / 2:
        often = f"only every {interval:g} s" if interval else "never"
        return warn(
            f"an idle session {often} gives a sign of life; nginx and load balancers"
            f" end what is silent for {COMMON_IDLE:g} s: give --ping-interval 25"
        )
    return ok(
        f"not measured in this dialect; a sign of life every {interval:g} s is enough"
        f" for whatever waits for {2 * interval:g} s or more, and most wait for"
        f" {COMMON_IDLE:g} s"
    )
