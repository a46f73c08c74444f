"""
What C{--check} of both commands shares: it checks one thing after the other, and says
whether each is right, and if not, what to do.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial
from typing import IO, Any

from cryptography.x509 import Certificate
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.defer import TimeoutError as DeferredTimeout
from twisted.logger import Logger

from tristunnel.errors import TunnelError, printable
from tristunnel.tls.certificates import fingerprint
from tristunnel.util.process import exitWith

__all__ = [
    "PATIENCE",
    "CheckService",
    "Finding",
    "Inquiry",
    "Look",
    "certificateFinding",
    "fail",
    "inTime",
    "ok",
    "skip",
    "warn",
]

PATIENCE = 15.0
"""Seconds that one check may take."""

SOON = 14.0
"""Days before its end at which a certificate should have been renewed."""


@dataclass(frozen=True)
class Finding:
    """
    What one check has found.

    @ivar verdict: C{"OK"}, C{"WARN"} (it works, and should be better), C{"FAIL"},
        C{"SKIP"} (it cannot be checked) or C{"WAIT"} (it is being checked, which takes
        long).
    @ivar message: What was seen, in one line; with the cure, if there is
        something to cure.
    @ivar subject: What was checked, in a word; empty for the name of the check.
    """

    verdict: str
    message: str
    subject: str = ""

    def __str__(self) -> str:
        message = printable(self.message, 2000)
        return f"{self.verdict:<4}  {self.subject:<11}  {message}"


ok, warn, fail, skip = (
    partial(Finding, verdict) for verdict in ("OK", "WARN", "FAIL", "SKIP")
)
"""Make a finding from a message."""


Look = Callable[[], Awaitable["Iterable[Finding] | Finding"]]
"""Checks something; an exception is a failure."""


def inTime(reactor: Any, waiting: Deferred[Any], what: str) -> Deferred[Any]:
    """
    Wait for something as long as a check may take.

    @param what: What did not happen then.
    @return: Fires as C{waiting} does; fails with L{TunnelError} when that
        takes too long.
    """

    def late(value: object, seconds: float) -> object:
        raise TunnelError("handshake-timeout", f"{what} within {seconds:g} s")

    waiting.addTimeout(PATIENCE, reactor, late)
    return waiting


class Inquiry:
    """
    Several checks, one after the other.

    @param looks: The checks, by name, in order. After a failure of one on which others
        depend (its name ends in C{!}), those are left out.
    @param slow: What to say before checks that take long, by name.
    """

    _log = Logger()

    def __init__(
        self, looks: Sequence[tuple[str, Look]], slow: Mapping[str, str] | None = None
    ) -> None:
        self._looks = looks
        self._slow = slow or {}

    async def run(self, told: Callable[[Finding], None]) -> bool:
        """
        Look at everything.

        @param told: Called with each finding.
        @return: Whether nothing failed.
        """
        good, blocked = True, ""
        for name, look in self._looks:
            subject, vital = name.removesuffix("!"), name.endswith("!")
            if blocked and vital:
                told(skip(f"not tried, as {blocked} failed", subject))
                continue
            if subject in self._slow:
                told(Finding("WAIT", self._slow[subject], subject))
            found = await self._judged(subject, look)
            for finding in found:
                told(finding)
            if any(finding.verdict == "FAIL" for finding in found):
                good = False
                if vital:
                    blocked = blocked or subject
        return good

    async def look(self, subject: str) -> list[Finding]:
        """
        Make one check.

        @param subject: Its name.
        @raise Exception: Whatever the check raises.
        """
        looks = {name.removesuffix("!"): look for name, look in self._looks}
        return await self._found(subject, looks[subject])

    async def _found(self, subject: str, look: Look) -> list[Finding]:
        found = await look()
        return [
            each if each.subject else replace(each, subject=subject)
            for each in ([found] if isinstance(found, Finding) else found)
        ]

    async def _judged(self, subject: str, look: Look) -> list[Finding]:
        try:
            return await self._found(subject, look)
        except TunnelError as error:
            why = str(error)
        except CancelledError:
            raise
        except DeferredTimeout:
            why = f"no answer within {PATIENCE:g} s"
        except Exception as error:
            self._log.failure("While testing {subject}", subject=subject)
            why = f"the check itself failed: {error!r}"
        return [fail(why, subject)]


def certificateFinding(
    certificate: Certificate,
    what: str,
    pinned: bool = False,
    now: Callable[[], float] = time.time,
) -> Finding:
    """
    Judge how long a certificate is still valid, which has been verified.

    @param what: Whose it is.
    @param pinned: Whether its dates do not matter.
    @param now: The time of day.
    """
    until = certificate.not_valid_after_utc
    days = (until - datetime.fromtimestamp(now(), UTC)).total_seconds() / 86400
    told = f"{what}, fingerprint {fingerprint(certificate)}"
    verdict, judged = ok, f"is valid until {until:%Y-%m-%d}"
    if pinned:
        judged = "is the pinned one"
    elif days < 0:
        verdict, judged = fail, f"expired on {until:%Y-%m-%d}: renew it"
    elif days < SOON:
        judged = f"ends in {days:.0f} days, on {until:%Y-%m-%d}: renew it"
        verdict = warn
    return verdict(f"{told}, {judged}", "certificate")


@dataclass(eq=False, repr=False)
class CheckService(Service):
    """
    Makes all checks, writes what they have found, and ends the program: with exit
    status 0 if nothing failed, else 1.

    @ivar reactor: Stopped at the end.
    @ivar inquiry: The checks.
    @ivar output: Where to write.
    @ivar leave: Sets the exit status.
    """

    _log = Logger()

    reactor: Any
    inquiry: Inquiry
    output: IO[str] | None
    leave: Callable[[int], None] = exitWith

    def __post_init__(self) -> None:
        self._looking: Deferred[Any] | None = None

    def startService(self) -> None:
        super().startService()
        self.reactor.callWhenRunning(self._begin)

    def _begin(self) -> None:
        self._looking = Deferred.fromCoroutine(self.inquiry.run(self._tell))
        self._looking.addErrback(self._failed)
        self._looking.addCallback(self._over)

    def stopService(self) -> None:
        """
        Stop before everything was checked: failures from now on would only be due to
        closed connections.
        """
        super().stopService()
        looking, self._looking = self._looking, None
        if looking is not None and not looking.called:
            self._tell(skip("stopped before it was finished", "check"))
            self.output = None
            looking.cancel()

    def _tell(self, finding: Finding) -> None:
        if self.output is not None:
            try:
                self.output.write(f"{finding}\n")
                self.output.flush()
            except (OSError, ValueError):
                # Nobody reads the output; the exit status remains.
                self.output = None

    def _failed(self, failure: Any) -> bool:
        if not failure.check(CancelledError):
            self._log.failure("The check failed", failure)
        return False

    def _over(self, good: bool) -> None:
        self.leave(0 if good else 1)
        if self.running:
            self.reactor.stop()

    def stopNow(self) -> None:
        """There is nothing to wait for."""
