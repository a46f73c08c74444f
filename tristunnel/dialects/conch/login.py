"""
The C{ssh-userauth} service (RFC 4252) of a server, which finds out who a client is.
"""

from __future__ import annotations

from typing import Protocol

from cryptography.exceptions import UnsupportedAlgorithm
from twisted.conch.ssh.keys import BadKeyError, Key

from tristunnel.dialects.conch.key_exchange import SIGNATURES
from tristunnel.dialects.conch.transport import Packets, Service
from tristunnel.errors import TunnelError, protocolError
from tristunnel.wire.ssh import Fields, packNumbers, packTexts

__all__ = ["ATTEMPTS", "LOGIN_TIME", "Login", "LoginAsked"]

LOGIN_TIME = 60.0
"""Seconds that somebody has to log in once the keys are agreed on, since people type
their passwords."""

ATTEMPTS = 6
"""Logins that may fail, as with OpenSSH's C{MaxAuthTries}."""

QUERIES = 32
"""Keys that a client may offer without proving that it has them."""

_REQUEST, _FAILURE, _SUCCESS, _BANNER = 50, 51, 52, 53
_KEY_WANTED = _QUESTION = 60
_RESPONSE = 61
_CONNECTION = "ssh-connection"


class LoginAsked(Protocol):
    """
    Who decides on logins.

    @ivar open: Whether anybody may come.
    @ivar takesKeys: Whether anybody can log in by a key.
    """

    open: bool
    takesKeys: bool

    def login(self, fields: dict[str, object], key: bytes = b"") -> None:
        """
        Find out whether somebody may come in; the answer is L{Login.accepted} or
        L{Login.refused}. Nothing is read before.

        @param fields: What the client says of itself.
        @param key: The public key that it has proved to have, or empty.
        """

    def knowsKey(self, user: str, key: bytes) -> bool:
        """Whether a login with a public key could succeed."""


class Login(Service):
    """
    One client's logins.

    @param link: The connection below.
    @param asked: Decides on them.
    """

    name = b"ssh-userauth"

    def __init__(self, link: Packets, asked: LoginAsked) -> None:
        self._link = link
        self._asked = asked
        self._user = ""
        self._failed = 0
        self._queries = 0
        self._questioned = False

    @property
    def methods(self) -> str:
        """How a client may log in."""
        keys = ("publickey",) if self._asked.takesKeys else ()
        return ",".join((*keys, "password", "keyboard-interactive"))

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        fields = Fields(packet)
        questioned, self._questioned = self._questioned, False
        if messageNum == _REQUEST:
            self._request(fields)
        elif messageNum == _RESPONSE and questioned:
            if fields.number() != 1:
                raise protocolError("the peer answers what it was not asked")
            self._secret(fields.text())
        else:
            raise protocolError("the peer goes on before it has logged in")

    def _request(self, fields: Fields) -> None:
        self._user = fields.text()
        if fields.text() != _CONNECTION:
            raise protocolError("the peer wants an SSH service that is not here")
        method = fields.text()
        if self._asked.open:
            # Whoever it is, even somebody who offers a key or a password at once.
            self._asked.login({"id": self._user})
        elif method == "none":
            self._deny()
        elif method == "password":
            if fields.boolean():
                raise protocolError("passwords cannot be changed here")
            self._secret(fields.text())
        elif method == "keyboard-interactive":
            self._questioned = True
            self._link.answer(
                _QUESTION,
                packTexts("", "", "")
                + packNumbers(1)
                + packTexts("Password: ")
                + b"\0",
            )
        elif method == "publickey" and self._asked.takesKeys:
            self._key(fields)
        else:
            self._deny()

    def _secret(self, secret: str) -> None:
        self._asked.login({"id": self._user, "secret": secret})

    def _key(self, fields: Fields) -> None:
        isSigned = fields.boolean()
        algorithm, blob = fields.text().encode(), fields.data()
        if algorithm not in SIGNATURES.split(b",") or not self._asked.knowsKey(
            self._user, blob
        ):
            if isSigned:
                self.refused(TunnelError("auth-refused", "the key is not known"))
            else:
                self._query()
                self._deny()
        elif not isSigned:
            self._query()
            self._link.answer(_KEY_WANTED, packTexts(algorithm, blob))
        elif self._isSignature(algorithm, blob, fields.data()):
            self._asked.login({"id": self._user}, blob)
        else:
            self.refused(TunnelError("auth-refused", "the signature is wrong"))

    def _query(self) -> None:
        self._queries += 1
        if self._queries > QUERIES:
            raise TunnelError("auth-refused", f"the client offered {QUERIES} keys")

    def _isSignature(self, algorithm: bytes, blob: bytes, signature: bytes) -> bool:
        """Whether the client has signed what RFC 4252, section 7 says."""
        signed = (
            packTexts(self._link.sessionID or b"")
            + bytes((_REQUEST,))
            + packTexts(self._user, _CONNECTION, "publickey")
            + b"\1"
            + packTexts(algorithm, blob)
        )
        try:
            if Fields(signature).data() != algorithm:
                return False
            key = Key.fromString(blob)
            return bool(key.verify(signature, signed))
        except (BadKeyError, UnsupportedAlgorithm, TunnelError):
            return False

    # The decision

    def accepted(self) -> None:
        """Let the client in."""
        self._link.sendPacket(_SUCCESS, b"")

    def refused(self, reason: TunnelError) -> None:
        """
        Refuse a login; the client may try again.

        @raise TunnelError: C{reason}, if it may not.
        """
        self._failed += 1
        if self._failed >= ATTEMPTS:
            raise TunnelError(
                "auth-refused", f"{ATTEMPTS} logins failed: {reason.message}"
            )
        self._deny()

    def explain(self, text: str) -> None:
        """Show people a text before they have logged in."""
        self._link.sendPacket(_BANNER, packTexts(f"{text}\r\n", ""))

    def _deny(self) -> None:
        self._link.answer(_FAILURE, packTexts(self.methods) + b"\0")
