"""
A socket in the L{Poller<tristunnel.dataplane.poller.Poller>}: what the kernel is asked
for, and the one end of it::

    ======== ========================= ==============================================
    state    left when                 what the kernel is asked for
    ======== ========================= ==============================================
    made     WatchedSocket.start       nothing
    shaking  TLS is up                 IN; also OUT if the handshake has to be sent
    open     it has hung up, and what  IN, unless held or ended; OUT while it is full
             is left is not wanted yet
    parked   there is something to     nothing, not even an error
             ask for again: open
    closed   never                     nothing
    ======== ========================= ==============================================

A socket without TLS is never C{shaking}. Once it is started, C{closed} is reached in
any state, and WatchedSocket.lost is called then, once; unless another owner takes the
socket over, who watches it from then on.
"""

from __future__ import annotations

from socket import socket

from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from tristunnel.dataplane.poller import IN, OUT, Poller
from tristunnel.dataplane.tuning import resetIfKilled

__all__ = ["WatchedSocket"]


class WatchedSocket:
    """
    One connection that the kernel watches. What builds on it notes why it has to be
    asked for something else, and calls C{_ask}.

    @param poller: Watches the socket.
    @param connection: The socket. Only this object closes it.
    @param tls: TLS over that same socket, before its handshake; None for plain bytes.

    @ivar poller: The same.
    @ivar connection: The same.
    @ivar _readHeld: Whether nobody wants to read for now.
    @ivar _readDone: Whether there is nothing more to read.
    @ivar _kernelFull: Whether the kernel has no room for what is to be sent.
    @ivar _shaken: Whether bytes may pass: the TLS handshake, if any, is complete.
    """

    __slots__ = (
        "_asked",
        "_kernelFull",
        "_number",
        "_parked",
        "_readDone",
        "_readHeld",
        "_shaken",
        "_tls",
        "connection",
        "poller",
    )

    def __init__(
        self, poller: Poller, connection: socket, tls: SSL.Connection | None = None
    ) -> None:
        self.poller = poller
        self.connection = connection
        self._tls = tls
        self._number = -1
        self._asked = 0
        self._readHeld = False
        self._readDone = False
        self._kernelFull = False
        self._shaken = tls is None
        self._parked = False

    # For subclasses

    def ready(self, events: int) -> None:
        """The kernel reports events."""

    def more(self) -> None:
        """Called in the next turn, as the poller was told."""

    def flush(self) -> None:
        """Called at the end of a turn, as the poller was told."""

    def _shake(self, tls: SSL.Connection) -> None:
        """Go on with the TLS handshake."""

    def lost(self, reason: Failure) -> None:
        """
        Called when the connection is gone.

        @param reason: ConnectionDone after an orderly end of both directions,
            ConnectionAborted after abort, or what went wrong.
        """

    # What the kernel is asked for

    @property
    def isOpen(self) -> bool:
        """Whether the socket is in the poller."""
        return self._number >= 0

    def start(self) -> None:
        """
        Begin to read; with TLS, begin the handshake.

        @raise OSError: If the kernel has no room to watch it.
        """
        number = self.connection.fileno()
        asked = IN if not self._readHeld else 0
        self.poller.add(number, self, asked)
        self._number, self._asked = number, asked
        if self._tls is not None:
            self._shake(self._tls)

    def _ask(self) -> None:
        """Have the kernel report only what is of use now."""
        number = self._number
        if number < 0:
            return
        asked = 0
        if not (self._readHeld or self._readDone):
            asked = IN
        if self._kernelFull:
            asked |= OUT
        if not self._shaken:
            # A handshake reads even while the bytes after it are held.
            asked |= IN
        if self._parked:
            self._parked = False
            self.poller.add(number, self, asked)
        elif asked != self._asked:
            self.poller.change(number, asked)
        self._asked = asked

    def _park(self) -> None:
        """
        Stop watching until there is something to ask for: the kernel would report a
        hang-up forever.
        """
        self.poller.remove(self._number)
        self._parked = True

    # The end

    def broken(self, reason: Failure) -> None:
        """End the connection because of an exception or a broken socket."""
        self._fail(reason)

    def abort(self) -> None:
        """Break the connection, so that the other side sees a reset."""
        if self._number < 0:
            return
        resetIfKilled(self.connection)
        self._fail(Failure(ConnectionAborted()))

    def _finishBoth(self) -> None:
        """Close, because both directions are over or the owner leaves."""
        self._fail(connectionDone)

    def _fail(self, reason: Failure) -> None:
        """Close the socket, and report why; doing it twice is no error."""
        number = self._number
        if number < 0:
            return
        self._number = -1
        if not self._parked:
            self.poller.remove(number)
        self.poller.close(self.connection)
        self.lost(reason)
