"""
The flows of datagrams that share a channel of chisel's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tristunnel.dataplane.flows import FLOWS, FlowTable, TableFlow
from tristunnel.dialects.conch.channel import Channel
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed
from tristunnel.wire.chisel_udp import MAX_DATAGRAM, TYPE, DatagramReader, packDatagram

__all__ = ["ChannelFlows"]

MOST = 100
"""Flows of a channel that the far side may begin, as with chisel's own programs."""


class ChannelFlows(FlowTable):
    """
    All flows of a channel, by their sources, as C{HOST:PORT}: the
    L{End<tristunnel.interfaces.End>} that it is joined to.

    @param reactor: Tells time.
    @param channel: The channel.
    @param arrived: Called with each flow that the far side begins; C{None} if it
        begins none.

    @ivar over: Whether the channel is.
    """

    received = 0

    def __init__(
        self,
        reactor: Any,
        channel: Channel,
        arrived: Callable[[TableFlow], object] | None = None,
    ) -> None:
        super().__init__(
            reactor,
            lambda flow, source: arrived and arrived(flow),
            most=FLOWS if arrived is None else MOST,
        )
        self.over = False
        self._channel = channel
        self._mayBegin = arrived is not None
        self._reader = DatagramReader()
        self._full = False
        channel.join(self, self._ended)
        channel.write(TYPE)

    def open(self, source: str) -> TableFlow:
        """Begin a flow."""
        before = self.flows.get(source)
        if before is not None:
            before.remoteOver(None)
        return self.begin(source)

    def sendTo(self, flow: TableFlow, datagram: bytes) -> bool:
        if self._full or self.over or len(datagram) > MAX_DATAGRAM:
            return False
        self._channel.write(packDatagram(flow.address, datagram))
        return True

    def shown(self, address: Any) -> str:
        return str(address)

    # End, of the channel

    def write(self, data: bytes) -> None:
        """Hand on the datagrams that have come."""
        try:
            datagrams = self._reader.feed(data)
        except TunnelError as problem:
            self._channel.reset(problem)
            return
        for source, datagram in datagrams:
            if source and (self._mayBegin or source in self.flows):
                self.datagramArrived(datagram, source, None)

    def _ended(self, reason: TunnelError | None) -> None:
        self.over = True
        self.endAll(reason)

    def join(self, peer: Any, closed: Closed) -> None:
        """Nothing to do: others are joined to this."""

    def passTo(self, peer: Any) -> tuple[Any | None, bool]:
        """There is no stand-in for the channel."""
        return None, False

    def whileWaiting(self, left: Closed) -> None:
        """It never waits."""

    def finish(self) -> None:
        """The far side sends no more datagrams: the channel is over."""
        self._channel.finish()

    def reset(self, reason: TunnelError) -> None:
        """The channel is over, which follows."""

    def pauseReading(self) -> None:
        """The channel holds enough: what comes now is dropped."""
        self._full = True

    def resumeReading(self) -> None:
        """It has sent what it held."""
        self._full = False
