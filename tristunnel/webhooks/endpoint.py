"""A service that sees only requests whose signature is good."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from zope.interface import implementer

from tristunnel.dataplane.reactor import polledReactor
from tristunnel.forwards.forward import Forward
from tristunnel.forwards.inner import InnerEndpoint, OneProtocol
from tristunnel.webhooks.visitor import Rules, SignedVisitor

__all__ = ["VerifiedEndpoint", "verified"]


@implementer(IStreamClientEndpoint)
@dataclass(frozen=True, eq=False)
class VerifiedEndpoint:
    """
    A service whose visitors' requests must be signed. L{connect} itself is for checks,
    which have no visitor.

    @ivar forOwner: The service itself, for what its owner sends.
    @ivar rules: What requests must be like.
    """

    forOwner: IStreamClientEndpoint
    rules: Rules

    def forVisitor(self, info: Mapping[str, object]) -> InnerEndpoint:
        """Make the endpoint of one visit."""
        return InnerEndpoint(
            self.rules.reactor, lambda info: OneProtocol(lambda: self._made(info)), info
        )

    def _made(self, info: Mapping[str, object]) -> SignedVisitor:
        service: Any = self.forOwner
        forVisitor = getattr(service, "forVisitor", None)
        return SignedVisitor(
            self.rules, service if forVisitor is None else forVisitor(info), info
        )

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        made: Deferred[IProtocol] = self.forOwner.connect(protocolFactory)
        return made


def verified(reactor: Any, forward: Forward) -> Forward:
    """
    Have a forward's requests checked, if it asks for that. This goes around what starts
    a service on demand, which otherwise any request would start.

    @return: The same forward, with another endpoint; or itself.
    """
    if forward.verification is None:
        return forward
    endpoint: Any = forward.endpoint
    rules = Rules(polledReactor(reactor), forward.target, forward.verification)
    return replace(forward, endpoint=VerifiedEndpoint(endpoint, rules))
