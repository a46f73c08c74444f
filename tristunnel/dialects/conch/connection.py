"""
The connection protocol (RFC 4254) at either side: channels, and requests whose answers
come in order, however long each takes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import Protocol

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dialects.conch.streams import ChannelStreams
from tristunnel.dialects.conch.transport import Packets, Service
from tristunnel.errors import TunnelError, protocolError
from tristunnel.util.repeating import RepeatingCall
from tristunnel.wire.ssh import Fields, Message, packText
from tristunnel.wire.windows import roundTripAfter

__all__ = ["KEEPALIVE", "MOST_REQUESTS", "Connection", "Requested"]

MOST_REQUESTS = 64
"""Requests that may wait for their answers before the peer is read no further."""

TICK = 5.0
"""Seconds between two looks at the deadlines."""

PING_INTERVAL = 25.0
"""Seconds between two requests for a sign of life."""

DEADLINE = 60.0
"""Seconds of silence after which the peer is gone."""

KEEPALIVE = "keepalive@openssh.com"
"""The request by which OpenSSH asks for a sign of life; any answer will do."""


class Requested(Protocol):
    """
    Who answers a peer's requests.

    @ivar ping: The request by which the peer is asked for a sign of life.
    @ivar saysWhy: Whether the text of a refusal goes with it, as in Go's package.
    """

    ping: str
    saysWhy: bool

    def request(self, name: str, fields: Fields) -> Awaitable[bytes] | bytes | None:
        """
        Do what the peer asks for.

        @param fields: What is asked.
        @return: The data of the answer; C{None} if there is no such request.
        @raise TunnelError: Why it is refused.
        """

    def requestRefused(self, name: str, refusal: TunnelError) -> None:
        """Learn that a request was refused, which the peer may not be told."""


@dataclass(eq=False)
class _Request:
    """
    A request of the peer's.

    @ivar wantsReply: Whether it gets an answer.
    @ivar answer: The answer, once there is one.
    """

    wantsReply: bool
    answer: tuple[int, bytes] | None = None


class Connection(Service):
    """
    The C{ssh-connection} service.

    @param link: The connection below.
    @param streams: Its channels.
    @param requested: Answers the peer's requests.
    """

    name = b"ssh-connection"

    _log = Logger(namespace="tristunnel.ssh")

    def __init__(
        self, link: Packets, streams: ChannelStreams, requested: Requested
    ) -> None:
        self._link = link
        self._streams = streams
        self._requested = requested
        self._requests: deque[_Request] = deque()
        self._asked: deque[Deferred[bytes]] = deque()
        self._work: set[Deferred[None]] = set()
        self._over = False
        self._lastHeard = self._lastPing = link.reactor.seconds()
        self._ticking = RepeatingCall(link.reactor, self._tick)

    def serviceStarted(self) -> None:
        self._link.heard = self._heard
        self._link.ask = self._ping
        self._link.carry(self._streams)
        self._ticking.start(TICK, now=False)

    def serviceStopped(self) -> None:
        self._over = True
        if self._ticking.running:
            self._ticking.stop()
        self._link.heard = lambda: None
        for work in list(self._work):
            work.cancel()
        lost = self._link.lost or TunnelError("session-lost", "the peer has left")
        asked, self._asked = self._asked, deque()
        for each in asked:
            each.errback(lost)
        self._streams.close(lost)

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        if self._streams.take(messageNum, packet):
            return
        if messageNum == Message.GLOBAL_REQUEST:
            self._take(packet)
        elif messageNum == Message.REQUEST_SUCCESS:
            self._answered().callback(packet)
        elif messageNum == Message.REQUEST_FAILURE:
            text = packet[:500].decode("utf-8", "replace")
            self._answered().errback(TunnelError.said("not-permitted", text))
        else:
            self._link.sendUnimplemented()

    # What the peer asks

    def _take(self, packet: bytes) -> None:
        fields = Fields(packet)
        name = fields.text(128)
        request = _Request(fields.boolean())
        if request.wantsReply:
            self._requests.append(request)
            if len(self._requests) > MOST_REQUESTS:
                self._link.holds.hold("requests")
        work: Deferred[None] = Deferred.fromCoroutine(self._do(request, name, fields))
        if not work.called:
            self._work.add(work)
        work.addBoth(self._done, work)

    def _done(self, result: object, work: Deferred[None]) -> None:
        self._work.discard(work)
        if isinstance(result, Failure) and not result.check(CancelledError):
            self._log.failure("A request failed", result)
            self._link.fail(TunnelError("internal"))

    async def _do(self, request: _Request, name: str, fields: Fields) -> None:
        try:
            doing = self._requested.request(name, fields)
            said = doing if doing is None or isinstance(doing, bytes) else await doing
            kind = Message.REQUEST_FAILURE if said is None else Message.REQUEST_SUCCESS
            request.answer = kind, said or b""
        except TunnelError as refusal:
            if refusal.code.name == "protocol-error":
                self._link.fail(refusal)
                return
            self._requested.requestRefused(name, refusal)
            text = refusal.message.encode() if self._requested.saysWhy else b""
            request.answer = Message.REQUEST_FAILURE, text
        self._sendAnswers()

    def _sendAnswers(self) -> None:
        requests = self._requests
        while requests and requests[0].answer is not None and not self._over:
            kind, said = requests.popleft().answer or (0, b"")
            self._link.answer(kind, said)
        if len(requests) <= MOST_REQUESTS:
            self._link.holds.release("requests")

    # What we ask

    def ask(self, name: str, data: bytes = b"") -> Deferred[bytes]:
        """
        Send a request.

        @return: The data of the answer; fails with L{TunnelError} if the peer refuses,
            or if the connection ends first.
        """
        asked: Deferred[bytes] = Deferred()
        if self._over:
            asked.errback(self._link.lost or TunnelError("session-lost"))
            return asked
        self._asked.append(asked)
        self._link.sendPacket(Message.GLOBAL_REQUEST, packText(name) + b"\1" + data)
        return asked

    def _answered(self) -> Deferred[bytes]:
        if not self._asked:
            raise protocolError("the peer answers what it was not asked")
        return self._asked.popleft()

    # Liveness

    def _heard(self) -> None:
        self._lastHeard = self._link.reactor.seconds()

    def _ping(self) -> None:
        sent = self._lastPing = self._link.reactor.seconds()

        def answered(result: object) -> None:
            taken = self._link.reactor.seconds() - sent
            self._streams.roundTrip = roundTripAfter(self._streams.roundTrip, taken)

        self.ask(self._requested.ping).addBoth(answered)

    def _tick(self) -> None:
        now = self._link.reactor.seconds()
        self._streams.tick()
        if self._link.holds:
            # While nothing is read, nothing can be heard.
            self._lastHeard = now
        if now - self._lastHeard > DEADLINE:
            reason = f"nothing was received for {DEADLINE:g} s"
            self._link.fail(TunnelError("session-lost", reason))
        elif now - self._lastPing >= PING_INTERVAL:
            self._ping()
