"""
Knocking: whoever has a tunnel's link, and passes what it asks, has an address let in to
the tunnel's port for a while.
"""

from __future__ import annotations

import hmac
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from hashlib import sha256
from operator import itemgetter
from secrets import token_bytes
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime

from tristunnel.errors import TunnelError, badOption
from tristunnel.model.gate import GateRules
from tristunnel.model.options import TunnelOptions
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.caller import Caller
from tristunnel.service.here import Here
from tristunnel.service.knocked import networkOf
from tristunnel.service.policies import VisitorPolicies
from tristunnel.service.siblings import Siblings
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.hosts import hostAndPort

__all__ = ["KNOCK_PATH", "Knocks", "LinkedTunnel"]

KNOCK_PATH = b"knock"
"""The path of the server below which the links are."""


REMEMBERED = 1000
"""Tunnels of which each member of a server remembers who has knocked last."""


@dataclass(frozen=True)
class LinkedTunnel:
    """
    A tunnel that a link leads to, as far as somebody with the link is told of it.

    @ivar title: What the tunnel is called, or else where it is.
    @ivar address: Where its visitors connect, as a URI.
    @ivar seconds: For how long an address is let in.
    @ivar pin: The hash of the PIN that is asked for, or empty.
    @ivar login: C{NAME:HASH} of each user who may knock.
    """

    title: str
    address: str
    seconds: float
    pin: str = field(default="", repr=False)
    login: tuple[str, ...] = field(default=(), repr=False)


class Guards(Protocol):
    """
    What is needed of the tunnel service.

    @ivar here: The tunnels of this process.
    @ivar policies: Who may come in where.
    @ivar reactor: Tells time.
    @ivar siblings: The other members of the server, if it has any.
    @ivar hostname: What addresses say; empty for the name that the caller used.
    @ivar clientPort: The port that clients connect to, and whether it speaks TLS.
    """

    here: Here
    policies: VisitorPolicies
    reactor: IReactorTime
    siblings: Siblings | None
    hostname: str
    clientPort: tuple[int, bool]

    async def find(self, uri: str) -> Tunnel:
        """Look up a tunnel."""

    def mayControl(self, caller: Caller, tunnel: Tunnel) -> bool:
        """Whether it is the caller's own."""


