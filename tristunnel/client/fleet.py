"""All clients of a process, one for each server."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.application.service import MultiService
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.logger import Logger

from tristunnel.client.local import makeLocalPort
from tristunnel.client.options import ClientOptions
from tristunnel.client.service_options import DemandOptionsMixin
from tristunnel.client.visitor import LocalPort, VisitorService
from tristunnel.config.keys import keysOf
from tristunnel.config.policy_options import PolicyOptionsMixin
from tristunnel.config.reload import Changes, differing
from tristunnel.dialects.base.dialect import GaveUp, Route
from tristunnel.dialects.table import DIALECTS
from tristunnel.model.observer import ClientObserver

__all__ = ["Clients", "Member", "makeClient"]

_OF_FORWARDS = {
    *("forward", "private", "to"),
    *keysOf(PolicyOptionsMixin),
    *keysOf(DemandOptionsMixin),
}
"""Options that are about what is offered, and not about the server."""

_AT_ONCE = {"grace", "managed", "state-dir"}
_IDENTITY = {"credentials", "credentials-file", "token-file"}


@dataclass(eq=False)
class Member:
    """
    One client.

    @ivar options: Its own.
    @ivar service: What runs it.
    @ivar over: Whether it has given up.
    """

    options: ClientOptions
    service: Any = None
    over: bool = False

    @property
    def client(self) -> Any:
        """The service that offers its forwards, without the local ports."""
        return self.service.client if self.options.dials else self.service

    @property
    def name(self) -> str:
        return f"client of {self.options.server.where}"


def _keyOf(options: ClientOptions) -> tuple[object, ...]:
    """Find what identifies a client."""
    return (
        options["dialect"],
        options.server.where,
        (options["tunnel"] or "").partition("#")[0],
        options["listen"],
        options["service"],
    )


def makeClient(
    reactor: Any, options: ClientOptions, observer: ClientObserver, gaveUp: GaveUp
) -> Any:
    """
    Make the service of a client.

    @return: A service with a C{stopNow}.
    """
    options.server.route.log(options.server.where)
    dialect = DIALECTS[options["dialect"]]

    def port(endpoint: Any, listen: str, route: Route, what: str) -> LocalPort:
        made = makeLocalPort(
            reactor, endpoint, listen, route, what, options["grace"], gaveUp
        )
        made.observer = observer
        return made

    if options["listen"]:
        client, route, what = dialect.makeRoute(reactor, options, observer, gaveUp)
        here = port(options.localEndpoint, options["listen"], route, what)
        return VisitorService(client, here)
    client = dialect.makeClient(reactor, options, observer, gaveUp)
    ports = [
        port(
            each.endpoint,
            each.listen,
            dialect.makeDial(client, each.target, each.client),
            each.what,
        )
        for each in options.dials
    ]
    for made in ports:
        # Visitors are refused elsewhere.
        made.logs = True
    return VisitorService(client, *ports) if ports else client


class Clients(MultiService):
    """
    Runs clients, and changes them when their file does.

    @param reactor: Tells time.
    @param options: The options; those of each client are in C{each}.
    @param observer: Makes the observer of a client.
    @param ended: Called when the last one has given up.

    @ivar members: The clients.
    """

    _log = Logger(namespace="tristunnel.client")

    def __init__(
        self,
        reactor: Any,
        options: ClientOptions,
        observer: Callable[[ClientOptions], ClientObserver],
        ended: Callable[[], None],
    ) -> None:
        super().__init__()
        self.members: list[Member] = []
        self._reactor = reactor
        self._observer = observer
        self._ended = ended
        # Those that are about to stop.
        self._leaving: dict[Member, Deferred[Any]] = {}
        for each in options.each:
            self._begin(each)

    def _begin(self, options: ClientOptions) -> Member:
        member = Member(options)
        member.service = makeClient(
            self._reactor,
            options,
            self._observer(options),
            lambda reason: self._gaveUp(member),
        )
        self.members.append(member)
        member.service.setServiceParent(self)
        return member

    def _gaveUp(self, member: Member) -> None:
        member.over = True
        if member in self.members and all(each.over for each in self.members):
            self._ended()

    def _end(self, member: Member, successor: ClientOptions | None = None) -> None:
        """
        Stop a client, without waiting for its visitors.

        @param successor: What begins when it has stopped.
        """
        if member in self.members:
            self.members.remove(member)
        dialect = DIALECTS[member.options["dialect"]]
        if successor is None and dialect.adapts(member.client):
            member.client.forGood = True
        left = self._leaving[member] = Deferred()
        stopping = maybeDeferred(member.service.disownServiceParent)
        stopping.addErrback(
            lambda failure: self._log.failure("A client did not stop", failure)
        )

        def stopped(result: object) -> None:
            del self._leaving[member]
            if successor is not None and self.running:
                self._begin(successor)
            left.callback(None)

        stopping.addCallback(stopped)

    def stopService(self) -> Deferred[Any]:
        stopping: Any = super().stopService()
        return DeferredList([stopping, *self._leaving.values()])

    def stopNow(self) -> None:
        """Stop waiting for visitors."""
        for member in (*self.members, *self._leaving):
            member.service.stopNow()

    # Changes

    async def change(self, old: ClientOptions, new: ClientOptions) -> Changes:
        """Put other options in force."""
        changes = Changes(restart=sorted(differing(old, new) & new.processWide))
        left = list(self.members)
        begin: list[ClientOptions] = []
        matches: list[tuple[Member, ClientOptions]] = []
        for options in new.each:
            key = _keyOf(options)
            member = next((each for each in left if _keyOf(each.options) == key), None)
            if member is None:
                begin.append(options)
            else:
                left.remove(member)
                matches.append((member, options))
        for member in left:
            self._end(member)
            changes.applied.append(f"{member.name} stopped")
        for member, options in matches:
            changes.applied += await self._adapt(member, options)
        for options in begin:
            member = self._begin(options)
            changes.applied.append(f"{member.name} started")
        return changes

    async def _adapt(self, member: Member, options: ClientOptions) -> list[str]:
        """
        Put other options of one client in force.

        @return: What has changed, in words.
        """
        old, service = member.options, member.client
        different = differing(old, options) - options.processWide
        identity = old["credentials"] != options["credentials"]
        # The contents of the files that forwards name.
        asks = [each.ofFiles for each in old.forwards] != [
            each.ofFiles for each in options.forwards
        ]
        if not (different or identity or asks or member.over):
            member.options = options
            return []
        dialect = DIALECTS[options["dialect"]]
        redials = [each.spec for each in old.dials] != [
            each.spec for each in options.dials
        ]
        if member.over or redials or not dialect.adapts(service):
            self._end(member, options)
            return [f"{member.name} started anew, when its visitors have left"]
        told = [f"{member.name}: {name}" for name in sorted(different & _AT_ONCE)]
        others = sorted(different - _OF_FORWARDS - _AT_ONCE)
        if identity and not _IDENTITY & set(others):
            # The files have changed.
            others.append("credentials")
        if others or told:
            dialect.adapt(service, options)
        if others:
            told.append(
                f"{member.name}: {', '.join(others)}, from its next connection on"
            )
        told += [
            f"{member.name}: {change}"
            for change in await service.changeForwards(options.forwards)
        ]
        if not (options["tunnel"] or options["listen"]):
            service.moveLease(options.stateDirectory)
        member.options = options
        return told
