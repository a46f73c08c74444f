"""Streams that may leave their session, over the loopback interface."""

from __future__ import annotations

import math
from typing import Any

from tests.support.amounts import pattern
from tests.support.loopback import LoopbackTestCase, Talk
from tests.support.polling import until
from tristunnel.dialects.framed import client_service as clientService
from tristunnel.dialects.framed import movable
from tristunnel.dialects.framed.moves import Carrier

MUCH = 3_000_000
"""Bytes that prove a stream busy."""


class CarrierTestCase(LoopbackTestCase):
    """
    A test with a client of one carrier.

    @cvar carrier: How its streams travel.
    """

    carrier = Carrier("direct")

    def setUp(self) -> None:
        super().setUp()
        # How fast this machine is now decides of no stream whether it is busy.
        self.patch(movable, "SHORT", math.inf)
        self.patch(clientService, "Carrier", lambda: self.carrier)

    @property
    def session(self) -> Any:
        (session,) = [s for s in self.sessions.sessions if s.multiplexer is not None]
        return session

    @property
    def newest(self) -> Any:
        (tunnel,) = self.session.lease.tunnels
        return max(tunnel.streams, key=lambda stream: stream.number).client

    async def moved(self) -> None:
        """Wait until the newest stream has left the session."""
        await until(lambda: self.newest.hasMoved)

    async def exchange(self, visitor: Talk, talk: Talk, size: int = MUCH) -> None:
        await visitor.has(5)
        there, back = len(talk.data), len(visitor.data)
        visitor.say(pattern(size, 1))
        talk.say(pattern(size, 2))
        await talk.has(there + size)
        await visitor.has(back + size)
        self.assertTrue(talk.data[there:] == pattern(size, 1))
        self.assertTrue(visitor.data[back:] == pattern(size, 2))
