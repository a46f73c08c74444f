"""
Limits on how often passwords may be guessed, and on the work that this is for the
server.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from secrets import token_bytes
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, DeferredSemaphore
from twisted.internet.threads import deferToThreadPool

from tristunnel.auth.passwords import isPassword
from tristunnel.dataplane.rate import TokenBucket
from tristunnel.errors import TunnelError
from tristunnel.service.preauth import PreauthLimiter

__all__ = ["Attempts"]

WRONG = 30
"""Wrong attempts at one name that may be made at once, whoever makes them."""

PER_SECOND = 0.5
"""How many of these become possible again each second."""

AT_ONCE = 2
"""Hashes that are computed at the same time."""

WAITING = 100
"""Attempts that may wait for that."""

REMEMBERED = 10_000
"""Names, and passwords of programs, that are remembered."""

KNOWN = 300.0
"""Seconds for which a password is remembered that a program sends with each request."""

Work = Callable[[Callable[[], bool]], Deferred[bool]]


class Attempts:
    """
    Checks passwords, and slows down those who guess.

    @param reactor: Tells time, and has threads: a hash takes a tenth of a second.
    @param limiter: Slows down addresses whose attempts were wrong.
    @param work: Computes a hash, in a thread.

    @ivar told: Called with the name of each wrong attempt that is made here, for other
        members of the server.
    """

    def __init__(
        self, reactor: Any, limiter: PreauthLimiter, work: Work | None = None
    ) -> None:
        self._reactor = reactor
        self._limiter = limiter
        self._work = work or self._inThread
        self.told: Callable[[str], object] = lambda place: None
        self._wrong: OrderedDict[str, TokenBucket] = OrderedDict()
        self._places = DeferredSemaphore(AT_ONCE)
        self._waiting = 0
        self._secret = token_bytes(32)
        self._known: OrderedDict[bytes, float] = OrderedDict()

    def _inThread(self, call: Callable[[], bool]) -> Deferred[bool]:
        pool = self._reactor.getThreadPool()
        return deferToThreadPool(self._reactor, pool, call)

    def check(self, address: str, place: str) -> None:
        """
        @param address: Where an attempt comes from.
        @param place: The name that it is for.
        @raise TunnelError: C{limit-reached}, if it may not be made now.
        """
        self._limiter.check(IPv4Address("TCP", address, 0))
        bucket = self._wrong.get(place)
        wait = 0.0 if bucket is None else bucket.charge(0)
        if wait:
            raise TunnelError(
                "limit-reached", f"too many wrong attempts at {place}", wait
            )
        if self._waiting >= WAITING:
            raise TunnelError(
                "limit-reached", "too many visitors are signing in at once", 5.0
            )

    def isRight(
        self, address: str, place: str, given: bytes, kept: str, decoy: str = ""
    ) -> Deferred[bool]:
        """
        Try a password.

        @param kept: The hash of the right one; empty if there is none.
        @param decoy: What is tried then, to take as long.
        @return: It may be cancelled when the visitor has left; the attempt is made, and
            counts, nevertheless.
        @raise TunnelError: As L{check}.
        """
        self.check(address, place)
        self._waiting += 1
        trying: Deferred[bool] = self._places.run(
            self._work, partial(isPassword, given, kept, decoy)
        )

        def tried(result: Any) -> Any:
            self._waiting -= 1
            if result is False:
                self.wrong(address, place)
            return result

        told: Deferred[bool] = Deferred()
        trying.addBoth(tried).chainDeferred(told)
        return told

    def wrong(self, address: str, place: str) -> None:
        """Count a wrong attempt."""
        self._limiter.loginFailed(IPv4Address("TCP", address, 0))
        self.told(place)
        self.wrongElsewhere(place)

    def wrongElsewhere(self, place: str) -> None:
        """An attempt at a name was wrong, here or at another member of the server."""
        bucket = self._wrong.pop(place, None)
        if bucket is None:
            bucket = TokenBucket(PER_SECOND, self._reactor.seconds, WRONG)
        bucket.charge(1)
        self._wrong[place] = bucket
        if len(self._wrong) > REMEMBERED:
            self._wrong.popitem(last=False)

    # What programs send with each request

    def _mark(self, *said: str | bytes) -> bytes:
        parts = (each.encode() if isinstance(each, str) else each for each in said)
        return hmac.digest(self._secret, b"\0".join(parts), sha256)

    def isKnown(self, *said: str | bytes) -> bool:
        """
        Whether this was right a short time ago, so that it need not be tried again.
        """
        until = self._known.get(self._mark(*said), 0.0)
        return bool(until > self._reactor.seconds())

    def remember(self, *said: str | bytes) -> None:
        """Remember that this was right."""
        self._known[self._mark(*said)] = self._reactor.seconds() + KNOWN
        if len(self._known) > REMEMBERED:
            self._known.popitem(last=False)
