"""
Packets of SSH as they are on the wire (RFC 4253, section 6): enciphered, with a code
that proves them unchanged.

What is done for each packet is here, since that decides the speed. Ciphers are
cryptography's, and their keys conch's.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from hashlib import sha256, sha512
from os import urandom
from struct import Struct
from typing import Any

from twisted.conch.ssh.transport import SSHTransportBase
from twisted.logger import Logger, LogPublisher

from tristunnel.errors import protocolError

__all__ = ["MAX_PACKET", "SealedPackets"]

MAX_PACKET = 256 * 1024
"""Bytes of the longest packet, as in OpenSSH and in Go's package."""

MAX_EARLY_PACKET = 35000
"""Bytes of the longest packet of somebody who has not logged in; everybody must accept
as much (RFC 4253, section 6.1)."""

_NEWKEYS = 21
_HEAD = Struct("!LB")
_SEQUENCE = Struct("!L")
_HASHES: dict[bytes, Callable[..., Any]] = {
    b"hmac-sha2-256": sha256,
    b"hmac-sha2-512": sha512,
}


class SealedPackets(SSHTransportBase):
    """
    Opens the packets that have come, and seals those that go.

    @ivar admitted: Whether the peer is known, so that it may send long packets.
    @ivar unread: Bytes that have come and were not taken yet.
    @ivar sinceKeys: Bytes in both directions since there were new keys.
    @ivar keysReady: Whether we have said that our new keys are used from now on. Until
        the peer has said the same, nothing may be sealed.
    """

    # Nobody here needs what conch logs of each message.
    _log = Logger(observer=LogPublisher())
    transport: Any
    supportedCiphers = [b"aes128-ctr", b"aes256-ctr", b"aes192-ctr"]  # noqa: RUF012
    supportedMACs = list(_HASHES)  # noqa: RUF012
    supportedCompressions = [b"none"]  # noqa: RUF012

    def __init__(self) -> None:
        self.admitted = False
        self.unread = bytearray()
        self.sinceKeys = 0
        self.keysReady = False
        self._first = b""
        self._inMAC: Any = None
        self._outMAC: Any = None

    def getPacket(self) -> bytes | None:
        """Decrypt the next packet, if it is whole; C{None} if it is not."""
        buf, keys = self.unread, self.currentEncryptions
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
        self.sinceKeys += end
        return body[5 : end - padding]

    def writePacket(self, messageType: int, payload: bytes) -> None:
        """Seal a message with the keys that are used now, and send it."""
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
        self.sinceKeys += len(sealed)
        self.transport.write(sealed)
        if messageType == _NEWKEYS:
            self.keysReady = True

    def _newKeys(self) -> None:
        """Use the keys that were agreed on, now that both sides have said so."""
        keys = self.nextEncryptions
        self._inMAC = hmac.new(
            _macKey(keys.inMAC, keys.inMACType), digestmod=_HASHES[keys.inMACType]
        )
        self._outMAC = hmac.new(
            _macKey(keys.outMAC, keys.outMACType), digestmod=_HASHES[keys.outMACType]
        )
        self.keysReady = False
        self.sinceKeys = 0
        super()._newKeys()


def _macKey(mac: Any, kind: bytes) -> bytes:
    """Find the key of one of conch's MACs, without its padding."""
    key: bytes = mac.key
    return key[: _HASHES[kind]().digest_size]
