"""
Tunnels whose client can be any program that opens a TCP connection, as in the Tristero
tunnel service.
"""

from __future__ import annotations

import hmac
import secrets
from functools import partial
from hashlib import sha256
from socket import MSG_PEEK
from typing import Any

from twisted.internet.interfaces import IDelayedCall

from tristunnel.errors import TunnelError, badOption
from tristunnel.interfaces import End
from tristunnel.model.options import TunnelOptions
from tristunnel.model.ports import Reserve
from tristunnel.model.rendezvous import Rendezvous
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.caller import Caller, OpensVia
from tristunnel.service.preauth import sourceOfHost
from tristunnel.service.visitor_filter import hostOfVisitor
from tristunnel.util.hosts import hostAndPort
from tristunnel.util.platform import NO_WAIT
from tristunnel.util.repeating import stopTimer

__all__ = ["UNCLAIMED", "RawClientSide", "viaTCP", "viaTLS"]

UNCLAIMED = 300.0
"""Seconds that a raw tunnel without C{ttl} stays open, at least, while no
client's end is there; at most twice as long."""


INTRODUCTION = 10.0
"""Seconds in which a connection must have said its first line, if it needs one."""

UNPROVEN = 16
"""Connections to a tunnel's URI that have not sent it; the oldest makes room."""

_LONGEST_LINE = 128


class RawClientSide(Rendezvous):
    """
    Raw connections to a tunnel's URI.

    Ports are scanned. So a connection to the URI that ends before it has sent anything
    does not count, and the visitor goes on waiting for the next one; and so does a
    connection whose visitor was reset before sending anything. For that reason two of
    them are joined only when there is something to pass on.

    @param service: Ends the tunnel when its client's end has left.
    @param tunnel: The tunnel.
    @param source: What connections must be counted by, as in L{sourceOfHost}; empty
        for any.
    @param secret: What they must begin with, on a line; empty for nothing.
    """

    def __init__(
        self, service: OpensVia, tunnel: Tunnel, source: str = "", secret: str = ""
    ) -> None:
        super().__init__(service.reactor, shared=service.waiting)
        self._service = service
        self._tunnel = tunnel
        self._source = source
        self._secretHash = sha256(secret.encode()).digest() if secret else b""
        self._pending: dict[Any, IDelayedCall] = {}
        # Met, but not joined: by the client's end.
        self._silent: dict[End, Stream] = {}

    @property
    def waitingVisitors(self) -> int:
        return super().waitingVisitors + len(self._silent)

    @property
    def waitingClients(self) -> int:
        return super().waitingClients + len(self._silent)

    # Who may come to the URI

    def connectionArrived(self, client: Any, address: str) -> None:
        """
        Take a connection to the URI.

        @param address: From where, as C{HOST:PORT}.
        """
        if self._source and sourceOfHost(hostOfVisitor(address)) != self._source:
            client.reset(
                TunnelError(
                    "not-permitted",
                    "the tunnel only accepts connections from the address that opened"
                    " it",
                )
            )
        elif not self._secretHash:
            self.clientArrived(client)
        else:
            if len(self._pending) >= UNPROVEN:
                self._turnAway(next(iter(self._pending)))
            self._pending[client] = self._reactor.callLater(
                INTRODUCTION, self._turnAway, client
            )
            client.heard = partial(self._introduces, client)
            client.whileWaiting(lambda reason: self._forgetPending(client))
            self._introduces(client)

    def _introduces(self, client: Any) -> None:
        line, end, _ = client.early[: _LONGEST_LINE + 1].partition(b"\n")
        if not end and len(line) <= _LONGEST_LINE and not client.ended:
            return
        given = sha256(line.removesuffix(b"\r")).digest()
        if not end or not hmac.compare_digest(given, self._secretHash):
            self._turnAway(client)
            return
        self._forgetPending(client)
        client.skipEarly(len(line) + 1)
        self.clientArrived(client)

    def _turnAway(self, client: Any) -> None:
        self._forgetPending(client)
        client.reset(TunnelError("auth-refused", "the first line was not the secret"))

    def _forgetPending(self, client: Any) -> None:
        client.heard = None
        stopTimer(self._pending.pop(client, None))

    # Who waits for whom

    def clientArrived(self, client: End) -> None:
        """
        Take a client's connection; no more of them are accepted than there may be
        visitors.
        """
        self._forgetRefused()
        if self._isFull():
            for waiting in [*self._clients, *self._silent]:
                if _closedUnread(waiting):
                    # Its end was not read yet, and the next one came at the same time.
                    waiting.reset(TunnelError("closed"))
        if self._isFull():
            client.reset(TunnelError("limit-reached"))
        elif _hasLeft(client):
            client.reset(TunnelError("closed"))
        else:
            super().clientArrived(client)

    def _isFull(self) -> bool:
        most = self._tunnel.visitorLimit
        return bool(most) and self._tunnel.served + self.waitingClients >= most

    def serve(self, stream: Stream) -> None:
        self._forgetRefused()
        super().serve(stream)

    def _forgetRefused(self) -> None:
        for client in [c for c, stream in self._silent.items() if stream.over]:
            del self._silent[client]
            self._clients.append(client)
            self._clientWaits(client)

    def _clientWaits(self, client: Any) -> None:
        """Have a client's connection wait, unless it has ended without a word."""
        super()._clientWaits(client)

        def heard() -> None:
            if _hasLeft(client):
                self._clientLeft(client, None)
                client.reset(TunnelError("closed"))
            elif client.ended and not getattr(client, "isPlain", True):
                # A peer that closes TLS waits for our answer, or closes without it, and
                # neither should have to wait for a visitor.
                client.finish()

        if _tells(client):
            client.heard = heard
            heard()

    def _connect(self, stream: Stream, client: Any) -> None:
        """
        Join the two, once one of them sends something, or the visitor ends its
        direction.
        """
        visitor: Any = stream.visitor
        if (
            (client.received or visitor.received)
            or getattr(visitor, "ended", False)
            or not (_tells(client) and _tells(visitor))
        ):
            super()._connect(stream, client)
            return
        self._silent[client] = stream
        self._count()
        client.heard = visitor.heard = partial(self._stirs, client)
        client.whileWaiting(lambda reason: self._silentClientLeft(client))
        visitor.whileWaiting(lambda reason: self._silentVisitorLeft(client))

    def _stirs(self, client: Any) -> None:
        if _hasLeft(client):
            self._silentClientLeft(client)
            client.reset(TunnelError("closed"))
        elif client in self._silent:
            stream = self._silent.pop(client)
            self._count()
            self._connect(stream, client)

    def _silentClientLeft(self, client: End) -> None:
        """
        Have the visitor wait on: the client's connection has ended without a word.
        """
        stream = self._silent.pop(client, None)
        self._count()
        if stream is not None and not stream.over:
            self.serve(stream)

    def _silentVisitorLeft(self, client: End) -> None:
        """Have the client's connection wait on: the visitor has left without a word."""
        stream = self._silent.pop(client, None)
        self._count()
        if stream is not None:
            stream.refuse(TunnelError("reset", "the visitor has left"))
            super().clientArrived(client)

    def _clientLeft(self, client: End, reason: TunnelError | None) -> None:
        """
        Handle a client's connection that ended before a visitor came. A tunnel for one
        visitor ends with it, if it had sent something and did not end in good order (as
        it does over TLS, where nobody can stop sending and still listen).
        """
        if reason is None and client.received:
            return
        super()._clientLeft(client, reason)
        if self._tunnel.visitorLimit == 1 and client.received:
            self._service.discard(
                [self._tunnel], TunnelError("closed", "the client has disconnected")
            )

    def served(self) -> bool:
        """
        Whether a client's end is there, waiting or with a visitor. One that has ended
        its direction cannot be told from one that has left.
        """
        return any(stream.client is not None for stream in self._tunnel.streams) or any(
            not getattr(client, "ended", False)
            for client in (*self._clients, *self._silent)
        )

    def close(self, reason: TunnelError) -> None:
        silent, self._silent = self._silent, {}
        super().close(reason)
        for stream in silent.values():
            stream.refuse(reason)
        for client in (*silent, *self._pending):
            client.reset(reason)


