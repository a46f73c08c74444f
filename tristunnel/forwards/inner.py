"""
Services within the client itself: a stream leads to a Twisted C{Protocol} of this
process instead of to another program.

Such a visit is held back, half-closed, counted and moved like any other.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.dataplane.dial import adopted

__all__ = ["InnerEndpoint", "OneProtocol", "VisitorFactory"]

VisitorFactory = Callable[[Mapping[str, object]], IProtocolFactory]
"""Makes what serves one visitor, from what the server has said of it."""


@implementer(IStreamClientEndpoint)
@dataclass(frozen=True, eq=False)
class InnerEndpoint:
    """
    A service within this process.

    @ivar reactor: Has the sockets.
    @ivar serve: Makes what serves a visitor.
    @ivar info: What the server said of the visitor.
    """

    reactor: Any
    serve: VisitorFactory
    info: Mapping[str, object] = field(default_factory=dict)
    limitsTime = True

    def forVisitor(self, info: Mapping[str, object]) -> InnerEndpoint:
        """Make the endpoint of one visit."""
        return type(self)(self.reactor, self.serve, info)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        try:
            ours, theirs = socket.socketpair()
        except OSError:
            return fail(Failure())
        for each in (ours, theirs):
            each.setblocking(False)

        def failed(failure: Failure) -> Failure:
            ours.close()
            return failure

        serving = adopted(self.reactor, theirs, self.serve(self.info))
        return serving.addCallbacks(
            lambda protocol: adopted(self.reactor, ours, protocolFactory), failed
        )


class OneProtocol(Factory[Protocol]):
    """
    Makes one protocol.

    @param make: Makes it.
    """

    noisy = False

    def __init__(self, make: Callable[[], Protocol]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> Protocol:
        return self._make()
