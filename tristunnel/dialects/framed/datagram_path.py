"""
Datagrams past the session: on plain UDP between client and server, where that
gets through.

The packets are specified in C{docs/protocol-udp.rst}.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Callable
from struct import Struct
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from tristunnel.dataplane.datagrams import DatagramSocket, replyFrom
from tristunnel.errors import TunnelError
from tristunnel.wire.sealed import NAME, OVERHEAD, Keys, Sealing, newKeys

__all__ = [
    "CONFIRMED",
    "LARGEST",
    "PATH",
    "PROBE",
    "ServerPaths",
    "UDPPath",
    "clientPath",
    "describePath",
]

PATH = "udpPath"
"""The handshake's key: C{true} from a client that can use a path, and the
path itself from a server that has one."""

LARGEST = 1420
"""Bytes of the largest datagram that uses the path, so that no network has to fragment
its packet; larger ones go through the session."""

PROBE = 1.0
"""Seconds from one probe to the next, while there are flows."""

CONFIRMED = 3.5
"""Seconds for which an answered probe says that the path gets through."""

_HEAD = Struct("!I")
_PROBE = Struct("!IBQ")
_ASK, _ANSWER = 1, 2


class UDPPath:
    """
    One end of a path. It is used only while the other end answers probes, which
    are as large as packets get; whatever else happens to it, datagrams go
    through the session as if there were none.

    @param reactor: Tells time.
    @param sealing: Seals and opens packets.
    @param isWanted: Whether there are flows to be carried.
    @param arrived: Called with a flow's number and each datagram for it.
    @param transmit: Sends a packet; says whether it did.

    @ivar rejected: Packets that were not the peer's, or came twice.
    @ivar closed: Called once, when the path is closed.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: IReactorTime,
        sealing: Sealing,
        isWanted: Callable[[], bool],
        arrived: Callable[[int, bytes], None],
        transmit: Callable[[bytes], bool],
    ) -> None:
        self.rejected = 0
        self._reactor = reactor
        self._sealing = sealing
        self._isWanted = isWanted
        self._arrived = arrived
        self._transmit = transmit
        self._confirmed = float("-inf")
        self._asked: dict[int, float] = {}
        self._timer: IDelayedCall | None = None
        self._told = False
        self._closed = False
        self.closed: Callable[[], object] = lambda: None

    @property
    def usable(self) -> bool:
        """Whether packets got there and back lately."""
        return self._reactor.seconds() - self._confirmed < CONFIRMED

    def send(self, number: int, datagram: bytes) -> bool:
        """
        Send a flow's datagram, if the path is good for it.

        @return: Whether it is on its way.
        """
        return (
            len(datagram) <= LARGEST
            and self.usable
            and self._transmit(self._sealing.seal(_HEAD.pack(number) + datagram))
        )

    def wake(self) -> None:
        """Find out whether the path gets through, as there are flows."""
        if self._timer is None and not self._closed:
            self._probe()

    def _probe(self) -> None:
        """Ask, and again in a while."""
        self._timer = None
        self._tell()
        if not self._isWanted():
            return
        token, now = secrets.randbits(64), self._reactor.seconds()
        self._asked = {
            each: when for each, when in self._asked.items() if now - when < CONFIRMED
        }
        self._asked[token] = now
        self._say(_ASK, token)
        self._timer = self._reactor.callLater(PROBE, self._probe)

    def _say(self, kind: int, token: int) -> None:
        """Send a probe or its answer, as large as packets get."""
        probe = _PROBE.pack(0, kind, token)
        self._transmit(self._sealing.seal(probe.ljust(_HEAD.size + LARGEST, b"\0")))

    def _tell(self) -> None:
        """Log where datagrams go."""
        if self.usable != self._told:
            self._told = self.usable
            self._log.info(
                "Datagrams now travel directly over UDP"
                if self._told
                else "Datagrams now travel in the session again"
            )

    def packetArrived(
        self, packet: bytes, moved: Callable[[], None] = lambda: None
    ) -> None:
        """
        Take a packet.

        @param moved: Called if it is the peer's newest, so that its sender's
            address is where the peer is now.
        """
        opened = self._sealing.open(packet)
        if opened is None or len(opened[0]) < _HEAD.size:
            self.rejected += 1
            return
        content, newest = opened
        if newest:
            moved()
        (number,) = _HEAD.unpack_from(content)
        if number:
            self._arrived(number, content[_HEAD.size :])
        elif len(content) >= _PROBE.size:
            self._probed(content)

    def _probed(self, content: bytes) -> None:
        """Take a probe, or the answer to one."""
        _, kind, token = _PROBE.unpack_from(content)
        if kind == _ASK:
            self._say(_ANSWER, token)
        elif kind == _ANSWER and token in self._asked:
            # It counts from when the probe was sent, since the answer may have taken
            # long.
            self._confirmed = max(self._confirmed, self._asked.pop(token))
            self._tell()

    def failed(self, error: OSError) -> None:
        """Note that the kernel says that nobody is there."""
        self._confirmed = float("-inf")

    def close(self) -> None:
        """The session is over."""
        if not self._closed:
            self._closed = True
            self._confirmed = float("-inf")
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            self.closed()


