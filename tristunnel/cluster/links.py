"""
Calls between the members of a cluster: messages on a connection that a member opens
when it has something to ask.
"""

from __future__ import annotations

import hmac
import json
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from hashlib import sha256
from socket import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IPushProducer, IStreamClientEndpoint
from twisted.internet.protocol import connectionDone
from twisted.protocols.basic import Int32StringReceiver
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.cluster.relay import askForLink
from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.strictjson import BadJSON, decode
from tristunnel.processes.channel import LONGEST, MOST_QUEUED, Message
from tristunnel.processes.link import Conversation

__all__ = ["MemberLink", "MemberLinks", "MessageProtocol"]

_DEPTH = 64


@implementer(IPushProducer)
class MessageProtocol(Int32StringReceiver):
    """
    Messages on a stream: the length of each (u32, big-endian), and a JSON object.

    @param received: Called with each message.
    @param lost: Called once when the connection is gone.
    """

    MAX_LENGTH = LONGEST
    transport: Any

    def __init__(
        self, received: Callable[[Message], object], lost: Callable[[], object]
    ) -> None:
        self._received = received
        self._whenLost = lost
        self._waiting: deque[bytes] = deque()
        self._queued = 0
        self._paused = False
        self.isOpen = True

    def connectionMade(self) -> None:
        self.transport.registerProducer(self, True)

    def send(
        self, head: dict[str, object], data: bytes = b"", sockets: Sequence[socket] = ()
    ) -> None:
        """
        Send a message.

        @raise TunnelError: C{limit-reached}, if the other member does not keep up;
            C{session-lost}, if it is gone.
        """
        text = json.dumps(head, separators=(",", ":")).encode("ascii")
        if not self.isOpen:
            raise TunnelError("session-lost", "another member of the cluster has ended")
        if len(text) > LONGEST or self._queued + len(text) > MOST_QUEUED:
            raise TunnelError(
                "limit-reached", "another member of the cluster cannot keep up"
            )
        self._waiting.append(text)
        self._queued += len(text)
        self._sendOn()

    def _sendOn(self) -> None:
        while self._waiting and not self._paused and self.connected:
            text = self._waiting.popleft()
            self._queued -= len(text)
            self.sendString(text)

    def pauseProducing(self) -> None:
        """The other side takes no more for now; messages wait here."""
        self._paused = True

    def resumeProducing(self) -> None:
        self._paused = False
        self._sendOn()

    def stopProducing(self) -> None:
        """The connection is about to be lost."""

    def stringReceived(self, string: bytes) -> None:
        try:
            said = decode(string, maxDepth=_DEPTH)
        except BadJSON:
            said = None
        if isinstance(said, dict):
            self._received(Message(said))
        else:
            self.close()

    def lengthLimitExceeded(self, length: int) -> None:
        self.close()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.close()

    def close(self) -> None:
        """End the connection. It may be called twice."""
        if not self.isOpen:
            return
        self.isOpen = False
        self._waiting.clear()
        if self.transport is not None:
            self.transport.abortConnection()
        self._whenLost()


class MemberLink(Conversation):
    """
    This member's calls to another one. The connection is opened with the first call,
    and again with the next call if it was lost.

    @param reactor: Tells time.
    @param name: What the other member is called.
    @param lookup: Finds the methods that it may call.
    @param connect: Connects a protocol to it.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        lookup: Callable[[str], Callable[..., object] | None],
        connect: Callable[[MessageProtocol], Coroutine[Any, Any, None]],
    ) -> None:
        super().__init__(reactor, lookup, f"member {name} of this cluster")
        self.name = name
        self._connect = connect
        self._dial()

    def _dial(self) -> None:
        self.channel = self._messages = MessageProtocol(self.received, self._lost)
        self._begun = False
        self._why: TunnelError | None = None

    def call(self, *args: Any, **named: Any) -> Deferred[Any]:
        asked = super().call(*args, **named)
        self._begin()
        return asked

    def tell(self, *args: Any, **named: Any) -> None:
        super().tell(*args, **named)
        self._begin()

    def _begin(self) -> None:
        if self._begun:
            return
        self._begun = True
        messages = self._messages

        def failed(failure: Failure) -> None:
            reason = failure.value
            if messages is self._messages and isinstance(reason, TunnelError):
                self._why = reason
            messages.close()

        connecting = Deferred.fromCoroutine(self._connect(messages))
        connecting.addCallbacks(lambda _: messages.resumeProducing(), failed)

    def _lost(self) -> None:
        why = self._why
        self._dial()
        self.over(why)

    def close(self) -> None:
        self._messages.close()


class MemberLinks:
    """
    The L{Ways<tristunnel.service.siblings.Ways>} to the other members of a cluster.

    @param reactor: Tells time.
    @param name: What this member is called.
    @param secret: What all members know.
    @param endpoint: Makes the way to a member of what it advertises.

    @ivar answers: What others may ask, by name.
    @ivar siblings: The ways, by the others' names.
    """

    def __init__(
        self,
        reactor: Any,
        name: str,
        secret: bytes,
        endpoint: Callable[[str], IStreamClientEndpoint],
    ) -> None:
        self.name = name
        self.answers: dict[str, Callable[..., object]] = {}
        self.siblings: dict[str, MemberLink] = {}
        self._reactor = reactor
        self._secret = secret
        self._endpoint = endpoint
        self._addresses: dict[str, str] = {}
        self._incoming: set[MessageProtocol] = set()

    @property
    def key(self) -> str:
        """
        A secret that all members share; the cluster's own secret cannot be derived from
        it.
        """
        return hmac.new(self._secret, b"forms", sha256).hexdigest()

    def known(self, addresses: Mapping[str, str]) -> None:
        """
        Set which members are there now.

        @param addresses: What each of the others advertises, by name.
        """
        for name in set(self.siblings) - set(addresses):
            del self._addresses[name]
            self.siblings.pop(name).close()
        self._addresses.update(addresses)
        for name in addresses:
            if name not in self.siblings:
                self.siblings[name] = self._link(name)

    def _link(self, name: str) -> MemberLink:
        async def connect(messages: MessageProtocol) -> None:
            endpoint = self._endpoint(self._addresses[name])
            await askForLink(self._reactor, endpoint, self._secret, self.name, messages)

        return MemberLink(self._reactor, name, self.answers.get, connect)

    def linked(self, member: str) -> MessageProtocol:
        """
        Take the connection of another member.

        @return: The protocol that has the connection from now on.
        """
        answering = Conversation(
            self._reactor, self.answers.get, f"member {member[:64]} of this cluster"
        )

        def lost() -> None:
            self._incoming.discard(messages)
            answering.over()

        answering.channel = messages = MessageProtocol(answering.received, lost)
        self._incoming.add(messages)
        return messages

    def close(self) -> None:
        """End all connections."""
        self.known({})
        for each in list(self._incoming):
            each.close()
