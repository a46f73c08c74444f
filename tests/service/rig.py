"""The tunnel service, with listeners in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.book import LateBook
from tests.support.notes import ServerNotes
from tests.support.waiting import Ports
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.caller import Caller
from tristunnel.service.tunnel_service import TunnelService

ALICE = Caller(Identity("alice"), "server", 9000, address="192.0.2.1")


BOB = Caller(Identity("bob"), "server", 9000, address="192.0.2.2")


class Session:
    """A client's session that keeps what it is told."""

    def __init__(self) -> None:
        self.streams: list[Stream] = []
        self.over: list[str] = []

    def serve(self, stream: Stream) -> None:
        self.streams.append(stream)

    def tunnelClosed(self, tunnel: Tunnel, reason: TunnelError) -> None:
        self.over.append(reason.code.name)

    def displaced(self) -> None:
        pass


class ServiceTestCase(SynchronousTestCase):
    """
    A tunnel service with ports in memory.

    @ivar visitors: The ports for visitors, 8010 to 8013, and for raw ends.
    @ivar overTLS: The same with TLS, 8020 to 8023.
    """

    def setUp(self) -> None:
        self.clock = Clock()
        self.notes = ServerNotes()
        self.visitors, self.overTLS = Ports(), Ports("tls", 8020)
        self.makeService()

    def makeService(self, **options: Any) -> None:
        self.book = LateBook(self.clock)
        options.setdefault("book", self.book)
        options.setdefault("listeners", {"tcp": self.visitors, "tls": self.overTLS})
        self.service = TunnelService(self.clock, observer=self.notes, **options)
        self.service.clientPort = (9000, False)

    def open(self, caller: Caller = ALICE, **options: object) -> str:
        return self.successResultOf(self.service.openTunnel(caller, options))

    def address(self, uri: str, caller: Caller = ALICE) -> str:
        return self.successResultOf(self.service.getTunnelAddress(caller, uri))

    def close(self, uri: str, caller: Caller = ALICE) -> None:
        self.successResultOf(self.service.closeTunnel(caller, uri))

    def list(self, caller: Caller = ALICE) -> list[dict[str, object]]:
        return self.successResultOf(self.service.listTunnels(caller))

    def assertRefused(self, code: str, call: Deferred[Any]) -> str:
        error = self.failureResultOf(call, TunnelError).value
        self.assertEqual(error.code.name, code)
        self.assertNotIn("\n", error.message)
        return str(error.message)

    def assertNotOpened(
        self, code: str, caller: Caller = ALICE, **options: object
    ) -> str:
        before = self.left()
        message = self.assertRefused(code, self.service.openTunnel(caller, options))
        self.assertEqual(self.left(), before)
        return message

    def left(self) -> tuple[object, ...]:
        return (
            sorted(self.visitors.open_),
            sorted(self.overTLS.open_),
            len(self.clock.getDelayedCalls()),
            list(self.service.here),
            len(self.service.here),
        )

    def assertNothingLeft(self) -> None:
        self.assertEqual(self.left(), ([], [], 0, [], 0))
