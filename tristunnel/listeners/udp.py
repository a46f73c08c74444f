"""Visitors over UDP: each of their addresses is a flow."""

from __future__ import annotations

import errno
import socket
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

from twisted.internet.defer import succeed

from tristunnel.dataplane.datagrams import DatagramSocket, boundSocket
from tristunnel.dataplane.flows import FLOWS, IDLE, FlowTable, TableFlow
from tristunnel.errors import TunnelError
from tristunnel.model.options import TunnelOptions
from tristunnel.model.ports import UNPRIVILEGED, PortRange, Reserve
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.hosts import hostAndPort
from tristunnel.wire.framed import MAX_DATAGRAM

__all__ = ["UDPListener", "UDPListeners"]


class UDPListener(FlowTable):
    """
    An L{IListener<tristunnel.model.place.IListener>} on a UDP port.

    @param reactor: Tells time.
    @param arrived: Called with each visitor's end and address.
    @param idle: Seconds after which a silent flow is over.
    @param most: Flows at once; those that have been silent for longest make room.
    @param bind: Makes the socket, of an interface and a port.
    """

    def __init__(
        self,
        reactor: Any,
        arrived: Callable[[TableFlow, str], None],
        idle: float = IDLE,
        most: int = FLOWS,
        bind: Callable[[str, int], socket.socket] = boundSocket,
    ) -> None:
        super().__init__(reactor, arrived, idle, most)
        self._bind = bind
        self._socket: DatagramSocket | None = None
        self._address = ("udp", "", 0)

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
                # "::" is for IPv4, too; without IPv6, the other one is used.
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
        """The sockets that datagrams come to."""
        bound = None if self._socket is None else self._socket.socket
        return [] if bound is None else [bound]

    def close(self) -> Awaitable[object]:
        """Take no more datagrams, and end what flows are left."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self.endAll(TunnelError("closed"))
        return succeed(None)

    # Datagrams

    def datagramArrived(self, datagram: bytes, address: Any, local: Any) -> None:
        if len(datagram) > MAX_DATAGRAM:
            # Over IPv6, they may be 20 bytes longer. They are passed whole or not at
            # all.
            self.dropped += 1
        else:
            super().datagramArrived(datagram, address, local)

    def sendTo(self, flow: TableFlow, datagram: bytes) -> bool:
        skt = self._socket
        return skt is not None and skt.send(datagram, flow.address, flow.local)

    def shown(self, address: Any) -> str:
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
