"""OpenSSH's client at the server: C{tcpip-forward} and what goes with it."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from twisted.internet.interfaces import INegotiated

from tristunnel.auth.certificate import certificateName
from tristunnel.dialects.base.server import Arrival, ServerSessions
from tristunnel.dialects.conch.channel import Channel
from tristunnel.dialects.conch.hostkey import HostKey
from tristunnel.dialects.conch.server import (
    ServerPackets,
    SSHServerSession,
    serverPackets,
)
from tristunnel.dialects.ssh.screen import MOST_NOTES, Screen
from tristunnel.errors import TunnelError, badOption
from tristunnel.forwards.destinations import UNIX
from tristunnel.model.permissions import ANONYMOUS_IDENTITY
from tristunnel.model.tunnel import Stream
from tristunnel.service.caller import Caller
from tristunnel.service.preauth import PendingConnection, sourceOf
from tristunnel.util.hosts import addressOf
from tristunnel.util.repeating import stopTimer
from tristunnel.wire.ssh import Fields, packNumbers, packTexts

__all__ = ["OpenSSHSession", "openSession"]

EVERYWHERE = ("", "*", "localhost", "0.0.0.0", "::")
"""What clients write for the interface that the server gives to tunnels. OpenSSH's own
server takes C{localhost}, which is what C{-R PORT:...} says, for loopback; here a
tunnel that nobody can reach would be of no use."""

LOOPBACK = "loopback"
"""The kind of listener for C{127.0.0.1} and C{::1}."""

NAMES = "http"
"""The kind of listener for names."""

WEB = (80, 443)
"""The ports of those."""

MOST_SCREENS = 10
"""Sessions on one connection, as with OpenSSH's C{MaxSessions}."""

FAREWELL = 2.0
"""Seconds in which a client whose session is over must have left."""

MOST_ROWS, USUAL_ROWS = 500, 24


def openSession(
    sessions: ServerSessions, remaining: float, pending: PendingConnection
) -> ServerPackets:
    """
    Serve a connection that begins as SSH does.

    @param remaining: Seconds that are left of the time for handshakes.
    @param pending: Told when it is known who it is, and of failed logins.
    """

    def make(link: ServerPackets) -> OpenSSHSession:
        here, peer = link.transport.getHost(), link.peerAddress
        caller = Caller(
            ANONYMOUS_IDENTITY,
            str(getattr(here, "host", "localhost")),
            int(getattr(here, "port", 0)),
            address=sourceOf(peer),
            secure=INegotiated.providedBy(link.transport),
            certificate=certificateName(link.transport),
        )
        arrival = Arrival(caller, False, pending, remaining=remaining)
        return OpenSSHSession(sessions, arrival, link)

    return serverPackets(sessions, sessions.kept(HostKey.inDirectory), make)


@dataclass(frozen=True)
class Forward:
    """
    What a client has asked for.

    @ivar address: Where visitors connect, in the client's own words.
    @ivar port: Likewise; 0 for any, or for a UNIX socket.
    @ivar isPath: Whether the address is the path of a UNIX socket.
    """

    address: str
    port: int
    isPath: bool = False

    def options(self, named: bool) -> dict[str, object]:
        """
        The options of C{openTunnel}.

        @param named: Whether the server gives names to visitors.
        @raise TunnelError: C{bad-option}, for an address that is not the server's.
        """
        if self.isPath:
            # In the directory that the operator has for them.
            return {"listener": "unix", "name": self.address.rpartition("/")[2]}
        web = named and self.port in WEB
        if self.address in EVERYWHERE:
            return {"listener": NAMES} if web else {"port": self.port}
        address = addressOf(self.address)
        if address is not None and address.is_loopback:
            return {"port": self.port, "listener": LOOPBACK}
        if address is None and web:
            return {"listener": NAMES, "name": self.address}
        if address is None and named:
            raise badOption(
                f"{self.address!r} is a name, which goes with port 80 or 443: -R"
                f" {self.address}:80:localhost:PORT"
            )
        raise badOption(
            f"{self.address!r} is not an address for visitors here: leave it out, or"
            " write 127.0.0.1"
        )

    def channel(self, visitor: str) -> tuple[str, bytes]:
        """
        Make the channel that announces a visitor.

        @param visitor: Where it comes from, as C{HOST:PORT}.
        """
        if self.isPath:
            return "forwarded-streamlocal@openssh.com", packTexts(self.address, "")
        host, _, port = visitor.rpartition(":")
        number = int(port) if port.isdecimal() else 0
        return "forwarded-tcpip", (
            packTexts(self.address)
            + packNumbers(self.port)
            + packTexts(host.strip("[]"))
            + packNumbers(number)
        )


