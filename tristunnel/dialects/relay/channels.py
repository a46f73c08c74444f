"""
Raw WebSockets, as ends of tunnels and in the channels of a relay.

C{/host/...} is where clients' ends come, C{/client/...} where visitors do. A name below
them is either a tunnel's own, a part of its URI or address, or a channel's. A channel
is a tunnel, too: it is made by whoever comes first, and ends when everybody has left.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.errors import TunnelError, badOption
from tristunnel.http.callers import HTTPCallers
from tristunnel.interfaces import End
from tristunnel.model.permissions import Identity
from tristunnel.model.policy import VisitorPolicy
from tristunnel.model.rendezvous import Rendezvous
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.raw import UNCLAIMED, RawClientSide
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.hosts import addressText
from tristunnel.util.words import isName
from tristunnel.websocket.connection import Connection, Receiver
from tristunnel.websocket.end import WebSocketEnd
from tristunnel.websocket.page import WebSocketRequest

if TYPE_CHECKING:
    from tristunnel.model.options import TunnelOptions
    from tristunnel.model.ports import Reserve
    from tristunnel.service.caller import Caller, OpensVia
    from tristunnel.service.tunnel_service import TunnelService

__all__ = ["RelayChannels", "WebSocketListeners"]

CLIENTS = "host"
"""The page of clients' ends, by tcp-ws-tunnel's name for it."""

VISITORS = "client"
"""The page of visitors, likewise."""

PATIENCE = 600.0
"""Seconds that a visitor waits in a channel for a host."""

WAITING = 256
"""Visitors, or hosts, that may wait in a channel."""

MOST_CHANNELS = 1024
"""Channels at once."""


class _Place:
    """
    An L{IListener<tristunnel.model.place.IListener>} that is a path.

    @param leave: Forgets it.

    @ivar path: The path.
    """

    def __init__(self, path: str, leave: Callable[[], object]) -> None:
        self.path = path
        self._leave = leave

    @property
    def address(self) -> tuple[str, str, int]:
        return ("ws", "", 0)

    def close(self) -> Awaitable[object]:
        self._leave()
        return succeed(None)


class _ChannelPeer(WebSocketEnd):
    """An end that tells when it leaves, and which ends with its owner's token."""

    def __init__(
        self,
        arrived: Callable[[WebSocketEnd], None],
        left: Callable[[], None],
        identity: Identity,
    ) -> None:
        super().__init__(arrived, announces=True)
        self._left = left
        self._grant = identity.grant

    def opened(self, connection: Connection) -> None:
        super().opened(connection)
        if self._grant is not None:
            self._grant.watch(self.evict)

    def connectionLost(self, reason: TunnelError | None, failure: Failure) -> None:
        super().connectionLost(reason, failure)
        if self._grant is not None:
            self._grant.unwatch(self.evict)
        self._left()


class _Channel(Rendezvous):
    """
    Where hosts and visitors wait for each other.

    @ivar tunnel: The channel as a tunnel.
    @ivar claimed: Whether it is known whose it is.
    @ivar peers: Connections that are in it.
    """

    tunnel: Tunnel

    def __init__(
        self, service: TunnelService, forget: Callable[[], object], claimed: bool
    ) -> None:
        super().__init__(service.reactor, PATIENCE, waiting=WAITING)
        self.claimed = claimed
        self.peers = 0
        self._service = service
        self._forget = forget

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        self._forget()
        super().tunnelClosed(tunnel, reason)

    def enter(self) -> None:
        self.peers += 1

    def leave(self) -> None:
        self.peers -= 1
        if not self.peers:
            self._forget()
            self._service.discard(
                [self.tunnel], TunnelError("closed", "everyone has left the channel")
            )


