"""
Ports behind a balancer that says who the client is: the PROXY protocol.

Twisted parses the header; this waits until the header is complete, since Twisted takes
a first piece that is too short as no header at all, and it says in one line why a
connection without a good header is closed.
"""

from __future__ import annotations

import ipaddress
import time
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    IProtocolFactory,
    IStreamServerEndpoint,
)
from twisted.logger import Logger
from twisted.protocols.haproxy import proxyEndpoint
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from zope.interface import implementer

from tristunnel.util.hosts import addressText
from tristunnel.util.log_limiter import LogRateLimiter
from tristunnel.wire.first_bytes import describeFirstBytes

__all__ = ["behindProxy"]

_V1, _V1_LONGEST = b"PROXY ", 107
_V2, _V2_HEAD = b"\r\n\r\n\x00\r\nQUIT\n", 16
_V2_LONGEST = 4096
_FREELY = 20
_NOTHING_KNOWN, _UNKNOWN = b"PROXY UNKNOWN\r\n", b"PROXY UNKNOWN \r\n"


def _headerLength(data: bytes) -> int:
    """
    Find the end of a PROXY header.

    @return: Its length, or 0 while that cannot be told.
    @raise ValueError: If C{data} does not begin with one.
    """
    if _V1.startswith(data[: len(_V1)]):
        end = data.find(b"\r\n", 0, _V1_LONGEST)
        if end < 0 and len(data) >= _V1_LONGEST:
            raise ValueError("an unfinished PROXY header")
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
    """Hands on what comes, once the header is complete."""

    factory: _HeaderFirstFactory
    transport: Any
    _began: bytes | None = b""

    def dataReceived(self, data: bytes) -> None:
        if self._began is None:
            super().dataReceived(data)
            return
        self._began += data
        try:
            length = _headerLength(self._began)
            if not length:
                return
            whole, self._began = self._began, None
            # The header is passed alone, so that an error can only be about that.
            header = whole[:length]
            # Twisted wants a blank after the word, which balancers leave out.
            super().dataReceived(_UNKNOWN if header == _NOTHING_KNOWN else header)
            if self.disconnecting:
                raise ValueError("an invalid one")
        except ValueError as error:
            self._began = None
            self._refuse(str(error))
        else:
            if len(whole) > length:
                super().dataReceived(whole[length:])

    def _refuse(self, seen: str) -> None:
        self.factory.tell(
            self.getPeer(), f"the peer sent no valid PROXY header ({seen})"
        )
        self.transport.abortConnection()


class _HeaderFirstFactory(WrappingFactory):
    """Makes what waits for the header, only for peers that are trusted."""

    _log = Logger(namespace="tristunnel.server")
    protocol = _HeaderFirst
    noisy = False

    def __init__(
        self, wrappedFactory: IProtocolFactory, trusts: Callable[[str], bool]
    ) -> None:
        super().__init__(wrappedFactory)
        self._trusts = trusts
        self._told = LogRateLimiter(time.monotonic)

    def buildProtocol(self, addr: IAddress | None) -> Any:
        host = getattr(addr, "host", None)
        if host is None or _isLoopback(host) or self._trusts(host):
            return super().buildProtocol(addr)
        self.tell(
            addr,
            "the peer is not a trusted proxy; if it is yours, give"
            " --trusted-proxy with its address",
        )
        return None

    def tell(self, peer: IAddress | None, why: str) -> None:
        self._told.log(
            (why,),
            lambda: self._log.warn(
                "Connection from {peer} closed: the port is behind haproxy:, and {why}",
                peer=addressText(peer),
                why=why,
            ),
            lambda count, seconds: self._log.warn(
                "{count} more connections closed in {seconds:.0f} s: the port is"
                " behind haproxy:, and {why}",
                count=count,
                seconds=seconds,
                why=why,
            ),
            _FREELY,
        )


def _isLoopback(host: str) -> bool:
    try:
        address: Any = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return bool((getattr(address, "ipv4_mapped", None) or address).is_loopback)


@implementer(IStreamServerEndpoint)
class _HeaderFirstEndpoint:
    """Listens elsewhere, for connections with a header."""

    def __init__(
        self, endpoint: IStreamServerEndpoint, trusts: Callable[[str], bool]
    ) -> None:
        self._endpoint = endpoint
        self._trusts = trusts

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        return self._endpoint.listen(_HeaderFirstFactory(protocolFactory, self._trusts))


def behindProxy(
    endpoint: IStreamServerEndpoint, trusts: Callable[[str], bool] = lambda host: False
) -> IStreamServerEndpoint:
    """
    Expect a PROXY header, of version 1 or 2, before everything else. Since it says
    where a client comes from, it is accepted only from this machine (loopback and UNIX
    sockets) and from proxies that were named; everybody else is turned away.

    @param endpoint: Where the balancer connects to.
    @param trusts: Whether an address is that of a proxy that was named.
    """
    proxied: IStreamServerEndpoint = proxyEndpoint(
        _HeaderFirstEndpoint(endpoint, trusts)
    )
    return proxied
