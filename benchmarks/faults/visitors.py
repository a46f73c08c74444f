"""
Visitors of every kind, by the address of the tunnel.
"""

from __future__ import annotations

import re
import socket
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from twisted.internet.protocol import ClientFactory
from twisted.internet.ssl import CertificateOptions
from twisted.python.failure import Failure

from tests.faults.load import Listing, SocketCarrier, Tale, Visitor
from tests.faults.websocket import webSocketVisitor

__all__ = ["Arrival", "arrive"]


@dataclass
class Arrival:
    """
    Somebody who came.

    @ivar tale: What becomes of it.
    @ivar leave: Cuts its connection.
    """

    tale: Tale
    leave: Callable[[], None]


def arrive(
    reactor: Any,
    ledger: Listing,
    address: str,
    kind: str,
    size: int,
    stalled: bool = False,
) -> Arrival:
    """
    Have a visitor come.

    @param address: What the server says where visitors connect.
    @param kind: As for L{Tale}.
    @param stalled: Whether it says what it wants and reads no more than the
        first bytes of it.
    """
    secure = address.startswith("tls:")
    here: list[Any] = []
    tale = ledger.begin(kind, size)
    factory: Any
    if address.startswith("ws"):
        factory = webSocketVisitor(ledger, tale, address)
    else:
        carrier = SocketCarrier(not secure)
        carrier.talk = Visitor(ledger, carrier, tale, not secure)
        factory = ClientFactory()
        factory.buildProtocol = lambda addr: carrier
    factory.noisy = False
    build = factory.buildProtocol

    def made(addr: object) -> Any:
        protocol = build(addr)
        talk = protocol.talk
        start, came = talk.start, talk.came

        def stall(data: bytes) -> None:
            came(data)
            protocol.transport.pauseProducing()

        def begin() -> None:
            here.append(protocol.transport)
            if stalled:
                handle = protocol.transport.getHandle()
                if hasattr(handle, "setsockopt"):
                    handle.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            start()

        talk.start = begin
        if stalled:
            talk.came = stall
            # Not every client's end could go on if this one ended its direction.
            talk.halfCloses = False
        return protocol

    def failed(connector: object, reason: Failure) -> None:
        tale.visitor.gone = reactor.seconds()
        tale.visitor.broken = f"not connected: {reason.value}"
        ledger.look()

    def leave() -> None:
        for transport in here:
            transport.abortConnection()

    factory.buildProtocol = made
    factory.clientConnectionFailed = failed
    port = int(re.findall(r":(\d+)", address)[-1])
    if secure:
        reactor.connectSSL("127.0.0.1", port, factory, CertificateOptions())
    else:
        reactor.connectTCP("127.0.0.1", port, factory)
    return Arrival(tale, leave)
