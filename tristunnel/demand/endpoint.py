"""A service that is started when a visitor comes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.asking import touch
from tristunnel.demand.starter import Starter
from tristunnel.demand.waiting import WaitingVisitor
from tristunnel.errors import TunnelError
from tristunnel.forwards.service_connector import CONNECT_TIMEOUT

__all__ = ["DemandEndpoint"]

LOOK = 0.25
"""Seconds between two looks whether a service has started."""

SOON = 1.0
"""Seconds in which a service must accept a connection; one that does not is started."""


def _forVisitor(endpoint: Any, info: Mapping[str, object]) -> IStreamClientEndpoint:
    make = getattr(endpoint, "forVisitor", None)
    made: IStreamClientEndpoint = endpoint if make is None else make(info)
    return made


@implementer(IStreamClientEndpoint)
@dataclass(eq=False)
class DemandEndpoint:
    """
    A service that is started for its visitors.

    @ivar reactor: Connects, and tells time.
    @ivar below: The service.
    @ivar starter: What starts it.
    @ivar crowd: Those of its visitors, and of others, who are held back.
    """

    reactor: Any
    below: IStreamClientEndpoint
    starter: Starter
    crowd: set[WaitingVisitor] = field(default_factory=set)
    _isKnown: bool = False
    _isLooking: bool = False
    _later: IDelayedCall | None = None
    _waiting: list[Deferred[None]] = field(default_factory=list)

    limitsTime = True

    def forVisitor(self, info: Mapping[str, object]) -> _Visit:
        """Make the endpoint of one visit."""
        return _Visit(self, info)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Connect without a visitor: the service is not started for that."""
        made: Deferred[IProtocol] = self.below.connect(protocolFactory)
        return made

    def visit(
        self, info: Mapping[str, object], factory: IProtocolFactory
    ) -> Deferred[IProtocol]:
        """Connect a visitor, to the service or to what waits for it."""
        service = _forVisitor(self.below, info)
        if self.starter.isStopping:
            return self._held(service, factory)
        connecting: Deferred[IProtocol] = service.connect(factory)
        # A machine that is off refuses no connection.
        within = CONNECT_TIMEOUT if self._isKnown else SOON
        connecting.addTimeout(within, self.reactor)

        def failed(failure: Failure) -> Any:
            if failure.check(CancelledError):
                return failure
            self._isKnown = False
            return self._held(service, factory)

        connecting.addCallbacks(self._reached, failed)
        return connecting

    def _held(
        self, service: IStreamClientEndpoint, factory: IProtocolFactory
    ) -> Deferred[IProtocol]:
        protocol = factory.buildProtocol(UNIXAddress(None))
        if protocol is None:
            return fail(ConnectionRefusedError())
        waiting = WaitingVisitor(self.reactor, self._wait, service, self.crowd)
        waiting.wait(protocol)
        return succeed(protocol)

    def _reached(self, protocol: IProtocol) -> IProtocol:
        if not self._isKnown:
            self._isKnown = True
            self.starter.isUp()
        return protocol

    # Waiting

    def _wait(self) -> Deferred[None]:
        waiting: Deferred[None] = Deferred(self._waiting.remove)
        self._waiting.append(waiting)
        if not self._isLooking:
            self._isLooking = True
            self.starter.looking.add(self.stop)
            self._look()
        return waiting

    def _look(self) -> None:
        self._later = None
        if self.starter.isStopping:
            self._lookLater()
            return
        looking = touch(self.below)
        looking.addTimeout(SOON, self.reactor)
        looking.addCallbacks(self._found, self._notFound)

    def _lookLater(self) -> None:
        self._later = self.reactor.callLater(LOOK, self._look)

    def stop(self) -> None:
        """Stop looking."""
        if self._later is not None:
            self._later.cancel()
            self._later = None
        self._tell(lambda waiting: waiting.cancel())

    def _found(self, protocol: IProtocol) -> None:
        self._reached(protocol)
        self._tell(lambda waiting: waiting.callback(None))

    def _notFound(self, failure: Failure) -> None:
        starter = self.starter
        self._isKnown = False
        if starter.isLate:
            starter.failed(
                f"it does not accept connections: {failure.getErrorMessage()}"
            )
        else:
            starter.begin()
        if not starter.problem:
            self._lookLater()
            return
        error = TunnelError("service-unreachable", starter.problem)
        self._tell(lambda waiting: waiting.errback(error))

    def _tell(self, tell: Any) -> None:
        self._isLooking = False
        self.starter.looking.discard(self.stop)
        for each in list(self._waiting):
            tell(each)
        self._waiting.clear()


@implementer(IStreamClientEndpoint)
@dataclass(frozen=True)
class _Visit:
    endpoint: DemandEndpoint
    info: Mapping[str, object]

    limitsTime = True

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        return self.endpoint.visit(self.info, protocolFactory)
