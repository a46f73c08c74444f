"""
The channels of an SSH connection as streams of a session.

A channel is opened, accepted or refused, ended in each direction alone, and closed (RFC
4254, section 5). There is no message for a stream that broke: its channel is closed.
"""

from __future__ import annotations

from collections.abc import Callable

from tristunnel.dialects.base.left_ends import LeftEnds
from tristunnel.dialects.base.lingering import LingeringEnds
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.conch.channel import MAX_DATA, Channel
from tristunnel.dialects.conch.credit import CreditedChannels
from tristunnel.dialects.conch.transport import Packets
from tristunnel.errors import TunnelError, protocolError
from tristunnel.wire.ssh import (
    Fields,
    Message,
    OpenFailure,
    failureOf,
    packNumbers,
    packTexts,
)

__all__ = ["OPEN_TIMEOUT", "ChannelStreams", "PipedStreams"]

OPEN_TIMEOUT = 30.0
"""Seconds in which the peer must accept or refuse a channel."""

LEAST_PACKET = 256
"""Bytes of data that a peer must take in a message, which costs as much as a long
one."""

Asked = Callable[[Channel, str, Fields], None]
"""Called with a channel that the peer opens, its type and the type's fields."""


class ChannelStreams(CreditedChannels):
    """
    Opens, accepts and ends the channels of a connection, as their states say, see
    L{tristunnel.dialects.conch.channel}.

    @param link: The connection.
    @param asked: Called with each channel that the peer opens.
    @param limits: What this side accepts.
    """

    def __init__(
        self, link: Packets, asked: Asked, limits: Limits | None = None
    ) -> None:
        super().__init__(link, limits)
        self._asked = asked
        self._left = LeftEnds(link.reactor.seconds)
        self._takes: dict[int, Callable[[bytes], None]] = {
            Message.CHANNEL_DATA: self.dataCame,
            Message.CHANNEL_WINDOW_ADJUST: self.creditCame,
            Message.CHANNEL_EOF: self._eof,
            Message.CHANNEL_CLOSE: self._close,
            Message.CHANNEL_OPEN: self._open,
            Message.CHANNEL_OPEN_CONFIRMATION: self._confirmed,
            Message.CHANNEL_OPEN_FAILURE: self._failed,
            Message.CHANNEL_REQUEST: self._request,
            Message.CHANNEL_EXTENDED_DATA: self.extendedCame,
            Message.CHANNEL_SUCCESS: self._answer,
            Message.CHANNEL_FAILURE: self._answer,
        }

    def take(self, kind: int, payload: bytes) -> bool:
        """
        Take a message about a channel.

        @return: Whether it is one.
        @raise TunnelError: C{protocol-error}; the connection cannot go on.
        """
        take = self._takes.get(kind)
        if take is None:
            return False
        take(payload)
        return True

    # Opening

    def openChannel(self, kind: str, extra: bytes) -> Channel:
        """
        Open a channel to the peer; what is written waits until it has accepted.

        @param kind: Its type.
        @param extra: The type's fields.
        @raise TunnelError: C{limit-reached}.
        """
        channel = self.newChannel(True)
        self.link.sendPacket(
            Message.CHANNEL_OPEN,
            packTexts(kind)
            + packNumbers(channel.id, channel.receiveWindow.limit, MAX_DATA)
            + extra,
        )
        return channel

    def _confirmed(self, payload: bytes) -> None:
        fields = Fields(payload)
        channel = self.find(fields)
        if not channel.ours or channel.recipient is not None:
            raise protocolError("the peer accepts an SSH channel that is open")
        channel.recipient = fields.number()
        credit = fields.number()
        channel.maxPacket = _sizeOf(fields)
        channel.answered = True
        if channel.over:
            self._sendClose(channel)
            return
        channel.sendWindow.grant(credit)
        whenAnswered, channel.whenAnswered = channel.whenAnswered, None
        if whenAnswered is not None:
            channel.guarded(whenAnswered)
        if not channel.over:
            self.wantsToSend(channel)

    def _failed(self, payload: bytes) -> None:
        fields = Fields(payload)
        channel = self.find(fields)
        if not channel.ours or channel.recipient is not None:
            raise protocolError("the peer refuses an SSH channel that is open")
        fields.number()
        said = fields.data()[:200].decode("utf-8", "replace")
        del self.channels[channel.id]
        channel.broken(TunnelError("service-refused", said))

    def _open(self, payload: bytes) -> None:
        fields = Fields(payload)
        kind = fields.text(64)
        recipient, credit = fields.number(), fields.number()
        size = _sizeOf(fields)
        try:
            channel = self.newChannel(False)
        except TunnelError as refusal:
            self._refuse(recipient, refusal)
            return
        channel.recipient, channel.credit, channel.maxPacket = recipient, credit, size
        channel.guarded(self._asked, channel, kind, fields)

    def accept(self, stream: SessionStream) -> None:
        channel = self.channels.get(stream.id)
        if channel is None or channel.over or channel.answered or channel.ours:
            return
        channel.answered = True
        assert channel.recipient is not None
        self.link.answer(
            Message.CHANNEL_OPEN_CONFIRMATION,
            packNumbers(
                channel.recipient, channel.id, channel.receiveWindow.limit, MAX_DATA
            ),
        )
        channel.sendWindow.grant(channel.credit)
        self.wantsToSend(channel)

    def _refuse(self, recipient: int, reason: TunnelError, number: int = 0) -> None:
        self.link.answer(
            Message.CHANNEL_OPEN_FAILURE,
            packNumbers(recipient, number or failureOf(reason))
            + packTexts(reason.message, ""),
        )

    def refuseType(self, channel: Channel, kind: str) -> None:
        """Refuse a channel because nobody knows its type."""
        reason = TunnelError("not-permitted", f"there are no channels {kind!r} here")
        if channel.recipient is not None and not channel.answered:
            self._refuse(channel.recipient, reason, OpenFailure.UNKNOWN_TYPE)
            channel.closeSent = channel.closeReceived = True
        channel.reset(reason)

    # Ends

    def _eof(self, payload: bytes) -> None:
        channel = self.find(Fields(payload))
        if not channel.answered:
            raise protocolError("the peer ends an SSH channel that is not open")
        if not channel.over:
            channel.eofArrived()

    def _close(self, payload: bytes) -> None:
        channel = self.find(Fields(payload))
        if channel.recipient is None or not channel.answered or channel.closeReceived:
            raise protocolError("the peer closes an SSH channel that is not open")
        channel.closeReceived = True
        if channel.over:
            self._settle(channel)
        else:
            self._sendClose(channel)
            self._left.farSideLeft(channel)

    def sendEnd(self, stream: SessionStream) -> None:
        channel = self.channels[stream.id]
        if channel.recipient is None or not channel.answered:
            # It is sent when the peer has accepted.
            return
        channel.finished = True
        if not channel.closeSent:
            self.link.sendPacket(Message.CHANNEL_EOF, packNumbers(channel.recipient))
        channel.checkOver()

    def sendReset(self, stream: SessionStream, reason: TunnelError) -> None:
        """
        Refuse a channel that the peer has asked for; in other cases there is no message
        for it.
        """
        channel = self.channels.get(stream.id)
        if channel is None or channel.ours or channel.answered or channel.closeSent:
            return
        assert channel.recipient is not None
        self._refuse(channel.recipient, reason)
        channel.closeSent = channel.closeReceived = True

    def _sendClose(self, channel: Channel) -> None:
        if channel.recipient is not None and not channel.closeSent:
            channel.closeSent = True
            self.link.sendPacket(Message.CHANNEL_CLOSE, packNumbers(channel.recipient))
        self._settle(channel)

    def _settle(self, channel: Channel) -> None:
        """Forget a channel once its number is free."""
        if channel.over and channel.closeSent and channel.closeReceived:
            self.channels.pop(channel.id, None)

    def streamOver(self, stream: SessionStream, held: int) -> None:
        super().streamOver(stream, held)
        self.waiting -= held
        stream.receiveWindow.close()
        channel = self.channels.get(stream.id)
        if channel is not None and not self._over:
            self._sendClose(channel)

    # Requests

    def _request(self, payload: bytes) -> None:
        fields = Fields(payload)
        channel = self.find(fields)
        name = fields.text(64)
        wantsReply = fields.boolean()
        if not channel.answered:
            raise protocolError("the peer asks on an SSH channel that is not open")
        granted = channel.requests is not None and channel.requests(name, fields)
        if wantsReply and not channel.closeSent and channel.recipient is not None:
            kind = Message.CHANNEL_SUCCESS if granted else Message.CHANNEL_FAILURE
            self.link.answer(kind, packNumbers(channel.recipient))

    def tell(self, channel: Channel, name: str, data: bytes) -> None:
        """Send a request on a channel that needs no answer."""
        if channel.recipient is not None and not channel.closeSent:
            self.link.sendPacket(
                Message.CHANNEL_REQUEST,
                packNumbers(channel.recipient) + packTexts(name) + b"\0" + data,
            )

    def _answer(self, payload: bytes) -> None:
        """We make no requests on channels that are answered."""

    def tick(self) -> None:
        """Give up on channels that the peer does not answer."""
        self._left.breakLate()
        late = self._seconds() - OPEN_TIMEOUT
        for channel in list(self.channels.values()):
            waits = channel.ours and not (channel.answered or channel.over)
            if waits and channel.since <= late:
                channel.broken(TunnelError("service-timeout"))


class PipedStreams(LingeringEnds, ChannelStreams):
    """
    Channels of programs for which the first end of either direction is the end of
    both, as for those that copy with Go's C{io.Copy} both ways and then close.
    """

    def __init__(
        self, link: Packets, asked: Asked, limits: Limits | None = None
    ) -> None:
        super().__init__(link, asked, limits)
        self.lingerWith(link.reactor.callLater)

    def openChannel(self, kind: str, extra: bytes) -> Channel:
        channel = super().openChannel(kind, extra)
        self.begun(channel)
        return channel

    def came(self, channel: Channel) -> None:
        self.answered(channel)


def _sizeOf(fields: Fields) -> int:
    """
    Read how much data of a channel the peer takes in a message.

    @raise TunnelError: C{protocol-error}, for so little that it is an attack.
    """
    size = fields.number()
    if size < LEAST_PACKET:
        raise protocolError(f"the peer takes only {size} bytes in an SSH message")
    return min(size, MAX_DATA)
