"""
Messages between two processes of one machine: a JSON object, bytes, and descriptors.

A channel is a pair of C{SOCK_SEQPACKET} sockets, on which the kernel keeps packets
apart and in order. A packet begins with a byte that says whether more of the same
message follows; the first one of a message goes on with the length of the JSON text
(u32, big-endian), the text, and the bytes. Descriptors travel with the first packet, by
C{SCM_RIGHTS}. Twisted's own C{sendFileDescriptor} sends one at a time, on a stream,
where nothing says to which bytes it belongs.
"""

from __future__ import annotations

import errno
import json
import os
import socket as socketModule
from array import array
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from socket import SCM_RIGHTS, SOL_SOCKET, socket
from typing import Any

from twisted.internet.interfaces import IReadWriteDescriptor
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.errors import TunnelError
from tristunnel.util.platform import AF_UNIX, NO_WAIT
from tristunnel.util.repeating import stopTimer

__all__ = [
    "MOST_DESCRIPTORS",
    "MOST_QUEUED",
    "PIECE",
    "Channel",
    "Message",
    "firstOf",
    "pair",
]

PIECE = 48 * 1024
"""Bytes of the longest packet; the kernel takes about 200,000 in all."""

LONGEST = 16 * 1024 * 1024
"""Bytes of the longest message: a list of some ten thousand tunnels."""

MOST_QUEUED = 2 * LONGEST
"""Bytes that may wait for the other process to take them."""

MOST_WAITING = 4096
"""Messages that may wait, likewise: each may hold descriptors."""

MOST_DESCRIPTORS = 64
"""Descriptors of a message; the kernel takes 253."""

BATCH = 64
"""Packets that are taken in one turn."""

PAUSE = 0.05
"""Seconds until descriptors for which the kernel had no room are sent again: it limits
how many may be in flight, and does not tell when there is room."""

_WAIT = {errno.EAGAIN, errno.EWOULDBLOCK, errno.EINTR, errno.ENOBUFS}
_TOO_MANY_ON_THEIR_WAY = errno.ETOOMANYREFS
_NOT_INHERITED: int = getattr(socketModule, "MSG_CMSG_CLOEXEC", 0)
_HEAD = 4


def pair() -> tuple[socket, socket]:
    """
    Make the two ends of a channel.

    @raise OSError: If there are no descriptors left.
    """
    return socketModule.socketpair(AF_UNIX, socketModule.SOCK_SEQPACKET)


@dataclass(frozen=True)
class Message:
    """
    What one process tells another.

    @ivar head: A JSON object.
    @ivar data: Bytes.
    @ivar sockets: The sockets that came with it, which do not block; owned by whoever
        takes the message.
    @ivar missing: Whether more were sent, for which this process had no descriptor
        left; the kernel has closed them.
    """

    head: dict[str, object]
    data: bytes = b""
    sockets: list[socket] = field(default_factory=list)
    missing: bool = False

    def close(self) -> None:
        """Close the sockets."""
        for each in self.sockets:
            each.close()


@dataclass
class _Packet:
    """
    A packet that waits to be sent.

    @ivar sockets: Sent with it, and then closed.
    """

    data: bytes
    sockets: Sequence[socket]
    isFirst: bool


