"""Serving names on the ports that they share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from twisted.internet.interfaces import IAddress, IProtocol

from tristunnel.names.site import NameSite
from tristunnel.names.visitor import VisitorConnection
from tristunnel.service.preauth import PendingConnection

__all__ = ["NamesPortProtocol"]


@dataclass(eq=False)
class NamesPortProtocol:
    """
    HTTP for names, as one of the protocols of a port: a L{PortProtocol
    <tristunnel.dialects.base.dialect.PortProtocol>}.

    @ivar site: What is served.
    @ivar secure: Whether it has TLS.
    @ivar beginnings: How such connections begin; by default in any way, since peers
        that do not speak HTTP are told so.
    """

    site: NameSite
    secure: bool
    beginnings: Sequence[bytes] = (b"",)

    def open(
        self, address: IAddress | None, remaining: float, pending: PendingConnection
    ) -> IProtocol | None:
        return VisitorConnection(self.site, self.secure, pending, remaining)
