"""What all connections to the ports of names share."""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Callable
from functools import lru_cache
from typing import Any
from typing import Protocol as Structure

from tristunnel.dataplane.descriptors import RESERVE
from tristunnel.names.counters import REQUESTS
from tristunnel.names.exchange import Exchange
from tristunnel.names.gate import Closed, Gate
from tristunnel.names.log import AccessLog
from tristunnel.names.origin import NO_PROXIES, Proxies
from tristunnel.names.public import CHALLENGES, PublicNames
from tristunnel.wire.http import RequestHead
from tristunnel.wire.http_answer import wholeResponse

__all__ = ["MOST_IDLE", "NameSite", "Waiting", "hostOf"]

MOST_IDLE = 4096
"""Idle connections; the one that has waited longest makes room for another."""


class Waiting(Structure):
    """
    A connection of which it is not known yet what it wants.

    @ivar leave: Ends it, to make room for another; to be set.
    """

    leave: Callable[[], object] | None

    def known(self) -> None:
        """Count it no longer: it is known, or is gone. It may be called twice."""


@lru_cache(4096)
def hostOf(said: bytes) -> str:
    """
    Read what C{Host} says.

    @return: The name as routes have it: in lower case, without a port and a last dot.
    """
    text = said.decode("ascii").lower()
    return re.sub(r":[0-9]*\Z", "", text).removesuffix(".")


class NameSite:
    """
    Serves names over HTTP.

    @param reactor: Tells time.
    @param names: The routes, and what visitors see of them.

    @ivar seconds: Its time.
    @ivar log: Where requests are noted, or C{None}.
    @ivar counters: Count them.
    @ivar proxies: Knows which proxies may say where visitors come from.
    @ivar gate: Decides on requests to tunnels whose owners ask visitors to sign in.
    @ivar idle: Idle connections, the oldest first.
    @ivar mostIdle: How many of those there may be.
    @ivar passOn: Passes a connection on to another process, with what was read from it,
        and returns whether it could.
    """

    def __init__(self, reactor: Any, names: PublicNames) -> None:
        self.reactor = reactor
        self.seconds: Callable[[], float] = reactor.seconds
        self.names = names
        self.log: AccessLog | None = None
        self.counters = REQUESTS
        self.proxies: Proxies = NO_PROXIES
        self.gate: Gate = Closed()
        self.idle: OrderedDict[Any, None] = OrderedDict()
        self.mostIdle = max(16, min(MOST_IDLE, RESERVE.size))
        self.passOn: Callable[[Any, int, bytes], bool] = lambda *passed: False

    def passes(self, exchange: Exchange, transport: Any, first: bytes | None) -> bool:
        """
        Pass the whole connection on to the process that has the tunnel, which also logs
        it.

        @param first: All that has come; C{None} if a service has some of it.
        @return: Whether it was passed on.
        """
        route = exchange.route
        return (
            route is not None
            and route.member is not None
            and first is not None
            and self.passOn(transport, route.member, first)
        )

    def received(self, exchange: Exchange) -> tuple[int, bytes] | None:
        """
        Find where a request goes, or answer what needs no service.

        @return: The status and the whole response, or C{None} if there is a route.
        """
        own = self._challenged(exchange)
        if own is not None:
            return own
        path = exchange.head.target.decode("ascii")
        exchange.route = self.names.table.find("http", exchange.host, path)
        if exchange.route is None:
            text = f"No tunnel of this server has the name {exchange.host}."
            return 404, self.page(exchange.head, 404, text)
        if self.names.table.isUnclear(exchange.route, path):
            text = "The path can be read in several ways; write it out plainly."
            return 400, self.page(exchange.head, 400, text)
        return self._redirect(exchange)

    def _challenged(self, exchange: Exchange) -> tuple[int, bytes] | None:
        """Answer an authority that looks for proof that a name is ours."""
        target = exchange.head.target
        if not target.startswith(CHALLENGES):
            return None
        answer = self.names.challenge(target)
        if answer is None:
            return None
        return 200, wholeResponse(200, answer, kind=b"application/octet-stream")

    def _redirect(self, exchange: Exchange) -> tuple[int, bytes] | None:
        """
        Redirect a visitor in clear text to TLS, if its browser will trust the
        certificate.
        """
        names, host = self.names, exchange.host
        if (
            exchange.origin.scheme == b"https"
            or not names.redirects
            or "https" not in names.ports
            or not names.isCovered(host)
        ):
            return None
        head = exchange.head
        # With a 301, other methods would be repeated as a GET.
        status = 301 if head.method in (b"GET", b"HEAD") else 308
        where = names.address("https", host).encode("ascii")
        return status, (
            b"HTTP/1.1 %d Moved Permanently\r\nLocation: %b%b\r\n"
            b"Content-Length: 0\r\nConnection: close\r\n\r\n"
            % (status, where, head.target if head.target != b"*" else b"/")
        )

    def page(
        self,
        head: RequestHead | None,
        status: int,
        text: str,
        retryAfter: float | None = None,
    ) -> bytes:
        """
        Write an answer in a service's place, after which the connection is closed.

        @param head: The request's, if there is one.
        @param text: What is the matter, in a sentence.
        @param retryAfter: Seconds after which to ask again, if that is known.
        """
        headers = b""
        if retryAfter is not None:
            headers = b"Retry-After: %d\r\n" % max(1, round(retryAfter))
        accept = b"" if head is None else head.get(b"accept")
        withBody = head is None or head.method != b"HEAD"
        return self.names.pages.response(status, text, accept, headers, withBody)

    def ended(self, exchange: Exchange, status: int) -> None:
        """
        Count and log a request that has its answer, or will have none.

        @param status: The status to log if the service has not answered.
        """
        if exchange.response is not None and status != 499:
            status = exchange.response.status
        self.counters.count(exchange, status)
        if self.log is not None:
            self.log.note(exchange, status, self.seconds() - exchange.began)
