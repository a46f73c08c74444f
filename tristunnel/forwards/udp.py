"""Connecting flows to the UDP services that they are for."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dataplane.datagrams import DatagramSocket, FlowEnd
from tristunnel.dataplane.descriptors import RESERVE, Reserve
from tristunnel.dataplane.lookups import resolveWith
from tristunnel.errors import TunnelError
from tristunnel.interfaces import DatagramEnd
from tristunnel.model.observer import ClientObserver, Visit
from tristunnel.util.hosts import hostName

__all__ = [
    "FLOWS",
    "MOST_FLOWS",
    "ServiceFlow",
    "ServiceFlows",
    "UDPConnector",
    "UDPService",
    "VisitorFlow",
]

MOST_FLOWS = 10_000
"""Flows to services at once, if descriptors allow: as many as a tunnel may have at the
server."""

_REPEATED = 4

_NOTHING: Mapping[str, object] = {}

Place = tuple[int, tuple[str, int]]
"""An address family, and an address in it."""


class VisitorFlow(DatagramEnd, Protocol):
    """A visitor's flow within a session."""

    @property
    def over(self) -> bool:
        """Whether it has ended."""


def notReached(target: str, error: Exception) -> TunnelError:
    """
    Say why a service was not reached.

    @param target: The service, as messages name it.
    @param error: What was raised; a L{TunnelError} says it already.
    """
    if isinstance(error, TunnelError):
        return error
    why = getattr(error, "strerror", None) or str(error)
    return TunnelError("service-unreachable", f"{target} was not reached: {why}")


_Flow = TypeVar("_Flow", bound=VisitorFlow)


class UDPService:
    """
    A service that takes datagrams.

    @param reactor: Looks names up and tells time.
    @param host: A name or an address, as people write it.
    @param port: Its port.
    @raise ValueError: If that is no host, in words.
    """

    def __init__(self, reactor: Any, host: str, port: int) -> None:
        self.reactor = reactor
        self._host = hostName(host)
        self._port = port
        # The last address at which nobody listened.
        self._last: Place | None = None

    def whereIs(self) -> Deferred[list[Place]]:
        """
        Find the service's addresses, the one to be tried first at the front.

        @return: Fires with at least one, or fails with C{DNSLookupError}.
        """
        return resolveWith(self.reactor)(self._host).addCallback(self._found)

    def _found(self, addresses: list[str]) -> list[Place]:
        """Put the address at which nobody listened after the others."""
        places: list[Place] = [
            (
                socket.AF_INET6 if ":" in address else socket.AF_INET,
                (address, self._port),
            )
            for address in addresses
        ]
        return sorted(places, key=lambda place: place == self._last)

    async def beginFlow(
        self, target: str, info: Mapping[str, object]
    ) -> Callable[[], FlowEnd]:
        """
        Find the way for a flow.

        @param target: The service, as messages name it.
        @param info: What the server said of the visitor.
        @return: Makes the flow's end, or raises L{TunnelError}.
        """
        places = await self.whereIs()
        return lambda: ServiceFlow(self, target, places)

    def moveOn(self, place: Place) -> None:
        """
        Try the other addresses first from now on, since nobody listens at C{place}.
        """
        self._last = place


class BoundedFlow(Protocol):
    """
    A flow that L{ServiceFlows} counts.

    @ivar talking: Whether the visitor sent something after it was answered, as somebody
        with a forged address would not.
    """

    talking: bool

    @property
    def received(self) -> int:
        """Bytes of answers."""

    @property
    def answered(self) -> bool:
        """Whether anybody has answered."""

    def remoteOver(self, reason: TunnelError | None) -> None:
        """End it."""


class ServiceFlow(FlowEnd):
    """
    The L{DatagramEnd<tristunnel.interfaces.DatagramEnd>} whose remote is a
    service: a socket of its own, so that the service tells visitors apart by
    its port as it always does.

    @param service: The service.
    @param target: Its name in messages.
    @param flows: What bounds their number; by default the process's.
    """

    __slots__ = (
        "_answered",
        "_flows",
        "_places",
        "_repeat",
        "_service",
        "_socket",
        "_target",
        "talking",
    )

    def __init__(
        self,
        service: UDPService,
        target: str,
        places: list[Place],
        flows: ServiceFlows | None = None,
    ) -> None:
        super().__init__()
        self.talking = False
        self._flows = FLOWS if flows is None else flows
        self._service = service
        self._target = target
        self._places = list(places)
        self._answered = False
        # What to send again if nobody listens at the first of several addresses.
        self._repeat: list[bytes] = []
        self._socket: DatagramSocket | None = None
        self._flows.enter(self)
        try:
            self._connect()
        except TunnelError:
            self._flows.leave(self)
            raise

    @property
    def answered(self) -> bool:
        return self._answered

    def _connect(self) -> None:
        while True:
            family, address = self._places[0]
            try:
                self._socket = DatagramSocket.connect(
                    self._service.reactor, family, address, self._arrived, self._failed
                )
                return
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE):
                    raise TunnelError(
                        "limit-reached", "the client has no file descriptor left"
                    ) from None
                if not self._nextPlace():
                    raise notReached(self._target, error) from None

    def _nextPlace(self) -> bool:
        if len(self._places) < 2:
            return False
        self._service.moveOn(self._places.pop(0))
        return True

    def send(self, datagram: bytes) -> None:
        self._flows.used(self, self._answered)
        if not (self._answered or len(self._places) < 2):
            self._repeat = [*self._repeat[1 - _REPEATED :], datagram]
        skt = self._socket
        if skt is None:
            self.dropped += 1
        elif not skt.send(datagram) and (self._over or skt is self._socket):
            # Otherwise it was sent again, to the next address.
            self.dropped += 1

    def _arrived(self, datagram: bytes, address: Any, local: Any) -> None:
        self._answered = True
        self._flows.used(self)
        self.passOn(datagram)

    def _failed(self, error: OSError) -> None:
        """Handle that the kernel reports a datagram as not delivered."""
        if error.errno in (errno.EMSGSIZE, errno.ENOBUFS, errno.EPERM) or self._over:
            # This concerns this one datagram only.
            return
        if not self._answered and self._nextPlace():
            self._again()
        elif error.errno == errno.ECONNREFUSED:
            self.remoteOver(
                TunnelError(
                    "service-refused",
                    f"nothing listens at {self._target} (UDP); start the service, or"
                    " correct its address",
                )
            )
        else:
            self.remoteOver(notReached(self._target, error))

    def _again(self) -> None:
        """Send to the next address what the last one did not get."""
        if self._socket is not None:
            self._socket.close()
        try:
            self._connect()
        except TunnelError as refusal:
            self.remoteOver(refusal)
            return
        repeat, self._repeat = self._repeat, []
        for datagram in repeat:
            self.send(datagram)

    def flowOver(self, reason: TunnelError | None) -> None:
        self._flows.leave(self)
        self._repeat = []
        if self._socket is not None:
            self._socket.close()
            self._socket = None


