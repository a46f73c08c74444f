"""
zlayer's dialect at the client: a session with a zlayer server.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.dialects.base.client_session import (
    ASK_AGAIN,
    MessageClientSession,
)
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.zlayer.data_end import DataEnd, DataFlow
from tristunnel.dialects.zlayer.messages import IN_USE, ZLayerSession, reasonIn
from tristunnel.errors import TunnelError
from tristunnel.forwards.udp import UDPConnector, UDPService
from tristunnel.model.observer import ClientObserver
from tristunnel.util.log_limiter import BoundedLog
from tristunnel.wire.zlayer import (
    TCP,
    UDP,
    Auth,
    AuthFail,
    AuthOk,
    Connect,
    ConnectAck,
    ConnectFail,
    Disconnect,
    Heartbeat,
    HeartbeatAck,
    Message,
    Register,
    RegisterFail,
    RegisterOk,
)

if TYPE_CHECKING:
    from twisted.internet.interfaces import IStreamClientEndpoint
    from twisted.python.failure import Failure

    from tristunnel.dataplane.sockets import SocketEnd
    from tristunnel.forwards.forward import Forward
    from tristunnel.interfaces import Closed, End
    from tristunnel.websocket.connection import Receiver

__all__ = ["AUTH_TIME", "OpenData", "ZLayerClientSession", "registerOf"]

AUTH_TIME = 10.0
"""Seconds in which a server must answer our token."""

SWEEP = 64
"""The least number of visitors at which those who have left are looked for."""

OpenData = Callable[[UUID, "Receiver"], "Deferred[object]"]
"""Opens a visitor's data connection: fires when it is open."""


def registerOf(forward: Forward) -> Register:
    """
    Say what a forward offers. zlayer's services have names, so those without one are
    named after their port.
    """
    kind = UDP if forward.isUDP else TCP
    port = re.search(r":(\d+)$", forward.target)
    local = int(port[1]) if port is not None and int(port[1]) < 65536 else 0
    default = f"{'udp' if forward.isUDP else 'tcp'}-{forward.port or local}"
    return Register(forward.name or default, kind, local, forward.port)


class _Announced:
    """
    The stand-in for a visitor whose data connection is not open yet, while its service
    is being reached.
    """

    def __init__(self, refuse: Callable[[TunnelError], None]) -> None:
        self.over = False
        self.received = 0
        self.failure = TunnelError("session-lost", "there was no data connection")
        self._refuse = refuse

    def whileWaiting(self, left: Closed) -> None:
        """zlayer does not tell when an announced visitor leaves."""

    def reset(self, reason: TunnelError) -> None:
        if not self.over:
            self.over = True
            self._refuse(reason)

    def abandon(self) -> None:
        self.over = True

    def join(self, peer: End, closed: Closed) -> None:
        self.over = True
        peer.reset(self.failure)
        closed(self.failure)


