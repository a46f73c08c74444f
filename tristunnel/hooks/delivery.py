"""
Delivering events: in order, one at a time, again until they are accepted, and with
bounded queues. Whatever a receiver does, nothing else waits for it.
"""

from __future__ import annotations

import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.errors import boundedHint
from tristunnel.hooks.event import HookEvent
from tristunnel.hooks.target import NotTaken, Receiver, Target
from tristunnel.util.log_limiter import LogRateLimiter
from tristunnel.util.process import serviceThen

__all__ = ["Hooks"]

WAITING = 1000
"""Events that wait for one receiver; if there are more, the oldest are lost, and the
receiver is told how many."""

ATTEMPT = 10.0
"""Seconds in which a receiver must accept an event."""

OLDEST = 3600.0
"""Seconds for which an event is tried."""

FIRST_DELAY = 1.0
LONGEST_DELAY = 60.0

FAREWELL = 2.0
"""Seconds that receivers get for the last events when the program stops."""


class _Deliverer:
    """Delivers to one receiver."""

    _log = Logger(namespace="tristunnel.hooks")

    def __init__(
        self,
        reactor: Any,
        target: Target,
        receiver: Receiver,
        overrun: Callable[..., Any],
    ) -> None:
        self.target = target
        self.waiting: deque[tuple[float, HookEvent]] = deque()
        self._reactor = reactor
        self._receiver = receiver
        self._overrun = overrun
        self._lost = 0
        self._failures = 0
        self._delivering: Deferred[Any] | None = None
        self._pause: IDelayedCall | None = None
        self._idle: list[Deferred[None]] = []
        self._problems = LogRateLimiter(reactor.seconds, reactor.callLater)

    def add(self, event: HookEvent) -> None:
        if len(self.waiting) >= WAITING:
            # The first one stays: it may just be on its way.
            del self.waiting[min(1, len(self.waiting) - 1)]
            self._lost += 1
        self.waiting.append((self._reactor.seconds(), event))
        self._next()

    def _next(self) -> None:
        if self._delivering is not None or self._pause is not None:
            return
        oldest = self._reactor.seconds() - OLDEST
        while self.waiting and self.waiting[0][0] < oldest:
            self.waiting.popleft()
            self._lost += 1
        if self._lost and self._failures == 0:
            lost, self._lost = self._lost, 0
            self.waiting.appendleft((self._reactor.seconds(), self._overrun(lost)))
        if not self.waiting:
            idle, self._idle = self._idle, []
            for each in idle:
                each.callback(None)
            return
        event = self.waiting[0][1]
        trying = maybeDeferred(self._receiver.deliver, event, time.time())
        self._delivering = trying
        trying.addTimeout(ATTEMPT, self._reactor, self._late)
        trying.addCallbacks(self._taken, self._notTaken)
        trying.addErrback(self._broken)

    def _late(self, result: object, timeout: float) -> object:
        if isinstance(result, Failure) and result.check(CancelledError):
            raise NotTaken(f"it did not answer within {timeout:g} s")
        return result

    def _taken(self, result: object) -> None:
        self._delivering = None
        self._failures = 0
        self.waiting.popleft()
        self._next()

    def _broken(self, failure: Failure) -> None:
        """Drop one event, because of a fault of ours."""
        self._log.failure("An event was not delivered", failure)
        self._taken(None)

    def _notTaken(self, failure: Failure) -> None:
        problem = failure.value
        why = str(problem) if isinstance(problem, NotTaken) else repr(problem)
        hint = boundedHint(getattr(problem, "retryAfter", None)) or 0.0
        bound = min(FIRST_DELAY * 2.0 ** min(self._failures, 10), LONGEST_DELAY)
        self._delivering = None
        self._failures += 1
        delay = hint + random.uniform(bound / 2, bound)
        self._pause = self._reactor.callLater(delay, self._again)
        self._problems.log(
            ("hook",),
            lambda: self._log.warn(
                "{hook} did not take an event: {why}; trying again in {delay:.0f} s,"
                " {count} wait",
                hook=self.target.shown,
                why=why,
                delay=delay,
                count=len(self.waiting),
            ),
            lambda count, seconds: self._log.warn(
                "{hook} did not take events {count} more times in {seconds:.0f} s:"
                " {why}",
                hook=self.target.shown,
                count=count,
                seconds=seconds,
                why=why,
            ),
            3,
        )

    def _again(self) -> None:
        self._pause = None
        self._next()

    def whenIdle(self) -> Deferred[None]:
        """Wait until everything is delivered. What was postponed is tried at once."""
        if self._pause is not None:
            self._pause.cancel()
            self._again()
        idle: Deferred[None] = Deferred()
        self._idle.append(idle)
        if not self.waiting:
            self._next()
        return idle

    def stop(self) -> None:
        self.waiting.clear()
        if self._pause is not None:
            self._pause.cancel()
            self._pause = None
        if self._delivering is not None:
            self._delivering.addErrback(lambda failure: None)
            self._delivering.cancel()


class Hooks:
    """
    Tells receivers what happens.

    @param reactor: Connects, and tells time.
    @param targets: Where events go.
    @param secret: What they are signed with, or empty.
    @param program: C{server} or C{client}.
    """

    def __init__(
        self, reactor: Any, targets: Sequence[Target], secret: bytes, program: str
    ) -> None:
        self._reactor = reactor
        self._program = program
        self._deliverers = [
            _Deliverer(
                reactor, target, target.makeReceiver(reactor, secret), self._overrun
            )
            for target in targets
        ]
        self._kinds = frozenset().union(*(target.kinds for target in targets))

    def wants(self, kind: str) -> bool:
        """Whether anybody is told of such events."""
        return kind in self._kinds

    def tell(self, kind: str, text: str, **fields: object) -> None:
        """
        Tell the receivers that want to know.

        @param text: What has happened, in one line.
        @param fields: What there is to know; those that are C{None} are left out.
        """
        if kind not in self._kinds:
            return
        event = self._event(kind, text, fields)
        for each in self._deliverers:
            if kind in each.target.kinds:
                each.add(event)

    def _event(self, kind: str, text: str, fields: dict[str, object]) -> HookEvent:
        known = {name: value for name, value in fields.items() if value is not None}
        made = str(uuid.uuid4())
        return HookEvent(made, kind, time.time(), text, self._program, known)

    def _overrun(self, lost: int) -> HookEvent:
        text = f"{lost} events were lost: this hook did not take them in time"
        return self._event("hook-overrun", text, {"lost": lost})

    @property
    def waiting(self) -> int:
        """Events that are not delivered yet."""
        return sum(len(each.waiting) for each in self._deliverers)

    def around(self, service: Service) -> Service:
        """Make a service that stops first, before the last events are delivered."""
        return serviceThen(service, self.stop)

    async def stop(self) -> None:
        """Deliver what is left, for a short time."""
        leaving = [each.whenIdle() for each in self._deliverers]
        for idle in leaving:
            idle.addTimeout(FAREWELL, self._reactor)
            idle.addErrback(lambda late: None)
        for idle in leaving:
            await idle
        for deliverer in self._deliverers:
            deliverer.stop()
