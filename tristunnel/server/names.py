"""Serving names on the ports that they share."""

from __future__ import annotations

from collections.abc import Sequence

from twisted.internet.interfaces import IAddress, IProtocol

from tristunnel.names.site import NameSite
from tristunnel.names.visitor import VisitorConnection
from tristunnel.service.preauth import PendingConnection

__all__ = ["NamesPortProtocol"]


class NamesPortProtocol:
    """
    HTTP for names, as one of the protocols of a port: a L{PortProtocol
    <tristunnel.dialects.base.dialect.PortProtocol>}.

    @param site: What is served.
    @param secure: Whether it has TLS.
    @param beginnings: How such connections begin; by default in any way, since peers
        that do not speak HTTP are told so.
    """

    def __init__(
        self, site: NameSite, secure: bool, beginnings: Sequence[bytes] = (b"",)
    ) -> None:
        self.beginnings = beginnings
        self._site = site
        self._secure = secure

    def open(
        self, address: IAddress | None, remaining: float, pending: PendingConnection
    ) -> IProtocol | None:
        return VisitorConnection(self._site, self._secure, pending, remaining)