class ZLayerClientSession(ZLayerSession, MessageClientSession):
    """
    The L{Receiver<tristunnel.websocket.connection.Receiver>} of a control
    connection with a zlayer server.

    @param token: Says who we are.
    @param openData: Opens data connections.
    @param limits: How many visitors there may be.
    """

    _log = Logger(namespace="tristunnel.client")

    peersName = "the server"

    @property
    def multiplexer(self) -> object:
        return self

    def __init__(
        self,
        reactor: IReactorTime,
        forwards: Sequence[Forward],
        token: str,
        openData: OpenData,
        observer: ClientObserver | None = None,
        host: str = "localhost",
        limits: Limits | None = None,
    ) -> None:
        super().__init__(reactor, forwards, observer, host)
        self._token = token
        self._openData = openData
        self._bounded = BoundedLog(reactor.seconds, reactor.callLater)
        self._udpConnector = UDPConnector(self._observer)
        self._asked: deque[Forward] = deque()
        self._services: dict[UUID, Forward] = {}
        self._limits = limits or Limits()
        self._announced: set[_Announced] = set()
        self._sweepAt = SWEEP
        self._visitors: set[Any] = set()
        self._openings: set[Deferred[object]] = set()
        self._goingAway: TunnelError | None = None
        self._in = False
        self._take = {
            RegisterOk: self._registered,
            RegisterFail: self._notRegistered,
            Connect: self._visitor,
            Heartbeat: lambda message: self.send(HeartbeatAck(message.time)),
            HeartbeatAck: lambda message: None,
            Disconnect: self._disconnected,
        }

    def opened(self, connection: Any) -> None:
        super().opened(connection)
        self._observer.connected(connection.peerAddress)
        self.send(Auth(self._token, uuid4()))
        self._observer.credentialsSent(connection.peerAddress)
        self.later(AUTH_TIME, self._noAnswer)

    def sessionOver(self, reason: TunnelError) -> None:
        for opening in list(self._openings):
            opening.cancel()
        visitors, self._visitors = self._visitors, set()
        for end in visitors:
            end.breakOff(reason)
        super().sessionOver(reason)

    # Coming in

    def take(self, message: Message) -> None:
        if self._in:
            super().take(message)
        else:
            self._answered(message)

    def _noAnswer(self) -> None:
        if not self._in:
            self.fail(
                TunnelError(
                    "handshake-timeout",
                    f"the server did not answer our token for {AUTH_TIME:g} s;"
                    " does it speak zlayer's protocol at that path?",
                )
            )

    def _answered(self, message: Message) -> None:
        if isinstance(message, AuthFail):
            self.refused = True
            if message.reason == IN_USE:
                raise TunnelError("name-taken", f"the server says: {IN_USE}")
            raise reasonIn(message.reason, "auth-refused", "the server says: ")
        if not isinstance(message, AuthOk):
            raise TunnelError(
                "protocol-error",
                f"the server answered our token with {type(message).__name__}",
            )
        self._in = True
        self._observer.acknowledged("zlayer")
        for forward in self._forwards:
            self._register(forward)

    def _register(self, forward: Forward) -> None:
        self._asked.append(forward)
        self.send(registerOf(forward))

    # What the server says

    def _answerFor(self) -> Forward:
        if not self._asked:
            raise TunnelError("protocol-error", "an answer came without a request")
        return self._asked.popleft()

    def _registered(self, message: RegisterOk) -> None:
        forward = self._answerFor()
        self._services[message.serviceId] = forward
        address = ""
        if not forward.port:
            address = f"{registerOf(forward).name} (the server chose its port)"
        self.ready(forward, address)

    def _notRegistered(self, message: RegisterFail) -> None:
        forward = self._answerFor()
        refusal = reasonIn(message.reason, "port-taken", "the server says: ")
        self._observer.tunnelFailed(forward.wanted, refusal)
        if not refusal.code.permanent:
            self.later(ASK_AGAIN, partial(self._register, forward))

    def _disconnected(self, message: Disconnect) -> None:
        raise reasonIn(message.reason, "session-lost", "the server says: ")

    def _visitor(self, message: Connect) -> None:
        forward = self._services.get(message.serviceId)
        if forward is None or self._goingAway is not None:
            why = "there is no such service" if forward is None else "the client stops"
            self.send(ConnectFail(message.connectionId, why))
        elif self._busy() or RESERVE.isLow:
            why = str(TunnelError("limit-reached", "too many visitors are here"))
            self.send(ConnectFail(message.connectionId, why))
        elif isinstance(forward.endpoint, UDPService):
            self._datagrams(message.connectionId, forward.target, forward.endpoint)
        else:
            self._bytes(message, forward.target, forward.endpoint)

    def _busy(self) -> bool:
        most = self._limits.streams
        if len(self._announced) + len(self._visitors) < min(most, self._sweepAt):
            return False
        self._announced = {each for each in self._announced if not each.over}
        here = len(self._announced) + self.streams()
        # So those who have left are forgotten soon, and are rarely looked for.
        self._sweepAt = 2 * here + SWEEP
        return here >= most

    def _refuser(self, connection: UUID) -> Callable[[TunnelError], None]:
        def refuse(reason: TunnelError) -> None:
            if self.lost is None:
                self.send(ConnectFail(connection, str(reason)[:1000]))

        return refuse

    def _bytes(
        self, message: Connect, target: str, endpoint: IStreamClientEndpoint
    ) -> None:
        connection = message.connectionId
        announced: Any = _Announced(self._refuser(connection))
        self._announced.add(announced)

        def reached() -> Deferred[SocketEnd]:
            if self.lost is None:
                self.send(ConnectAck(connection))
            end = DataEnd(self._arrived)
            opening: Any = self._open(connection, end)
            opening.addCallbacks(lambda result: end, failed)
            return cast("Deferred[SocketEnd]", opening)

        def failed(failure: Failure) -> Failure:
            announced.failure = self._dataFailed(failure)
            return failure

        self._connector.connect(
            announced,
            target,
            endpoint,
            lambda stream: None,
            elsewhere=reached,
            info={"visitor": message.visitor},
        )

    def _datagrams(self, connection: UUID, target: str, service: UDPService) -> None:
        """
        Connect to the visitor first, and then to the service, since nobody can tell
        whether a UDP service is there.
        """
        self.send(ConnectAck(connection))

        def arrived(flow: DataFlow) -> None:
            self._arrived(flow)
            self._udpConnector.connect(flow, target, service, lambda flow: None)

        opening = self._open(connection, DataFlow(arrived))
        opening.addErrback(self._dataFailed)

    def _open(self, connection: UUID, end: Receiver) -> Deferred[object]:
        opening = self._openData(connection, end)
        self._openings.add(opening)

        def done(result: object) -> object:
            self._openings.discard(opening)
            return result

        return opening.addBoth(done)

    def _arrived(self, end: Any) -> None:
        self._visitors.add(end)

    def _dataFailed(self, failure: Failure) -> TunnelError:
        error = failure.value
        if not isinstance(error, TunnelError):
            error = TunnelError("session-lost", failure.getErrorMessage())
        self._bounded(
            self._log.warn,
            "A visitor's data connection was not opened: {reason}",
            reason=error,
        )
        return error

    # The end

    def streams(self) -> int:
        self._visitors = {end for end in self._visitors if not end.over}
        return len(self._visitors) + len(self._openings)

    def goAway(self, reason: TunnelError) -> None:
        """Take no new visitors; there is no message to tell the server."""
        self._goingAway = reason
