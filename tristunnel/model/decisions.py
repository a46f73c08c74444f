"""Others who have a say in what may happen."""

from __future__ import annotations

from typing import Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress

from tristunnel.model.options import TunnelOptions
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Stream

__all__ = ["Decisions"]


class Decisions(Protocol):
    """
    Asked when everything else has agreed. Each answer is a Deferred: it fails with a
    L{TunnelError<tristunnel.errors.TunnelError>} to refuse; it may be cancelled.
    """

    def login(self, identity: Identity, peer: IAddress | None) -> Deferred[None]:
        """Decide whether a client may log in."""

    def tunnel(self, identity: Identity, wanted: TunnelOptions) -> Deferred[None]:
        """Decide whether a client may open a tunnel."""

    def visitor(self, stream: Stream) -> Deferred[None]:
        """Decide whether a visitor may come in."""
