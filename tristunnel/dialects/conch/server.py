"""A client's session over SSH at the server, whichever dialect that is."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Awaitable, Callable
from dataclasses import replace
from functools import lru_cache, partial
from types import SimpleNamespace
from typing import Any

from twisted.conch.ssh.keys import Key
from twisted.conch.ssh.transport import SSHServerTransport
from twisted.internet.interfaces import IDelayedCall

from tristunnel.dataplane.datagrams import FlowEnd
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.base.visiting import VisitingSession
from tristunnel.dialects.conch.channel import Channel
from tristunnel.dialects.conch.connection import KEEPALIVE, Connection
from tristunnel.dialects.conch.hostkey import HostKey
from tristunnel.dialects.conch.login import LOGIN_TIME, Login
from tristunnel.dialects.conch.messages import AnyMessages
from tristunnel.dialects.conch.streams import ChannelStreams, PipedStreams
from tristunnel.dialects.conch.transport import Packets
from tristunnel.errors import TunnelError, printable, protocolError
from tristunnel.forwards.dialling import DIAL
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Stream
from tristunnel.util.hosts import addressOf, hostAndPort
from tristunnel.util.repeating import stopTimer
from tristunnel.websocket.connection import Receiver
from tristunnel.wire.ssh import Fields, packTexts

__all__ = [
    "GoSession",
    "SSHServerSession",
    "ServerPackets",
    "overWebSocket",
    "serverPackets",
]

_SERVICE_ACCEPT = 6


class ServerPackets(Packets, SSHServerTransport):
    """
    The packets of a client.

    @param reactor: Tells time.
    @param key: The host key.
    @param opened: Called with it when the connection is there; makes the session,
        which has a C{loginService}.

    @ivar session: The session.
    """

    def __init__(
        self,
        reactor: Any,
        key: Key,
        opened: Callable[[ServerPackets], SSHServerSession],
    ) -> None:
        super().__init__(reactor)
        self._opened = opened
        self.show(key)

    def show(self, key: Key) -> None:
        """Use another host key, before any key exchange."""
        self.supportedPublicKeys = key.supportedSignatureAlgorithms()
        kind = key.sshType()
        # What conch asks of its factory.
        self.factory: Any = SimpleNamespace(
            publicKeys={kind: key.public()}, privateKeys={kind: key}
        )

    def connectionMade(self) -> None:
        self.session = self._opened(self)
        super().connectionMade()
        self.session.opened(self)

    def ssh_SERVICE_REQUEST(self, packet: bytes) -> None:
        name = Fields(packet).text()
        early = self.sessionID is None
        if early or self.service is not None or name != "ssh-userauth":
            raise protocolError("the peer wants an SSH service that is not here")
        self.sendPacket(_SERVICE_ACCEPT, packTexts(name))
        self.setService(self.session.loginService())


@lru_cache(maxsize=64)
def conchKey(key: HostKey) -> Key:
    """Make conch's form of a host key."""
    return Key(key.private)


