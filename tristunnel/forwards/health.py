"""Checking at intervals whether a service is well: C{health=tcp}."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.internet.error import ConnectError, ConnectionRefusedError
from twisted.internet.interfaces import IDelayedCall, IStreamClientEndpoint
from twisted.python.failure import Failure

from tristunnel.dataplane.asking import Enough, firstCause, sendRequest, touch
from tristunnel.errors import badOption, printable
from tristunnel.version import VERSION

__all__ = [
    "HealthCheck",
    "HealthPlan",
    "HealthRules",
    "Prober",
    "parseHealth",
    "planOf",
]

_HTTP = re.compile(r"http:(/(?!/)[!-~]*)")


@dataclass(frozen=True)
class HealthRules:
    """
    When a service counts as well.

    @ivar interval: Seconds from one check to the next.
    @ivar fall: Failed checks in a row after which it does not.
    @ivar rise: Passed checks in a row after which it does again.
    """

    interval: float = 10.0
    fall: int = 3
    rise: int = 2

    @property
    def timeout(self) -> float:
        """Seconds in which a check must succeed."""
        return min(5.0, self.interval)


@dataclass(frozen=True)
class HealthPlan:
    """
    How a service is checked, and how often.

    @ivar text: As users write it.
    @ivar rules: When the service counts as well.
    """

    text: str
    rules: HealthRules

    def prober(
        self, reactor: Any, endpoint: IStreamClientEndpoint, host: str
    ) -> Callable[[], Deferred[None]]:
        """
        Make what checks a service once.

        @param host: What a C{Host} header says.
        """
        return partial(parseHealth(self.text), reactor, endpoint, host)


Prober = Callable[[Any, IStreamClientEndpoint, str], "Deferred[None]"]
"""Checks a service once: is given the reactor, the service, and its host for a C{Host}
header. Its Deferred fails if the service is not well."""


def _probeTCP(reactor: Any, endpoint: IStreamClientEndpoint, host: str) -> Any:
    return touch(endpoint)


class _Unwell(Exception):
    pass


def _probeHTTP(
    path: str, reactor: Any, endpoint: IStreamClientEndpoint, host: str
) -> Deferred[None]:
    said = {"User-Agent": f"tristunnel/{VERSION} (health check)"}

    def answered(response: Any) -> None:
        # The head is enough.
        response.deliverBody(Enough())
        if not 200 <= response.code < 400:
            raise _Unwell(f"it answers {response.code}")

    url = f"http://{host or 'localhost'}{path}"
    asking = sendRequest(reactor, lambda uri: endpoint, b"GET", url, said)
    return asking.addCallback(answered)


def parseHealth(text: str) -> Prober:
    """
    Read how a service is checked.

    @param text: C{tcp}, for a connection, or C{http:/PATH}, for an answer with a
        status from 200 to 399.
    @raise TunnelError: C{bad-option}.
    """
    if text == "tcp":
        return _probeTCP
    if found := _HTTP.fullmatch(text):
        path = found[1]
        return lambda *service: _probeHTTP(path, *service)
    raise badOption(
        f"a health check is tcp, or http:/PATH such as http:/healthz, not"
        f" {printable(text, 60)!r}"
    )


def planOf(text: str, rules: HealthRules | None = None) -> HealthPlan | None:
    """
    Make a plan.

    @param text: What L{parseHealth} reads; C{none} or empty for nothing.
    @param rules: When the service counts as well.
    @raise TunnelError: C{bad-option}.
    """
    if text in ("", "none"):
        return None
    parseHealth(text)
    return HealthPlan(text, rules or HealthRules())


def _why(failure: Failure) -> str:
    if failure.check(DeferredTimeout):
        return "it did not answer in time"
    if failure.check(ConnectionRefusedError):
        return "nothing listens there"
    failure = firstCause(failure)
    text = failure.getErrorMessage()
    if failure.check(ConnectError):
        text = str(failure.value).partition(":")[0] or text
    return printable(text, 100)


class HealthCheck:
    """
    Checks a service again and again.

    @param reactor: Tells time.
    @param rules: When the service counts as well.
    @param probe: Checks it once.
    @param told: Called after each check: whether the service counts as well, and why
        not. The first check decides alone.

    @ivar isWell: Whether it counts as well; C{None} before the first check.
    @ivar reason: Why not.
    """

    def __init__(
        self,
        reactor: Any,
        rules: HealthRules,
        probe: Callable[[], Deferred[None]],
        told: Callable[[bool, str], object],
    ) -> None:
        self.isWell: bool | None = None
        self.reason = ""
        self._reactor = reactor
        self._rules = rules
        self._probe = probe
        self._told = told
        self._inRow = 0
        self._asking: Deferred[None] | None = None
        self._later: IDelayedCall | None = None

    def start(self) -> None:
        """Check now, and at intervals."""
        self._later = None
        self._asking = asking = maybeDeferred(self._probe)
        asking.addTimeout(self._rules.timeout, self._reactor)
        asking.addCallbacks(lambda result: self._seen(True, ""), self._failed)

    def stop(self) -> None:
        """Stop checking, and tell nothing any more."""
        asking, self._asking = self._asking, None
        if asking is not None:
            asking.cancel()
        if self._later is not None:
            self._later.cancel()
            self._later = None

    def _failed(self, failure: Failure) -> None:
        self._seen(False, _why(failure))

    def _seen(self, passed: bool, reason: str) -> None:
        if self._asking is None:
            # It has been stopped.
            return
        self._asking = None
        self._later = self._reactor.callLater(self._rules.interval, self.start)
        self.reason = reason or self.reason
        if self.isWell is None:
            self.isWell = passed
        elif self.isWell is passed:
            self._inRow = 0
        else:
            self._inRow += 1
            if self._inRow >= (self._rules.rise if passed else self._rules.fall):
                self.isWell, self._inRow = passed, 0
        self._told(self.isWell, "" if self.isWell else self.reason)