class ServerPaths:
    """
    The server's UDP port, which all sessions' paths share.

    @param reactor: Reads and tells time.
    @param interface: The address to listen on; empty for all.
    @param offset: How far from the wanted port: each of several processes has a port of
        its own.

    @ivar strays: Packets of no path.
    """

    _log = Logger()

    def __init__(self, reactor: Any, interface: str = "", offset: int = 0) -> None:
        self._offset = offset
        self.strays = 0
        self._reactor = reactor
        self._interface = interface
        self._socket: DatagramSocket | None = None
        self._told = False
        self._closed = False
        self._paths: dict[bytes, Callable[[bytes, Any, Any], None]] = {}

    def port(self, wanted: int) -> int:
        """
        Find the port, and open it if it is not open: a server does so when it starts,
        before an owner can ask for that one. If another program on the machine has it,
        it is tried again with the next session.

        @param wanted: The port's number.
        @return: The port; 0 if it cannot be had.
        """
        if self._socket is None and not self._closed and wanted:
            wanted += self._offset if wanted + self._offset < 65536 else -self._offset
            interfaces = [self._interface] if self._interface else ["::", "0.0.0.0"]
            for interface in interfaces:
                try:
                    self._socket = DatagramSocket.listen(
                        self._reactor, interface, wanted, self._arrived
                    )
                    break
                except OSError as error:
                    why = error
            else:
                if not self._told:
                    self._log.warn(
                        "No direct path for datagrams until UDP port {port} can be"
                        " had: {error}; stop the program that uses it",
                        port=wanted,
                        error=why.strerror,
                    )
                self._told = True
        return 0 if self._socket is None else int(self._socket.address[1])

    def open(
        self, isWanted: Callable[[], bool], arrived: Callable[[int, bytes], None]
    ) -> tuple[UDPPath, Keys]:
        """Make a session's path."""
        keys = newKeys()
        where: list[Any] = []

        def transmit(packet: bytes) -> bool:
            # To nowhere, until the client has been heard.
            return bool(
                where and self._socket is not None and self._socket.send(packet, *where)
            )

        def take(packet: bytes, address: Any, local: Any) -> None:
            def moved() -> None:
                where[:] = [address, replyFrom(local)]

            path.packetArrived(packet, moved)

        path = UDPPath(self._reactor, Sealing(keys, True), isWanted, arrived, transmit)
        self._paths[keys.name] = take
        path.closed = lambda: self._paths.pop(keys.name, None)
        return path, keys

    def _arrived(self, packet: bytes, address: Any, local: Any) -> None:
        take = self._paths.get(packet[:NAME])
        if take is None:
            self.strays += 1
        else:
            take(packet, address, local)

    def close(self) -> None:
        """Close the port."""
        self._closed = True
        if self._socket is not None:
            self._socket.close()
            self._socket = None


def describePath(port: int, keys: Keys) -> dict[str, object]:
    """Describe a path in the handshake."""
    return {
        "port": port,
        "name": keys.name.hex(),
        "toServer": keys.toServer.hex(),
        "toClient": keys.toClient.hex(),
    }


def clientPath(
    reactor: Any,
    peer: object,
    offer: object,
    isWanted: Callable[[], bool],
    arrived: Callable[[int, bytes], None],
) -> UDPPath | None:
    """
    Make the client's end of a path.

    @param peer: The address of the server, as the session has it: packets are sent to
        no other.
    @param offer: What the server said under L{PATH}.
    @return: C{None} if there is none.
    @raise TunnelError: C{protocol-error}.
    """
    if not (isinstance(offer, dict) and isinstance(peer, (IPv4Address, IPv6Address))):
        return None
    try:
        port = offer["port"]
        keys = Keys(
            *(bytes.fromhex(offer[each]) for each in ("name", "toServer", "toClient"))
        )
        if type(port) is not int or not 0 < port < 65536:
            raise ValueError
        if [len(each) for each in keys] != [NAME, 32, 32]:
            raise ValueError
    except (KeyError, TypeError, ValueError):
        raise TunnelError("protocol-error", "the server's UDP path is none") from None
    family = socket.AF_INET if isinstance(peer, IPv4Address) else socket.AF_INET6
    path: UDPPath
    try:
        skt = DatagramSocket.connect(
            reactor,
            family,
            (peer.host, port),
            lambda packet, address, local: path.packetArrived(packet),
            lambda error: path.failed(error),
        )
    except OSError:
        return None
    path = UDPPath(reactor, Sealing(keys, False), isWanted, arrived, skt.send)
    path.closed = skt.close
    return path


assert LARGEST + OVERHEAD + _HEAD.size + 28 <= 1500
