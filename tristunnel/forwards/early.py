"""
Protocols of the client's own that listen to a visitor for a while, and then give way to
another service.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    TimeoutError,
)
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dataplane.join import join
from tristunnel.dataplane.transport_end import Arriving, EndFactory
from tristunnel.errors import TunnelError

__all__ = ["EarlyProtocol", "reasonOf"]

MOST_EARLY = 64 * 1024
"""Bytes from a visitor that are kept before it is connected."""


class EarlyProtocol(Protocol):
    """
    A visitor who is not connected yet.

    @param reactor: Connects.

    @ivar early: What is for the service.
    """

    _log: ClassVar[Logger] = Logger(namespace="tristunnel.client")
    transport: Any

    def __init__(self, reactor: Any) -> None:
        self.reactor = reactor
        self.early = b""
        self._isHeld = False
        self._dialling: Deferred[Any] | None = None

    def keep(self, data: bytes) -> None:
        """Keep bytes for the service; reading pauses if there are many."""
        self.early += data
        if len(self.early) > MOST_EARLY and not self._isHeld:
            self._isHeld = True
            self.transport.pauseProducing()

    def dial(
        self,
        endpoint: IStreamClientEndpoint,
        reached: Callable[[], bytes],
        refused: Callable[[TunnelError], object],
    ) -> None:
        """
        Connect the visitor to its service.

        @param reached: Called when it is reached; what it returns is sent to it first,
            before what was kept.
        @param refused: Called with the reason when it is not.
        """

        def failed(failure: Failure) -> None:
            if failure.check(CancelledError):
                return
            if not failure.check(TunnelError, *_KNOWN):
                self._log.failure("A visitor's way failed", failure)
            refused(reasonOf(failure))

        dialling = self._dialling = endpoint.connect(
            EndFactory(self.reactor, lambda far: self._arrived(far, reached))
        )
        dialling.addErrback(failed)
        dialling.addErrback(
            lambda failure: self._log.failure("A visitor's way failed", failure)
        )

    def _arrived(self, far: Any, reached: Callable[[], bytes]) -> None:
        if self.transport is None:
            far.reset(TunnelError("reset", "the visitor has left"))
            return
        first = reached() + self.early
        transport, self.transport, self.early = self.transport, None, b""
        if self._isHeld:
            transport.resumeProducing()

        def shown(near: Any) -> None:
            if first:
                far.write(first)
            join(near, far, lambda reason: None)

        taking = Arriving(self.reactor, shown)
        transport.protocol = taking
        taking.makeConnection(transport)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.transport = None
        if self._dialling is not None:
            self._dialling.cancel()


_REASONS: tuple[tuple[type[Exception], str], ...] = (
    (ConnectionRefusedError, "service-refused"),
    (TimeoutError, "service-timeout"),
)
_ELSE = "service-unreachable"
_KNOWN = (ConnectError, DNSLookupError, OSError)


def reasonOf(failure: Failure) -> TunnelError:
    """Say in our own words, and by a code, why nothing was reached."""
    error = failure.value
    if isinstance(error, TunnelError):
        return error
    code = next((code for kind, code in _REASONS if failure.check(kind)), _ELSE)
    return TunnelError(code, failure.getErrorMessage())
