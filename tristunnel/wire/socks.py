"""
SOCKS 5 (RFC 1928) with its login (RFC 1929), in both roles: feed bytes, get requests or
replies.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import IntEnum
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

from tristunnel.errors import TunnelError, protocolError
from tristunnel.util.hosts import addressOf, hostAndPort, hostName

__all__ = [
    "REPLIES",
    "ClientHandshake",
    "Command",
    "Login",
    "Reply",
    "Request",
    "ServerHandshake",
    "decodeDatagram",
    "encodeDatagram",
]

_VERSION = 5
_LOGIN_VERSION = 1
_NO_LOGIN, _LOGIN, _NOTHING_SUITS = 0, 2, 255
_IPV4, _NAME, _IPV6 = 1, 3, 4
_LENGTHS = {_IPV4: 4, _IPV6: 16}
_LONGEST = 255


class Command(IntEnum):
    """The commands of a client (RFC 1928, 4)."""

    CONNECT = 1
    BIND = 2
    UDP = 3


class Reply(IntEnum):
    """The replies to a client (RFC 1928, 6)."""

    GOOD = 0
    FAILED = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    TOO_LATE = 6
    NO_SUCH_COMMAND = 7
    NO_SUCH_ADDRESS = 8


REPLIES: dict[int, str] = {
    Reply.FAILED: "the proxy failed",
    Reply.NOT_ALLOWED: "its rules do not allow it",
    Reply.NETWORK_UNREACHABLE: "it has no way to that network",
    Reply.HOST_UNREACHABLE: "it cannot reach that host, or does not know the name",
    Reply.REFUSED: "the connection was refused there",
    Reply.TOO_LATE: "nothing answered there",
    Reply.NO_SUCH_COMMAND: "it does not support that",
    Reply.NO_SUCH_ADDRESS: "it does not support that kind of address",
}
"""The meanings of replies other than success."""


class Login(NamedTuple):
    """The user and password that a client sends."""

    user: bytes
    password: bytes


class Request(NamedTuple):
    """
    What a client asks for.

    @ivar command: One of L{Command}, or another number.
    @ivar host: An address, or a name as L{hostName<tristunnel.util.hosts.hostName>}
        writes it.
    """

    command: int
    host: str
    port: int


def _encodePlace(host: str, port: int) -> bytes:
    """
    @raise TunnelError: C{bad-option}, for a name that is too long.
    """
    address = addressOf(host)
    if address is not None:
        kind = _IPV6 if address.version == 6 else _IPV4
        return bytes([kind]) + address.packed + port.to_bytes(2, "big")
    name = host.encode("ascii")
    if len(name) > _LONGEST:
        raise TunnelError("bad-option", f"the host's name has {len(name)} bytes")
    return bytes([_NAME, len(name)]) + name + port.to_bytes(2, "big")


def _decodePlace(data: bytes, at: int) -> tuple[str, int, int] | None:
    """
    @param at: The offset of the kind of address.
    @return: The host, the port, and the offset of their end; C{None} if they are not
        complete.
    @raise TunnelError: C{protocol-error}.
    """
    if len(data) < at + 2:
        return None
    kind, begin = data[at], at + 1
    if kind == _NAME:
        length, begin = data[begin], begin + 1
    elif kind in _LENGTHS:
        length = _LENGTHS[kind]
    else:
        raise protocolError(f"{kind} is no kind of SOCKS address")
    end = begin + length
    if len(data) < end + 2:
        return None
    raw = data[begin:end]
    try:
        host = hostName(
            raw.decode("utf-8") if kind == _NAME else str(_addressOf(kind, raw))
        )
    except (UnicodeError, ValueError):
        raise protocolError("the SOCKS request's name is no host") from None
    return host, int.from_bytes(data[end : end + 2], "big"), end + 2


def _addressOf(kind: int, raw: bytes) -> IPv4Address | IPv6Address:
    address = ip_address(raw)
    # This is how a dual-stack socket shows it.
    return getattr(address, "ipv4_mapped", None) or address


def encodeDatagram(host: str, port: int, payload: bytes) -> bytes:
    """Write a datagram as it passes the proxy (RFC 1928, 7)."""
    return b"\0\0\0" + _encodePlace(host, port) + payload


def decodeDatagram(data: bytes) -> tuple[str, int, bytes]:
    """
    Read such a datagram.

    @return: The host and port of its far end, and its payload.
    @raise TunnelError: C{protocol-error}; also for fragments, which are not used in
        practice.
    """
    if data[:2] != b"\0\0" or data[2:3] != b"\0":
        raise protocolError("that is no whole SOCKS datagram")
    place = _decodePlace(data, 3)
    if place is None:
        raise protocolError("the SOCKS datagram is too short")
    host, port, end = place
    return host, port, data[end:]


class ServerHandshake:
    """
    The server's side: a login if it wants one, and one request.

    After each call, the bytes to send are in L{outgoing}, to be taken out.

    @param wantsLogin: Whether a user and a password are asked for.

    @ivar outgoing: Bytes for the client.
    @ivar buffer: Bytes from the client that were not used; after the request, they are
        for the destination.
    """

    def __init__(self, wantsLogin: bool = False) -> None:
        self.outgoing = b""
        self.buffer = b""
        self._method = _LOGIN if wantsLogin else _NO_LOGIN
        self._step: Callable[[], Login | Request | None] | None = self._greeted

    def feed(self, data: bytes) -> Login | Request | None:
        """
        Take bytes of the client's.

        @return: A login, which L{answerLogin} answers; a request, which L{reply}
            answers; or C{None} if more must come.
        @raise TunnelError: C{protocol-error}.
        """
        self.buffer += data
        return self._step() if self._step is not None else None

    def takeOutgoing(self) -> bytes:
        """Take what is to be sent."""
        taken, self.outgoing = self.outgoing, b""
        return taken

    def _take(self, count: int) -> bytes:
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def _greeted(self) -> Login | Request | None:
        if self.buffer and self.buffer[0] != _VERSION:
            raise protocolError(
                "SOCKS 4 is not spoken here, only SOCKS 5"
                if self.buffer[0] == 4
                else "that is no SOCKS"
            )
        if len(self.buffer) < 2 or len(self.buffer) < 2 + self.buffer[1]:
            return None
        methods = self._take(2 + self.buffer[1])[2:]
        if self._method not in methods:
            self.outgoing += bytes([_VERSION, _NOTHING_SUITS])
            raise protocolError(
                "the SOCKS client gives no user and password"
                if self._method == _LOGIN
                else "the SOCKS client insists on a login of a kind that is not known"
            )
        self.outgoing += bytes([_VERSION, self._method])
        self._step = self._loggedIn if self._method == _LOGIN else self._asked
        return self._step()

    def _loggedIn(self) -> Login | Request | None:
        data = self.buffer
        if data and data[0] != _LOGIN_VERSION:
            raise protocolError("that is no SOCKS login")
        if len(data) < 2 or len(data) < 3 + data[1]:
            return None
        user, rest = data[2 : 2 + data[1]], 2 + data[1]
        if len(data) < rest + 1 + data[rest]:
            return None
        password = data[rest + 1 : rest + 1 + data[rest]]
        self._take(rest + 1 + data[rest])
        self._step = None
        return Login(user, password)

    def answerLogin(self, good: bool) -> Login | Request | None:
        """
        Let the client in, or refuse it.

        @return: What L{feed} would.
        """
        self.outgoing += bytes([_LOGIN_VERSION, 0 if good else 1])
        if not good:
            return None
        self._step = self._asked
        return self._asked()

    def _asked(self) -> Login | Request | None:
        data = self.buffer
        if len(data) >= 3 and (data[0] != _VERSION or data[2] != 0):
            raise protocolError("that is no SOCKS request")
        try:
            place = _decodePlace(data, 3)
        except TunnelError:
            self.reply(Reply.NO_SUCH_ADDRESS)
            raise
        if place is None:
            return None
        host, port, end = place
        command = self._take(end)[1]
        self._step = None
        return Request(command, host, port)

    def reply(self, code: Reply, host: str = "0.0.0.0", port: int = 0) -> None:
        """
        Answer the request.

        @param host: An address of the proxy's, which the answers to some requests need.
        """
        self.outgoing += bytes([_VERSION, code, 0]) + _encodePlace(host, port)


class ClientHandshake:
    """
    The client's side: to be connected to a host and a port.

    @param host: A name, which the proxy looks up, or an address.
    @param login: User and password, or C{None}.
    @raise TunnelError: C{bad-option}, if this cannot be written as a request.

    @ivar outgoing: Bytes for the proxy.
    @ivar buffer: Once it is done, bytes from beyond the proxy.
    """

    def __init__(
        self, host: str, port: int, login: tuple[bytes, bytes] | None = None
    ) -> None:
        self._where = hostAndPort(host, port)
        self._request = bytes([_VERSION, Command.CONNECT, 0]) + _encodePlace(host, port)
        self._credentials = b""
        methods = bytes([_NO_LOGIN])
        if login is not None:
            if not all(1 <= len(part) <= _LONGEST for part in login):
                raise TunnelError(
                    "bad-option",
                    "a SOCKS proxy's user and password have 1 to 255 bytes",
                )
            methods += bytes([_LOGIN])
            self._credentials = bytes([_LOGIN_VERSION]) + b"".join(
                bytes([len(part)]) + part for part in login
            )
        self.outgoing = bytes([_VERSION, len(methods)]) + methods
        self.buffer = b""
        self._step: Callable[[], bool] = self._greeted

    def feed(self, data: bytes) -> bool:
        """
        Take bytes of the proxy's.

        @return: Whether the connection is made.
        @raise TunnelError: C{protocol-error}, if it is not a SOCKS proxy;
            C{auth-refused} or C{session-lost}, if it refuses.
        """
        self.buffer += data
        return self._step()

    def takeOutgoing(self) -> bytes:
        """Take what is to be sent."""
        taken, self.outgoing = self.outgoing, b""
        return taken

    def _take(self, count: int) -> bytes:
        taken, self.buffer = self.buffer[:count], self.buffer[count:]
        return taken

    def _greeted(self) -> bool:
        if self.buffer and self.buffer[0] != _VERSION:
            raise protocolError("is not a SOCKS 5 proxy")
        if len(self.buffer) < 2:
            return False
        method = self._take(2)[1]
        if method == _NO_LOGIN:
            return self._ask()
        if method == _LOGIN and self._credentials:
            self.outgoing += self._credentials
            self._step = self._loggedIn
            return False
        raise TunnelError(
            "auth-refused", "asks for a login; give --proxy socks5h://USER:PASSWORD@..."
        )

    def _loggedIn(self) -> bool:
        if len(self.buffer) < 2:
            return False
        if self._take(2)[1] != 0:
            raise TunnelError(
                "auth-refused", "does not take this user and password; check them"
            )
        return self._ask()

    def _ask(self) -> bool:
        self.outgoing += self._request
        self._step = self._answered
        return False

    def _answered(self) -> bool:
        data = self.buffer
        if data and data[0] != _VERSION:
            raise protocolError("is not a SOCKS 5 proxy")
        if len(data) >= 2 and data[1] != Reply.GOOD:
            why = REPLIES.get(data[1], f"it answered {data[1]}")
            raise TunnelError(
                "session-lost", f"did not connect to {self._where}: {why}"
            )
        place = _decodePlace(data, 3)
        if place is None:
            return False
        self._take(place[2])
        return True