class Knocks:
    """
    Makes links, and lets in who knocks with one.

    A link has the tunnel's id, and a secret that only this server can derive from that:
    nothing has to be stored, and each member of a server can check the links of all.

    @param service: Has the tunnels.

    @ivar others: Ports that clients may come to and that have no pages.
    """

    def __init__(self, service: Guards) -> None:
        self._service = service
        self._key = token_bytes(32)
        # Who has knocked at tunnels of whatever member, until when, and what was asked.
        self._heard: OrderedDict[str, dict[str, tuple[float, str]]] = OrderedDict()
        self.others: set[int] = set()

    def offer(self, tunnel: Tunnel, caller: Caller, wanted: TunnelOptions) -> None:
        """
        Make the link of a tunnel whose visitors have to knock.

        @raise TunnelError: C{bad-option}, if there is no page for a link to lead to.
        """
        if not wanted.gate.knock:
            tunnel.knockLink = ""
        elif not tunnel.knockLink:
            secret = self._secret(tunnel.id)
            path = f"{KNOCK_PATH.decode()}/{tunnel.id}/{secret}"
            tunnel.knockLink = f"{self._base(caller)}/{path}"

    def _base(self, caller: Caller) -> str:
        service = self._service
        host, port, secure = caller.host, caller.port, caller.secure
        if caller.clientSide is None or not port or port in self.others:
            port, secure = service.clientPort
        if not port:
            raise badOption(
                "knock needs a page of this server that visitors can open, and its"
                " clients come by UNIX sockets only: start it with a TCP --port, or"
                " leave knock out"
            )
        where = hostAndPort(service.hostname or host, port)
        return f"{'https' if secure else 'http'}://{where}"

    def _secret(self, identifier: str) -> str:
        siblings = self._service.siblings
        key = self._key if siblings is None else siblings.key
        made = hmac.digest(key, f"knock {identifier}".encode(), sha256)
        return made.hex()[:32]

    @returnsDeferred
    async def getKnockLink(self, caller: Caller, uri: str) -> str:
        """
        Look up the link of a tunnel.

        @return: Empty, if its visitors need not knock.
        @raise TunnelError: C{unknown-tunnel}, also for somebody else's.
        """
        tunnel = await self._service.find(uri)
        if caller.limitedTo is not None or not self._service.mayControl(caller, tunnel):
            raise TunnelError("unknown-tunnel")
        return tunnel.knockLink

    async def find(self, identifier: str, secret: str) -> LinkedTunnel:
        """
        Find out where a link leads.

        @raise TunnelError: C{unknown-tunnel}, also for a wrong secret.
        """
        return _linkedFrom(await self._ask("knockDoor", identifier, secret))

    async def admit(self, identifier: str, secret: str, host: str) -> float:
        """
        Let an address in.

        @return: For how many seconds.
        @raise TunnelError: C{unknown-tunnel}; C{not-permitted}, if nobody may come from
            there; C{limit-reached}.
        """
        return float(await self._ask("knock", identifier, secret, host))

    async def _ask(self, what: str, identifier: str, secret: str, *said: str) -> Any:
        refusal = TunnelError("unknown-tunnel")
        wanted = self._secret(identifier).encode()
        if not hmac.compare_digest(wanted, secret.encode("utf-8", "replace")):
            # None of the others would know it either.
            raise refusal
        try:
            return self._here[what](None, identifier, *said)
        except TunnelError as error:
            siblings = self._service.siblings
            if error.code.name != "unknown-tunnel" or siblings is None:
                raise
            return await siblings.first(error, what, None, identifier, *said)

    # What moves from one member to another

    def hear(self, identifier: str, host: str, seconds: float, asked: str) -> None:
        """
        Take note that somebody has knocked at a tunnel that may move here from another
        member.

        @param seconds: For how long it is let in.
        @param asked: Identifies what was asked for.
        """
        now = self._service.reactor.seconds()
        known = self._heard.pop(identifier, {})
        known[host] = now + seconds, asked
        self._heard[identifier] = {k: v for k, v in known.items() if v[0] > now}
        while len(self._heard) > REMEMBERED:
            self._heard.popitem(last=False)

    def moved(self, tunnel: Tunnel) -> None:
        """
        Let in those who knocked at a tunnel before it moved here from another member.
        """
        now = self._service.reactor.seconds()
        known = self._heard.get(tunnel.id, {})
        for host, (until, asked) in sorted(known.items(), key=itemgetter(1)):
            if asked == _markOf(tunnel.gate) and until > now:
                # Those whom the policy does not let in any more are left out.
                with suppress(TunnelError):
                    self._service.policies.admit(tunnel, host, until - now)

    # Of this process

    @property
    def _here(self) -> dict[str, Callable[..., object]]:
        return {"knockDoor": self._linked, "knock": self._knock}

    def publish(self, siblings: Siblings) -> None:
        """Let the other members call these methods."""
        for name, function in self._here.items():
            siblings.publish(name, function)
        siblings.publish("knocked", self.hear)

    def _tunnel(self, identifier: str) -> Tunnel:
        held = self._service.here.get(identifier)
        if held is None or held.tunnel.closed or not held.tunnel.gate.knock:
            raise TunnelError("unknown-tunnel")
        return held.tunnel

    def _linked(self, caller: Caller | None, identifier: str) -> dict[str, object]:
        tunnel = self._tunnel(identifier)
        rules = tunnel.gate
        return {
            "title": tunnel.called or tunnel.address.partition("://")[2],
            "address": tunnel.address,
            "seconds": rules.knock,
            "pin": rules.pin,
            "login": list(rules.login),
        }

    def _knock(self, caller: Caller | None, identifier: str, host: str) -> float:
        tunnel = self._tunnel(identifier)
        seconds = self._service.policies.admit(tunnel, host)
        siblings, network = self._service.siblings, networkOf(host)
        if siblings is not None and network is not None:
            address, mark = str(network.network_address), _markOf(tunnel.gate)
            news = (identifier, address, seconds, mark)
            self.hear(*news)
            siblings.tell("knocked", *news)
        return seconds


def _markOf(rules: GateRules) -> str:
    return sha256(repr(rules).encode()).hexdigest()[:16]


def _linkedFrom(said: dict[str, Any]) -> LinkedTunnel:
    return LinkedTunnel(**{**said, "login": tuple(said["login"])})
