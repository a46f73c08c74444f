"""
Flows of datagrams by where they come from: how they begin, and which of them end.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from tristunnel.dataplane.datagrams import FlowEnd, replyFrom

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from tristunnel.errors import TunnelError

__all__ = ["FLOWS", "HOLD", "IDLE", "FlowTable", "TableFlow"]

IDLE = 60.0
"""Seconds without a datagram either way after which a flow is over."""

FLOWS = 10_000
"""Flows of a table at once."""

HOLD = 1.0
"""Seconds for which a sender is not tried again whose flow broke."""

UNANSWERED_SHARE = 10
"""One part in so many of a table's flows may be such as nothing was answered
to yet, before they must make room first."""


class TableFlow(FlowEnd):
    """
    The L{DatagramEnd<tristunnel.interfaces.DatagramEnd>} whose remote is a
    sender of datagrams.

    @ivar address: The sender, as its table takes it.
    @ivar local: Which of our addresses it spoke to.
    @ivar lastUsed: When a datagram last passed, in seconds.
    """

    __slots__ = ("_table", "address", "lastUsed", "local")

    def __init__(self, table: FlowTable, address: Any, local: Any, now: float) -> None:
        super().__init__()
        self.address = address
        self.local = local
        self.lastUsed = now
        self._table = table

    def send(self, datagram: bytes) -> None:
        """Send a datagram to the sender of this flow's."""
        if self._over or not self._table.answer(self, datagram):
            self.dropped += 1

    def letGo(self, reason: TunnelError | None) -> None:
        """Leave the table; after a break only when that has cooled down."""
        self._table.forget(self, reason)


class FlowTable(ABC):
    """
    The flows of all who send datagrams to one place.

    @param reactor: Tells time.
    @param arrived: Called with each flow that begins, and whose it is, as text.
    @param idle: Seconds after which a silent flow is over.
    @param most: Flows at once; the ones of longest silence make room.

    @ivar flows: By the sender's address; the one silent for longest first.
    @ivar dropped: Datagrams that belong to no flow.
    @ivar evicted: Flows that made room.
    """

    def __init__(
        self,
        reactor: Any,
        arrived: Callable[[TableFlow, str], object],
        idle: float = IDLE,
        most: int = FLOWS,
    ) -> None:
        self.flows: OrderedDict[Any, TableFlow] = OrderedDict()
        self.dropped = 0
        self.evicted = 0
        self._reactor = reactor
        self._arrived = arrived
        self._idle = idle
        self._most = most
        self._unanswered: OrderedDict[Any, TableFlow] = OrderedDict()
        self._refused: OrderedDict[Any, TableFlow] = OrderedDict()
        self._sweeping: IDelayedCall | None = None

    @abstractmethod
    def sendTo(self, flow: TableFlow, datagram: bytes) -> bool:
        """
        Send a datagram to whose flow it is.

        @return: Whether it was sent.
        """

    @abstractmethod
    def shown(self, address: Any) -> str:
        """Write a sender's address as C{HOST:PORT}."""

    def endAll(self, reason: TunnelError | None) -> None:
        """End what flows are left."""
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for flow in list(self.flows.values()):
            flow.remoteOver(reason)
        self.flows.clear()
        self._refused.clear()

    # Datagrams

    def datagramArrived(self, datagram: bytes, address: Any, local: Any) -> None:
        """Somebody sent something."""
        now = self._reactor.seconds()
        flow = self.flows.get(address)
        if flow is None or (flow.over and now - flow.lastUsed >= HOLD):
            flow = self.begin(address, local)
            self._arrived(flow, self.shown(address))
        if flow.over:
            self.dropped += 1
            return
        flow.lastUsed = now
        self.flows.move_to_end(address)
        flow.passOn(datagram)

    def answer(self, flow: TableFlow, datagram: bytes) -> bool:
        """
        Send somebody something.

        @return: Whether it was sent.
        """
        address = flow.address
        flow.lastUsed = self._reactor.seconds()
        self.flows.move_to_end(address)
        self._unanswered.pop(address, None)
        return self.sendTo(flow, datagram)

    # Flows

    def begin(self, address: Any, local: Any = None) -> TableFlow:
        """Make a flow, where there is none of that sender's that goes on."""
        self.flows.pop(address, None)
        self._refused.pop(address, None)
        if len(self.flows) >= self._most:
            self._makeRoom()
        flow = TableFlow(self, address, replyFrom(local), self._reactor.seconds())
        self.flows[address] = self._unanswered[address] = flow
        if self._sweeping is None:
            self._sweepLater()
        return flow

    def _makeRoom(self) -> None:
        """
        End a flow. Addresses that are made up get no answers that count, so
        a flood of them rather ends its own flows than those of others.
        """
        table = self.flows
        if len(self._unanswered) > self._most // UNANSWERED_SHARE:
            table = self._unanswered
        if self._refused:
            # Those who may not come in least of all.
            _, flow = self._refused.popitem(last=False)
            self.flows.pop(flow.address, None)
            return
        flow = next(iter(table.values()))
        self.evicted += 1
        flow.remoteOver(None)
        self.flows.pop(flow.address, None)

    def forget(self, flow: TableFlow, reason: TunnelError | None) -> None:
        """
        A flow is over.

        @param reason: Why it broke: then its address is kept for a while.
        """
        if self.flows.get(flow.address) is not flow:
            # Another one has its place.
            return
        self._unanswered.pop(flow.address, None)
        if reason is None:
            self.flows.pop(flow.address, None)
        else:
            flow.lastUsed = self._reactor.seconds()
            self.flows.move_to_end(flow.address)
            self._refused[flow.address] = flow

    def _sweepLater(self) -> None:
        """
        Look for silent flows in a while. One timer serves them all, so a flow
        lives up to an eighth longer than it must.
        """
        self._sweeping = self._reactor.callLater(max(self._idle / 8, 0.05), self._sweep)

    def _sweep(self) -> None:
        """End the flows that were silent for too long."""
        self._sweeping = None
        silentSince = self._reactor.seconds() - self._idle
        while self.flows:
            flow = next(iter(self.flows.values()))
            if flow.lastUsed > silentSince:
                self._sweepLater()
                return
            self.flows.pop(flow.address)
            self._refused.pop(flow.address, None)
            self._unanswered.pop(flow.address, None)
            flow.remoteOver(None)
