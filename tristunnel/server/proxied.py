"""
Ports behind a balancer that says who the client is: the PROXY protocol.

Twisted parses the header; what is here waits until it is whole, since Twisted
takes a first piece that is too short for no header at all, and says in one
line why a connection without a good header is closed.
"""

from __future__ import annotations

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.protocols.haproxy import proxyEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer

from tristunnel.text.addresses import addressText
from tristunnel.wire.first_bytes import describeFirstBytes

__all__ = ["behindProxy"]

_V1, _V1_LONGEST = b"PROXY ", 107
_V2, _V2_HEAD = b"\r\n\r\n\x00\r\nQUIT\n", 16
_V2_LONGEST = 4096
_NOTHING_KNOWN, _UNKNOWN = b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN \r\n"


def _headerLength(data: bytes) -> int:
    """
    Find the end of a PROXY header.

    @return: Its length, or 0 while that cannot be told.
    @raise ValueError: If C{data} begins with none.
    """
    if _V1.startswith(data[: len(_V1)]):
        end = data.find(b"\r\n", 0, _V1_LONGEST)
        if end < 0 and len(data) >= _V1_LONGEST:
            raise ValueError("a PROXY header without an end")
        return end + 2 if end >= 0 else 0
    if _V2.startswith(data[: len(_V2)]):
        if len(data) < _V2_HEAD:
            return 0
        length = _V2_HEAD + int.from_bytes(data[14:16], "big")
        if length > _V2_LONGEST:
            raise ValueError("a PROXY header that is too long")
        return length if len(data) >= length else 0
    raise ValueError(describeFirstBytes(data))


class _HeaderFirst(ProtocolWrapper):
    """
    Hands on what comes once the header is whole.
    """

    _log = Logger(namespace="tristunnel.server")

    _began: bytes | None = b""

    def dataReceived(self, data: bytes) -> None:
        """
        Wait for the header.
        """
        if self._began is None:
            super().dataReceived(data)
            return
        self._began += data
        try:
            length = _headerLength(self._began)
            if not length:
                return
            whole, self._began = self._began, None
            # Alone, so that nothing but the header is to blame.
            header = whole[:length]
            # Twisted wants a blank behind the word, which balancers leave out.
            super().dataReceived(_UNKNOWN if header == _NOTHING_KNOWN else header)
            if self.disconnecting:
                raise ValueError("one that makes no sense")
        except ValueError as error:
            self._began = None
            self._refuse(str(error))
        else:
            if len(whole) > length:
                super().dataReceived(whole[length:])

    def _refuse(self, seen: str) -> None:
        """
        Close the connection and say why.
        """
        self._log.warn(
            "Connection from {peer} closed: the port is behind haproxy:, and the"
            " peer sent no good PROXY header ({seen})",
            peer=addressText(self.getPeer()),
            seen=seen,
        )
        self.transport.abortConnection()  # type: ignore[union-attr]


class _HeaderFirstFactory(WrappingFactory):
    """
    Makes what waits for the header.
    """

    protocol = _HeaderFirst
    noisy = False


@implementer(IStreamServerEndpoint)
class _HeaderFirstEndpoint:
    """
    Listens elsewhere, for connections with a header.
    """

    def __init__(self, endpoint: IStreamServerEndpoint) -> None:
        self._endpoint = endpoint

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """
        Listen.
        """
        return self._endpoint.listen(_HeaderFirstFactory(protocolFactory))


def behindProxy(endpoint: IStreamServerEndpoint) -> IStreamServerEndpoint:
    """
    Expect a PROXY header, of version 1 or 2, before everything else.

    @param endpoint: Where the balancer connects to.
    """
    proxied: IStreamServerEndpoint = proxyEndpoint(_HeaderFirstEndpoint(endpoint))
    return proxied
