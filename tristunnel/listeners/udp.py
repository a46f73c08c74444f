"""
Visitors over UDP: a flow for each of their addresses.
"""

from __future__ import annotations

import errno
import socket
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.internet.defer import succeed

from tristunnel.dataplane.datagrams import (
    DatagramSocket,
    FlowEnd,
    boundSocket,
    replyFrom,
)
from tristunnel.errors import TunnelError
from tristunnel.model.options import TunnelOptions
from tristunnel.model.ports import UNPRIVILEGED, PortRange, Reserve
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.hosts import hostAndPort
from tristunnel.wire.framed import MAX_DATAGRAM

if TYPE_CHECKING:
    from twisted.internet.interfaces import IDelayedCall

    from tristunnel.interfaces import DatagramEnd

__all__ = ["FLOWS", "IDLE", "UDPFlow", "UDPListener", "UDPListeners"]

IDLE = 60.0
"""Seconds without a datagram either way after which a flow is over."""

FLOWS = 10_000
"""Flows of a tunnel at once."""

HOLD = 1.0
"""Seconds for which a visitor is not tried again whose flow broke."""

UNANSWERED_SHARE = 10
"""One part in so many of a tunnel's flows may be such as nothing was answered
to yet, before they must make room first."""


class UDPFlow(FlowEnd):
    """
    The L{DatagramEnd<tristunnel.interfaces.DatagramEnd>} whose world is a
    visitor's address.

    @ivar address: The visitor, as the socket takes it.
    @ivar local: Which of our addresses it spoke to.
    @ivar lastUsed: When a datagram last passed, in seconds.
    """

    __slots__ = ("_listener", "address", "lastUsed", "local")

    def __init__(
        self, listener: UDPListener, address: Any, local: Any, now: float
    ) -> None:
        super().__init__()
        self.address = address
        self.local = local
        self.lastUsed = now
        self._listener = listener

    def send(self, datagram: bytes) -> None:
        """Send a datagram to the visitor."""
        if self._over or not self._listener.answer(self, datagram):
            self.dropped += 1

    def letGo(self, reason: TunnelError | None) -> None:
        """Leave the table; after a break only when that has cooled down."""
        self._listener.forget(self, reason)


class UDPListener:
    """
    An L{IListener<tristunnel.model.tunnel.IListener>} on a UDP port.

    @param reactor: Tells time.
    @param arrived: Called with each visitor's end and address.
    @param idle: Seconds after which a silent flow is over.
    @param most: Flows at once; the ones of longest silence make room.
    @param bind: Makes the socket, of an interface and a port.

    @ivar flows: By the visitor's address; the one silent for longest first.
    @ivar dropped: Datagrams that belong to no flow.
    @ivar evicted: Flows that made room.
    """

    def __init__(
        self,
        reactor: Any,
        arrived: Callable[[DatagramEnd, str], None],
        idle: float = IDLE,
        most: int = FLOWS,
        bind: Callable[[str, int], socket.socket] = boundSocket,
    ) -> None:
        self._bind = bind
        self.flows: OrderedDict[Any, UDPFlow] = OrderedDict()
        self.dropped = 0
        self.evicted = 0
        self._reactor = reactor
        self._arrived = arrived
        self._idle = idle
        self._most = most
        self._unanswered: OrderedDict[Any, UDPFlow] = OrderedDict()
        self._refused: OrderedDict[Any, UDPFlow] = OrderedDict()
        self._socket: DatagramSocket | None = None
        self._address = ("udp", "", 0)
        self._sweeping: IDelayedCall | None = None

    def listen(self, interface: str, port: int) -> None:
        """
        Begin to take datagrams.

        @param interface: An IP address; empty for all, IPv4 and IPv6.
        @raise OSError: If the port cannot be had.
        """
        anywhere = ["::", "0.0.0.0"]
        for each in [interface] if interface else anywhere:
            try:
                self._socket = DatagramSocket.listen(
                    self._reactor, each, port, self.datagramArrived, self._bind
                )
                break
            except OSError as error:
                # "::" takes IPv4 too; without IPv6 there is the other.
                if error.errno == errno.EADDRINUSE or each != "::":
                    raise
        assert self._socket is not None
        self._address = ("udp", interface, self._socket.address[1])

    @property
    def address(self) -> tuple[str, str, int]:
        """The scheme, the interface and the port."""
        return self._address

    @property
    def sockets(self) -> list[socket.socket]:
        """Where datagrams come."""
        bound = None if self._socket is None else self._socket.socket
        return [] if bound is None else [bound]

    def close(self) -> Awaitable[object]:
        """Take no more datagrams, and end what flows are left."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        if self._sweeping is not None:
            self._sweeping.cancel()
            self._sweeping = None
        for flow in list(self.flows.values()):
            flow.worldOver(TunnelError("closed"))
        self.flows.clear()
        self._refused.clear()
        return succeed(None)

    # Datagrams

    def datagramArrived(self, datagram: bytes, address: Any, local: Any) -> None:
        """A visitor sent something."""
        if len(datagram) > MAX_DATAGRAM:
            # Over IPv6 they may be 20 bytes longer. Whole or not at all.
            self.dropped += 1
            return
        now = self._reactor.seconds()
        flow = self.flows.get(address)
        if flow is None or (flow.over and now - flow.lastUsed >= HOLD):
            flow = self._begin(address, local, now)
        if flow.over:
            self.dropped += 1
            return
        flow.lastUsed = now
        self.flows.move_to_end(address)
        flow.passOn(datagram)

    def answer(self, flow: UDPFlow, datagram: bytes) -> bool:
        """
        Send a visitor something.

        @return: Whether it was sent.
        """
        if self._socket is None:
            return False
        address = flow.address
        flow.lastUsed = self._reactor.seconds()
        self.flows.move_to_end(address)
        self._unanswered.pop(address, None)
        return self._socket.send(datagram, address, flow.local)

    # Flows

    def _begin(self, address: Any, local: Any, now: float) -> UDPFlow:
        """A visitor comes."""
        self.flows.pop(address, None)
        self._refused.pop(address, None)
        if len(self.flows) >= self._most:
            self._makeRoom()
        flow = UDPFlow(self, address, replyFrom(local), now)
        self.flows[address] = self._unanswered[address] = flow
        if self._sweeping is None:
            self._sweepLater()
        self._arrived(flow, _visitor(address))
        return flow

    def _makeRoom(self) -> None:
        """
        End a flow. Addresses that are made up get no answers that count, so
        a flood of them rather ends its own flows than those of visitors.
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
        flow.worldOver(None)
        self.flows.pop(flow.address, None)

    def forget(self, flow: UDPFlow, reason: TunnelError | None) -> None:
        """
        A flow is over.

        @param reason: Why it broke: then its address is kept for a while.
        """
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
            flow.worldOver(None)


