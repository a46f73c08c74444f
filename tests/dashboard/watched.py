"""A server in memory that shows metrics and a dashboard."""

from __future__ import annotations

import base64
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from tests.jsonrpc.loopback import parsed
from tests.service.rig import ServiceTestCase
from tristunnel.auth.checkers import checkingCallable
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.dashboard.pages import Watch
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import rootOf
from tristunnel.model.permissions import (
    ANONYMOUS_IDENTITY,
    Grant,
    Identity,
    Permissions,
)
from tristunnel.service.caller import Caller
from tristunnel.service.preauth import PreauthLimiter

__all__ = ["PEER", "WatchedTestCase"]

PEER = IPv4Address("TCP", "192.0.2.1", 50000)


def known(fields: Any) -> bool:
    return fields.get("secret") == "open sesame" and fields.get("id") in (
        "alice",
        "bob",
    )


class Connection:
    """A browser's connection."""

    def __init__(self, site: Any) -> None:
        self.channel = site.buildProtocol(PEER)
        self.transport = StringTransport(peerAddress=PEER)
        self.channel.makeConnection(self.transport)

    def leave(self) -> None:
        self.channel.connectionLost(Failure(ConnectionDone()))

    def said(self) -> bytes:
        data: bytes = self.transport.value()
        self.transport.clear()
        return data


class WatchedTestCase(ServiceTestCase):
    """A site without a network."""

    def setUp(self) -> None:
        super().setUp()
        self.build()

    def build(self, asked: bool = False, names: Any = None, **options: Any) -> None:
        self.asked = asked
        self.watch = Watch(self.clock, self.notes)
        self.service.observer = self.watch.observer
        self.limiter = PreauthLimiter(self.clock.seconds)
        portal = portalFor([checkingCallable(known)]) if asked else None
        self.callers = HTTPCallers(Authenticator(portal), limiter=self.limiter)
        pages = self.watch.pages(
            self.service, self.callers, self.limiter, asked, names, **options
        )
        self.site = LimitedSite(
            rootOf(pages), reactor=self.clock, admit=self.callers.admit
        )

    def owner(self, name: str = "alice") -> Caller:
        if not self.asked:
            return Caller(ANONYMOUS_IDENTITY, "server", 9000, address="192.0.2.1")
        return Caller(Identity(name), "server", 9000, address="192.0.2.1")

    def promote(self, *may: str) -> None:
        grant = Grant(Permissions(may=frozenset(may)))
        identify = self.callers.identify

        def granted(header: bytes, peer: Any, certificate: str = "") -> Any:
            def add(identity: Identity) -> Identity:
                return Identity(identity.name, grant=grant)

            return identify(header, peer).addCallback(add)

        self.patch(self.callers, "identify", granted)

    @staticmethod
    def basic(name: str, password: str = "open sesame") -> str:
        pair = base64.b64encode(f"{name}:{password}".encode()).decode()
        return f"Authorization: Basic {pair}"

    def ask(
        self,
        path: str,
        *headers: str,
        method: str = "GET",
        host: str = "server:9000",
        body: bytes = b"",
    ) -> tuple[int, dict[str, str], str]:
        connection = Connection(self.site)
        connection.channel.dataReceived(
            self.request(path, *headers, method=method, host=host, body=body)
        )
        data = connection.said()
        self.assertNotEqual(data, b"", "there was no answer")
        connection.leave()
        status, answered, text = parsed(data)
        return status, answered, text.decode()

    def request(
        self,
        path: str,
        *headers: str,
        method: str = "GET",
        host: str = "server:9000",
        body: bytes = b"",
    ) -> bytes:
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}", *headers]
        if method == "POST":
            lines.append(f"Content-Length: {len(body)}")
            if not any(header.startswith("Content-Type:") for header in headers):
                lines.append("Content-Type: application/x-www-form-urlencoded")
        return "\r\n".join([*lines, "", ""]).encode() + body

    def visit(self, port: int = 8011, sent: int = 0) -> Any:
        end = self.visitors.open_[port].come()
        end.received = sent
        return end