def _tells(end: Any) -> bool:
    """
    Whether an end tells when something comes. Other ends do not belong to scanners,
    which do not guess paths of WebSockets.
    """
    return getattr(end, "guessable", False)


def _hasLeft(end: Any) -> bool:
    """
    Whether an end was over before it had sent a byte. TCP does not tell one that
    will send nothing from one that does not listen either.
    """
    return getattr(end, "ended", False) and not end.received


def _closedUnread(end: Any) -> bool:
    """Whether the kernel has seen the end of a connection that has not sent a byte."""
    if not getattr(end, "isPlain", False) or end.received:
        return False
    try:
        return not end.connection.recv(1, MSG_PEEK | NO_WAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


async def _via(
    scheme: str,
    service: OpensVia,
    tunnel: Tunnel,
    caller: Caller,
    options: TunnelOptions,
    reserve: Reserve,
) -> None:
    listeners = service.listeners.get(scheme)
    if listeners is None:
        raise badOption(
            f"via {scheme!r} needs a certificate: start the server with --certificate"
        )
    tunnel.visitorLimit = options.visitors or 1
    if options.openerOnly and not caller.address:
        raise badOption("option openerOnly needs an opener with an IP address")
    tunnel.lookup = options.lookup
    secret = secrets.token_urlsafe(24) if options.firstLine else ""
    tunnel.clientSide = side = RawClientSide(
        service, tunnel, caller.address if options.openerOnly else "", secret
    )
    tunnel.clientListener = await listeners.open(
        TunnelOptions(), side.connectionArrived, reserve
    )
    if not options.ttl:
        service.keepWhile(tunnel, UNCLAIMED, side.served)
    port = tunnel.clientListener.address[2]
    where = hostAndPort(tunnel.hostname, port)
    tunnel.uri = f"{scheme}://{where}" + (f"#{secret}" if secret else "")


viaTCP = partial(_via, "tcp")
"""The L{Via<tristunnel.service.caller.Via>} of TCP connections."""

viaTLS = partial(_via, "tls")
"""The L{Via<tristunnel.service.caller.Via>} of TLS connections."""
