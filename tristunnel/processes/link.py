"""Calls and notifications between two members of a server."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from socket import socket
from typing import Any, Protocol

from twisted.internet.defer import Deferred, fail
from twisted.logger import Logger

from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.calls import Lookup
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.jsonrpc.pending import PendingCalls
from tristunnel.processes.channel import Channel, Message

__all__ = ["PATIENCE", "Asker", "Conversation", "Link"]

PATIENCE = 5.0
"""Seconds in which another process must answer."""

MOST_CALLS = 10_000
"""Calls that may wait for an answer."""

MAX_DEPTH = 64


@dataclass(frozen=True)
class Asker:
    """
    The caller of a method.

    @ivar link: The other process.
    @ivar message: The message of the call, whose bytes and sockets are the method's.
    """

    link: Any
    message: Message


class MessageChannel(Protocol):
    """What carries messages to the other side, as a L{Channel} does."""

    @property
    def isOpen(self) -> bool: ...

    def send(
        self, head: dict[str, object], data: bytes = b"", sockets: Sequence[socket] = ()
    ) -> None: ...

    def close(self) -> None: ...


class Conversation:
    """
    A channel on which both sides call methods of each other.

    @param reactor: Tells time.
    @param lookup: Finds the methods that the other side may call. Each takes an
        L{Asker}, and then the parameters.
    @param who: Who is at the other end, as messages say it.

    @ivar channel: What carries the messages; set by whoever makes this.
    """

    channel: MessageChannel
    _log = Logger()

    def __init__(
        self, reactor: Any, lookup: Lookup, who: str = "another process of this server"
    ) -> None:
        self._reactor = reactor
        self._dispatcher = Dispatcher(lookup, maxDepth=MAX_DEPTH)
        self._calls = PendingCalls(MOST_CALLS)
        self._who = who

    @property
    def isOpen(self) -> bool:
        """Whether the other side is there."""
        return self.channel.isOpen

    def call(
        self,
        method: str,
        params: Sequence[object] | Mapping[str, object] = (),
        data: bytes = b"",
        sockets: Sequence[socket] = (),
        patience: float = PATIENCE,
    ) -> Deferred[Any]:
        """
        Call a method of the other side.

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
            self.channel.send(request, data, sockets)
        except TunnelError as refusal:
            answer.addErrback(lambda failure: None)
            answer.cancel()
            return fail(refusal)

        def late(_: object, seconds: float) -> object:
            raise TunnelError(
                "internal", f"{self._who} did not answer within {seconds:g} s"
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
        Call a method that gives no answer.

        @param sockets: Sent along; they are the channel's from now on.
        @raise TunnelError: C{limit-reached} or C{session-lost}.
        """
        head: dict[str, object] = {"jsonrpc": "2.0", "method": method}
        if params:
            head["params"] = params
        self.channel.send(head, data, sockets)

    def close(self) -> None:
        """End the link. It may be called twice."""
        self.channel.close()

    def received(self, message: Message) -> None:
        """Take a message from the other side."""
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
        if answer is None or not self.channel.isOpen:
            return
        try:
            self.channel.send(answer)
        except TunnelError as refusal:
            self._log.error("An answer was not sent: {refusal}", refusal=refusal)

    def over(self, reason: TunnelError | None = None) -> None:
        """
        Fail all calls, because the other side has gone.

        @param reason: Why, if it has not just ended.
        """
        ended = TunnelError("session-lost", f"{self._who} has ended")
        self._calls.abandon(reason or ended)


class Link(Conversation):
    """
    A conversation with another process of this machine.

    @param reactor: Waits for the socket, and tells time.
    @param connection: The socket; closed by this object.
    @param lookup: As for L{Conversation}.
    @param lost: Called once with this link when the other process has gone.

    @ivar index: Which process is at the other end; -1 for the parent.
    @ivar isLeaving: Whether that process stops, and takes no connections any more.
    """

    def __init__(
        self,
        reactor: Any,
        connection: socket,
        lookup: Lookup,
        lost: Callable[[Link], object] = lambda link: None,
        index: int = -1,
    ) -> None:
        super().__init__(reactor, lookup)
        self.index = index
        self.isLeaving = False
        self._whenLost = lost
        self.channel = Channel(reactor, connection, self.received, self._lost)

    @property
    def name(self) -> str:
        """The other process's name among its siblings."""
        return str(self.index)

    def _lost(self) -> None:
        self.over()
        self._whenLost(self)
