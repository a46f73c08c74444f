"""
An SSH connection: how it is read, and how it ends.

States::

    ======== ========= =================================================================
    state    gone      left when
    ======== ========= =================================================================
    open     no        a side says that it leaves, or something is wrong: leaving; or
                       the transport is lost: over
    leaving  yes       the transport is lost, at the latest after FAREWELL: over
    over     yes       never
    ======== ========= =================================================================

The service is stopped, and C{ended} called, when the state is not C{open} any more.
Reading is held for reasons, see L{Holds<tristunnel.dataplane.answers.Holds>}; nobody is
read for longer than a turn.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dataplane.answers import Answers, Holds
from tristunnel.dataplane.probe import Probe
from tristunnel.dataplane.stock import boundUnsent, tuneSocket
from tristunnel.dialects.conch.sealing import SealedPackets
from tristunnel.dialects.conch.version import checkVersion, takeVersion
from tristunnel.errors import TunnelError, printable, protocolError
from tristunnel.util.repeating import stopTimer
from tristunnel.wire.ssh import packNumbers, packTexts

__all__ = ["BY_APPLICATION", "Link"]

TURN_PACKETS = 32
"""Packets of one connection that are taken in a turn of the reactor: a read may hold
thousands of small ones, while everybody else waits."""

FAREWELL = 5.0
"""Seconds in which a peer must take our last words."""

BY_APPLICATION = 11
"""The number of a disconnection that somebody wanted (RFC 4250, section 4.2.2)."""

_DISCONNECT = 1

_logger = Logger(namespace="tristunnel.ssh")


class Link(SealedPackets):
    """
    The connection.

    @param reactor: Tells time.

    @ivar reactor: The same.
    @ivar gone: Whether nothing is taken or sent any more.
    @ivar heard: Called when anything came.
    @ivar holds: Why nothing is read.
    @ivar sendHolds: Why C{streams} are paused.
    @ivar streams: Paused while no bytes can go out, once there are any.
    @ivar answers: Whether the peer takes what it asks for.
    @ivar probe: Finds out whether the peer is there.
    @ivar ask: Asks the peer for a sign of life.
    @ivar lost: Why the connection is over.
    @ivar ended: Called once with the reason when the connection is over.
    @ivar versions: The versions of the protocol that the peer may announce.
    """

    ourVersionString = b"SSH-2.0-tristunnel"
    versions: tuple[bytes, ...] = (b"2.0", b"1.99")

    def __init__(self, reactor: Any) -> None:
        super().__init__()
        self.reactor = reactor
        self.gone = False
        self.heard: Callable[[], object] = lambda: None
        self.ended: Callable[[TunnelError], object] = lambda reason: None
        self.holds = Holds(self._pauseReading, self._resumeReading)
        self.sendHolds = Holds(self._pauseStreams, self._resumeStreams)
        self.answers: Answers | None = None
        self.streams: Any = None
        self.probe = Probe(reactor, lambda: self.ask())
        self.ask: Callable[[], object] = lambda: None
        self.lost: TunnelError | None = None
        self._closing: IDelayedCall | None = None
        self._turn: IDelayedCall | None = None
        self._reading = False

    def connectionMade(self) -> None:
        tuneSocket(self.transport)
        boundUnsent(self.transport)
        self.answers = Answers(self.reactor, self.transport, self.holds, self._stalled)
        self.answers.passTo(self)
        super().connectionMade()

    @property
    def peerAddress(self) -> Any:
        """Where the peer is."""
        return self.transport.getPeer()

    # Reading

    def pauseReading(self) -> None:
        """Stop reading, and stop taking packets that were read."""
        self.holds.hold("session")

    def resumeReading(self) -> None:
        """Go on."""
        self.holds.release("session")

    def _pauseReading(self) -> None:
        if not self.gone:
            self.transport.pauseProducing()

    def _resumeReading(self) -> None:
        if self.gone:
            return
        if not self._reading:
            # What has come already goes first, and may hold reading again.
            self._takePackets()
        if not (self.holds or self.gone):
            self.transport.resumeProducing()

    def dataReceived(self, data: bytes) -> None:
        if self.gone:
            return
        self.heard()
        if self.probe.open:
            self.probe.heard()
        self.unread += data
        if not (self.holds or self._reading):
            self._takePackets()

    def _takePackets(self) -> None:
        """Take the packets that have come, unless reading is held."""
        self._reading = True
        try:
            if not (self.gotVersion or self._takeVersion()):
                return
            for _ in range(TURN_PACKETS):
                if self.holds or self.gone:
                    break
                packet = self.getPacket()
                if packet is None:
                    break
                self.dispatchMessage(packet[0], packet[1:])
            else:
                self._endTurn()
        except TunnelError as error:
            # The rest that is kept must not keep all of what was read.
            self.fail(error.with_traceback(None))
        except Exception:
            if self.admitted:
                _logger.failure("An SSH connection failed")
            # Conch's parsers raise all kinds of errors.
            self.fail(protocolError("an SSH message was not understood"))
        finally:
            self._reading = False

    def _endTurn(self) -> None:
        """Let others have their turn before any more is taken."""
        if not self.gone:
            self.holds.hold("turn")
            self._turn = self.reactor.callLater(0, self.holds.release, "turn")

    def _takeVersion(self) -> bool:
        """Take the peer's version, and say whether it has come."""
        line = takeVersion(self.unread, self.isClient)
        if line is None:
            return False
        self.gotVersion = True
        self.otherVersionString = line
        checkVersion(line, self.versions)
        return True

    # What goes

    def answer(self, messageType: int, payload: bytes) -> None:
        """Send what the peer has asked for; it is cut off if it does not take that."""
        if self.answers is not None and not self.gone:
            self.answers.wrote(len(payload))
        self.sendPacket(messageType, payload)

    def carry(self, streams: Any) -> None:
        """Pause C{streams} while no bytes can go out."""
        self.streams = streams
        if self.sendHolds:
            streams.pauseProducing()

    def pauseProducing(self) -> None:
        self.sendHolds.hold("transport")

    def resumeProducing(self) -> None:
        self.sendHolds.release("transport")

    def stopProducing(self) -> None:
        """The transport is gone."""

    def _pauseStreams(self) -> None:
        if self.streams is not None:
            self.streams.pauseProducing()

    def _resumeStreams(self) -> None:
        if self.streams is not None:
            self.streams.resumeProducing()

    # The end

    def abort(self) -> None:
        """Cut the connection."""
        if self.transport is not None:
            self.transport.abortConnection()

    def _stalled(self, reason: TunnelError) -> None:
        self.lost = self.lost or reason
        self.abort()

    def fail(self, reason: TunnelError, code: int = 0) -> None:
        """
        End the connection because of C{reason}, and say so.

        @param code: The number of RFC 4250, section 4.2.2; that of the
            application's own reasons by default.
        """
        if self.gone:
            return
        self.lost = self.lost or reason
        text = printable(str(reason), 200)
        number = code or BY_APPLICATION
        if not self.keysReady:
            # Between our new keys and the peer's, nothing can be sent.
            self.writePacket(_DISCONNECT, packNumbers(number) + packTexts(text, ""))
        self.leave()

    def close(self) -> None:
        """End the connection."""
        self.fail(TunnelError("closed", "the session is over"))

    def loseConnection(self) -> None:
        """Called by conch's own parts to end the connection."""
        self.close()

    def sendDisconnect(self, reason: int, desc: bytes | str) -> None:
        """Called by conch's own parts when they have found something wrong."""
        text = desc if isinstance(desc, str) else desc.decode("utf-8", "replace")
        self.fail(protocolError(text), reason)

    def leave(self) -> None:
        """Take and send nothing more; the peer may still read what was sent."""
        self.gone = True
        if self.answers is not None:
            self.answers.stop()
        # While reading is paused, TLS would not see the peer's goodbye.
        self.transport.resumeProducing()
        self.transport.loseConnection()
        self._closing = self.reactor.callLater(FAREWELL, self.abort)
        self.cleanUp()

    def cleanUp(self) -> None:
        """Stop everything, since nothing comes or goes any more, and tell the end."""
        stopTimer(self._turn)
        self.probe.close()
        self.unread = bytearray()
        ended, self.ended = self.ended, lambda reason: None
        service, self.service = self.service, None
        if service is not None:
            service.serviceStopped()
        ended(self.lost or TunnelError("session-lost", "the peer has left"))

    def connectionLost(self, reason: Failure | None = connectionDone) -> None:
        stopTimer(self._closing)
        if not self.gone:
            self.gone = True
            if self.lost is None and reason is not None:
                why = str(reason.getErrorMessage())
                self.lost = TunnelError("session-lost", why)
            self.cleanUp()
        if self.answers is not None:
            self.answers.stop()