class RelayChannels:
    """
    All raw WebSockets of a server.

    @param service: Whose tunnels they belong to.
    @param callers: Finds out who a request is from.
    """

    _log = Logger()

    def __init__(self, service: TunnelService, callers: HTTPCallers) -> None:
        self._service = service
        self._callers = callers
        self._clients: dict[str, Callable[[End], None]] = {}
        self._visitors: dict[str, Callable[[End, str], None]] = {}
        self._channels: dict[str, _Channel] = {}

    def awaited(self, source: str) -> int:
        """
        How many connections may wait at once, wherever they come from. However many
        channels there are, one address must not be able to take the places of all
        others.
        """
        known = self._clients or self._visitors
        if known or any(channel.claimed for channel in self._channels.values()):
            return WAITING
        return 0

    # Tunnels

    def _newName(self) -> str:
        return self._service.tickets.mark + secrets.token_urlsafe(16)

    async def via(
        self,
        service: OpensVia,
        tunnel: Tunnel,
        caller: Caller,
        options: TunnelOptions,
        reserve: Reserve,
    ) -> None:
        """
        Have the client's ends of a tunnel be WebSockets; whoever has the URI may
        connect, as with other raw tunnels.
        """
        name = self._newName()
        tunnel.visitorLimit = options.visitors or 1
        tunnel.clientSide = side = RawClientSide(service, tunnel)
        self._clients[name] = side.clientArrived
        tunnel.clientListener = _Place(
            f"/{CLIENTS}/{name}", lambda: self._clients.pop(name, None)
        )
        if not options.ttl:
            service.keepWhile(tunnel, UNCLAIMED, side.served)
        tunnel.uri = f"{caller.web}/{CLIENTS}/{name}"

    def listen(self, arrived: Callable[[End, str], None]) -> _Place:
        name = self._newName()
        self._visitors[name] = arrived
        return _Place(f"/{VISITORS}/{name}", lambda: self._visitors.pop(name, None))

    # Pages

    async def receiveClient(self, asked: WebSocketRequest) -> Receiver:
        """Take a client's end."""
        RESERVE.checkSession()
        arrived = self._clients.get(asked.name)
        if arrived is not None:
            return WebSocketEnd(arrived, announces=True)
        caller = await self._callers.withQuery(asked.request)
        known = self._channels.get(asked.name)
        if known is None or not known.claimed:
            self._service.rights.checkChannel(caller.identity)
        channel = self._channel(asked.name, caller, True)
        if channel is not known or not channel.claimed:
            channel.claimed = True
            channel.tunnel.owner = caller.identity
            # Whoever came first may have used any name for this server.
            channel.tunnel.hostname, channel.tunnel.web = caller.host, caller.web
            self._service.rights.opened(channel.tunnel, self._service.discard)
            # Those who wait came when the channel belonged to nobody.
            self._service.policies.refresh(channel.tunnel)
            self._service.policies.endDenied(channel.tunnel)
            held = self._service.here.get(channel.tunnel.id)
            if held is not None:
                self._tell(self._service.entries.announce(held))
        elif channel.tunnel.owner != caller.identity:
            raise TunnelError("not-permitted", "the channel belongs to another client")
        channel.enter()
        return _ChannelPeer(channel.clientArrived, channel.leave, caller.identity)

    async def receiveVisitor(self, asked: WebSocketRequest) -> Receiver:
        """
        Take a visitor. The tunnel could refuse it, too, but only after the WebSocket is
        open.
        """
        RESERVE.checkVisitor()
        address = addressText(asked.peer)
        arrived = self._visitors.get(asked.name)
        if arrived is not None:
            toTunnel = arrived
            return WebSocketEnd(lambda end: toTunnel(end, address), announces=True)
        caller = await self._callers.withQuery(asked.request)
        channel = self._channel(asked.name, caller, False)
        channel.enter()
        return _ChannelPeer(
            lambda end: channel.tunnel.visitorArrived(end, address),
            channel.leave,
            caller.identity,
        )

    def _channel(self, name: str, caller: Caller, claimed: bool) -> _Channel:
        """
        Find a channel, or make it.

        @raise TunnelError: C{unknown-tunnel} if the name is not one, C{limit-reached}.
        """
        channel = self._channels.get(name)
        if channel is not None:
            return channel
        if not isName(name):
            raise TunnelError(
                "unknown-tunnel",
                "a channel's name has at most 64 letters, digits, '-', '_' and '.'",
            )
        if len(self._channels) >= MOST_CHANNELS:
            raise TunnelError("limit-reached", "there are too many channels")
        service = self._service
        channel = _Channel(service, lambda: self._channels.pop(name, None), claimed)
        path = f"/{quote(name)}" if name else ""
        channel.tunnel = tunnel = Tunnel(
            id=secrets.token_hex(8),
            owner=caller.identity,
            clientSide=channel,
            observer=service.observer,
            seconds=service.reactor.seconds,
            uri=f"{caller.web}/{CLIENTS}{path}",
            hostname=caller.host,
            web=caller.web,
            listener=_Place(f"/{VISITORS}{path}", lambda: None),
        )
        service.policies.setByOwner(tunnel, VisitorPolicy())
        self._channels[name] = channel
        self._tell(service.enter(tunnel))
        service.observer.tunnelCreated(tunnel)
        return channel

    def _tell(self, telling: Coroutine[Any, Any, None]) -> None:
        Deferred.fromCoroutine(telling).addErrback(
            lambda failure: self._log.failure("A channel is in no list", failure)
        )


class WebSocketListeners:
    """
    Opens paths for visitors, as
    L{Listeners<tristunnel.service.caller.Listeners>} opens ports.

    @param channels: Where they are.
    """

    def __init__(self, channels: RelayChannels) -> None:
        self._channels = channels

    @returnsDeferred
    async def open(
        self,
        options: TunnelOptions,
        arrived: Callable[[End, str], None],
        reserve: Reserve,
    ) -> _Place:
        """
        Let visitors in.

        @param options: The port must be 0, as the port is the server's own.
        @param reserve: Not needed: nobody else finds the path.
        @raise TunnelError: C{bad-option}.
        """
        if options.port:
            raise badOption("listener 'ws' has a path, not a port; leave port out")
        return self._channels.listen(arrived)