def _visitor(address: Any) -> str:
    """Write a visitor's address as C{HOST:PORT}."""
    host = address[0].removeprefix("::ffff:") if "." in address[0] else address[0]
    return hostAndPort(host, address[1])


class UDPListeners:
    """
    Opens UDP ports for visitors.

    @param reactor: Reads and tells time.
    @param interface: The address to listen on; empty for all, IPv4 and IPv6.
    @param ports: Which ones may be given out.
    @param idle: Seconds after which a silent flow is over.
    @param most: Flows of a tunnel at once.

    @ivar own: Ports that the server has for itself.
    @cvar bind: Makes a socket of an interface and a port.
    """

    bind: Callable[[str, int], socket.socket] = staticmethod(boundSocket)

    def __init__(
        self,
        reactor: Any,
        interface: str = "",
        ports: PortRange = UNPRIVILEGED,
        idle: float = IDLE,
        most: int = FLOWS,
    ) -> None:
        self._reactor = reactor
        self._interface = interface
        self.ports = ports
        self.own: set[int] = set()
        self.idle = idle
        self._most = most

    @returnsDeferred
    async def open(
        self,
        options: TunnelOptions,
        arrived: Callable[[Any, str], None],
        reserve: Reserve,
    ) -> UDPListener:
        """
        Listen for visitors.

        @param options: All that was asked of the tunnel; here its C{port} and
            C{prefer} count.
        @param arrived: Called with each visitor's end and address.
        @param reserve: Reserves a port.
        @raise TunnelError: C{port-taken}, C{port-not-permitted} or
            C{ports-exhausted}.
        """
        listener = UDPListener(self._reactor, arrived, self.idle, self._most, self.bind)
        return await self.ports.choose(
            options.port,
            options.prefer,
            partial(self._listen, listener),
            partial(reserve, "udp"),
            self.own,
        )

    def _listen(self, listener: UDPListener, port: int) -> UDPListener:
        """
        Listen on one port.

        @raise TunnelError: If it cannot be had.
        """
        try:
            listener.listen(self._interface, port)
        except OSError as error:
            raise _refusal(port, error) from None
        return listener


def _refusal(port: int, error: OSError) -> TunnelError:
    """Say why a port cannot be had."""
    if error.errno == errno.EADDRINUSE:
        return TunnelError(
            "port-taken",
            f"UDP port {port} is in use on the server; choose another, or 0 for any",
        )
    if error.errno in (errno.EACCES, errno.EPERM):
        return TunnelError(
            "port-not-permitted",
            f"the server may not listen on port {port}; choose one above 1023, or"
            " give the server CAP_NET_BIND_SERVICE",
        )
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return TunnelError("limit-reached", "the server has no file descriptor left")
    why = str(error) if isinstance(error, socket.gaierror) else error.strerror
    return TunnelError("port-not-permitted", f"UDP port {port}: {why}")