class ServiceFlows:
    """
    The flows of a process. Each has a descriptor, and an attacker with forged addresses
    can begin one with a single datagram; so they get half of the descriptors for
    visitors, and a new one replaces another: the one that was silent for longest among
    those whose visitors did not send anything after they were answered, or else among
    all.

    @param reserve: Knows how many descriptors there are.
    @param most: How many flows there may be at once in any case.

    @ivar evicted: Flows that made room.
    """

    def __init__(self, reserve: Reserve = RESERVE, most: int = MOST_FLOWS) -> None:
        self.evicted = 0
        self._reserve = reserve
        self._most = most
        # The one silent for longest first.
        self._unsure: dict[BoundedFlow, None] = {}
        self._talking: dict[BoundedFlow, None] = {}

    def __len__(self) -> int:
        return len(self._unsure) + len(self._talking)

    def enter(self, flow: BoundedFlow) -> None:
        """
        Count a flow, before it takes a descriptor.

        @raise TunnelError: C{limit-reached}, if there is none for it.
        """
        most = min(self._reserve.forVisitors // 2 or self._most, self._most)
        if len(self) >= most or (self._unsure and self._reserve.isLow):
            self.evicted += 1
            next(iter(self._unsure or self._talking)).remoteOver(None)
        self._reserve.checkVisitor()
        self._unsure[flow] = None

    def used(self, flow: BoundedFlow, again: bool = False) -> None:
        """
        Note that a datagram has passed.

        @param again: Whether its visitor has been answered before.
        """
        table = self._talking if flow.talking else self._unsure
        if flow in table:
            del table[flow]
            flow.talking = flow.talking or again
            (self._talking if flow.talking else self._unsure)[flow] = None

    def leave(self, flow: BoundedFlow) -> None:
        """Remove a flow that is over. It may be called twice."""
        self._unsure.pop(flow, None)
        self._talking.pop(flow, None)


FLOWS = ServiceFlows()
"""The flows of this process; they are the process's, as descriptors are."""


@dataclass(eq=False, repr=False)
class UDPConnector:
    """
    Connects flows to services.

    @ivar observer: Told how it went.
    """

    _log = Logger()

    observer: ClientObserver

    def connect(
        self,
        flow: _Flow,
        target: str,
        service: UDPService,
        accept: Callable[[_Flow], None],
        info: Mapping[str, object] = _NOTHING,
    ) -> None:
        """
        Connect C{flow} to a service; what its visitor sends waits meanwhile.

        @param target: The service, as messages name it.
        @param accept: Called when the way to the service is known.
        @param info: What the server said of the visitor.
        """

        async def connect() -> None:
            try:
                makeEnd = await service.beginFlow(target, info)
                if flow.over:
                    return
                end = makeEnd()
            except (DNSLookupError, TunnelError) as error:
                refusal = notReached(target, error)
                if not flow.over:
                    self.observer.serviceFailed(target, refusal)
                    flow.reset(refusal)
                return
            accept(flow)
            visit = _Visit(target, end, flow, info, self.observer)
            flow.join(end, visit.ended)
            end.join(flow, visit.ended)

        def failed(failure: Failure) -> None:
            self._log.failure("A flow was not connected", failure)
            flow.reset(TunnelError("internal"))

        Deferred.fromCoroutine(connect()).addErrback(failed)


class _Visit(Visit):
    """A visit of which it may turn out at the end that nobody was there."""

    __slots__ = ()

    _service: BoundedFlow

    def over(self, reason: TunnelError | None) -> None:
        if (
            reason is not None
            and reason.code.name.startswith("service-")
            and not self._service.answered
        ):
            # Only now is it known that nobody was there.
            self._observer.serviceFailed(self.target, reason)
        super().over(reason)
