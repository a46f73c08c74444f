"""
Unauthenticated peers who mean harm: C{python -m benchmarks.faults.attackers JSON}.

Opens as many connections as it is told, from many addresses of this machine,
says on each what is half of something, and then a byte a second of the rest.
What is closed is opened again, until so many were opened in all. Prints, as one
line of JSON, what came of it.
"""

from __future__ import annotations

import errno
import json
import resource
import selectors
import socket
import struct
import sys
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, field

__all__ = ["HARM", "Orders", "Outcome"]

_UPGRADE = (
    b"GET %s HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
    b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)

_HELLO = bytes.fromhex("16030100c8010000c40303") + bytes(190)

HARM: dict[str, tuple[bytes, bytes]] = {
    "silence": (b"", b""),
    "half a TLS hello": (_HELLO[:20], _HELLO[20:]),
    "half a framed login": (b"W3PTUNL\x00\x00\x80\x00", b'{"id": "' + b"x" * 600),
    "half of HTTP's headers": (b"GET /health HTTP/1.1\r\nHost: ", b"h" * 600),
    "half of HTTP's body": (
        b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: 100000\r\n\r\n",
        b"[" + b" " * 600,
    ),
    "HTTP, then silence": (b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n", b""),
    "a WebSocket, then silence": (_UPGRADE % b"/tunnel", b""),
    "a WebSocket, then half a login": (
        _UPGRADE % b"/tunnel",
        b"\x82\xfe\x40\x00\x00\x00\x00\x00W3PTUNL" + b"x" * 600,
    ),
    "zlayer without Auth": (
        _UPGRADE % b"/tunnel/v1",
        b"\x82\xfe\x40\x00" + b"\x01" * 9,
    ),
    "half a PROXY header": (b"PROXY TCP4 192.0.2.1 ", b"1" * 600),
    "a relay's hosts": (_UPGRADE % b"/host/NUMBER", b""),
    "a relay's visitors": (_UPGRADE % b"/client/NUMBER", b""),
}
"""What is said at once, with a number for each connection, and what is said a
byte at a time."""


@dataclass
class Orders:
    """
    What to do.

    @ivar harm: One of L{HARM}, or C{scan}.
    @ivar ports: Where.
    @ivar count: Connections to open in all.
    @ivar held: Connections to have at once, at the most.
    @ivar seconds: For how long, at the most.
    @ivar sources: Addresses to come from.
    @ivar pace: Connections to open in a second, at the most.
    """

    harm: str
    ports: list[int]
    count: int = 10_000
    held: int = 10_000
    seconds: float = 10.0
    sources: int = 250
    pace: float = 1e9


@dataclass
class Outcome:
    """
    What came of it.

    @ivar opened: Connections that the kernel made.
    @ivar refused: That it did not.
    @ivar closed: That the server closed again.
    @ivar most: That were open at once.
    """

    opened: int = 0
    refused: int = 0
    closed: int = 0
    most: int = 0


@dataclass
class _Attack:
    """The attack."""

    orders: Orders
    outcome: Outcome = field(default_factory=Outcome)

    def __post_init__(self) -> None:
        """Begin with nothing."""
        self._first, self._rest = HARM.get(self.orders.harm, (b"", b""))
        self._open: dict[socket.socket, int] = {}
        self._wait = selectors.EpollSelector()
        self._tried = 0

    def run(self) -> Outcome:
        """Do it until time is up."""
        orders = self.orders
        began = dribbled = time.monotonic()
        while (now := time.monotonic()) < began + orders.seconds:
            for _ in range(100):
                if (
                    self._tried >= min(orders.count, orders.pace * (now - began) + 1)
                    or len(self._open) >= orders.held
                ):
                    break
                self._connect()
            for key, _ in self._wait.select(0.01):
                self._hear(key.data)
            if now > dribbled + 1:
                dribbled = now
                for connection in list(self._open):
                    self._dribble(connection)
        return self.outcome

    def _connect(self) -> None:
        """Open a connection."""
        number = self._tried
        self._tried += 1
        connection = socket.socket()
        connection.setblocking(False)
        source = number % self.orders.sources
        try:
            connection.bind((f"127.{1 + source // 250}.0.{1 + source % 250}", 0))
            port = self.orders.ports[number % len(self.orders.ports)]
            error = connection.connect_ex(("127.0.0.1", port))
            if error not in (0, errno.EINPROGRESS):
                raise OSError(error, "no connection")
            connection.send(self._first.replace(b"NUMBER", b"%d" % number))
        except BlockingIOError:
            pass
        except OSError:
            self.outcome.refused += 1
            connection.close()
            return
        self.outcome.opened += 1
        self._open[connection] = 0
        self.outcome.most = max(self.outcome.most, len(self._open))
        self._wait.register(connection, selectors.EVENT_READ, connection)
        if self.orders.harm == "scan":
            self._scan(connection, number)

    def _scan(self, connection: socket.socket, number: int) -> None:
        """Do what scanners do: leave, leave with a reset, or say rubbish."""
        if number % 3 == 2:
            with suppress(OSError):
                connection.send(b"\x00\xffHELP\r\n\r\n" * 20)
            return
        if number % 3 == 1:
            linger = struct.pack("ii", 1, 0)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._leave(connection)

    def _hear(self, connection: socket.socket) -> None:
        """The server says something, or has enough."""
        try:
            data = connection.recv(65536)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data and connection in self._open:
            self.outcome.closed += 1
            self._leave(connection)

    def _leave(self, connection: socket.socket) -> None:
        """Close a connection."""
        del self._open[connection]
        self._wait.unregister(connection)
        connection.close()

    def _dribble(self, connection: socket.socket) -> None:
        """Say one more byte."""
        at = self._open[connection]
        if at < len(self._rest):
            with suppress(OSError):
                connection.send(self._rest[at : at + 1])
            self._open[connection] = at + 1


def main() -> None:
    """Attack."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    outcome = _Attack(Orders(**json.loads(sys.argv[1]))).run()
    print(json.dumps(asdict(outcome)))


if __name__ == "__main__":
    main()
