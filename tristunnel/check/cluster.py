"""
C{twistd tunnel --check}, about a cluster: is its engine there and fit for a book, can
this member and the others reach each other, and do all know the same secret?
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Any

from twisted.internet.defer import Deferred, DeferredList, maybeDeferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.interfaces import IListeningPort

from tristunnel.check.report import Finding, fail, ok, warn
from tristunnel.cluster.engine import Engine
from tristunnel.cluster.links import MemberLinks, MessageProtocol
from tristunnel.cluster.redis_book import membersIn, otherVersion
from tristunnel.cluster.relay import RelayFactory, askForLink
from tristunnel.cluster.service import ClusterSettings
from tristunnel.cluster.troubles import doubts
from tristunnel.errors import TunnelError
from tristunnel.version import VERSION

__all__ = ["ClusterCheck"]

_MOST = 50
"""Members that are checked, each with a line of its own."""

_ABOUT = ("server", "memory", "replication")
_PATIENCE = 5.0
_SKEW = 10.0
"""Seconds by which clocks may differ: tokens and access end by the time of day."""


@dataclass
class ClusterCheck:
    """
    Checks a cluster.

    @ivar reactor: Connects and listens.
    @ivar settings: What the server was told of it.
    @ivar tokenFile: Where the secret is.
    @ivar place: What C{--advertise} says, or empty.
    @ivar now: The time of day.
    """

    reactor: Any
    settings: ClusterSettings
    tokenFile: str = ""
    place: str = ""
    now: Callable[[], float] = time.time

    async def look(self) -> Iterable[Finding]:
        """Check all of it."""
        engine = self.settings.engine.connection(self.reactor, _PATIENCE)
        found = self._secret()
        try:
            trouble = await self._connected(engine)
            if trouble:
                found.append(fail(f"the engine cannot be used: {trouble}"))
            else:
                found += await self._engine(engine)
            found += await self._listening()
            if not trouble:
                found += await self._members(engine)
        finally:
            await engine.stop()
        return found

    def _secret(self) -> list[Finding]:
        if not self.tokenFile:
            return []
        mode = os.stat(self.tokenFile).st_mode
        if mode & 0o077:
            return [
                warn(
                    f"others on this machine can read {self.tokenFile}, the secret of"
                    f" all members: chmod 600 {self.tokenFile}"
                )
            ]
        return [ok(f"{self.tokenFile} has a secret, which only its owner can read")]

    async def _connected(self, engine: Engine) -> str:
        """
        Wait for a connection.

        @return: Why there is none.
        """
        up: Deferred[str] = Deferred()

        def told(why: str) -> None:
            if not up.called:
                up.callback(why)

        engine.whenUp = lambda: told("")
        engine.whenTroubled = told
        engine.start()
        late = "it does not answer: check its address, and the firewall"
        return await up.addTimeout(_PATIENCE, self.reactor, lambda *_: late)

    async def _engine(self, engine: Engine) -> list[Finding]:
        began = self.reactor.seconds()
        seconds, micros = await engine.command("TIME")
        trip = self.reactor.seconds() - began
        info = "\n".join([str(await engine.command("INFO", each)) for each in _ABOUT])
        said = dict(re.findall(r"(?m)^(\w+):([^\r\n]*)", info))
        kind = "Valkey" if said.get("server_name") == "valkey" else "Redis"
        version = said.get("valkey_version") or said.get("redis_version", "")
        found = [
            ok(f"the engine is {kind} {version[:20]}, {trip * 1000:.1f} ms away"),
            *(warn(f"the engine: {doubt}") for doubt in doubts(info)),
        ]
        replicas = said.get("connected_slaves", "0")
        if replicas != "0" and "min_slaves_good_slaves" not in said:
            found.append(
                warn(
                    "the engine has replicas, and keeps accepting writes when it"
                    " is cut off"
                    " from them: set its min-replicas-to-write to 1 and"
                    " min-replicas-max-lag to 5"
                )
            )
        if why := await otherVersion(engine):
            found.append(fail(why))
        skew = self.now() - int(seconds) - int(micros) / 1e6 - trip / 2
        if abs(skew) > _SKEW:
            found.append(
                warn(
                    f"this machine's clock is {abs(skew):.0f} s"
                    f" {'before' if skew > 0 else 'behind'} the engine's, and tokens"
                    " and access end by it: set the clocks, with chrony for example"
                )
            )
        return found

    async def _listening(self) -> list[Finding]:
        """Listen, and connect to oneself at the advertised address."""
        settings = self.settings
        what = f"--cluster-listen {settings.description}"
        links = MemberLinks(self.reactor, "check", settings.secret, self._wayTo)
        factory = RelayFactory(self.reactor, settings.secret, _nobody)
        factory.linked = links.linked
        try:
            port: IListeningPort = await maybeDeferred(settings.listen.listen, factory)
        except Exception as error:
            cause = getattr(error, "socketError", error)
            why = getattr(cause, "strerror", None) or str(cause)
            return [
                fail(
                    f"{what} cannot be listened on ({why}): stop the program that uses"
                    " it, perhaps this server itself, or choose another"
                )
            ]
        found = [ok(f"{what} is free")]
        try:
            await self._greet(settings.advertise)
        except TunnelError as refusal:
            found.append(
                warn(
                    f"--cluster-advertise {settings.advertise} does not lead here from"
                    f" this machine ({refusal.message}): correct if only the others can"
                    " go that way, wrong otherwise"
                )
            )
        else:
            found.append(ok(f"{settings.advertise} leads here"))
        finally:
            await maybeDeferred(port.stopListening)
            links.close()
        return found

    def _wayTo(self, advertised: str) -> Any:
        return clientFromString(self.reactor, advertised)

    async def _greet(self, advertised: str) -> None:
        """
        Prove to a member that this is one, too.

        @raise TunnelError: Why that cannot be.
        """
        messages = MessageProtocol(lambda message: None, lambda: None)
        try:
            way = self._wayTo(advertised)
            secret = self.settings.secret
            await askForLink(self.reactor, way, secret, "check", messages)
        except ValueError as error:
            raise TunnelError("bad-option", str(error)) from None
        finally:
            messages.close()

    async def _members(self, engine: Engine) -> list[Finding]:
        members = await membersIn(engine, self.settings.times.memberTTL)
        if not members:
            return [ok("this is the first member of the cluster")]
        looks = [
            Deferred.fromCoroutine(self._member(name, about))
            for name, about in islice(members.items(), _MOST)
        ]
        answers: Any = await DeferredList(looks, consumeErrors=True)
        return [finding for _, finding in answers]

    async def _member(self, name: str, about: Mapping[str, object]) -> Finding:
        address = str(about.get("address", ""))
        what = f"member {name} at {address}"
        try:
            await self._greet(address)
        except TunnelError as refusal:
            if refusal.code.name == "protocol-error":
                return fail(f"{what} cannot be asked: {refusal.message}")
            return fail(
                f"{what} cannot be asked ({refusal.message}): let its --cluster-listen"
                " port through the firewall, and give all the same --cluster-token-file"
            )
        release = str(about.get("release", ""))
        if release and release != VERSION:
            return warn(f"{what} has version {release[:40]}, and this one {VERSION}")
        state = " It is drained." if about.get("draining") else ""
        return ok(f"{what} knows the same secret.{state}")


def _nobody(tunnel: str) -> Any:
    raise TunnelError("client-away")
