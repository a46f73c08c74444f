"""Reporting the health of a client's services to its server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tristunnel.connect.endpoints import EndpointParts, isKind
from tristunnel.forwards.forward import Forward
from tristunnel.forwards.health import HealthCheck
from tristunnel.forwards.udp import UDPService
from tristunnel.model.observer import ClientObserver

__all__ = ["CONFIRM", "HealthReports"]

CONFIRM = 30.0
"""Seconds after which a server is told again that a service is well."""

Report = Callable[[str, bool, str], object]
"""Tells the server: is given the forward's text, whether its service is well, and why
not."""


@dataclass(eq=False)
class _Followed:
    """
    @ivar forward: Whose service is asked.
    @ivar check: Checks it.
    @ivar told: What the server knows; C{None} for nothing.
    @ivar since: When it was told.
    """

    forward: Forward
    check: HealthCheck
    told: bool | None = None
    since: float = 0.0


class HealthReports:
    """
    Checks services, and reports.

    @param reactor: Tells time.
    @param observer: Told what the user should know.
    @param report: Tells the server.
    """

    def __init__(self, reactor: Any, observer: ClientObserver, report: Report) -> None:
        self._reactor = reactor
        self._observer = observer
        self._report = report
        self._followed: dict[str, _Followed] = {}

    def opened(self, forward: Forward) -> None:
        """
        Check and report a forward's service, since its tunnel is open, perhaps again.
        """
        known = self._followed.get(forward.spec)
        if known is not None and not known.forward.isLike(forward):
            self.withdrawn(forward.spec)
            known = None
        if known is not None:
            known.told = None
            if known.check.isWell is not None:
                self._tell(known, known.check.isWell, known.check.reason)
        elif forward.health is not None:
            self._follow(forward)

    def _follow(self, forward: Forward) -> None:
        plan, endpoint = forward.health, forward.endpoint
        assert plan is not None and not isinstance(endpoint, UDPService)
        probe = plan.prober(self._reactor, endpoint, _hostOf(forward.target))

        def told(isWell: bool, reason: str) -> None:
            self._tell(followed, isWell, reason)

        check = HealthCheck(self._reactor, plan.rules, probe, told)
        followed = self._followed[forward.spec] = _Followed(forward, check)
        check.start()

    def _tell(self, followed: _Followed, isWell: bool, reason: str) -> None:
        now = self._reactor.seconds()
        before, forward = followed.told, followed.forward
        if isWell:
            self._observer.serviceProven(forward.target)
        if before is isWell and (not isWell or now - followed.since < CONFIRM):
            return
        if before is not isWell:
            self._observer.serviceHealth(forward.target, isWell, reason)
        followed.told, followed.since = isWell, now
        self._report(forward.spec, isWell, reason)

    def withdrawn(self, spec: str) -> None:
        """Stop checking a forward that is not offered any more, or has changed."""
        followed = self._followed.pop(spec, None)
        if followed is not None:
            followed.check.stop()

    def stop(self) -> None:
        """Stop all checks."""
        for spec in list(self._followed):
            self.withdrawn(spec)


def _hostOf(target: str) -> str:
    if isKind(target):
        parts = EndpointParts(target)
        return parts.host if parts.port else ""
    return target
