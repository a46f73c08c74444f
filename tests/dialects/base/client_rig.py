"""A client service and a server, over a network in memory."""

from __future__ import annotations

from typing import Any

from tests.dialects.framed.network import (
    MemoryServer,
    MemoryService,
    ServiceNetworkTestCase,
)
from tristunnel.connect.address import ServerAddress
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import Forward


class ClientServiceTestCase(ServiceNetworkTestCase):
    """A test of a client with a server in memory."""

    def setUp(self) -> None:
        super().setUp()
        self.way = self.endpoint()
        self.gaveUp: list[TunnelError] = []
        self.delays: list[tuple[int, float | None]] = []

    def forward(
        self, port: int = 0, name: str = "", service: MemoryService | None = None
    ) -> Forward:
        target = name or "web"
        spec = f"{name or port}={target}"
        return Forward(spec, port, name, target, service or self.web)

    def makeClient(
        self,
        *forwards: Forward,
        lease: ClientLease | None = None,
        credentials: dict[str, object] | None = None,
        way: MemoryServer | None = None,
    ) -> TunnelClientService:
        """Make a client; it waits for 3 s after each failure."""

        def delay(failures: int, retryAfter: float | None) -> float:
            self.delays.append((failures, retryAfter))
            return (retryAfter or 0.0) + 3.0

        return TunnelClientService(
            self.clock,
            ServerAddress("tcp:server.example:9000", "server.example", way or self.way),
            forwards or [self.forward()],
            credentials,
            self.seen,
            lease,
            2.0,
            self.gaveUp.append,
            delay,
        )

    def client(self, *forwards: Forward, **options: Any) -> TunnelClientService:
        client = self.makeClient(*forwards, **options)
        client.startService()
        self.settle()
        return client

    def stop(self, client: TunnelClientService) -> None:
        stopping = client.stopService()
        self.clock.advance(0)
        self.settle()
        self.successResultOf(stopping)
