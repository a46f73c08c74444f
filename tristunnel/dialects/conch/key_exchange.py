"""
The exchange of keys of an SSH connection (RFC 4253, section 7), in the right order, in
time, and not too often.

The exchange itself is conch's. States, as far as they decide what may come and go::

    ========= ===================== ===================== ===========================
    state     what goes             what comes            left when
    ========= ===================== ===================== ===========================
    none      anything              no messages of an     we send KEXINIT: asked; the
                                    exchange              peer does: ours goes, too,
                                                          and it is agreeing
    asked     messages of the       as before             the peer sends KEXINIT:
              exchange, and the                           agreeing
              transport's own
    agreeing  the same              the same, of the      we send NEWKEYS: ready
                                    peer
    ready     nothing               NEWKEYS, and the      the peer sends NEWKEYS: none
                                    transport's own
    ========= ===================== ===================== ===========================

In C{agreeing} and C{ready}, C{_peerBegan} is true; in C{ready}, C{keysReady} is. A
client may get NEWKEYS in C{agreeing} already. What may not go waits, and streams are
paused. All that together takes L{KEX_TIME} at most. A connection begins in C{asked}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IDelayedCall

from tristunnel.dataplane.rate import TokenBucket
from tristunnel.dialects.conch.link import Link
from tristunnel.errors import TunnelError, protocolError
from tristunnel.util.repeating import stopTimer

__all__ = ["KEX_TIME", "SIGNATURES", "KeyExchange"]

MAX_BLOCKED = 1024 * 1024
"""Bytes of messages that may wait for new keys."""

REKEY_BYTES = 1 << 30
"""Bytes after which there are new keys (RFC 4253, section 9)."""

KEX_TIME = 30.0
"""Seconds in which new keys must be agreed on."""

EXCHANGES = 20
"""Exchanges of keys in a second; a peer that wants more is read more slowly."""

SIGNATURES = (
    b"ssh-ed25519,sk-ssh-ed25519@openssh.com,ecdsa-sha2-nistp256,ecdsa-sha2-nistp384,"
    b"ecdsa-sha2-nistp521,sk-ecdsa-sha2-nistp256@openssh.com,rsa-sha2-512,rsa-sha2-256"
)
"""The algorithms that clients may sign with."""

_SERVICE_REQUEST, _NEWKEYS, _FIRST_KEX, _FIRST_OF_SERVICE = 5, 21, 30, 50


class KeyExchange(Link):
    """
    The connection with its keys; also the order in which the peer's messages must come.

    @param reactor: Tells time.
    """

    supportedKeyExchanges = [  # noqa: RUF012
        b"mlkem768x25519-sha256",
        b"curve25519-sha256",
        b"curve25519-sha256@libssh.org",
        b"ecdh-sha2-nistp256",
        b"ecdh-sha2-nistp384",
        b"ecdh-sha2-nistp521",
    ]
    supportedPublicKeys = SIGNATURES.split(b",")

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        # After its KEXINIT, a peer may not send anything else.
        self._peerBegan = False
        self._blocked = 0
        self._kexTimer: IDelayedCall | None = None
        self._exchanges = TokenBucket(EXCHANGES, reactor.seconds, EXCHANGES)
        self._rest: IDelayedCall | None = None

    # What comes

    def dispatchMessage(self, messageNum: int, payload: bytes) -> None:
        exchanging = self._peerBegan
        if messageNum >= _FIRST_OF_SERVICE:
            if exchanging:
                raise protocolError("the peer went on in the midst of a key exchange")
            if self.service is None:
                raise protocolError("the peer went on before it has logged in")
            self.service.packetReceived(messageNum, payload)
            return
        if messageNum >= _FIRST_KEX and (not exchanging or self.keysReady):
            raise protocolError("the peer exchanged keys without having said so")
        if messageNum == _NEWKEYS and not (self.keysReady or self.isClient):
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

    # What goes

    def sendPacket(self, messageType: int, payload: bytes) -> None:
        """Send a message, or keep it until the new keys are agreed on."""
        if self.gone:
            return
        if self._keyExchangeState != self._KEY_EXCHANGE_NONE and (
            (self.keysReady and messageType != _NEWKEYS)
            or not self._allowedKeyExchangeMessageType(messageType)
        ):
            self._blocked += len(payload) + 64
            if self._blocked > MAX_BLOCKED:
                raise TunnelError("stalled", "too much waits for new keys")
            self._blockedByKeyExchange.append((messageType, payload))
            return
        self.writePacket(messageType, payload)
        if (
            self.sinceKeys > REKEY_BYTES
            and self._keyExchangeState == self._KEY_EXCHANGE_NONE
        ):
            self.sendKexInit()

    def sendKexInit(self) -> None:
        self.sendHolds.hold("keys")
        self._blocked = self.sinceKeys = 0
        if self._kexTimer is None or not self._kexTimer.active():
            self._kexTimer = self.reactor.callLater(KEX_TIME, self._kexLate)
        super().sendKexInit()

    def _kexLate(self) -> None:
        self.fail(
            TunnelError(
                "handshake-timeout", f"no keys were agreed on in {KEX_TIME:g} s"
            )
        )

    def sendExtInfo(self, extensions: Any) -> None:
        super().sendExtInfo([(b"server-sig-algs", SIGNATURES)])

    # The end

    def _newKeys(self) -> None:
        self._peerBegan = False
        stopTimer(self._kexTimer)
        super()._newKeys()
        self.sendHolds.release("keys")

    def cleanUp(self) -> None:
        stopTimer(self._kexTimer)
        stopTimer(self._rest)
        self._blockedByKeyExchange = []
        super().cleanUp()
