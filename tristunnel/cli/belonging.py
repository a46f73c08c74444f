"""What makes a server one of several processes."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from twisted.internet.defer import Deferred

from tristunnel.cluster.entries import Entries
from tristunnel.cluster.service import ClusterService
from tristunnel.cluster.siblings import SiblingWays
from tristunnel.dataplane.poller import pollerOf
from tristunnel.dialects.base.server import ServerSessions
from tristunnel.dialects.table import DIALECTS
from tristunnel.names.site import NameSite
from tristunnel.processes.membership import Membership
from tristunnel.processes.passing import Passing
from tristunnel.processes.ports import VisitorsPorts
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.server.elsewhere import PageOwners
from tristunnel.server.names import NamesPortProtocol
from tristunnel.server.sorting import SortingFactory
from tristunnel.service.clients import ConnectedClients
from tristunnel.service.preauth import PreauthLimiter
from tristunnel.service.siblings import Siblings
from tristunnel.service.visiting import Visiting
from tristunnel.util.members import memberMark

__all__ = ["AT_ONCE", "passNames", "serveAsMember", "shareClients"]

AT_ONCE = 0.05
"""The seconds for which changes in the number of clients are collected before the other
processes are told."""


def serveAsMember(
    reactor: Any,
    membership: Membership,
    sessions: ServerSessions,
    detectors: Sequence[ProtocolDetectorFactory],
    limiters: Sequence[PreauthLimiter],
    reload: Callable[[], object],
    cluster: ClusterService | None,
) -> Deferred[None]:
    """
    Have a server pass on connections that belong to other processes, and take its own.

    @param reactor: The process's.
    @param membership: Its parent and siblings.
    @param sessions: Its sessions.
    @param detectors: What serves clients at its ports; connections of other members
        are served as those of the first one.
    @param limiters: What counts failed logins there.
    @param reload: Called when another member was told to reload its configuration.
    @param cluster: The cluster that all processes are members of, or C{None}.
    @return: Fires when it knows what the others have opened, and can serve.
    """
    poller = pollerOf(reactor)
    assert poller is not None
    # The reactor may not run yet.
    membership.obey(lambda: reactor.callWhenRunning(reactor.stop))
    reactor.callWhenRunning(_obeyOnce, reactor, membership)
    siblings = sessions.service.processes
    assert siblings is not None
    clients = sessions.service.clients
    membership.whenMet = shareClients(reactor, siblings, clients)
    for index, limiter in enumerate(limiters):
        name = f"loginFailed{index}"
        limiter.told = partial(siblings.tell, name)
        siblings.publish(name, limiter.failedElsewhere)
    siblings.publish("reload", reload)
    service = sessions.service
    kept = VisitorsPorts(membership)
    ways = SiblingWays(
        poller,
        membership,
        service.here.served,
        lambda: siblings.passed.update(("visitor",)),
    )
    if cluster is None:
        kept.serveFor(service.listeners.values())
        entries = Entries(
            reactor,
            membership.book,
            {
                kind: listeners
                for kind, listeners in service.listeners.items()
                if getattr(listeners, "named", False)
            },
            service.here,
            ways,
            service.hosts,
            kept=kept,
        )
        entries.near = ways
        service.kept = entries
        service.leases.meanwhile = entries.meanwhile
        siblings.publish("leaving", entries.memberLeaves)
        siblings.publish("show", entries.show)
        knowing = entries.begin()
    else:
        cluster.isBeside(ways, kept)
        knowing = cluster.knowing
    sessions.visiting = Visiting(poller, membership, siblings)
    sessions.visiting.dialler = sessions.dialler
    passing = Passing(poller, membership, detectors[0], siblings.passed)
    sessions.passing = passing
    sessions.service.tickets.mark = memberMark(membership.index)
    for dialect in DIALECTS.values():
        dialect.isMember(sessions, membership.index)
    owners = PageOwners(passing, membership.index, membership.count)
    for each in detectors:
        each.elsewhere = owners
    return knowing


def passNames(sessions: ServerSessions, hosts: NameSite, ports: Sequence[Any]) -> None:
    """
    Pass on whole connections for names of other processes, as long as nothing has been
    answered.

    @param hosts: Serves names over HTTP.
    @param ports: What serves the ports, in the same order in all processes.
    """
    passing = sessions.passing
    assert passing is not None
    plain = ProtocolDetectorFactory(
        sessions.reactor,
        [NamesPortProtocol(hosts, False)],
        sessions.service.observer,
        sessions.handshakeTimeout,
    )
    passing.takers["name"] = plain
    hosts.passOn = partial(passing.passOn, "name")
    for index, each in enumerate(ports):
        taker = f"port{index}"
        passing.takers[taker] = each
        if isinstance(each, SortingFactory):
            each.passOn = partial(passing.passOn, taker)


def _obeyOnce(reactor: Any, membership: Membership) -> None:
    """
    Obey a signal to end only if the parent's message has not come first: whoever ends
    all processes at once causes both.
    """

    def signalled(number: int, frame: object) -> None:
        reactor.callFromThread(membership.stopOnce)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, signalled)


def shareClients(
    reactor: Any, siblings: Siblings, clients: ConnectedClients
) -> Callable[[], None]:
    """
    Have all members know how many clients there are.

    @return: Called to tell the others again, soon.
    """
    counts: dict[str, int] = {}
    clients.elsewhere = lambda: sum(
        count for name, count in counts.items() if name in siblings.names
    )
    waiting: list[Any] = []

    def tell() -> None:
        waiting.clear()
        siblings.tell("clients", siblings.name, len(clients))

    def changed() -> None:
        if not waiting:
            waiting.append(reactor.callLater(AT_ONCE, tell))

    clients.changed = changed
    siblings.publish("clients", counts.__setitem__)
    return changed
