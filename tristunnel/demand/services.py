"""All services of a client that are started for their visitors."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from tristunnel.demand.endpoint import DemandEndpoint
from tristunnel.demand.starter import Starter
from tristunnel.demand.waiting import WaitingVisitor
from tristunnel.errors import TunnelError
from tristunnel.forwards.demand import DemandPlan
from tristunnel.forwards.forward import Forward
from tristunnel.forwards.udp import UDPService
from tristunnel.model.observer import ClientObserver, Visit

__all__ = ["DemandServices"]


class DemandServices:
    """
    Starts services, and counts their visitors.

    @param reactor: Runs programs, and tells time.
    """

    def __init__(self, reactor: Any) -> None:
        self._reactor = reactor
        self._told: list[ClientObserver] = []
        # Forwards with the same plan are the same service at several places.
        self._starters: dict[DemandPlan, Starter] = {}
        self._byTarget: dict[str, Starter] = {}
        self._visits: dict[Visit, Starter] = {}
        self._crowd: set[WaitingVisitor] = set()

    def arrange(self, forwards: Iterable[Forward]) -> list[Forward]:
        """
        Have services started on demand.

        @return: The forwards; those that are started on demand have other endpoints.
        """
        return [self._arranged(each) for each in forwards]

    def _arranged(self, forward: Forward) -> Forward:
        plan = forward.demand
        if plan is None:
            return forward
        target, endpoint = forward.target, forward.endpoint
        starter = self._starters.get(plan)
        if starter is None:
            starter = self._starters[plan] = Starter(
                self._reactor, plan, target, partial(self._changed, plan)
            )
        self._byTarget[target] = starter
        assert not isinstance(endpoint, UDPService)
        made = DemandEndpoint(self._reactor, endpoint, starter, self._crowd)
        return replace(forward, endpoint=made)

    def starts(self, target: str) -> bool:
        """Whether a service is started for its visitors, and need not run now."""
        return target in self._byTarget

    def keep(self, forwards: Iterable[Forward]) -> None:
        """Stop the services that are not among these any more."""
        kept = {each.demand for each in forwards}
        for target, starter in list(self._byTarget.items()):
            if starter.plan not in kept:
                del self._byTarget[target]
        for plan in [each for each in self._starters if each not in kept]:
            self._starters.pop(plan).close()

    def follow(self, told: ClientObserver) -> ClientObserver:
        """
        Tell a client's observer of its services.

        @return: What must be told of its visitors, and of its end.
        """
        self._told.append(told)
        return _Client(self, told)

    def forget(self, told: ClientObserver) -> None:
        """Forget a client that has ended."""
        self._told.remove(told)

    def _changed(self, plan: DemandPlan, state: str, said: str) -> None:
        for target, starter in self._byTarget.items():
            if starter.plan == plan:
                for each in self._told:
                    each.serviceOnDemand(target, state, said)

    def visitorConnected(self, visit: Visit) -> None:
        """A visitor has come to one of them, or to another service."""
        starter = self._byTarget.get(visit.target)
        if starter is not None:
            self._visits[visit] = starter
            starter.visited()

    def visitorGone(self, visit: Visit) -> None:
        """It has left."""
        starter = self._visits.pop(visit, None)
        if starter is not None:
            starter.left()

    def stop(self) -> Deferred[Any]:
        """
        Stop all services that were started here.

        @return: Fires when they have ended.
        """
        return DeferredList([each.close() for each in self._starters.values()])


class _Client(ClientObserver):
    def __init__(self, services: DemandServices, told: ClientObserver) -> None:
        self._services = services
        self._told = told

    def visitorConnected(self, visit: Visit) -> None:
        self._services.visitorConnected(visit)

    def visitorGone(self, visit: Visit, reason: TunnelError | None) -> None:
        self._services.visitorGone(visit)

    def stopped(self) -> None:
        self._services.forget(self._told)
