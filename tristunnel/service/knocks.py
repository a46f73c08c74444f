"""
Knocking: whoever has a tunnel's link, and passes what it asks, has an address let in to
the tunnel's port for a while.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import sha256
from secrets import token_bytes
from typing import Any, Protocol

from tristunnel.errors import TunnelError, badOption
from tristunnel.model.options import TunnelOptions
from tristunnel.model.tunnel import Tunnel
from tristunnel.service.caller import Caller
from tristunnel.service.here import Here
from tristunnel.service.policies import VisitorPolicies
from tristunnel.service.siblings import Siblings
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.hosts import hostAndPort

__all__ = ["KNOCK_PATH", "Door", "Knocks"]

KNOCK_PATH = b"knock"
"""Below which path of the server the links are."""


@dataclass(frozen=True)
class Door:
    """
    What somebody with a link is told.

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
    @ivar siblings: The other members of the server, if it has any.
    @ivar hostname: What addresses say; empty for the name that the caller used.
    @ivar clientPort: The port that clients connect to, and whether it speaks TLS.
    """

    here: Here
    policies: VisitorPolicies
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

    A link has the tunnel's id, and what only this server can make of that: nothing has
    to be kept, and any member of a server knows the links of all.

    @param service: Has the tunnels.

    @ivar others: Ports that clients may come to and that have no pages.
    """

    def __init__(self, service: Guards) -> None:
        self._service = service
        self._key = token_bytes(32)
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

    async def find(self, identifier: str, secret: str) -> Door:
        """
        Find out where a link leads.

        @raise TunnelError: C{unknown-tunnel}, also for a wrong secret.
        """
        return _doorOf(await self._ask("knockDoor", identifier, secret))

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

    # Of this process

    @property
    def _here(self) -> dict[str, Callable[..., object]]:
        return {"knockDoor": self._door, "knock": self._knock}

    def publish(self, siblings: Siblings) -> None:
        """Let the other members ask for what is here."""
        for name, function in self._here.items():
            siblings.publish(name, function)

    def _tunnel(self, identifier: str) -> Tunnel:
        held = self._service.here.get(identifier)
        if held is None or held.tunnel.closed or not held.tunnel.gate.knock:
            raise TunnelError("unknown-tunnel")
        return held.tunnel

    def _door(self, caller: Caller | None, identifier: str) -> dict[str, object]:
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
        return self._service.policies.admit(self._tunnel(identifier), host)


def _doorOf(said: dict[str, Any]) -> Door:
    return Door(**{**said, "login": tuple(said["login"])})
