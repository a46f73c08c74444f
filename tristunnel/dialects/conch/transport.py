"""
Packets of SSH, by twisted.conch, with bounds.

Key exchange and ciphers are conch's. What is done for each packet is here, since that
decides the speed, and so are the bounds on what an enemy may do before it has logged
in: it may send little, in time, and in the right order.
"""

from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from collections.abc import Callable
from hashlib import sha256, sha512
from os import urandom
from struct import Struct
from typing import Any

from twisted.conch.ssh.service import SSHService
from twisted.conch.ssh.transport import SSHTransportBase
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure

from tristunnel.dataplane.answers import Answers, Holds
from tristunnel.dataplane.probe import Probe
from tristunnel.dataplane.rate import TokenBucket
from tristunnel.dataplane.stock import boundUnsent, tuneSocket
from tristunnel.errors import TunnelError, printable, protocolError
from tristunnel.util.repeating import stopTimer
from tristunnel.wire.ssh import BEGINNING, Fields, packNumbers, packTexts

__all__ = ["KEX_TIME", "MAX_PACKET", "Packets", "Service"]

MAX_PACKET = 256 * 1024
"""Bytes of the longest packet, as in OpenSSH and in Go's package."""

MAX_EARLY_PACKET = 35000
"""Bytes of the longest packet of somebody who has not logged in; everybody must accept
as much (RFC 4253, section 6.1)."""

MAX_PREAMBLE = 4096
"""Bytes of lines that a server may send before its version."""

MAX_VERSION = 255
"""Bytes of the line with the version (RFC 4253, section 4.2)."""

MAX_BLOCKED = 1024 * 1024
"""Bytes of messages that may wait for new keys."""

REKEY_BYTES = 1 << 30
"""Bytes after which there are new keys (RFC 4253, section 9)."""

KEX_TIME = 30.0
"""Seconds in which new keys must be agreed on."""

EXCHANGES = 20
"""Exchanges of keys in a second; a peer that wants more is read more slowly."""

TURN_PACKETS = 32
"""Packets of one connection that are taken in a turn of the reactor: a read may hold
thousands of small ones, while everybody else waits."""

FAREWELL = 5.0
"""Seconds in which a peer must take our last words."""

_logger = Logger(namespace="tristunnel.ssh")

_HEAD = Struct("!LB")
_SEQUENCE = Struct("!L")
_DISCONNECT, _NEWKEYS, _SERVICE_REQUEST, _KEXINIT, _FIRST_KEX = 1, 21, 5, 20, 30
_FIRST_OF_SERVICE = 50
_UNIMPLEMENTED, _DEBUG = 3, 4
_BY_APPLICATION = 11
_HASHES: dict[bytes, Callable[..., Any]] = {
    b"hmac-sha2-256": sha256,
    b"hmac-sha2-512": sha512,
}

SIGNATURES = (
    b"ssh-ed25519,sk-ssh-ed25519@openssh.com,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,"
    b"ecdsa-sha2-nistp521,sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256"
)
"""The algorithms that clients may sign with."""


class Service(ABC, SSHService):
    """A service of conch's, typed as far as it is used."""

    @abstractmethod
    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        """
        Take a message.

        @raise TunnelError: The connection cannot go on.
        """

    def serviceStarted(self) -> None:
        """Begin: the service has been chosen."""

    def serviceStopped(self) -> None:
        """End, with the connection."""


