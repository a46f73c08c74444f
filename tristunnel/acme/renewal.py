"""
Automatic certificates: obtained for the names that are wanted, renewed in time, and
tried again later after failures.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509 import Certificate
from twisted.application.service import Service
from twisted.internet.defer import CancelledError, Deferred, DeferredSemaphore
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.acme.account import Account
from tristunnel.acme.order import Orders
from tristunnel.acme.store import Renewal, Store
from tristunnel.acme.threads import inThread
from tristunnel.errors import TunnelError
from tristunnel.names.public import CertificateState
from tristunnel.tls.named import NamedCertificates
from tristunnel.tls.pem import certificateNames
from tristunnel.util.hosts import parseHost
from tristunnel.util.repeating import stopTimer
from tristunnel.util.words import age

__all__ = ["AutomaticCertificates"]

FIRST_PAUSE = 300.0
"""Seconds until the second attempt; each pause is twice the one before. Let's Encrypt
takes five failures of a name in an hour."""

LONGEST_PAUSE = 86400.0

AT_ONCE = 4
"""The number of names that are worked on at once; some wait minutes for DNS."""

NEW_A_WEEK = 40
"""How many names of one domain get their first certificate in a week. Let's Encrypt
allows 50; some are left for other servers of the domain."""

_WEEK = 7 * 86400.0
_LONGEST_SLEEP = 3600.0
_BUSY_ELSEWHERE = 60.0
_SHARE = 2 / 3
_ASK_RENEWAL = 12 * 3600.0


class AutomaticCertificates(Service):
    """
    Gets certificates, and renews them.

    @param reactor: Tells time.
    @param orders: Gets one.
    @param store: Keeps them.
    @param account: Asks when one should be renewed; C{None} to go by its age alone.
    @param hasOwn: Whether the operator has a certificate for a name.
    @param now: The time of day.

    @ivar certificates: The certificates that there are.
    @ivar orders: Whether this process gets them; otherwise another one that keeps them
        in the same place does.
    """

    _log = Logger(namespace="tristunnel.acme")

    def __init__(
        self,
        reactor: Any,
        orders: Orders,
        store: Store,
        account: Account | None = None,
        hasOwn: Callable[[str], bool] = lambda name: False,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.certificates = NamedCertificates(store.live, seconds=reactor.seconds)
        self.orders = True
        self._reactor = reactor
        self._orders = orders
        self._store = store
        self._account = account
        self._hasOwn = hasOwn
        self._now = now
        self._domains: dict[str, tuple[str, ...]] = {}
        self._held: Counter[str] = Counter()
        self._renewals: dict[str, Renewal] = {}
        self._working: dict[str, Deferred[None]] = {}
        self._asked: dict[str, float] = {}
        self._semaphore = DeferredSemaphore(AT_ONCE)
        self._waking: IDelayedCall | None = None

    def startService(self) -> None:
        super().startService()
        self._wakeIn(0.0)

    def stopService(self) -> None:
        super().stopService()
        stopTimer(self._waking)
        for working in list(self._working.values()):
            working.cancel()

    # What is wanted

    def wantDomains(self, domains: Iterable[str]) -> None:
        """
        Have certificates for these domains from now on, and for all names directly
        below them if that can be proved.

        @param domains: For example C{t.example.com}.
        """
        below = self._orders.provesDomains
        self._domains = {
            each: (each, f"*.{each}") if below else (each,) for each in domains
        }
        self._wakeIn(0.0)

    def want(self, name: str) -> None:
        """
        Have a certificate for a name, from now on, until L{release} was called as
        often.

        @param name: A name that a tunnel holds, and that a rule allows. One that no
            authority gives certificates for is left alone, and so is a wildcard that
            cannot be proved.
        """
        host = parseHost(name)
        if not isinstance(host, str) or "." not in host:
            return
        if self._orders.provesDomains or not host.startswith("*"):
            self._held[host] += 1
            self._wakeIn(0.0)

    def release(self, name: str) -> None:
        """Stop renewing a certificate; it stays where it is."""
        host = str(parseHost(name))
        if self._held[host] > 1:
            self._held[host] -= 1
        else:
            del self._held[host]

    def _wanted(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        yield from self._domains.items()
        for name in self._held:
            if name in self._domains:
                continue
            wildcard = f"*.{name.partition('.')[2]}"
            covered = any(wildcard in names for names in self._domains.values())
            if not (covered or self._hasOwn(name)):
                yield name, (name,)

    def pathFor(self, name: str) -> str:
        """The file in which a name's certificate is or will be."""
        wildcard = f"*.{name.partition('.')[2]}"
        stems = (stem for stem, names in self._domains.items() if wildcard in names)
        return str(self._store.live / next(stems, name) / "fullchain.pem")

    def states(self) -> list[CertificateState]:
        """The states of the certificates of the names that are wanted now."""
        found = []
        for name, names in self._wanted():
            certificate = self._certificateOf(name, names)
            renewal = self._renewalOf(name)
            since, until = _times(certificate)
            due = self._due(certificate, renewal)
            found.append(CertificateState(names, since, until, due, renewal.error))
        return found

    # When

    def _wakeIn(self, seconds: float) -> None:
        if not (self.running and self.orders):
            return
        if self._waking is not None and self._waking.active():
            if self._waking.getTime() <= self._reactor.seconds() + seconds:
                return
            self._waking.cancel()
        self._waking = self._reactor.callLater(seconds, self._wake)

    def _wake(self) -> None:
        soonest = _LONGEST_SLEEP
        now = self._now()
        for name, names in list(self._wanted()):
            if name in self._working:
                continue
            certificate = self._certificateOf(name, names)
            due = self._due(certificate, self._renewalOf(name))
            if due <= now:
                self._begin(name, self._renew(name, names))
            else:
                soonest = min(soonest, due - now)
                if certificate is not None and now >= self._asked.get(name, 0.0):
                    self._asked[name] = now + _ASK_RENEWAL
                    self._begin(name, self._ask(name, certificate))
        self._wakeIn(soonest)

    def _begin(self, name: str, work: Any) -> None:
        working = self._semaphore.run(Deferred.fromCoroutine, work)
        self._working[name] = working

        def ended(result: object) -> None:
            del self._working[name]
            if isinstance(result, Failure) and not result.check(CancelledError):
                self._log.failure("Certificate for {name}", result, name=name)
            self._wakeIn(1.0)

        working.addBoth(ended)

    def _renewalOf(self, name: str) -> Renewal:
        known = self._renewals.get(name)
        if known is None or not self.orders:
            known = self._renewals[name] = self._store.renewal(name)
        return known

    def _certificateOf(self, name: str, names: tuple[str, ...]) -> Certificate | None:
        # Only a certificate of the name itself counts, not a wildcard's.
        found = self.certificates.newest(name)
        if found is None or not set(names) <= set(certificateNames(found)):
            return None
        return found

    def _due(self, certificate: Certificate | None, renewal: Renewal) -> float:
        if certificate is None:
            return renewal.next
        since, until = _times(certificate)
        due = since + _SHARE * (until - since)
        if since < renewal.renewAt:
            due = min(due, renewal.renewAt)
        return max(due, renewal.next)

    # How

    async def _renew(self, name: str, names: tuple[str, ...]) -> None:
        try:
            await self._renewAlone(name, names)
        except TunnelError as problem:
            # The state directory is at fault: what cannot be kept is not ordered.
            self._failed(name, self._renewalOf(name), problem)

    async def _renewAlone(self, name: str, names: tuple[str, ...]) -> None:
        with self._store.order(name) as alone:
            renewal = self._renewals[name] = self._store.renewal(name)
            due = self._due(self._certificateOf(name, names), renewal)
            if not alone:
                renewal.next = self._now() + _BUSY_ELSEWHERE
                return
            if due > self._now():
                # Another process has ordered it first.
                return
            try:
                self._checkPace(name, renewal)
                issued = await self._orders.obtain(names, renewal.failures)
                self._store.save(name, issued)
            except TunnelError as problem:
                self._failed(name, renewal, problem)
            except CancelledError:
                # The server stops, which says nothing about the authority.
                raise
            except Exception:
                self._log.failure("Certificate for {name}", name=name)
                self._failed(name, renewal, TunnelError("internal"))
            else:
                self._succeeded(name, names, renewal)
            self._store.remember(name, renewal)

    def _checkPace(self, name: str, renewal: Renewal) -> None:
        if renewal.first:
            return
        parent = name.partition(".")[2]
        recent = [
            first for first in self._store.firsts(parent) if first > self._now() - _WEEK
        ]
        if len(recent) >= NEW_A_WEEK:
            raise TunnelError(
                "limit-reached",
                f"{len(recent)} names in {parent} have got their first certificate in"
                " a week, as many as authorities give: use a wildcard"
                " (--acme-dns-hook or --acme-dns-server)",
                min(recent) + _WEEK - self._now(),
            )

    def _failed(self, name: str, renewal: Renewal, problem: TunnelError) -> None:
        now = self._now()
        pause = min(FIRST_PAUSE * 2.0**renewal.failures, LONGEST_PAUSE)
        # An authority's hint counts, but within limits.
        pause = max(pause, min(problem.retryAfter or 0.0, _WEEK))
        renewal.failures = min(renewal.failures + 1, 20)
        renewal.tried, renewal.next = now, now + pause
        renewal.error = problem.message
        self._log.error(
            "No certificate for {name}: {problem}; the one that there is stays in use,"
            " and the next attempt is in {pause}",
            name=name,
            problem=problem.message,
            pause=age(pause),
        )

    def _succeeded(self, name: str, names: tuple[str, ...], renewal: Renewal) -> None:
        now = self._now()
        renewal.first = renewal.first or now
        renewal.tried, renewal.next, renewal.renewAt = now, 0.0, 0.0
        renewal.failures, renewal.error = 0, ""
        self._asked.pop(name, None)
        self._log.info("New certificate for {names}", names=", ".join(names))

    async def _ask(self, name: str, certificate: Certificate) -> None:
        """Ask the authority when it wants the certificate to be renewed (RFC 9773)."""
        account = self._account
        if account is None:
            return
        pem = certificate.public_bytes(Encoding.PEM)
        try:
            when, _ = await inThread(
                self._reactor,
                lambda: account.call(lambda client: client.renewal_time(pem)),
            )
        except TunnelError as problem:
            self._log.debug(
                "{name}: the authority does not say when to renew: {problem}",
                name=name,
                problem=problem.message,
            )
            return
        renewal = self._renewalOf(name)
        if when is not None and when.timestamp() != renewal.renewAt:
            renewal.renewAt = when.timestamp()
            self._store.remember(name, renewal)


def _times(certificate: Certificate | None) -> tuple[float, float]:
    """Since when a certificate is valid, and until when."""
    if certificate is None:
        return 0.0, 0.0
    return (
        certificate.not_valid_before_utc.timestamp(),
        certificate.not_valid_after_utc.timestamp(),
    )
