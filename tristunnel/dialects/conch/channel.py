"""
A channel of an SSH connection (RFC 4254, section 5).

States::

    ============ ================================== =================================
    state        fields                             left when
    ============ ================================== =================================
    asked        ours, no recipient                 the peer accepts: open; or
                                                    refuses: gone; or we end it:
                                                    given up
    given up     ours, no recipient, over           the peer accepts: closing; or
                                                    refuses: gone
    offered      recipient, not answered            we accept: open; or refuse: gone
    open         answered                           it is over here: closing; or the
                                                    peer closes: left
    left         closeReceived, closeSent           it is over here: gone
    closing      over, closeSent                    the peer closes: gone
    gone         not in the table of channels       its number is somebody else's
    ============ ================================== =================================

Each direction of an open channel ends alone: what comes by C{eof}, and what goes by
C{finished}. With both it is over. What comes for one that is closing was under way, and
is counted and dropped.
"""

from __future__ import annotations

from collections.abc import Callable

from tristunnel.dialects.base.stream import SessionStream
from tristunnel.dialects.base.stream_carrier import StreamCarrier
from tristunnel.wire.ssh import Fields
from tristunnel.wire.windows import ReceiveWindow, SendWindow

__all__ = ["MAX_DATA", "Channel"]

MAX_DATA = 32 * 1024
"""Bytes of a message's data that we take, as OpenSSH and Go's package do."""

Requests = Callable[[str, Fields], bool]
"""Called with the name of a request on a channel and its fields; returns whether it was
granted."""


class Channel(SessionStream):
    """
    A channel.

    @param streams: The channels of its connection.
    @param number: Its number here.
    @param window: The credit that we give the peer.
    @param ours: Whether it was opened by this side.

    @ivar ours: Whether it was opened by this side.
    @ivar recipient: Its number at the peer; C{None} before that is known.
    @ivar maxPacket: Bytes of data that the peer takes in a message.
    @ivar credit: What the peer gave when it opened it.
    @ivar requests: Answers requests on it; C{None} to grant none.
    @ivar closeSent: Whether we have closed it.
    @ivar closeReceived: Whether the peer has.
    """

    __slots__ = (
        "closeReceived",
        "closeSent",
        "credit",
        "maxPacket",
        "ours",
        "recipient",
        "requests",
    )

    def __init__(
        self,
        streams: StreamCarrier[SessionStream],
        number: int,
        window: ReceiveWindow,
        ours: bool,
    ) -> None:
        super().__init__(streams, number, SendWindow(0), window, streams.now())
        self.ours = ours
        self.recipient: int | None = None
        self.maxPacket = MAX_DATA
        self.credit = 0
        self.requests: Requests | None = None
        self.closeSent = self.closeReceived = False
