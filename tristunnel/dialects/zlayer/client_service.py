"""
A client of a zlayer server.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from typing import Any
from uuid import UUID

from twisted.internet.defer import CancelledError, Deferred

from tristunnel.connect.websocket import WebSocketEndpoint
from tristunnel.dialects.base.client import WebSocketClientService, openWebSocket
from tristunnel.dialects.zlayer.client import ZLayerClientSession
from tristunnel.dialects.zlayer.data_end import DATA_SUBPROTOCOL
from tristunnel.errors import badOption
from tristunnel.websocket.connection import Receiver

__all__ = ["ZLayerClientService", "backoff", "tokenOf"]

FIRST_DELAY = 5.0
"""Seconds before the first new attempt."""

LONGEST_DELAY = 60.0
"""Seconds: what that grows to, doubling."""


def backoff(failures: int, retryAfter: float | None = None) -> float:
    """
    How long to wait before the next attempt: as long as zlayer's own client,
    and a random tenth more, lest all come back in the same moment.

    @param failures: Attempts that failed so far, from 0.
    @param retryAfter: What the server asked for, in seconds.
    @return: Seconds.
    """
    bound = min(FIRST_DELAY * 2.0 ** min(failures, 30), LONGEST_DELAY)
    return max(bound, retryAfter or 0.0) * random.uniform(1.0, 1.1)


def tokenOf(credentials: Mapping[str, object]) -> str:
    """
    Make a token from what a client was given: C{ID:SECRET}, if it has no token.

    @raise TunnelError: C{bad-option}, if there is nothing to make it from.
    """
    token = str(credentials.get("token", ""))
    secret = str(credentials.get("secret") or credentials.get("password") or "")
    if not token and secret:
        token = f"{credentials.get('id', '')}:{secret}"
    if not token:
        raise badOption(
            "zlayer needs a token: use --token-file FILE, or set TRISTUNNEL_TOKEN"
        )
    if len(token.encode()) > 4096:
        raise badOption("a token has at most 4096 bytes")
    return token


class ZLayerClientService(WebSocketClientService[ZLayerClientSession]):
    """Stays connected to a zlayer server."""

    backoff = staticmethod(backoff)

    def makeSession(self) -> ZLayerClientSession:
        return ZLayerClientSession(
            self._reactor,
            self._forwards,
            tokenOf(self._credentials),
            self._openData,
            self.observer,
            self._server.host,
        )

    def _openData(self, connection: UUID, receiver: Receiver) -> Deferred[object]:
        return Deferred.fromCoroutine(self._data(connection, receiver))

    async def _data(self, connection: UUID, receiver: Receiver) -> object:
        endpoint: Any = self._server.endpoint
        if not isinstance(endpoint, WebSocketEndpoint):
            raise CancelledError()
        path = f"data/{connection}"
        where = replace(
            self._server,
            where=f"{self._server.where}/{path}",
            endpoint=endpoint.below(path),
        )
        return await openWebSocket(where, receiver, (DATA_SUBPROTOCOL,))
