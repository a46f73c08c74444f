"""Who is connected: the sessions of all dialects."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Protocol

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.errors import TunnelError, printable
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import IClientSide
from tristunnel.service.preauth import AcceptRateLimiter

__all__ = [
    "CLIENTS",
    "SERVICES",
    "ClientFacts",
    "ConnectedClient",
    "ConnectedClients",
    "Visits",
]

CLIENTS = 1000
"""Clients that may be connected at once."""

SERVICES = 50
"""Tunnels that one client's session may have."""

RETRY_AFTER = 30.0
"""Seconds after which a client that found no room is told to come back."""


_LONGEST = 64


@dataclass(frozen=True)
class ClientFacts:
    """
    What a client says of itself, which nobody has proved.

    @ivar name: The id that it gave where nobody asks who it is.
    @ivar host: The machine that it runs on.
    @ivar program: The program and its version.
    """

    name: str = ""
    host: str = ""
    program: str = ""

    @classmethod
    def said(cls, about: object, claimed: object = "") -> ClientFacts:
        """
        Take what a client has sent, as far as it makes sense.

        @param about: The member C{client} of its handshake.
        @param claimed: The id among its credentials, if nobody checked them.
        """
        said = about if isinstance(about, dict) else {}
        texts = (claimed, said.get("host"), said.get("program"))
        return cls(*(_clean(each) for each in texts))

    def asDict(self) -> dict[str, str]:
        """The same as plain data, by name."""
        return asdict(self)


def _clean(text: object) -> str:
    return printable(text.strip(), _LONGEST) if isinstance(text, str) else ""


@dataclass(eq=False)
class ConnectedClient:
    """
    One session.

    @ivar id: Short, unique and public.
    @ivar identity: Who it is.
    @ivar peer: Where it comes from, as C{HOST:PORT}.
    @ivar dialect: How it speaks.
    @ivar opened: When it was let in, in seconds of the server's clock.
    @ivar end: Ends it.
    @ivar side: Where its tunnels' visitors are served, or C{None}.
    @ivar facts: What it says of itself.
    """

    id: str
    identity: Identity
    peer: str
    dialect: str
    opened: float
    end: Callable[[TunnelError], None]
    side: IClientSide | None
    facts: ClientFacts


class ConnectedClients:
    """
    All sessions of a server, whatever their dialect.

    @param seconds: The clock.

    @ivar limit: How many there may be; 0 for any number.
    @ivar acceptLimiter: How fast they may come.
    @ivar elsewhere: How many are at other processes of the server.
    @ivar changed: Called when there are more or fewer.
    """

    def __init__(self, seconds: Callable[[], float], limit: int = CLIENTS) -> None:
        self.limit = limit
        self.elsewhere: Callable[[], int] = lambda: 0
        self.changed: Callable[[], object] = lambda: None
        self.acceptLimiter = AcceptRateLimiter(seconds, 0)
        self._seconds = seconds
        self._clients: dict[str, ConnectedClient] = {}

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[ConnectedClient]:
        return iter(list(self._clients.values()))

    def find(self, identifier: str) -> ConnectedClient | None:
        """Look a session up."""
        return self._clients.get(identifier)

    def enter(
        self,
        identity: Identity,
        peer: str,
        dialect: str,
        end: Callable[[TunnelError], None],
        side: IClientSide | None = None,
        facts: ClientFacts | None = None,
    ) -> ConnectedClient:
        """
        Let a client in, once it is known who it is.

        @param end: Called when the identity's grant is over, or somebody ends
            the session.
        @param facts: What it says of itself.
        @raise TunnelError: C{limit-reached}, or why its grant is over.
        """
        if identity.grant is not None:
            identity.grant.check()
        if self.limit and len(self._clients) + self.elsewhere() >= self.limit:
            raise TunnelError(
                "limit-reached",
                f"{self.limit} clients are connected; try again later, or raise"
                " the server's --max-clients",
                RETRY_AFTER,
            )
        RESERVE.checkSession()
        self.acceptLimiter.check()
        client = ConnectedClient(
            "c" + secrets.token_hex(6),
            identity,
            peer,
            dialect,
            self._seconds(),
            end,
            side,
            facts or ClientFacts(),
        )
        self._clients[client.id] = client
        self.changed()
        if identity.grant is not None:
            identity.grant.watch(end)
        return client

    def leave(self, client: ConnectedClient) -> None:
        """Remove a session that is over. It may be called twice."""
        if self._clients.pop(client.id, None) is not None:
            self.changed()
            grant = client.identity.grant
            if grant is not None:
                grant.unwatch(client.end)


class _Breakable(Protocol):
    """What a visit breaks."""

    def reset(self, reason: TunnelError) -> None: ...


class Visits:
    """
    The visits that one session pays to tunnels of others: a
    L{VisitorFilter<tristunnel.model.tunnel.VisitorFilter>} of those streams alone.

    A stream may leave its session and outlive it, but not the permission for it.

    @param identity: As whom the session visits.
    """

    def __init__(self, identity: Identity) -> None:
        self._grant = identity.grant
        self._streams: set[_Breakable] = set()

    def enter(self, stream: _Breakable) -> None:
        """
        Have a visit end when its permission does.

        @raise TunnelError: If that has ended.
        """
        if self._grant is not None:
            self._grant.check()
            self._grant.watch(self.end)
        self._streams.add(stream)

    def leave(self, stream: _Breakable) -> None:
        """Remove a visit that is over. It may be called twice."""
        self._streams.discard(stream)
        if self._grant is not None and not self._streams:
            self._grant.unwatch(self.end)

    def end(self, reason: TunnelError) -> None:
        """Break all of them."""
        for stream in list(self._streams):
            stream.reset(reason)
