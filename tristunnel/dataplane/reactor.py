"""
A reactor whose stream sockets are in the poller.

Endpoints, Twisted's own and all others, ask their reactor to listen and to connect.
With this one they get sockets of ours, and nothing else about them changes:
C{serverFromString(polledReactor(reactor), "tcp:9000")}.
"""

from __future__ import annotations

import errno
import os
import socket as socketModule
from collections.abc import Callable
from socket import AF_INET, AF_INET6, SO_ERROR, SOCK_STREAM, SOL_SOCKET, socket
from typing import Any
from weakref import WeakKeyDictionary

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.error import (
    CannotListenError,
    TimeoutError,
    UserError,
    getConnectError,
)
from twisted.internet.interfaces import (
    IAddress,
    IConnector,
    IReactorSocket,
    IReactorTCP,
    IReactorTime,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.acceptor import Acceptor, listeningSocket
from tristunnel.dataplane.addresses import addressOf
from tristunnel.dataplane.poller import OUT, Poller, pollerOf
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.dataplane.tuning import resetIfKilled, tuneSocket
from tristunnel.util.platform import AF_UNIX
from tristunnel.util.repeating import stopTimer

__all__ = ["PolledReactor", "ourReactor", "polledReactor"]


def polledReactor(reactor: Any) -> Any:
    """
    Have a reactor use sockets of ours.

    @return: C{reactor} itself where there is no epoll.
    """
    poller = pollerOf(reactor)
    if poller is None or isinstance(reactor, PolledReactor):
        return reactor
    if poller not in _REACTORS:
        _REACTORS[poller] = PolledReactor(poller)
    return _REACTORS[poller]


def ourReactor() -> Any:
    """
    Find the process's reactor, with sockets of ours. Call this only when the reactor
    has been chosen, since it installs one.
    """
    from twisted.internet import reactor

    return polledReactor(reactor)


class _Connecting:
    """
    A socket that is connecting.

    @param done: Called once, with 0 or an error number.
    """

    __slots__ = ("_done", "_number", "_poller", "_socket")

    def __init__(
        self, poller: Poller, connection: socket, done: Callable[[int], None]
    ) -> None:
        self._poller = poller
        self._socket = connection
        self._number = connection.fileno()
        self._done = done
        poller.add(self._number, self, OUT)

    def stop(self) -> None:
        """Stop waiting for the outcome."""
        self._poller.remove(self._number)

    def ready(self, events: int) -> None:
        """Connecting has succeeded or failed."""
        self.stop()
        self._done(self._socket.getsockopt(SOL_SOCKET, SO_ERROR))

    def more(self) -> None:
        """Never asked for."""

    def flush(self) -> None:
        """Never asked for."""

    def broken(self, reason: Failure) -> None:
        """What follows the connection has raised."""
        self._poller.close(self._socket)


def _metItself(connection: socket) -> bool:
    """
    Whether a connection to a port where nothing listens was given that very port
    by the kernel, and leads to itself: TCP's simultaneous open.
    """
    try:
        here = connection.getsockname()
        met = bool(here) and here == connection.getpeername()
    except OSError:
        return False
    if met:
        # Without a reset the port would be taken for a minute.
        resetIfKilled(connection)
    return met


@implementer(IConnector)
class _Connector:
    """An outgoing connection that works with Twisted's client factories."""

    def __init__(
        self,
        poller: Poller,
        family: int,
        where: Any,
        factory: Any,
        timeout: float,
        bindAddress: Any = None,
    ) -> None:
        self._poller = poller
        self._family = family
        self._where = where
        self._factory = factory
        self._timeout = timeout
        self._bind = bindAddress
        self._connecting: _Connecting | None = None
        self._socket: socket | None = None
        self._timer: Any = None
        self._transport: SocketTransport | None = None
        self._started = False

    def connect(self) -> None:
        if not self._started:
            self._started = True
            self._factory.doStart()
        self._factory.startedConnecting(self)
        try:
            self._socket = made = socket(self._family, SOCK_STREAM)
            made.setblocking(False)
            tuneSocket(made)
            if self._bind is not None:
                made.bind(
                    self._bind if isinstance(self._bind, tuple) else (self._bind, 0)
                )
            number = made.connect_ex(self._where)
            if number == errno.EINPROGRESS:
                # On this machine it has succeeded already, and the call says so.
                number = made.connect_ex(self._where)
                number = 0 if number == errno.EISCONN else number
            if number in (errno.EINPROGRESS, errno.EALREADY):
                self._connecting = _Connecting(self._poller, made, self._decided)
                self._timer = self._poller.reactor.callLater(self._timeout, self._late)
                return
        except OSError as problem:
            number = problem.errno or errno.EIO
        # Only after this call has returned: the caller may not be ready yet.
        self._timer = self._poller.reactor.callLater(0, self._decidedLater, number)

    def _decidedLater(self, number: int) -> None:
        """Report an outcome that was known at once."""
        self._timer = None
        self._decided(number)

    def _decided(self, number: int) -> None:
        """Report whether there is a connection."""
        self._connecting = None
        self._stopTimer()
        made = self._socket
        if not number and made is not None and _metItself(made):
            number = errno.ECONNREFUSED
        if number or made is None:
            self._failed(getConnectError((number, os.strerror(number))))
            return
        self._socket = None
        peer = self.getDestination()
        protocol = self._factory.buildProtocol(peer)
        if protocol is None:
            made.close()
            return
        transport = self._transport = SocketTransport(
            self._poller, made, protocol, None, peer
        )
        transport.whenLost = self._lost
        transport.begin()

    def _late(self) -> None:
        """Give up, because it takes too long."""
        self._timer = None
        self._failed(TimeoutError())

    def _failed(self, error: Exception) -> None:
        """Report that there is no connection."""
        self._stopTimer()
        if self._connecting is not None:
            self._connecting.stop()
            self._connecting = None
        if self._socket is not None:
            self._poller.close(self._socket)
            self._socket = None
        self._factory.clientConnectionFailed(self, Failure(error))
        self._over()

    def _lost(self, reason: Failure) -> None:
        """Report that the connection is gone."""
        self._transport = None
        self._factory.clientConnectionLost(self, reason)
        self._over()

    def _over(self) -> None:
        """Stop the factory, unless it has connected again."""
        if self._socket is None and self._transport is None and self._started:
            self._started = False
            self._factory.doStop()

    def _stopTimer(self) -> None:
        """Wait for nothing."""
        stopTimer(self._timer)
        self._timer = None

    def stopConnecting(self) -> None:
        if self._socket is None:
            raise UserError("there is no connection under way")
        self._failed(UserError())

    def disconnect(self) -> None:
        """Stop connecting, or end the connection."""
        if self._socket is not None:
            self.stopConnecting()
        elif self._transport is not None:
            self._transport.loseConnection()

    def getDestination(self) -> IAddress:
        return addressOf(self._family, self._where)


@implementer(IReactorTCP, IReactorSocket, IReactorTime)
class PolledReactor:
    """
    A reactor with sockets of ours. In all other respects it is the reactor that it is
    made from.

    @param poller: Watches the sockets.

    @ivar poller: The same.
    @ivar original: The reactor that it is made from.
    """

    def __init__(self, poller: Poller) -> None:
        self.poller = poller
        self.original = poller.reactor

    def __getattr__(self, name: str) -> Any:
        return getattr(self.original, name)

    def callLater(
        self, delay: float, callable: Any, *args: object, **kwargs: object
    ) -> Any:
        return self.original.callLater(delay, callable, *args, **kwargs)

    # Listening

    def listenTCP(
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> Acceptor:
        """
        Listen on a TCP port.

        @raise CannotListenError: If it is not available.
        """
        try:
            bound = listeningSocket(interface or "0.0.0.0", port, backlog)
        except OSError as problem:
            raise CannotListenError(interface, port, problem) from None
        return self._listen(bound, factory)

    def listenUNIX(
        self,
        address: str,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,
    ) -> Any:
        """
        Listen on a UNIX socket. Twisted makes it, with the lock that other programs
        respect; its connections are sockets of ours.
        """
        port = self.original.listenUNIX(address, factory, backlog, mode, wantPID)
        port.stopReading()
        bound = socket(AF_UNIX, SOCK_STREAM, fileno=os.dup(port.fileno()))
        made = self._acceptor(bound, factory)
        made.whenStopped = port.stopListening
        made.startListening()
        return made

    def adoptStreamPort(
        self, fileDescriptor: int, addressFamily: int, factory: Any
    ) -> Acceptor:
        """Accept connections from a socket that is listening already."""
        made = socket(addressFamily, SOCK_STREAM, fileno=os.dup(fileDescriptor))
        return self._listen(made, factory)

    def _listen(self, bound: socket, factory: Any) -> Acceptor:
        """Accept connections for a factory."""
        made = self._acceptor(bound, factory)
        made.whenStopped = factory.doStop
        factory.doStart()
        made.startListening()
        return made

    def _acceptor(self, bound: socket, factory: Any) -> Acceptor:
        """Make what accepts connections for a factory."""

        def accepted(connection: socket, peer: Any) -> None:
            self._serve(connection, factory, addressOf(connection.family, peer))

        return Acceptor(self.poller, bound, accepted)

    def _serve(self, connection: socket, factory: Any, address: IAddress) -> None:
        """Give a connection its protocol."""
        protocol = factory.buildProtocol(address)
        if protocol is None:
            self.poller.close(connection)
        else:
            SocketTransport(self.poller, connection, protocol, None, address).begin()

    # Connecting

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: Any,
        timeout: float = 30,
        bindAddress: Any = None,
    ) -> Any:
        if isIPAddress(host):
            family: int = AF_INET
        elif isIPv6Address(host.partition("%")[0]):
            family = AF_INET6
        else:
            return self.original.connectTCP(host, port, factory, timeout, bindAddress)
        where: Any = (host, port)
        if "%" in host:
            where = socketModule.getaddrinfo(
                host, port, family, SOCK_STREAM, 0, socketModule.AI_NUMERICHOST
            )[0][4]
        made = _Connector(self.poller, family, where, factory, timeout, bindAddress)
        made.connect()
        return made

    def connectUNIX(
        self, address: Any, factory: Any, timeout: float = 30, checkPID: int = 0
    ) -> Any:
        """Connect to a UNIX socket."""
        if checkPID:
            return self.original.connectUNIX(address, factory, timeout, checkPID)
        made = _Connector(self.poller, AF_UNIX, address, factory, timeout)
        made.connect()
        return made

    def adoptStreamConnection(
        self, fileDescriptor: int, addressFamily: int, factory: Any
    ) -> Any:
        """Serve an established connection."""
        made = socket(addressFamily, SOCK_STREAM, fileno=os.dup(fileDescriptor))
        made.setblocking(False)
        tuneSocket(made)
        address = addressOf(addressFamily, made.getpeername())
        return self._serve(made, factory, address)


_REACTORS: WeakKeyDictionary[Poller, PolledReactor] = WeakKeyDictionary()