@implementer(IReadWriteDescriptor)
class Channel:
    """
    One end of a channel.

    @param reactor: Waits for the socket.
    @param connection: The socket; closed by this object.
    @param received: Called with each message, which it owns.
    @param lost: Called once when the other process has gone.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        connection: socket,
        received: Callable[[Message], object],
        lost: Callable[[], object] = lambda: None,
    ) -> None:
        self._reactor = reactor
        self._socket: socket | None = connection
        self._received = received
        self._lost = lost
        self._queue: deque[_Packet] = deque()
        self._queued = self._waiting = 0
        self._retry: Any = None
        self._parts: list[bytes] = []
        self._size = 0
        self._sockets: list[socket] = []
        self._missing = False
        connection.setblocking(False)
        reactor.addReader(self)

    @property
    def isOpen(self) -> bool:
        """Whether messages can be sent."""
        return self._socket is not None

    # Sending

    def send(
        self, head: dict[str, object], data: bytes = b"", sockets: Sequence[socket] = ()
    ) -> None:
        """
        Send a message.

        @param sockets: Sent with it. The channel owns them from now on, and closes them
            in any case; pass copies to go on using them.
        @raise TunnelError: C{limit-reached}, if the other process does not keep up;
            C{session-lost}, if it is gone.
        """
        text = json.dumps(head, separators=(",", ":")).encode("ascii")
        whole = len(text).to_bytes(_HEAD) + text + data
        refusal = self._whyNot(len(whole), len(sockets))
        if refusal is not None:
            for each in sockets:
                each.close()
            raise refusal
        pieces = [whole[at : at + PIECE] for at in range(0, len(whole), PIECE)]
        last = len(pieces) - 1
        for index, piece in enumerate(pieces):
            mark = b"\0" if index == last else b"\1"
            along = () if index else sockets
            self._queue.append(_Packet(mark + piece, along, not index))
        self._queued += len(whole)
        self._waiting += 1
        if len(self._queue) == len(pieces):
            self.doWrite()

    def _whyNot(self, size: int, descriptors: int) -> TunnelError | None:
        if self._socket is None:
            return TunnelError(
                "session-lost", "another process of this server has ended"
            )
        if size > LONGEST or descriptors > MOST_DESCRIPTORS:
            return TunnelError("limit-reached", "a message to it would be too large")
        if self._queued + size > MOST_QUEUED or self._waiting >= MOST_WAITING:
            return TunnelError(
                "limit-reached", "another process of this server does not keep up"
            )
        return None

    def doWrite(self) -> None:
        self._stopRetry()
        while self._queue and self._socket is not None:
            packet = self._queue[0]
            try:
                self._sendOne(self._socket, packet)
            except OSError as problem:
                if problem.errno in _WAIT:
                    self._reactor.addWriter(self)
                elif problem.errno == _TOO_MANY_ON_THEIR_WAY:
                    self._reactor.removeWriter(self)
                    self._retry = self._reactor.callLater(PAUSE, self._again)
                else:
                    self.close()
                return
            self._queue.popleft()
            # In the first packet, the bytes with the length of the text count, too.
            self._queued -= len(packet.data) - 1
            self._waiting -= packet.isFirst
            for each in packet.sockets:
                each.close()
        if self._socket is not None:
            self._reactor.removeWriter(self)

    def _sendOne(self, connection: socket, packet: _Packet) -> None:
        along: Any = ()
        if packet.sockets:
            numbers = array("i", [each.fileno() for each in packet.sockets])
            along = ((SOL_SOCKET, SCM_RIGHTS, numbers),)
        connection.sendmsg((packet.data,), along, NO_WAIT)

    def _again(self) -> None:
        self._retry = None
        self.doWrite()

    def _stopRetry(self) -> None:
        stopTimer(self._retry)
        self._retry = None

    # Receiving

    def doRead(self) -> None:
        """Take the packets that have come, up to L{BATCH}."""
        for _ in range(BATCH):
            if self._socket is None:
                return
            try:
                data, along, flags, _ = self._socket.recvmsg(
                    PIECE + 1,
                    socketModule.CMSG_SPACE(4 * MOST_DESCRIPTORS),
                    NO_WAIT | _NOT_INHERITED,
                )
            except OSError as problem:
                if problem.errno not in _WAIT:
                    self.close()
                return
            if not data:
                self.close()
                return
            self._sockets += _socketsIn(along)
            if flags & socketModule.MSG_CTRUNC:
                self._missing = True
            self._take(data)

    def _take(self, data: bytes) -> None:
        self._parts.append(data[1:])
        self._size += len(data)
        if self._size > LONGEST + PIECE:
            self._log.error("Another process of this server sent too long a message")
            self.close()
        elif data[:1] == b"\0":
            whole = b"".join(self._parts)
            sockets, missing = self._sockets, self._missing
            self._parts, self._sockets, self._size, self._missing = [], [], 0, False
            try:
                self._received(_decode(whole, sockets, missing))
            except Exception:
                self._log.failure("A message of another process could not be taken in")

    # The end

    def close(self) -> None:
        """Stop sending and receiving. It may be called twice."""
        connection, self._socket = self._socket, None
        if connection is None:
            return
        self._stopRetry()
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        connection.close()
        queue, self._queue = self._queue, deque()
        for packet in queue:
            for each in packet.sockets:
                each.close()
        for each in self._sockets:
            each.close()
        self._sockets = []
        self._lost()

    # IReadWriteDescriptor

    def fileno(self) -> int:
        return -1 if self._socket is None else self._socket.fileno()

    def logPrefix(self) -> str:
        return "processes"

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The reactor ends, or gives up on the socket."""
        self.close()


def firstOf(connection: socket) -> Message:
    """
    Wait for the first message, of one packet, before there is a channel.

    @param connection: A socket that blocks.
    @raise OSError: If the other process is gone.
    """
    data, along, _, _ = connection.recvmsg(
        PIECE + 1, socketModule.CMSG_SPACE(4 * MOST_DESCRIPTORS), _NOT_INHERITED
    )
    if not data:
        raise OSError(errno.EPIPE, "the other process has ended")
    return _decode(data[1:], _socketsIn(along), False)


def _decode(whole: bytes, sockets: list[socket], missing: bool) -> Message:
    length = int.from_bytes(whole[:_HEAD])
    head = json.loads(whole[_HEAD : _HEAD + length])
    return Message(head, whole[_HEAD + length :], sockets, missing)


def _socketsIn(along: Sequence[tuple[int, int, bytes]]) -> list[socket]:
    """Make sockets of the descriptors that came along."""
    found: list[socket] = []
    for level, kind, data in along:
        if level == SOL_SOCKET and kind == SCM_RIGHTS:
            numbers = array("i")
            numbers.frombytes(data[: len(data) - len(data) % numbers.itemsize])
            for number in numbers:
                try:
                    made = socket(fileno=number)
                except OSError:
                    with suppress(OSError):
                        os.close(number)
                    continue
                # Other processes have the same one. Where this is not said, a copy of
                # it is made to block, and then blocks them, too.
                made.setblocking(False)
                found.append(made)
    return found