class Packets(SSHTransportBase):
    """
    Packets of an SSH connection, at either side; to be mixed into conch's transports.

    A session has it as its connection, too.

    @param reactor: Tells time.

    @ivar admitted: Whether the peer is known, so that it may send long packets.
    @ivar heard: Called when anything came.
    @ivar holds: Why nothing is read.
    @ivar answers: Whether the peer takes what it asks for.
    @ivar ended: Called once with the reason when the connection is over.
    @ivar saidGoodbye: Whether the peer has left because it wanted to.
    @ivar versions: The versions of the protocol that the peer may announce.
    @ivar streams: Paused while no bytes can go out, once there are any.
    """

    # Nobody here needs what conch logs of each message.
    _log = Logger(observer=LogPublisher())
    transport: Any
    supportedCiphers = [b"aes128-ctr", b"aes256-ctr", b"aes192-ctr"]  # noqa: RUF012
    supportedMACs = list(_HASHES)  # noqa: RUF012
    supportedCompressions = [b"none"]  # noqa: RUF012
    supportedKeyExchanges = [  # noqa: RUF012
        b"mlkem768x25519-sha256",
        b"curve25519-sha256",
        b"curve25519-sha256@libssh.org",
        b"ecdh-sha2-nistp256",
        b"ecdh-sha2-nistp384",
        b"ecdh-sha2-nistp521",
    ]
    supportedPublicKeys = SIGNATURES.split(b",")
    ourVersionString = b"SSH-2.0-tristunnel"
    versions: tuple[bytes, ...] = (b"2.0", b"1.99")

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.admitted = False
        self.gone = False
        self.heard: Callable[[], object] = lambda: None
        self.ended: Callable[[TunnelError], object] = lambda reason: None
        self.holds = Holds(self._pauseReading, self._resumeReading)
        self.answers: Answers | None = None
        self.streams: Any = None
        self.probe = Probe(reactor, lambda: self.ask())
        self.ask: Callable[[], object] = lambda: None
        self.lost: TunnelError | None = None
        self.saidGoodbye = False
        self._unread = bytearray()
        self._first = b""
        self._since = 0
        self._blocked = 0
        self._keysReady = False
        # After its KEXINIT, a peer may not send anything else.
        self._peerBegan = False
        self._mayPause = Holds(self._pauseStreams, self._resumeStreams)
        self._kexTimer: IDelayedCall | None = None
        self._closing: IDelayedCall | None = None
        self._exchanges = TokenBucket(EXCHANGES, reactor.seconds, EXCHANGES)
        self._rest: IDelayedCall | None = None
        self._turn: IDelayedCall | None = None
        self._inMAC: Any = None
        self._outMAC: Any = None
        self._reading = False

    # The connection

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

    def pauseReading(self) -> None:
        """Stop reading, and stop taking packets that were read."""
        self.holds.hold("session")

    def resumeReading(self) -> None:
        """Go on."""
        self.holds.release("session")

    def pauseProducing(self) -> None:
        self._mayPause.hold("transport")

    def resumeProducing(self) -> None:
        self._mayPause.release("transport")

    def stopProducing(self) -> None:
        """The transport is gone."""

    def carry(self, streams: Any) -> None:
        """Pause C{streams} while no bytes can go out."""
        self.streams = streams
        if self._mayPause:
            streams.pauseProducing()

    def _pauseStreams(self) -> None:
        if self.streams is not None:
            self.streams.pauseProducing()

    def _resumeStreams(self) -> None:
        if self.streams is not None:
            self.streams.resumeProducing()

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

    def _stalled(self, reason: TunnelError) -> None:
        self.lost = self.lost or reason
        self.abort()

    def abort(self) -> None:
        """Cut the connection."""
        if self.transport is not None:
            self.transport.abortConnection()

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
        number = code or _BY_APPLICATION
        if not self._keysReady:
            # Between our new keys and the peer's, nothing can be sent.
            self._write(_DISCONNECT, packNumbers(number) + packTexts(text, ""))
        self._close()

    def close(self) -> None:
        """End the connection."""
        self.fail(TunnelError("closed", "the session is over"))

    def _close(self) -> None:
        self.gone = True
        if self.answers is not None:
            self.answers.stop()
        # While reading is paused, TLS would not see the peer's goodbye.
        self.transport.resumeProducing()
        self.transport.loseConnection()
        self._closing = self.reactor.callLater(FAREWELL, self.abort)
        self._over()

    def _over(self) -> None:
        for timer in (self._kexTimer, self._rest, self._turn):
            stopTimer(timer)
        self.probe.close()
        self._unread = bytearray()
        self._blockedByKeyExchange = []
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
            self._over()
        if self.answers is not None:
            self.answers.stop()

    def loseConnection(self) -> None:
        """Called by conch's own parts to end the connection."""
        self.close()

    def sendDisconnect(self, reason: int, desc: bytes) -> None:
        """Called by conch's own parts when they have found something wrong."""
        self.fail(protocolError(_text(desc)), reason)

    # What comes

    def dataReceived(self, data: bytes) -> None:
        if self.gone:
            return
        self.heard()
        if self.probe.open:
            self.probe.heard()
        self._unread += data
        if not (self.holds or self._reading):
            self._takePackets()

    def _takePackets(self) -> None:
        """Take the packets that have come, unless reading is held."""
        self._reading = True
        try:
            if not self.gotVersion and not self._takeVersion():
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
        """
        Take the peer's version line, and those that may be before it.

        @return: Whether it has come.
        """
        start = 0
        while True:
            end = self._unread.find(b"\n", start)
            if end < 0:
                if len(self._unread) - start > MAX_VERSION or start > MAX_PREAMBLE:
                    raise protocolError("the peer's SSH version is too long")
                return False
            line = bytes(self._unread[start:end]).removesuffix(b"\r")
            start = end + 1
            if line.startswith(BEGINNING):
                break
            if start > MAX_PREAMBLE or not self.isClient:
                raise protocolError("the peer said too much before its SSH version")
        if len(line) > MAX_VERSION:
            raise protocolError("the peer's SSH version is too long")
        self.gotVersion = True
        self.otherVersionString = line
        del self._unread[:start]
        self.versionReceived(line)
        return True

    def versionReceived(self, line: bytes) -> None:
        """
        Check the peer's version.

        @raise TunnelError: C{protocol-error}, for one that is not spoken here.
        """
        if not line.startswith(
            tuple(BEGINNING + each + b"-" for each in self.versions)
        ):
            said = printable(_text(line), 60)
            raise protocolError(f"the peer speaks {said!r}, which is not SSH 2.0")

    def getPacket(self) -> bytes | None:
        """Decrypt the next packet, if it is whole; C{None} if it is not."""
        buf, keys = self._unread, self.currentEncryptions
        block, macSize = keys.decBlockSize, keys.verifyDigestSize
        first = self._first
        if not first:
            if len(buf) < block:
                return None
            first = keys.decryptor.update(bytes(buf[:block]))
        length, padding = _HEAD.unpack_from(first)
        most = MAX_PACKET if self.admitted else MAX_EARLY_PACKET
        if not block - 4 <= length <= most or (length + 4) % block:
            raise protocolError(f"an SSH packet of {length} bytes cannot be taken")
        end = length + 4
        if len(buf) < end + macSize:
            self._first = first
            return None
        self._first = b""
        body: bytes = first + keys.decryptor.update(bytes(buf[block:end]))
        if macSize:
            mac = self._inMAC.copy()
            mac.update(_SEQUENCE.pack(self.incomingPacketSequence))
            mac.update(body)
            if not hmac.compare_digest(mac.digest(), buf[end : end + macSize]):
                raise protocolError("an SSH packet was changed on its way")
        del buf[: end + macSize]
        if not 4 <= padding < length - 1:
            raise protocolError("an SSH packet has no content")
        self.incomingPacketSequence = (self.incomingPacketSequence + 1) & 0xFFFFFFFF
        self._since += end
        return body[5 : end - padding]

    def dispatchMessage(self, messageNum: int, payload: bytes) -> None:
        exchanging = self._peerBegan
        if messageNum >= _FIRST_OF_SERVICE:
            if exchanging:
                raise protocolError("the peer went on in the midst of a key exchange")
            if self.service is None:
                raise protocolError("the peer went on before it has logged in")
            self.service.packetReceived(messageNum, payload)
            return
        if messageNum >= _FIRST_KEX and (not exchanging or self._keysReady):
            raise protocolError("the peer exchanged keys without having said so")
        if messageNum == _NEWKEYS and not (self._keysReady or self.isClient):
            raise protocolError("the peer has new keys before there are any")
        if messageNum in (_SERVICE_REQUEST, _SERVICE_REQUEST + 1) and exchanging:
            raise protocolError("the peer went on in the midst of a key exchange")
        super().dispatchMessage(messageNum, payload)

    def ssh_KEXINIT(self, packet: bytes) -> Any:
        if self._peerBegan:
            raise protocolError("the peer began a second key exchange within the first")
        self._peerBegan = True
        self._countExchange()
        return super().ssh_KEXINIT(packet)

    def _countExchange(self) -> None:
        """
        Bound how often keys are exchanged: it costs us more than the peer.

        @raise TunnelError: C{protocol-error}, before the peer is known.
        """
        if self.sessionID is not None and not self.admitted:
            raise protocolError("the peer asked for new keys before it has logged in")
        if not self._exchanges.take():
            self.holds.hold("exchanges")
            self._rest = self.reactor.callLater(
                1 / EXCHANGES, self.holds.release, "exchanges"
            )

    def ssh_DISCONNECT(self, packet: bytes) -> None:
        fields = Fields(packet)
        self.saidGoodbye = fields.number() == _BY_APPLICATION
        said = printable(_text(fields.data()), 200)
        self.lost = self.lost or TunnelError(
            "session-lost",
            f"the peer has left: {said}" if said else "the peer has left",
        )
        self._close()

    def ssh_UNIMPLEMENTED(self, packet: bytes) -> None:
        """The peer claims not to know one of our messages, which is an error."""

    def ssh_DEBUG(self, packet: bytes) -> None:
        """Nobody here reads the peer's remarks."""

    def ssh_EXT_INFO(self, packet: bytes) -> None:
        """We use none of the peer's extensions."""

    def sendUnimplemented(self) -> None:
        if not self.admitted:
            raise protocolError("the peer sent a message that SSH does not have")
        latest = (self.incomingPacketSequence - 1) & 0xFFFFFFFF
        self.answer(_UNIMPLEMENTED, packNumbers(latest))

    # What goes

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        """Send a message, or keep it until the new keys are agreed on."""
        if self.gone:
            return
        if self._keyExchangeState != self._KEY_EXCHANGE_NONE and (
            (self._keysReady and messageType != _NEWKEYS)
            or not self._allowedKeyExchangeMessageType(messageType)
        ):
            self._blocked += len(payload) + 64
            if self._blocked > MAX_BLOCKED:
                raise TunnelError("stalled", "too much waits for new keys")
            self._blockedByKeyExchange.append((messageType, payload))
            return
        self._write(messageType, payload)
        if messageType == _NEWKEYS:
            self._keysReady = True
        if (
            self._since > REKEY_BYTES
            and self._keyExchangeState == self._KEY_EXCHANGE_NONE
        ):
            self.sendKexInit()

    def _write(self, messageType: int, payload: bytes) -> None:
        keys = self.currentEncryptions
        block = keys.encBlockSize
        size = len(payload) + 6
        padding = block - size % block
        if padding < 4:
            padding += block
        packet = b"".join(
            (
                _HEAD.pack(size + padding - 4, padding),
                bytes((messageType,)),
                payload,
                urandom(padding),
            )
        )
        sealed = keys.encryptor.update(packet)
        if self._outMAC is not None:
            mac = self._outMAC.copy()
            mac.update(_SEQUENCE.pack(self.outgoingPacketSequence))
            mac.update(packet)
            sealed += mac.digest()
        self.outgoingPacketSequence = (self.outgoingPacketSequence + 1) & 0xFFFFFFFF
        self._since += len(sealed)
        self.transport.write(sealed)

    def answer(self, messageType: int, payload: bytes) -> None:
        """Send what the peer has asked for; it is cut off if it does not take that."""
        if self.answers is not None and not self.gone:
            self.answers.wrote(len(payload))
        self.sendPacket(messageType, payload)

    def explain(self, text: str) -> None:
        """Send a text that the peer shows to people who want details."""
        self.answer(_DEBUG, b"\1" + packTexts(text, ""))

    def sendExtInfo(self, extensions: Any) -> None:
        super().sendExtInfo([(b"server-sig-algs", SIGNATURES)])

    # Keys

    def sendKexInit(self) -> None:
        self._mayPause.hold("keys")
        self._blocked = self._since = 0
        if self._kexTimer is None or not self._kexTimer.active():
            self._kexTimer = self.reactor.callLater(KEX_TIME, self._kexLate)
        super().sendKexInit()

    def _kexLate(self) -> None:
        self.fail(
            TunnelError(
                "handshake-timeout", f"no keys were agreed on in {KEX_TIME:g} s"
            )
        )

    def _newKeys(self) -> None:
        keys = self.nextEncryptions
        self._inMAC = hmac.new(
            _macKey(keys.inMAC, keys.inMACType), digestmod=_HASHES[keys.inMACType]
        )
        self._outMAC = hmac.new(
            _macKey(keys.outMAC, keys.outMACType), digestmod=_HASHES[keys.outMACType]
        )
        self._keysReady = self._peerBegan = False
        self._since = 0
        stopTimer(self._kexTimer)
        super()._newKeys()
        self._mayPause.release("keys")


def _macKey(mac: Any, kind: bytes) -> bytes:
    """Find the key of one of conch's MACs, without its padding."""
    key: bytes = mac.key
    return key[: _HASHES[kind]().digest_size]


def _text(data: bytes | str) -> str:
    return data if isinstance(data, str) else data.decode("utf-8", "replace")
