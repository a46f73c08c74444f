"""
The bytes of an SSH connection's channels, and the credit for them.

SSH has credit per channel (RFC 4254, section 5.2), but none for the connection. So what
may wait for all readers together is bounded by windows that are smaller the more
channels there are, and by breaking the channels for which most is waiting.
"""

from __future__ import annotations

from struct import Struct

from tristunnel.dialects.base.multiplexer import Limits, Multiplexer
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.conch.channel import Channel
from tristunnel.dialects.conch.transport import Packets
from tristunnel.errors import TunnelError, protocolError
from tristunnel.wire.ssh import Fields, Message, packNumbers
from tristunnel.wire.windows import ReceiveWindow, WindowBudget

__all__ = ["LEAST_WINDOW", "CreditedChannels"]

LEAST_WINDOW = 32 * 1024
"""Bytes that a channel may have under way, however many there are."""

_MOST_CREDIT = 0xFFFFFFFF
_TWO = Struct(">LL")


class CreditedChannels(Multiplexer):
    """
    The table of a connection's channels, their bytes and their credit. Who opens and
    ends them is another matter: what is not read when one ends, that one takes off
    C{waiting}.

    @param link: The connection.
    @param limits: What this side accepts.

    @ivar link: The same.
    @ivar channels: All channels, including those that are not closed by both sides yet.
    @ivar waiting: Bytes that wait for all readers together.
    @ivar roundTrip: What the way takes, there and back, in seconds; 0 before a measure.
    """

    def __init__(self, link: Packets, limits: Limits | None = None) -> None:
        super().__init__(
            link.transport, link.reactor.seconds, lambda stream, info: None, limits
        )
        self.holds = link.holds
        self.link = link
        self.channels: dict[int, Channel] = {}
        self.waiting = 0
        self.roundTrip = 0.0
        self._lastId = -1
        self._budget = WindowBudget(self.limits.sessionWindow // 4 * 3)

    # The table

    def newChannel(self, ours: bool) -> Channel:
        """
        Give a channel a number and a window, and enter it in the table.

        @param ours: Whether this side opens it.
        @raise TunnelError: C{limit-reached}.
        """
        if len(self.channels) >= self.limits.streams:
            raise TunnelError("limit-reached", "the client has too many streams")
        while True:
            self._lastId = (self._lastId + 1) & 0xFFFFFFFF
            if self._lastId not in self.channels:
                break
        limits = self.limits
        share = limits.sessionWindow // (len(self.channels) + 1)
        size = max(min(limits.streamWindow, share), LEAST_WINDOW)
        window = ReceiveWindow(size, limits.largestWindow, self._budget)
        channel = Channel(self, self._lastId, window, ours)
        self.channels[channel.id] = self.streams[channel.id] = channel
        return channel

    def find(self, fields: Fields) -> Channel:
        """
        Read which channel a message is about.

        @raise TunnelError: C{protocol-error}, if there is none.
        """
        channel = self.channels.get(fields.number())
        if channel is None:
            raise protocolError("the peer speaks of an SSH channel that is not open")
        return channel

    # What comes

    def dataCame(self, payload: bytes) -> None:
        """
        Take bytes, which the peer must have credit for.

        @raise TunnelError: C{protocol-error}, like all that take a message.
        """
        # This is done for each piece of each stream, so it does without L{Fields}.
        if len(payload) < 8:
            raise protocolError("an SSH message is cut short")
        number, size = _TWO.unpack_from(payload)
        if size != len(payload) - 8:
            raise protocolError("an SSH message has another length than it says")
        channel = self.channels.get(number)
        if channel is None or not channel.answered:
            raise protocolError("the peer sends on an SSH channel that is not open")
        window = channel.receiveWindow
        window.received += size
        if window.received > window.limit or channel.eof:
            raise protocolError("the peer sends past an SSH channel's window or end")
        if channel.over or not size:
            # It was under way when the stream ended here.
            self.lateFrames += 1
            return
        self.waiting += size
        self.came(channel)
        channel.dataArrived(payload[8:])
        if self.waiting > self.limits.sessionWindow:
            self._makeRoom()

    def came(self, channel: Channel) -> None:
        """Take bytes of a channel."""

    def extendedCame(self, payload: bytes) -> None:
        """Refuse a program's standard error: no programs run here."""
        fields = Fields(payload)
        channel = self.find(fields)
        fields.number()
        size = len(fields.data())
        window = channel.receiveWindow
        if not channel.answered or not window.receive(size) or channel.eof:
            raise protocolError("the peer sends past an SSH channel's window or end")
        if not channel.over:
            self.waiting += size
            self.drained(channel, size)

    def creditCame(self, payload: bytes) -> None:
        """Send what has waited for credit."""
        fields = Fields(payload)
        channel = self.find(fields)
        window = channel.sendWindow
        more = fields.number()
        if not channel.answered or window.available + more > _MOST_CREDIT:
            raise protocolError("the peer opens an SSH channel's window too far")
        if window.grant(window.limit + more) and not channel.over:
            self.wantsToSend(channel)

    def drained(self, stream: SessionStream, amount: int) -> None:
        """
        Renew credit, when a reader has taken bytes and enough of the credit is used up.
        """
        self.waiting -= amount
        if stream.over:
            return
        window = stream.receiveWindow
        window.drained += amount
        if window.limit - window.drained <= window.low and not stream.eof:
            before = window.limit
            credit = window.renew(self._seconds(), self.roundTrip)
            channel = self.channels[stream.id]
            if channel.recipient is not None and not channel.closeSent:
                # A channel's data of a kind that nobody has asked for.
                self.link.answer(
                    Message.CHANNEL_WINDOW_ADJUST,
                    packNumbers(channel.recipient, credit - before),
                )

    def sendData(self, streamId: int, data: bytes) -> None:
        channel = self.channels[streamId]
        recipient, size = channel.recipient, channel.maxPacket
        assert recipient is not None
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            self.link.sendPacket(
                Message.CHANNEL_DATA, _TWO.pack(recipient, len(piece)) + piece
            )

    def _makeRoom(self) -> None:
        """
        Break the channels whose readers hold up the most, until half of what may wait
        is free. Windows of the smallest size may add up to more than that, and are left
        alone.
        """
        held = sorted(
            self.streams.values(), key=lambda stream: stream.holding, reverse=True
        )
        for stream in held:
            if (
                self.waiting <= self.limits.sessionWindow // 2
                or stream.holding <= LEAST_WINDOW
            ):
                break
            stream.broken(TunnelError("stalled"))
