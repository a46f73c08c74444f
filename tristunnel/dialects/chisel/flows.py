"""
The flows of datagrams that share a channel of chisel's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tristunnel.dataplane.datagrams import FlowEnd
from tristunnel.dialects.conch.streams import Channel
from tristunnel.errors import TunnelError
from tristunnel.interfaces import Closed
from tristunnel.wire.chisel_udp import (
    MAX_DATAGRAM,
    TYPE,
    DatagramReader,
    packDatagram,
)

__all__ = ["ChannelFlow", "ChannelFlows"]

MOST = 100
"""Flows of a channel that a client serves, as chisel's own does."""


class ChannelFlow(FlowEnd):
    """
    One flow.

    @param flows: All of its channel.
    @param source: Whose it is, as C{HOST:PORT}.
    """

    __slots__ = ("_flows", "source")

    def __init__(self, flows: ChannelFlows, source: str) -> None:
        super().__init__()
        self._flows = flows
        self.source = source

    def send(self, datagram: bytes) -> None:
        if self._over or not self._flows.send(self.source, datagram):
            self.dropped += 1

    def letGo(self, reason: TunnelError | None) -> None:
        self._flows.forget(self)


class ChannelFlows:
    """
    All flows of a channel: the L{End<tristunnel.interfaces.End>} that it is joined to.

    @param channel: The channel.
    @param arrived: Called with each flow that the far side begins; C{None} if it
        begins none.

    @ivar over: Whether the channel is.
    """

    received = 0

    def __init__(
        self,
        channel: Channel,
        arrived: Callable[[ChannelFlow], object] | None = None,
    ) -> None:
        self.over = False
        self._channel = channel
        self._arrived = arrived
        self._reader = DatagramReader()
        self._flows: dict[str, ChannelFlow] = {}
        self._full = False
        channel.join(self, self._ended)
        channel.write(TYPE)

    def open(self, source: str) -> ChannelFlow:
        """Begin a flow."""
        flow = ChannelFlow(self, source)
        before = self._flows.pop(source, None)
        self._flows[source] = flow
        if before is not None:
            before.worldOver(None)
        return flow

    def send(self, source: str, datagram: bytes) -> bool:
        """
        Send a datagram.

        @return: Whether there was room for it.
        """
        if self._full or self.over or len(datagram) > MAX_DATAGRAM:
            return False
        self._channel.write(packDatagram(source, datagram))
        return True

    def forget(self, flow: ChannelFlow) -> None:
        """A flow is over."""
        if self._flows.get(flow.source) is flow:
            del self._flows[flow.source]

    # End, of the channel

    def write(self, data: bytes) -> None:
        """Hand on the datagrams that have come."""
        try:
            datagrams = self._reader.feed(data)
        except TunnelError as problem:
            self._channel.reset(problem)
            return
        for source, datagram in datagrams:
            flow = self._flows.get(source)
            if flow is None and self._arrived is not None:
                if len(self._flows) >= MOST:
                    # It is there for the longest time.
                    next(iter(self._flows.values())).worldOver(None)
                flow = self.open(source)
                self._arrived(flow)
            if flow is not None:
                flow.passOn(datagram)

    def _ended(self, reason: TunnelError | None) -> None:
        self.over = True
        for flow in list(self._flows.values()):
            flow.worldOver(reason)

    def join(self, peer: Any, closed: Closed) -> None:
        """It is what others are joined to."""

    def passTo(self, peer: Any) -> tuple[Any | None, bool]:
        """Nothing stands for the channel."""
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
