"""The client that C{twistd tunnel-client} runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from itertools import chain
from typing import Any

from twisted.application.service import Service

from tristunnel.check.client import ClientCheck
from tristunnel.check.report import CheckService, Finding, Inquiry
from tristunnel.client.fleet import Clients
from tristunnel.client.options import ClientOptions
from tristunnel.config.reload import Changes, Reload
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.demand.services import DemandServices
from tristunnel.dialects.table import ours
from tristunnel.hooks.certificates import CertificateWatch
from tristunnel.hooks.delivery import Hooks
from tristunnel.hooks.observers import HookedClient
from tristunnel.hooks.options import hooksOf
from tristunnel.inspect.inspector import Inspector
from tristunnel.model.observer import ClientObserver, severalObservers
from tristunnel.screen.client import ClientWatch
from tristunnel.util.command_line import endWithUsage, hideExposed
from tristunnel.util.descriptor_limit import raiseDescriptorLimit
from tristunnel.util.endpoints import checkBeforeFork
from tristunnel.util.logs import Log
from tristunnel.util.process import (
    ReloadSignalService,
    exitWith,
    hurryOnSecondSignal,
    serviceThen,
    tuneCollector,
    useMonotonicTime,
)
from tristunnel.webhooks.endpoint import verified

__all__ = ["makeService"]

_NOTHING = (
    "nothing is offered: give --forward, for example --forward 3000 for port 3000 of"
    " this machine"
)


def makeService(options: ClientOptions) -> Service:
    """Make the client."""
    reactor = ourReactor()

    ports = []
    if options.localEndpoint is not None:
        ports.append((f"--listen {options['listen']}", options.localEndpoint))
    if options.control is not None:
        control = options.control
        ports.append((f"--rpc {control.description}", control.endpoint))
    if options.inspection is not None:
        place = options.inspection.place
        ports.append((f"--inspect {place.description}", place.endpoint))
    checkBeforeFork(
        getattr(options, "parent", None),
        ports,
        options.stateDirectory if options["state-dir"] else None,
    )
    offers = all(
        each.forwards
        or each["listen"]
        or each.managed
        or each.dials
        or each.destinations
        for each in options.each
    )
    if not (offers or options["check"]):
        endWithUsage(options.program, _NOTHING)
    watch = None if options["check"] else ClientWatch(reactor, options)
    log = Log(options, watch is not None and watch.hasScreen)
    return log.around(_make(reactor, options, log, watch))


def _make(
    reactor: Any, options: ClientOptions, log: Log, watch: ClientWatch | None
) -> Service:
    useMonotonicTime(reactor)
    raiseDescriptorLimit()
    tuneCollector()
    hideExposed(options.exposed)
    options.warnOfSecrets()
    if watch is None:
        return CheckService(reactor, _Checks(reactor, options), sys.__stdout__)

    def ended() -> None:
        exitWith(1)
        reactor.callWhenRunning(reactor.stop)

    demand = DemandServices(reactor)
    watch.mayRest = demand.starts
    inspector = _inspector(reactor, options, watch)
    _arrange(reactor, demand, inspector, options)
    hooks = hooksOf(reactor, options, "client")
    # The configuration file may add one later.
    starts = options.file is not None or any(
        forward.demand for each in options.each for forward in each.forwards
    )
    observers = _observers(watch, hooks, demand if starts else None)
    clients = Clients(reactor, options, observers, ended)
    reactor.addSystemEventTrigger(
        "before", "shutdown", hurryOnSecondSignal, reactor, clients.stopNow
    )
    if hooks is not None:
        shown = {each["certificate"] for each in options.each} - {"", None}
        CertificateWatch(reactor, hooks, sorted(shown)).setServiceParent(clients)

    async def change(old: ClientOptions, new: ClientOptions) -> Changes:
        _arrange(reactor, demand, inspector, new)
        changes = await clients.change(old, new)
        demand.keep(chain.from_iterable(each.forwards for each in new.each))
        return changes

    reload = Reload(options, change)
    watch.methods["reload"] = lambda caller: reload.reload()
    ReloadSignalService(reactor, log, reload.reloadLater).setServiceParent(clients)
    # Visitors that are still there need the services that were started for them.
    service = serviceThen(watch.around(clients, ended), demand.stop)
    return service if hooks is None else hooks.around(service)


def _inspector(
    reactor: Any, options: ClientOptions, watch: ClientWatch
) -> Inspector | None:
    """Begin inspection, if the options ask for it."""
    if options.inspection is None:
        return None
    inspector = Inspector(reactor, options.inspection)
    watch.inspect(inspector)
    return inspector


def _arrange(
    reactor: Any,
    demand: DemandServices,
    inspector: Inspector | None,
    options: ClientOptions,
) -> None:
    """Put between visitors and services what the options ask for."""
    for each in options.each:
        each.forwards = [
            verified(reactor, forward) for forward in demand.arrange(each.forwards)
        ]
        if inspector is not None:
            each.forwards = inspector.watch(each.forwards)


def _observers(
    watch: ClientWatch, hooks: Hooks | None, demand: DemandServices | None
) -> Callable[[ClientOptions], ClientObserver]:
    """
    Make the observers of each client.

    @param demand: Starts services on demand; C{None} if none are.
    """

    def observer(options: ClientOptions) -> ClientObserver:
        told: list[ClientObserver] = [watch.observer(options)]
        if hooks is not None:
            told.append(HookedClient(hooks, options.server.where))
        if demand is not None:
            told.append(demand.follow(told[0]))
        return told[0] if len(told) == 1 else severalObservers(ClientObserver, *told)

    return observer


class _Checks(Inquiry):
    def __init__(self, reactor: Any, options: ClientOptions) -> None:
        super().__init__([])
        self._inquiries = [
            ClientCheck(
                reactor,
                each.server,
                each.forwards,
                each["credentials"],
                ours()[each["dialect"]],
                silence=options["check-idle"],
            )
            for each in options.each
        ]

    async def run(self, told: Callable[[Finding], None]) -> bool:
        return all([await inquiry.run(told) for inquiry in self._inquiries])
