"""
The tunnels of a client's forwards: what is open, in one session after the other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from twisted.logger import Logger

from tristunnel.dialects.base.lease import ClientLease
from tristunnel.dialects.framed.client import TunnelClientProtocol
from tristunnel.dialects.framed.health import HealthReports
from tristunnel.errors import TunnelError
from tristunnel.forwards.changes import differences
from tristunnel.forwards.forward import Forward
from tristunnel.jsonrpc.pending import RemoteError
from tristunnel.model.observer import ClientObserver

__all__ = ["OpenedTunnels"]


class OpenedTunnels:
    """
    The tunnels of one client's forwards, which are known by their texts.

    @param reactor: Tells time.
    @param lease: What is remembered of former sessions.
    @param observer: Told what happens.
    @param served: Called when a tunnel is open.

    @ivar session: The session that is up now, or C{None}.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        lease: ClientLease,
        observer: ClientObserver,
        served: Callable[[], object],
    ) -> None:
        self.session: TunnelClientProtocol | None = None
        self._lease = lease
        self._observer = observer
        self._served = served
        self._health = HealthReports(reactor, observer, self._reportHealth)
        # In this session: forwards that need nothing more.
        self._settled: set[str] = set()
        # Those whose tunnels' addresses were told to the observer.
        self._told: set[str] = set()
        self._addresses: dict[str, str] = {}
        self._links: dict[str, str] = {}

    def up(self, session: TunnelClientProtocol) -> None:
        """A session is up, in which nothing is open yet."""
        self.session = session
        self._settled, self._told = set(), set()
        self._links.clear()

    def stop(self) -> None:
        """Check no service any more."""
        self._health.stop()

    def missing(self, forwards: Iterable[Forward]) -> list[Forward]:
        """Find those that are to be opened in this session, in their order."""
        missing = [each for each in forwards if each.spec not in self._settled]
        # Those that any port will do for must not take another one's.
        missing.sort(key=lambda forward: not forward.port)
        return missing

    async def open(
        self, session: TunnelClientProtocol, forward: Forward, options: dict[str, Any]
    ) -> bool:
        """
        Open one tunnel.

        @param options: What the server is told of it.
        @return: Whether to try again later.
        """
        try:
            uri = str(await session.call("openTunnel", **options))
            # Visitors may come before the address is known.
            self._lease.uris[forward.spec] = uri
            address = str(await session.call("getTunnelAddress", uri=uri))
            link = ""
            if forward.gate.knock:
                link = str(await session.call("getKnockLink", uri=uri))
        except (TunnelError, RemoteError) as error:
            if session.lost is not None:
                raise
            refusal = (
                error
                if isinstance(error, TunnelError)
                else TunnelError("internal", str(error))
            )
            self._observer.tunnelFailed(forward.wanted, refusal)
            if not refusal.code.permanent:
                return True
        else:
            self._opened(forward, uri, address, link)
        self._settled.add(forward.spec)
        return False

    def _opened(self, forward: Forward, uri: str, address: str, link: str) -> None:
        """Remember a tunnel for the next session, and tell of it."""
        scheme, _, place = address.partition("://")
        port = place.rpartition(":")[2]
        if forward.hasHost or scheme.startswith("http"):
            # The name is to be had again; the port is the server's own.
            host = "" if forward.name else place.partition("/")[0].partition(":")[0]
            self._lease.opened(forward.spec, uri, 0, host)
        else:
            number = int(port) if port.isdecimal() else 0
            self._lease.opened(forward.spec, uri, number)
        self._health.opened(forward)
        known = self._addresses.get(forward.spec), self._links.get(forward.spec)
        self._links[forward.spec] = link
        if forward.spec not in self._told or known != (address, link):
            self._told.add(forward.spec)
            self._ready(forward, uri, address)

    def _ready(self, forward: Forward, uri: str, address: str) -> None:
        self._served()
        shown = forward.addressFor(address) or f"service {forward.name}"
        self._addresses[forward.spec] = address
        opened = getattr(forward.endpoint, "tunnelOpened", None)
        if opened is not None:
            opened(address)
        self._observer.tunnelOpened(forward.spec, uri, shown, forward.target)
        self._observer.tunnelReady(shown, forward.target)
        if link := self._links.get(forward.spec):
            self._observer.knockLinkMade(shown, link)

    def replace(self, before: Forward, after: Forward) -> str:
        """
        Take over another target or other rules for a tunnel.

        @return: What is different, in words.
        """
        told = differences(before, after)
        if told:
            self._settled.discard(before.spec)
        if (before.options, before.health) != (after.options, after.health):
            self._health.withdrawn(before.spec)
        if before.spec != after.spec:
            told.append(f"leads to {after.target}")
            self._observer.forwardWithdrawn(before.spec)
            self._health.withdrawn(before.spec)
            self._lease.renamed(before.spec, after.spec)
            address = self._addresses.pop(before.spec, "")
            self._links[after.spec] = self._links.pop(before.spec, "")
            uri = self._lease.uris.get(after.spec)
            if before.spec in self._settled:
                self._settled.remove(before.spec)
                self._settled.add(after.spec)
                self._told.add(after.spec)
                if uri is not None:
                    self._ready(after, uri, address)
        return f"forward {before.spec} {' and '.join(told)}"

    async def withdraw(
        self, session: TunnelClientProtocol | None, forward: Forward
    ) -> None:
        """
        Close a forward's tunnel.

        @param session: The session that it is open in; without one, the server is told
            when the client is back.
        """
        uri = self._lease.uris.pop(forward.spec, None)
        self._lease.ports.pop(forward.spec, None)
        self._health.withdrawn(forward.spec)
        self._settled.discard(forward.spec)
        self._addresses.pop(forward.spec, None)
        self._observer.forwardWithdrawn(forward.spec)
        if uri is None or session is None or session.lost is not None:
            return
        try:
            await session.call("closeTunnel", uri=uri)
        except (TunnelError, RemoteError) as error:
            self._log.info(
                "The tunnel of {forward} was not closed: {reason}",
                forward=forward.spec,
                reason=error,
            )

    def closed(self, uri: str, reason: TunnelError) -> None:
        """The server has closed a tunnel."""
        spec = self._lease.specOf(uri)
        if spec is not None:
            del self._lease.uris[spec]
            self._lease.save()
            self._observer.tunnelFailed(spec, reason)

    def _reportHealth(self, spec: str, isWell: bool, reason: str) -> None:
        session, uri = self.session, self._lease.uris.get(spec)
        if session is not None and session.lost is None and uri is not None:
            session.notify("reportHealth", uri=uri, well=isWell, reason=reason)
