"""C{--forward PORT=socks:allow=...}: the client as a SOCKS 5 proxy into its network."""

from __future__ import annotations

from collections.abc import Mapping

from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from tristunnel.errors import TunnelError
from tristunnel.forwards.onward import Gateway, Onward
from tristunnel.forwards.socks_udp import Associations
from tristunnel.wire.socks import Command, Login, Reply, Request, ServerHandshake

__all__ = ["Socks"]

_REPLIES = {
    "not-permitted": Reply.NOT_ALLOWED,
    "service-refused": Reply.REFUSED,
    "service-timeout": Reply.HOST_UNREACHABLE,
    "service-unreachable": Reply.HOST_UNREACHABLE,
}


class Socks(Onward):
    """
    A visitor who speaks SOCKS 5.

    @param associations: Knows whose datagrams are taken; nobody's by default.
    """

    def __init__(
        self,
        gateway: Gateway,
        info: Mapping[str, object],
        associations: Associations | None = None,
    ) -> None:
        super().__init__(gateway, info)
        self._handshake = ServerHandshake(gateway.login is not None)
        self._associations = associations or Associations()
        self._asked = self._wrongLogin = self._isAssociated = False

    def heard(self, data: bytes) -> None:
        if self._isAssociated:
            # The connection only shows that its visitor is still there.
            return
        handshake = self._handshake
        try:
            event = handshake.feed(data)
            if isinstance(event, Login):
                if not self.gateway.admits(*event):
                    self._wrongLogin = True
                    self.punished()
                    return
                event = handshake.answerLogin(True)
        finally:
            if self.transport is not None:
                self.transport.write(handshake.takeOutgoing())
        if isinstance(event, Request):
            self._request(event)

    def _request(self, request: Request) -> None:
        self._asked = True
        if request.command == Command.CONNECT:
            self.early, self._handshake.buffer = self._handshake.buffer, b""
            self.go(request.host, request.port)
        elif request.command == Command.UDP and self._associations.port:
            self._isAssociated = True
            self.stayUnasked()
            self._associations.enter(self.visitor)
            self._say(Reply.GOOD, self._associations.host, self._associations.port)
        else:
            self._asked = False
            self._say(Reply.NO_SUCH_COMMAND)
            raise TunnelError(
                "not-permitted",
                "it asked for UDP, for which a socks: forward needs a public port"
                if request.command == Command.UDP
                else "it asked to be listened for, which is not offered",
            )

    def _say(self, code: Reply, host: str = "0.0.0.0", port: int = 0) -> None:
        self._handshake.reply(code, host, port)
        self.transport.write(self._handshake.takeOutgoing())

    def reached(self) -> bytes:
        self._say(Reply.GOOD)
        return b""

    def refused(self, error: TunnelError) -> None:
        if self._wrongLogin:
            self._handshake.answerLogin(False)
            self.transport.write(self._handshake.takeOutgoing())
        elif self._asked:
            self._say(_REPLIES.get(error.code.name, Reply.FAILED))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        if self._isAssociated:
            self._isAssociated = False
            self._associations.leave(self.visitor)
