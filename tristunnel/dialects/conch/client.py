"""A session over SSH at the client: to which server it logs in, and as whom."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.transport import SSHClientTransport
from twisted.internet.defer import Deferred, fail, succeed

from tristunnel.dialects.conch.transport import Packets, Service
from tristunnel.errors import TunnelError, printable, protocolError
from tristunnel.wire.ssh import Fields, packTexts

__all__ = ["ClientPackets", "Credentials"]

_REQUEST, _FAILURE, _SUCCESS, _BANNER, _KEY_WANTED = 50, 51, 52, 53, 60
_CONNECTION = "ssh-connection"


@dataclass(frozen=True)
class Credentials:
    """
    What says who we are.

    @ivar user: The name.
    @ivar password: The password; C{None} for none.
    @ivar key: The private key; C{None} for none.
    """

    user: str
    password: str | None = None
    key: Key | None = None


class _Login(Service):
    """
    Tries to log in: without a secret, by the key, by the password.

    @param link: The connection below.
    @param credentials: As whom.
    @param done: Called when the server has let us in.
    """

    name = b"ssh-userauth"

    def __init__(
        self, link: Packets, credentials: Credentials, done: Callable[[], object]
    ) -> None:
        self._link = link
        self._credentials = credentials
        self._done = done
        self._left: list[tuple[str, Callable[[], None]]] = []
        self._said = ""

    def serviceStarted(self) -> None:
        told = self._credentials
        if told.key is not None:
            self._left.append(("publickey", self._offerKey))
        if told.password is not None:
            self._left.append(("password", self._sayPassword))
        self._ask("none", b"")

    def packetReceived(self, messageNum: int, packet: bytes) -> None:
        if messageNum == _SUCCESS:
            self._done()
        elif messageNum == _FAILURE:
            self._next(Fields(packet).text().split(","))
        elif messageNum == _BANNER:
            said = Fields(packet).data()[:500].decode("utf-8", "replace")
            self._said = printable(said.strip())
        elif messageNum == _KEY_WANTED and self._credentials.key is not None:
            self._sign(self._credentials.key)
        else:
            raise protocolError("the server goes on before we have logged in")

    def _next(self, methods: list[str]) -> None:
        while self._left:
            method, begin = self._left.pop(0)
            if method in methods:
                begin()
                return
        raise TunnelError.said(
            "auth-refused", self._said or "the server did not accept these credentials"
        )

    def _ask(self, method: str, rest: bytes) -> None:
        user = self._credentials.user
        self._link.sendPacket(_REQUEST, packTexts(user, _CONNECTION, method) + rest)

    def _offerKey(self) -> None:
        key = self._credentials.key
        assert key is not None
        self._ask("publickey", b"\0" + packTexts(key.sshType(), key.public().blob()))

    def _sign(self, key: Key) -> None:
        kind, blob = key.sshType(), key.public().blob()
        rest = b"\1" + packTexts(kind, blob)
        signed = (
            packTexts(self._link.sessionID or b"")
            + bytes((_REQUEST,))
            + packTexts(self._credentials.user, _CONNECTION, "publickey")
            + rest
        )
        self._ask("publickey", rest + packTexts(key.sign(signed)))

    def _sayPassword(self) -> None:
        self._ask("password", b"\0" + packTexts(self._credentials.password or ""))


class ClientPackets(Packets, SSHClientTransport):
    """
    The packets of a server.

    @param reactor: Tells time.
    @param credentials: As whom to log in.
    @param judge: Called with the server's key as it is on the wire; raises
        L{TunnelError} if it is not the right one.
    @param admitted: Called with this object when the server has let us in.
    """

    supportedKeyExchanges = [  # noqa: RUF012
        # Those that conch's client supports.
        each
        for each in Packets.supportedKeyExchanges
        if each in SSHClientTransport.supportedKeyExchanges
    ]

    def __init__(
        self,
        reactor: Any,
        credentials: Credentials,
        judge: Callable[[bytes], object],
        admitted: Callable[[ClientPackets], object],
    ) -> None:
        super().__init__(reactor)
        self._credentials = credentials
        self._judge = judge
        self._whenAdmitted = admitted

    def verifyHostKey(self, hostKey: bytes, fingerprint: bytes) -> Deferred[bool]:
        try:
            self._judge(hostKey)
        except TunnelError as wrong:
            self.lost = self.lost or wrong
            return fail(wrong)
        return succeed(True)

    def connectionSecure(self) -> None:
        if self.service is None and not self.gone:
            self.requestService(_Login(self, self._credentials, self._letIn))

    def _letIn(self) -> None:
        self.admitted = True
        self._whenAdmitted(self)
