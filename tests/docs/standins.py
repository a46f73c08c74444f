"""
What stands in for the services that the pages speak of.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import (
    DatagramProtocol,
    Factory,
    Protocol,
    connectionDone,
)
from twisted.python.failure import Failure

__all__ = ["REQUEST", "Banner", "Echoing", "Knocking", "Site", "StandIn"]

REQUEST = b"GET / HTTP/1.0\r\n\r\n"
"""What a visitor asks who does not know what is there."""

_PAGE = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: 10\r\n"
    b"Connection: close\r\n\r\nIt works.\n"
)


class Banner(Protocol):
    """A service that speaks first, as SSH does."""

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(b"SSH-2.0-standin\r\n")


class Site(Protocol):
    """A web server of one page, for one request."""

    def dataReceived(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(_PAGE)
        self.transport.loseConnection()


class StandIn(Factory):
    """
    A service, with a way to be rid of its connections.

    @ivar served: How many have come.
    """

    noisy = False

    def __init__(self, kind: type[Protocol]) -> None:
        self.kind = kind
        self.served = 0
        self._open: set[Protocol] = set()
        self._empty: Deferred[None] | None = None

    def buildProtocol(self, addr: object) -> Protocol:
        standIn = self
        kind = self.kind

        class Counted(kind):  # type: ignore[misc, valid-type] # it is made here
            """Tells when it comes and goes."""

            def connectionMade(self) -> None:
                standIn.served += 1
                standIn._open.add(self)
                super().connectionMade()

            def connectionLost(self, reason: Failure = connectionDone) -> None:
                standIn._open.discard(self)
                super().connectionLost(reason)
                if standIn._empty is not None and not standIn._open:
                    empty, standIn._empty = standIn._empty, None
                    empty.callback(None)

        protocol: Protocol = Counted()
        protocol.factory = self
        return protocol

    def end(self) -> Deferred[None]:
        empty: Deferred[None] = Deferred()
        if not self._open:
            empty.callback(None)
            return empty
        self._empty = empty
        for protocol in list(self._open):
            transport: Any = protocol.transport
            transport.abortConnection()
        return empty


class Echoing(DatagramProtocol):
    """A UDP service that says what it hears."""

    noisy = False

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        assert self.transport is not None
        self.transport.write(datagram, addr)


class Knocking(DatagramProtocol):
    """
    A visitor over UDP.

    @ivar answer: Fires with the first datagram.
    """

    noisy = False

    def __init__(self, port: int) -> None:
        self.answer: Deferred[bytes] = Deferred()
        self._port = port

    def startProtocol(self) -> None:
        transport: Any = self.transport
        transport.connect("127.0.0.1", self._port)
        transport.write(b"anybody there?")

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if not self.answer.called:
            self.answer.callback(datagram)
