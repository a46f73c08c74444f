"""
How long a session may be silent before something on its way ends it. A session is kept
silent, and then checked.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, DeferredList

from tristunnel.check.report import Finding, inTime, ok, warn
from tristunnel.dialects.framed.session import MOST_QUIET
from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.pending import RemoteError

__all__ = ["MARGIN", "holdSilence", "unmeasured"]

COMMON_IDLE = 60.0
"""Seconds after which nginx and Amazon's load balancers end a connection that
was silent, unless they are told otherwise; few others are that impatient."""

MARGIN = 5.0
"""Seconds by which this silence is longer than any of a session, so that it shows
whether sessions survive."""

_GONE = ("session-lost", "handshake-timeout")
"""The codes of a call that fails because the peer is gone."""


async def holdSilence(reactor: Any, session: Any, interval: float) -> Finding:
    """
    Keep a session silent, then make a call, and judge what came of it.

    @param reactor: Tells time.
    @param session: A session without pings; its C{quiet} is for how many seconds.
    @param interval: Seconds for which sessions are silent, at most.
    @raise TunnelError: If sessions would be ended.
    """
    seconds: float = session.quiet
    ended, forgotten = None, False
    began = reactor.seconds()
    passed: Deferred[None] = Deferred()
    timer = reactor.callLater(seconds, passed.callback, None)
    # Errors are those of a wait that is cancelled, and then all there is.
    first = await DeferredList(
        [session.whenOver(), passed], fireOnOneCallback=True, consumeErrors=True
    )
    if timer.active():
        timer.cancel()
        if isinstance(first, list):
            raise CancelledError()
        ended = reactor.seconds() - began
    else:
        try:
            # Any answer will do, even a refusal.
            with suppress(RemoteError):
                await inTime(reactor, session.call("listTunnels"), "no answer came")
        except TunnelError as error:
            forgotten = error.code.name in _GONE
    return _judge(seconds, interval, ended, forgotten)


def _judge(
    seconds: float, interval: float, ended: float | None, forgotten: bool
) -> Finding:
    """
    @param ended: After how many seconds the session ended, or C{None}.
    @param forgotten: Whether it had ended without a sign.
    """
    long, enough = f"{seconds:g} s of silence", interval + MARGIN
    signs = f"sessions send something every {interval:g} s"
    cure = (
        f"raise that limit to 60 s or more, above {interval:g} s in any case:"
        " proxy_read_timeout and proxy_send_timeout in nginx, timeout tunnel in"
        " HAProxy, the idle timeout of a load balancer"
    )
    if ended is not None:
        told = f"something on the network path ends idle sessions after {ended:.0f} s"
        if ended <= interval:
            why = f"{told}, and {signs} at the latest: {cure}"
            raise TunnelError("session-lost", why)
        return ok(f"{told}; {signs}, which is enough")
    if forgotten:
        told = f"something on the network path drops a session within {long}"
        if seconds <= enough:
            why = f"{told}, as NAT and firewalls do: {cure}"
            raise TunnelError("session-lost", why)
        return warn(
            f"{told}; {signs}, which is enough if --check-idle {enough:g} passes"
        )
    if seconds < interval:
        return warn(
            f"a session survived {long}, but sessions may be idle for {interval:g} s:"
            f" test longer with --check-idle {enough:g}"
        )
    longer = min(4 * seconds, MOST_QUIET)
    more = f"; to test longer: --check-idle {longer:g}"
    return ok(
        f"a session survived {long}, and {signs}" + (more if longer > seconds else "")
    )


def unmeasured(interval: float) -> Finding:
    """
    Judge the pings of a dialect in which they cannot be left out.

    @param interval: Seconds between pings, 0 for none.
    """
    if not interval or interval > COMMON_IDLE / 2:
        often = f"only every {interval:g} s" if interval else "never"
        return warn(
            f"an idle session {often} sends something; nginx and load balancers"
            f" end what is silent for {COMMON_IDLE:g} s: give --ping-interval 25"
        )
    return ok(
        f"not measured in this dialect; it sends something every {interval:g} s, which"
        f" suits idle limits of {2 * interval:g} s or more; most are"
        f" {COMMON_IDLE:g} s"
    )
