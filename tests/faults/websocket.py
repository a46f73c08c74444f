"""
Visitors that come by WebSocket.
"""

from __future__ import annotations

from typing import Any

from autobahn.twisted.websocket import WebSocketClientFactory, WebSocketClientProtocol

from tests.faults.load import Listing, Tale, Visitor

__all__ = ["webSocketVisitor"]

_NORMAL = 1000


class _Carrier(WebSocketClientProtocol):
    """Carries a visitor's end on the binary messages of a WebSocket."""

    talk: Visitor

    def onOpen(self) -> None:
        self.talk.start()

    def onMessage(self, payload: bytes, isBinary: bool) -> None:
        self.talk.came(payload)

    def onClose(self, wasClean: bool, code: int | None, reason: str | None) -> None:
        """Only a close with code 1000 is an orderly end."""
        clean = wasClean and code == _NORMAL
        self.talk.gone("" if clean else f"closed with {code}: {reason}")

    def produce(self, producer: Any) -> None:
        self.transport.registerProducer(producer, True)

    def send(self, data: bytes) -> None:
        if self.state == self.STATE_OPEN:
            self.sendMessage(data, isBinary=True)

    def finish(self) -> None:
        self.transport.unregisterProducer()
        self.sendClose(_NORMAL)


def webSocketVisitor(ledger: Listing, tale: Tale, url: str) -> WebSocketClientFactory:
    """
    Make a visitor that comes by WebSocket.

    @param tale: What becomes of it.
    @return: What is to be connected.
    """
    factory = WebSocketClientFactory(url)
    factory.noisy = False

    def build(addr: object) -> _Carrier:
        carrier = _Carrier()
        carrier.factory = factory
        carrier.talk = Visitor(ledger, carrier, tale, False)
        return carrier

    factory.buildProtocol = build  # type: ignore[method-assign] # of one factory
    return factory
