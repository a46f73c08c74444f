"""
Flows of datagrams, by their senders: how they begin, and which of them end.
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
"""Seconds without a datagram in either direction after which a flow is over."""

FLOWS = 10_000
"""The most flows that a table has at once."""

HOLD = 1.0
"""Seconds for which a sender whose flow has broken gets no new one."""

UNANSWERED_SHARE = 10
"""Unanswered flows may take one part in this many of a table. Beyond that, they are the
first to make room."""


class TableFlow(FlowEnd):
    """
    The L{DatagramEnd<tristunnel.interfaces.DatagramEnd>} whose remote is a sender of
    datagrams.

    @ivar address: The sender, in the form that its table uses.
    @ivar local: The local address that it sends to.
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
        if self._over or not self._table.answer(self, datagram):
            self.dropped += 1

    def flowOver(self, reason: TunnelError | None) -> None:
        """Leave the table; after a break only when the sender may have a new flow."""
        self._table.forget(self, reason)


class FlowTable(ABC):
    """
    The flows of all senders to one place.

    @param reactor: Tells time.
    @param arrived: Called with each new flow, and its sender's address as text.
    @param idle: Seconds after which a silent flow is over.
    @param most: The most flows at once; those that were silent for longest make room.

    @ivar flows: By the sender's address; the one silent for longest comes first.
    @ivar dropped: Datagrams that belonged to no flow.
    @ivar evicted: Flows that had to make room.
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
        Send a datagram to the sender of a flow.

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
        """Take a datagram, which may begin a flow."""
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
        Answer the sender of a flow.

        @return: Whether it was sent.
        """
        address = flow.address
        flow.lastUsed = self._reactor.seconds()
        self.flows.move_to_end(address)
        self._unanswered.pop(address, None)
        return self.sendTo(flow, datagram)

    # Flows

    def begin(self, address: Any, local: Any = None) -> TableFlow:
        """Begin a flow for a sender that has none."""
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
        End a flow to make room. Forged addresses never get as far as being answered, so
        a flood of them ends its own flows rather than those of others.
        """
        table = self.flows
        if len(self._unanswered) > self._most // UNANSWERED_SHARE:
            table = self._unanswered
        if self._refused:
            # First of all those that may not come in at all.
            _, flow = self._refused.popitem(last=False)
            self.flows.pop(flow.address, None)
            return
        flow = next(iter(table.values()))
        self.evicted += 1
        flow.remoteOver(None)
        self.flows.pop(flow.address, None)

    def forget(self, flow: TableFlow, reason: TunnelError | None) -> None:
        """
        Remove a flow that is over.

        @param reason: Why it broke, if it did; its address is blocked for a while then.
        """
        if self.flows.get(flow.address) is not flow:
            # Another flow has taken its place.
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
        Look for silent flows after a while. One timer serves them all, so a flow may
        live up to an eighth longer than it should.
        """
        self._sweeping = self._reactor.callLater(max(self._idle / 8, 0.05), self._sweep)

    def _sweep(self) -> None:
        """End the flows that have been silent for too long."""
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
