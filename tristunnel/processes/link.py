"""
Questions and answers between two processes of one machine, and what they only tell.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from socket import socket
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.calls import Lookup
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.jsonrpc.pending import PendingCalls
from tristunnel.processes.channel import Channel, Message

__all__ = ["PATIENCE", "Asker", "Link"]

PATIENCE = 5.0
"""Seconds in which another process must answer."""

MOST_CALLS = 10_000
"""Questions that may wait for an answer."""

MAX_DEPTH = 64


@dataclass(frozen=True)
class Asker:
    """
    Who asks, as methods are told.

    @ivar link: The other process.
    @ivar message: What came with the question: its bytes and sockets are for
        whoever answers it.
    """

    link: Link
    message: Message


class Link:
    """
    A channel on which both sides call methods of each other.

    @param reactor: Waits for the socket, and tells time.
    @param connection: The socket; closed by this object.
    @param lookup: Finds the methods that the other side may call. Each takes an
        L{Asker}, and then the parameters.
    @param lost: Called once with this link when the other process has gone.

    @ivar index: Which process is at the other end; -1 for the parent.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        connection: socket,
        lookup: Lookup,
        lost: Callable[[Link], object] = lambda link: None,
        index: int = -1,
    ) -> None:
        self.index = index
        self._reactor = reactor
        self._dispatcher = Dispatcher(lookup, maxDepth=MAX_DEPTH)
        self._calls = PendingCalls(MOST_CALLS)
        self._whenLost = lost
        self._channel = Channel(reactor, connection, self._received, self._lost)

    @property
    def isOpen(self) -> bool:
        """Whether the other process is there."""
        return self._channel.isOpen

    def call(
        self,
        method: str,
        params: Sequence[object] | Mapping[str, object] = (),
        data: bytes = b"",
        sockets: Sequence[socket] = (),
        patience: float = PATIENCE,
    ) -> Deferred[Any]:
        """
        Ask something.

        @param sockets: Sent along; they are the channel's from now on.
        @param patience: Seconds to wait for the answer.
        @return: The answer; fails with L{TunnelError}.
        """
        try:
            request, answer = self._calls.call(method, params)
        except TunnelError as refusal:
            for each in sockets:
                each.close()
            return fail(refusal)
        try:
            self._channel.send(request, data, sockets)
        except TunnelError as refusal:
            answer.addErrback(lambda failure: None)
            answer.cancel()
            return fail(refusal)

        def late(_: object, seconds: float) -> object:
            raise TunnelError(
                "internal",
                f"another process of this server did not answer within {seconds:g} s",
            )

        told: Deferred[Any] = answer.addTimeout(patience, self._reactor, late)
        return told

    def tell(
        self,
        method: str,
        params: Sequence[object] | Mapping[str, object] = (),
        data: bytes = b"",
        sockets: Sequence[socket] = (),
    ) -> None:
        """
        Say something to which there is no answer.

        @param sockets: Sent along; they are the channel's from now on.
        @raise TunnelError: C{limit-reached} or C{session-lost}.
        """
        head: dict[str, object] = {"jsonrpc": "2.0", "method": method}
        if params:
            head["params"] = params
        self._channel.send(head, data, sockets)

    def close(self) -> None:
        """End the link; doing it twice is no error."""
        self._channel.close()

    def _received(self, message: Message) -> None:
        if "method" not in message.head:
            message.close()
            self._calls.answered(message.head)
            return
        answering = self._dispatcher.dispatchObject(Asker(self, message), message.head)
        answering.addCallback(self._answer)
        answering.addErrback(
            lambda failure: self._log.failure("A question was not answered", failure)
        )

    def _answer(self, answer: Any) -> None:
        if answer is None or not self._channel.isOpen:
            return
        try:
            self._channel.send(answer)
        except TunnelError as refusal:
            self._log.error("An answer was not sent: {refusal}", refusal=refusal)

    def _lost(self) -> None:
        self._calls.abandon(
            TunnelError("session-lost", "another process of this server has ended")
        )
        self._whenLost(self)