class OpenSSHSession(SSHServerSession):
    """
    One client's connection.

    @ivar tunnels: The client's tunnels, by what it has asked for.
    """

    dialect = "ssh"

    def __init__(
        self, sessions: ServerSessions, arrival: Arrival, link: ServerPackets
    ) -> None:
        super().__init__(sessions, arrival, link)
        self._screens: dict[Channel, Screen] = {}
        # ssh asks for its tunnels before it begins a session.
        self._notes: deque[str] = deque(maxlen=MOST_NOTES)
        self._requests: dict[str, Callable[[Fields], Awaitable[bytes] | bytes | None]]
        self._requests = {
            "tcpip-forward": lambda fields: self._forward(_place(fields)),
            "cancel-tcpip-forward": lambda fields: self._cancel(_place(fields)),
            "streamlocal-forward@openssh.com": lambda fields: self._forward(
                _path(fields)
            ),
            "cancel-streamlocal-forward@openssh.com": lambda fields: self._cancel(
                _path(fields)
            ),
        }

    def claimed(self, fields: dict[str, object]) -> str:
        return str(fields.get("id", ""))[:64]

    def request(self, name: str, fields: Fields) -> Awaitable[bytes] | bytes | None:
        take = self._requests.get(name)
        return None if take is None else take(fields)

    def requestRefused(self, name: str, refusal: TunnelError) -> None:
        super().requestRefused(name, refusal)
        # ssh itself says only that it failed; with -v it shows this.
        self._link.explain(refusal.message)
        self._notes.append(refusal.message)
        for screen in self._screens.values():
            screen.note(refusal.message)

    @property
    def idle(self) -> bool:
        # A client need not have any tunnel.
        return False

    async def _forward(self, asked: Forward) -> bytes:
        if asked in self.tunnels and (asked.port or asked.isPath):
            raise TunnelError("port-taken", "this client has that tunnel already")
        options = asked.options(NAMES in self._service.listeners)
        tunnel = await self.openFor(asked, options, f"{asked.address} {asked.port}")
        if asked.port or asked.isPath or tunnel.listener is None:
            return b""
        # From now on the client calls it by its port.
        port = tunnel.listener.address[2]
        self.tunnels[Forward(asked.address, port)] = self.tunnels.pop(asked)
        return packNumbers(port)

    def _cancel(self, asked: Forward) -> bytes | None:
        tunnel = self.tunnels.pop(asked, None)
        if tunnel is None:
            return None
        reason = TunnelError("closed", "its owner closed the tunnel")
        self._service.discard([tunnel], reason)
        return b""

    def channelFor(self, stream: Stream) -> tuple[str, bytes]:
        forward: Forward = self.keyOf(stream.tunnel)
        return forward.channel(stream.visitorAddress)

    # Channels that the client opens

    def asked(self, channel: Channel, kind: str, fields: Fields) -> None:
        if kind == "direct-tcpip":
            # ssh -J and -W, with the name of a service in the place of a host; and -L.
            self.reach(channel, fields.text(256), fields.port())
        elif kind == "direct-streamlocal@openssh.com":
            self.dial(channel, UNIX + fields.text(256))
        elif kind == "session" and len(self._screens) < MOST_SCREENS:
            self._show(channel)
        else:
            super().asked(channel, kind, fields)

    def _show(self, channel: Channel) -> None:
        """Begin a session, which shows something once a shell is asked for."""
        screen = Screen(
            self._sessions.reactor,
            lambda: list(self.tunnels.values()),
            lambda: self._leave(channel),
        )
        for note in self._notes:
            screen.note(note)
        self._screens[channel] = screen
        channel.whileWaiting(lambda reason: self._screenOver(channel, reason))
        channel.requests = lambda name, fields: self._take(channel, name, fields)
        channel.accept()

    def _take(self, channel: Channel, name: str, fields: Fields) -> bool:
        screen = self._screens.get(channel)
        if screen is None:
            return False
        if name == "pty-req":
            fields.text()
            fields.number()
            screen.rows = min(fields.number(), MOST_ROWS) or USUAL_ROWS
        elif name == "window-change":
            fields.number()
            screen.rows = min(fields.number(), MOST_ROWS) or USUAL_ROWS
        elif name == "shell" and channel.peer is None:
            channel.join(screen, lambda reason: self._screenOver(channel, reason))
            screen.join(channel, lambda reason: None)
        else:
            return name == "env"
        return True

    def _screenOver(self, channel: Channel, reason: TunnelError | None) -> None:
        screen = self._screens.pop(channel, None)
        if screen is not None:
            screen.over(reason)

    def _leave(self, channel: Channel) -> None:
        """
        End the session, and the tunnels with it, because the person has asked for that.
        """
        if self.channels is not None:
            self.channels.tell(channel, "exit-status", packNumbers(0))
        left = TunnelError("closed", "the client has left")
        channel.finish()
        channel.reset(left)
        # ssh ends by itself when its session does.
        stopTimer(self._late)
        self._late = self._sessions.reactor.callLater(FAREWELL, self.fail, left)


def _place(fields: Fields) -> Forward:
    return Forward(fields.text(256), fields.port())


def _path(fields: Fields) -> Forward:
    return Forward(fields.text(256), 0, True)
