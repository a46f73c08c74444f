"""The way to an engine whose place Sentinels know."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from zope.interface import implementer

from tristunnel.cluster.engine import Engine
from tristunnel.errors import TunnelError
from tristunnel.util.deferreds import returnsDeferred

__all__ = ["SentinelEndpoint"]

PATIENCE = 1.0
"""Seconds in which a Sentinel must answer; then the next one is asked."""


@implementer(IStreamClientEndpoint)
@dataclass(eq=False)
class SentinelEndpoint:
    """
    Asks before each connection which engine is the primary one now.

    @ivar reactor: Tells time.
    @ivar sentinels: Makes a connection to each Sentinel, in the order in which they are
        asked.
    @ivar primary: What they call the engine.
    @ivar wayTo: Makes the way to an engine of its host and port.
    """

    reactor: IReactorTime
    sentinels: list[Callable[[], Engine]]
    primary: str
    wayTo: Callable[[str, int], IStreamClientEndpoint]

    @returnsDeferred
    async def connect(self, protocolFactory: IProtocolFactory) -> IProtocol:
        host, port = await self._ask()
        connected: IProtocol = await self.wayTo(host, port).connect(protocolFactory)
        return connected

    async def _ask(self) -> tuple[str, int]:
        """
        @raise TunnelError: C{cluster-away}, if no Sentinel knows.
        """
        isKnown, refusal = False, ""
        for make in list(self.sentinels):
            sentinel = make()
            try:
                found = await self._askOne(sentinel)
            except TunnelError:
                refusal = refusal or " ".join(sentinel.said.split())[:120]
                continue
            isKnown = True
            if found:
                # Who has answered is asked first the next time.
                self.sentinels.remove(make)
                self.sentinels.insert(0, make)
                return found[0], int(found[1])
        why = "no Sentinel can be reached: check that they run, and --cluster"
        if refusal:
            why = (
                "a Sentinel refuses to answer: give its own login in --cluster, as"
                f" ?sentinel=USER:PASSWORD or ?sentinel=:PASSWORD ({refusal})"
            )
        if isKnown:
            why = (
                f"no Sentinel knows an engine {self.primary!r}: is that its name in"
                " 'sentinel monitor'?"
            )
        raise TunnelError("cluster-away", why)

    async def _askOne(self, sentinel: Engine) -> list[str]:
        up: Deferred[None] = Deferred()
        sentinel.whenUp = lambda: None if up.called else up.callback(None)
        sentinel.start()
        try:
            await up.addTimeout(PATIENCE, self.reactor, _late)
            found: list[str] | None = await sentinel.command(
                "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.primary
            )
        finally:
            sentinel.stop()
        return found or []


def _late(result: object, seconds: float) -> None:
    raise TunnelError("cluster-away", f"a Sentinel did not answer in {seconds:g} s")