class SSHServerSession(VisitingSession):
    """
    One client's session.

    @param link: The connection below.

    @cvar ping: The request by which the client is asked for a sign of life.
    @cvar saysWhy: Whether the client reads why a request was refused.
    @cvar makeStreams: Makes its channels.
    @ivar channels: Its channels, once it has logged in.
    @ivar open: Whether anybody may come.
    @ivar takesKeys: Whether anybody can log in by a key.
    """

    ping = KEEPALIVE
    saysWhy = False
    makeStreams: type[ChannelStreams] = ChannelStreams

    def __init__(
        self, sessions: ServerSessions, arrival: Arrival, link: ServerPackets
    ) -> None:
        super().__init__(sessions, arrival)
        self._link = link
        self._remaining = arrival.remaining
        self._login = Login(link, self)
        self._late: IDelayedCall | None = None
        self.channels: ChannelStreams | None = None
        self.open = self._vouched or sessions.authenticator.admitsAnybody
        self.takesKeys = sessions.authenticator.takesKeys

    def opened(self, connection: Any) -> None:
        super().opened(connection)
        connection.ended = self.end
        self._wait(self._remaining)

    # Coming in

    def _wait(self, seconds: float) -> None:
        stopTimer(self._late)
        self._late = self._sessions.reactor.callLater(seconds, self._tooLate, seconds)

    def _tooLate(self, seconds: float) -> None:
        self.fail(
            TunnelError("handshake-timeout", f"no login came within {seconds:.0f} s")
        )

    def loginService(self) -> Login:
        """Begin with logins, after the keys are agreed on."""
        self._wait(max(self._remaining, LOGIN_TIME))
        return self._login

    def knowsKey(self, user: str, key: bytes) -> bool:
        """Whether a login with a public key could succeed."""
        return self._sessions.authenticator.knowsKey(user, key)

    def login(self, fields: dict[str, object], key: bytes = b"") -> None:
        """Find out whether somebody may come in."""
        self.admit(self._identify(fields, key), lambda message: None)

    async def _identify(self, fields: dict[str, object], key: bytes) -> Identity:
        identity = await self.authenticate(fields, key)
        if identity.anonymous and not self._vouched:
            identity = replace(identity, claimed=self.claimed(fields))
        return identity

    def claimed(self, fields: dict[str, object]) -> str:
        """What a client says of itself where nobody is asked who they are."""
        return ""

    def turnAway(self, refusal: TunnelError) -> None:
        if refusal.code.name != "auth-refused":
            self._login.explain(refusal.message)
            self.fail(refusal)
            return
        try:
            self._login.refused(refusal)
        except TunnelError as last:
            self.fail(last)
        else:
            self.connection.resumeReading()

    def admitted(self) -> None:
        stopTimer(self._late)
        self._link.admitted = True
        self._login.accepted()
        self.channels = self.makeStreams(self._link, self.asked, self._sessions.limits)
        self._link.setService(Connection(self._link, self.channels, self))

    # What the client asks for

    @abstractmethod
    def request(self, name: str, fields: Fields) -> Awaitable[bytes] | bytes | None:
        """Do what the client asks for, see L{Requested.request
        <tristunnel.dialects.conch.connection.Requested.request>}."""

    def asked(self, channel: Channel, kind: str, fields: Fields) -> None:
        """The client opens a channel."""
        if self.channels is not None:
            self.channels.refuseType(channel, kind)

    def reach(
        self, end: Channel | FlowEnd, host: str, port: int, isUDP: bool = False
    ) -> None:
        """
        Connect what the client opens to the service called C{host}, unless that is an
        address, or one of the names that the server dials.

        @param end: A channel, or a flow of datagrams in one.
        @param host: If C{@CLIENT} follows, that other client dials.
        """
        place, at, client = host.partition("@")
        if at or addressOf(host) or self.destinations.lists(host, port, isUDP):
            self.dial(end, hostAndPort(place, port), client, isUDP)
        elif self._leaving is not None:
            end.reset(self._leaving)
        else:
            hint = (
                "if it is a host that the server is to reach, start the server with"
                f" --dial-allow {hostAndPort(host, port)}"
            )
            accept = partial(_accept, end)
            self.whileUp(self.visit(end, host, isUDP, accept, hint=hint), end.reset)

    def dial(
        self, end: Channel | FlowEnd, target: str, client: str = "", isUDP: bool = False
    ) -> None:
        """
        Connect what the client opens to a target.

        @param end: A channel, or a flow of datagrams in one.
        @param target: C{HOST:PORT}, C{unix:PATH}, or L{SOCKS
            <tristunnel.forwards.dialling.SOCKS>}.
        @param client: The client that is to dial; empty for the server.
        """
        self.dialled.opened(
            end,
            {DIAL: target, "client": client},
            self._link.peerAddress,
            partial(_accept, end),
            isUDP,
        )

    def requestRefused(self, name: str, refusal: TunnelError) -> None:
        """Have the log say what the client was refused."""
        self.noteRefusal(f"asked for {printable(name, 60)}", refusal)

    # IClientSide

    @abstractmethod
    def channelFor(self, stream: Stream) -> tuple[str, bytes]:
        """
        Find what the client is told of a visitor.

        @return: The type of the channel, and its fields.
        @raise TunnelError: C{client-away}.
        """

    def serve(self, stream: Stream) -> None:
        try:
            if self.channels is None or self.lost is not None:
                raise TunnelError("client-away")
            if self._leaving is not None:
                raise self._leaving
            end = self.channels.openChannel(*self.channelFor(stream))
        except TunnelError as refusal:
            stream.refuse(refusal)
        else:
            stream.connect(end)

    def streams(self) -> int:
        return 0 if self.channels is None else len(self.channels.streams)

    def comesBack(self, reason: TunnelError) -> bool:
        return super().comesBack(reason) and not self._link.saidGoodbye

    def sessionOver(self, reason: TunnelError) -> None:
        stopTimer(self._late)
        self.visits.end(reason)
        if self._client is None and reason.code.name != "session-lost":
            peer = self._link.peerAddress
            self._service.observer.peerRefused(peer, reason)
        self._pending.known()
        super().sessionOver(reason)


def _accept(end: Channel | FlowEnd) -> None:
    """Tell the client that its channel is open; a flow needs no such word."""
    if isinstance(end, Channel):
        end.accept()


def serverPackets(
    sessions: ServerSessions,
    key: HostKey,
    make: Callable[[ServerPackets], SSHServerSession],
) -> ServerPackets:
    """
    Make what serves a client.

    @param make: Makes its session.
    """
    return ServerPackets(sessions.reactor, conchKey(key), make)


def overWebSocket(
    sessions: ServerSessions,
    arrival: Arrival,
    key: HostKey,
    make: Callable[[ServerSessions, Arrival, ServerPackets], GoSession],
) -> Receiver:
    """
    Make what serves a client that has come by WebSocket.

    @param key: The host key.
    @param make: Makes its session.
    """
    packets = serverPackets(sessions, key, lambda link: make(sessions, arrival, link))
    return AnyMessages(packets)


class GoSession(SSHServerSession):
    """The session of a client whose program is written with Go's package."""

    ping = "ping"
    saysWhy = True
    makeStreams = PipedStreams

    def request(self, name: str, fields: Fields) -> Awaitable[bytes] | bytes | None:
        return b"pong" if name == self.ping else None
