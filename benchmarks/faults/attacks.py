"""
Attacks on memory and descriptors: what a peer does not read, or sends before
anybody has asked who it is.

Each line of L{ATTACKS} has a process of its own to attack. Its memory and its
descriptors are measured before, during and after; C{--set attacks=NAME,NAME}
runs some of them. To add one, write a function that takes a L{Victim}, does its
harm and returns what must stay open, and give it a line.
"""

from __future__ import annotations

import itertools
import json
import re
import socket
import struct
import threading
import time
import urllib.request
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from hashlib import sha1

from benchmarks.faults.programs import Programs, Server, descriptors, resident
from benchmarks.faults.proof import Options, Row
from benchmarks.processes import Room
from tristunnel.wire.framed import (
    FrameDecoder,
    FrameType,
    HandshakeDecoder,
    decodeObject,
    encodeCredit,
    encodeFrame,
    encodeHandshake,
)

__all__ = ["ATTACKS", "Attack", "Victim", "prove"]

MEMORY = 64.0
"""MiB that an attack may add to a process."""

PATIENCE = 60.0
"""Seconds after which the connections of an attack must be gone."""

LOG = 2**20
"""Bytes of log that an attack may have the server write."""

_SPARE = 1
"""Descriptors that a process may have more than before: fewer than an attack holds."""


@dataclass
class Victim:
    """
    Who is attacked.

    @ivar room: Where it runs, and where other programs may be started.
    @ivar options: How to run: C{quick} and C{words}.
    @ivar pid: The process that is measured; an attack on a client that it has
        started itself puts the client's process id here.
    @ivar port: Where clients connect to the server.
    @ivar before: MiB and descriptors of a client before the attack on it.
    """

    room: Room
    options: Options
    pid: int
    port: int
    before: tuple[float, int] | None = None

    def connect(self, source: str = "127.0.0.1", receive: int = 0) -> socket.socket:
        """
        Connect to the server.

        @param source: The address to come from.
        @param receive: Bytes of the receive buffer, 0 for the usual.
        """
        made = socket.socket()
        if receive:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive)
        made.settimeout(10.0)
        made.bind((source, 0))
        made.connect(("127.0.0.1", self.port))
        return made


Open = list[socket.socket]


@dataclass(frozen=True)
class Attack:
    """
    One attack.

    @ivar what: What is done, for the table.
    @ivar run: Does it, and returns the connections that it holds open.
    @ivar server: Options of the server; C{{room}} stands for its directory, in
        which C{clients} is a file for C{--auth}.
    @ivar memory: MiB that it may add to the victim.
    @ivar port: Where the server listens.
    @ivar kept: Descriptors that the server keeps for a while on purpose: ports of
        tunnels whose client may come back.
    @ivar gone: Whether the connections must be gone within L{PATIENCE} although
        the attacker does not close them.
    """

    what: str
    run: Callable[[Victim], Open]
    server: tuple[str, ...] = ("--auth=clients:{room}/clients",)
    memory: float = MEMORY
    gone: bool = True
    port: str = "tcp:0:interface=127.0.0.1"
    kept: int = 0


class _Meter:
    """The most memory and descriptors that a process has, until it is stopped."""

    def __init__(self, victim: Victim) -> None:
        self.memory, self.files = 0.0, 0
        self._victim = victim
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._measure, daemon=True)
        self._thread.start()

    def _measure(self) -> None:
        while not self._over.wait(0.05):
            with suppress(OSError):
                self.memory = max(self.memory, resident(self._victim.pid))
                self.files = max(self.files, descriptors(self._victim.pid))

    def stop(self) -> None:
        """Stop measuring."""
        self._over.set()
        self._thread.join()


def _one(name: str, attack: Attack, options: Options) -> Row:
    """Start a server, attack it, and say what came of it."""
    directory = options.directory / name
    with Room(directory) as room:
        room.write("clients", "victim: v\n")
        words = [word.format(room=directory) for word in attack.server]
        server = Server(Programs(room), "server", [attack.port], *words)
        victim = Victim(room, options, server.pid, server.ports[0])
        # An answer before the first measurement, for what is made only then.
        with suppress(OSError), victim.connect() as first:
            first.sendall(b"GET /health HTTP/1.0\r\n\r\n")
            first.recv(1024)
        before, files = resident(victim.pid), descriptors(victim.pid)
        meter = _Meter(victim)
        began = time.monotonic()
        connections = attack.run(victim)
        took = time.monotonic() - began
        if victim.before is not None:
            before, files = victim.before
        held = descriptors(victim.pid)
        until = time.monotonic() + PATIENCE
        while attack.gone and time.monotonic() < until:
            if descriptors(victim.pid) <= files + _SPARE:
                break
            time.sleep(0.2)
        waited = time.monotonic() - began - took
        stayed = descriptors(victim.pid)
        meter.stop()
        for connection in connections:
            connection.close()
        until = time.monotonic() + 10
        most = files + _SPARE + attack.kept
        while descriptors(victim.pid) > most and time.monotonic() < until:
            time.sleep(0.1)
        after, left = resident(victim.pid), descriptors(victim.pid)
        log = len(room.said("server"))
    grown = meter.memory - before
    return Row(
        attack.what,
        f"{before:.0f} MiB before, {meter.memory:.0f} during, {after:.0f} after;"
        f" {files} descriptors before, {meter.files} during, {stayed} after"
        f" {waited:.0f} s ({held} at the end of the attack, {took:.0f} s), {left} after"
        f" it left; {log / 1024:.0f} KiB of log",
        grown <= attack.memory
        and log <= LOG
        and left <= most
        and (not attack.gone or stayed <= files + _SPARE),
    )


def _unread(last: bytes) -> Callable[[Victim], Open]:
    """
    Ask for the same page again and again, and never read an answer.

    @param last: The last request, after which the server wants to close.
    """
    page = b"GET /dashboard/style.css HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"

    def run(victim: Victim) -> Open:
        connections = []
        for _ in range(20 if victim.options.quick else 60):
            connection = victim.connect(receive=2048)
            with suppress(OSError):
                connection.sendall(page * 200 + last)
            connections.append(connection)
            time.sleep(0.05)
        return connections

    return run


def _bodies(head: bytes) -> Callable[[Victim], Open]:
    """
    Send bodies of nearly 1 MiB, from several addresses, without a login.

    @param head: The request's line and what it has of its own.
    """
    head += b"Host: 127.0.0.1\r\nContent-Length: 1048576\r\n\r\n"

    def run(victim: Victim) -> Open:
        connections = []
        for source in range(2, 4 if victim.options.quick else 8):
            for _ in range(64):
                with suppress(OSError):
                    connection = victim.connect(f"127.0.0.{source}")
                    connections.append(connection)
                    connection.settimeout(2.0)
                    connection.sendall(head + bytes(2**20 - 16))
        return connections

    return run


def _flood(connection: socket.socket, data: bytes, victim: Victim) -> Open:
    """
    Send the same again and again, and read nothing, for a while or until nobody
    takes it any more.
    """
    connection.settimeout(2.0)
    until = time.monotonic() + (3.0 if victim.options.quick else 15.0)
    with suppress(OSError):
        while time.monotonic() < until:
            connection.sendall(data)
    return [connection]


def _upgraded(victim: Victim, path: str, head: bytes = b"") -> socket.socket:
    """Open a WebSocket that will take little."""
    connection = victim.connect(receive=4096)
    connection.sendall(
        b"GET %s HTTP/1.1\r\nHost: 127.0.0.1\r\nUpgrade: websocket\r\nConnection:"
        b" Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key:"
        b" dGhlIHNhbXBsZSBub25jZQ==\r\n%s\r\n" % (path.encode(), head)
    )
    while not connection.recv(1024).endswith(b"\r\n\r\n"):
        pass
    return connection


def _frame(opcode: int, payload: bytes, mask: bytes = bytes(4)) -> bytes:
    """
    A short WebSocket frame.

    @param opcode: With the bit that says whether it is the last of its message.
    """
    return bytes([opcode, len(payload) | (0x80 if mask else 0)]) + mask + payload


_PING, _TEXT, _BINARY = 0x89, 0x81, 0x82
_LOGIN = b"Authorization: Basic " + b64encode(b"victim:v") + b"\r\n"


def _many(one: Callable[[Victim], Open], count: int = 12) -> Callable[[Victim], Open]:
    """Do the same on several connections at the same time."""

    def run(victim: Victim) -> Open:
        with ThreadPoolExecutor(count) as pool:
            return [each for made in pool.map(one, [victim] * count) for each in made]

    return run


def _webSocket(
    path: str, data: bytes, first: bytes = b"", head: bytes = _LOGIN
) -> Callable[[Victim], Open]:
    """
    Flood WebSockets.

    @param data: The flood, which is sent a thousand times at once.
    @param first: What is said before it; C{NUMBER} is another one each time.
    """
    numbers = itertools.count()

    def one(victim: Victim) -> Open:
        connection = _upgraded(victim, path, head)
        connection.sendall(first.replace(b"NUMBER", b"%06d" % next(numbers)))
        return _flood(connection, data * 1000, victim)

    return _many(one)


def _visitorsPings(victim: Victim) -> Open:
    """Come as a visitor by WebSocket, and ping."""
    call = {"listener": "ws", "via": "tcp", "visitors": 12}
    uri = _call(victim, "openTunnel", call)
    address = str(_call(victim, "getTunnelAddress", {"uri": uri}))
    path = "/" + address.split("/", 3)[3]
    return _webSocket(path, _frame(_PING, bytes(125)), head=b"")(victim)


def _call(victim: Victim, method: str, params: Mapping[str, object]) -> object:
    """Call a method over HTTP."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{victim.port}/rpc",
        json.dumps(
            {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
        ).encode(),
        {
            "Content-Type": "application/json",
            "Authorization": _LOGIN.decode().split(": ")[1].strip(),
        },
    )
    with urllib.request.urlopen(request) as answer:
        return json.load(answer)["result"]


def _zlayer(kind: int, payload: bytes) -> bytes:
    """A message of zlayer's, in its frame."""
    return _frame(_BINARY, struct.pack("!BI", kind, len(payload)) + payload)


_AUTH = _zlayer(1, b"\0\6NUMBER" + bytes(16))
_REGISTER = _zlayer(0x10, b"\4name\0\0\x50\0\x50")


def _framed(kind: int, payload: bytes) -> bytes:
    """A frame of the framed protocol, on no stream."""
    return struct.pack("!IIB", len(payload) + 5, 0, kind) + payload


def _calls(*calls: tuple[str, dict[str, object]]) -> bytes:
    """Calls in a session."""
    return b"".join(
        _framed(
            0,
            json.dumps(
                {"jsonrpc": "2.0", "id": 1, "method": method, "params": params}
            ).encode(),
        )
        for method, params in calls
    )


def _hello(connection: socket.socket, message: dict[str, object]) -> None:
    """Say who we are, in the framed protocol."""
    text = json.dumps(message).encode()
    connection.sendall(b"W3PTUNL" + struct.pack("!I", len(text)) + text)
    connection.recv(65536)


_OFFER: dict[str, object] = {"versions": [1], "streamWindow": 2**18}
_OFFER |= {"sessionWindow": 2**24, "move": "busy"}


def _session(data: bytes) -> Callable[[Victim], Open]:
    """Flood sessions of the framed protocol."""

    def one(victim: Victim) -> Open:
        connection = victim.connect(receive=4096)
        _hello(connection, {"id": "victim", "secret": "v", "tristunnel": _OFFER})
        return _flood(connection, data * 100, victim)

    return _many(one)


def _moved(victim: Victim) -> Open:
    """
    Offer a service whose stream moves to a connection of its own, which is never
    read from, and have a visitor send without end; or read nothing there, either.
    """
    session = victim.connect()
    session.sendall(
        encodeHandshake(
            {"id": "victim", "secret": "v", "tristunnel": _OFFER | {"move": "at-once"}}
        )
    )
    session.sendall(_calls(("openTunnel", {})))
    answers, frames, began = HandshakeDecoder(), FrameDecoder(), b""
    stream, visitor = 0, None
    while True:
        data = session.recv(65536)
        if not began:
            whole = answers.feed(data)
            if whole is None:
                continue
            began, data = b"yes", whole[1]
        for number, kind, payload in frames.feed(data):
            if kind == FrameType.CONTROL and visitor is None:
                uri = json.loads(payload).get("result")
                address = str(_call(victim, "getTunnelAddress", {"uri": uri}))
                port = int(address.rpartition(":")[2])
                visitor = socket.create_connection(("127.0.0.1", port))
            elif kind == FrameType.OPEN:
                stream = number
                session.sendall(
                    encodeFrame(stream, FrameType.OPENED, encodeCredit(2**18))
                )
            elif kind == FrameType.MOVE and visitor is not None:
                own = victim.connect(receive=4096)
                ticket = decodeObject(payload)["ticket"]
                own.sendall(encodeHandshake({"tristunnel": {"ticket": ticket}}))
                # That it was accepted; nothing after that.
                own.recv(1024)
                moved = encodeFrame(stream, FrameType.MOVED, encodeCredit(0))
                session.sendall(moved)
                return [session, own, *_flood(visitor, bytes(65536), victim)]


def _halfHandshakes(victim: Victim) -> Open:
    """Begin TLS, and say no more; the hello's length is that of a long one."""
    connections = []
    for source in range(2, 4 if victim.options.quick else 8):
        for number in range(64):
            with suppress(OSError):
                connection = victim.connect(f"127.0.0.{source}")
                connections.append(connection)
                connection.sendall(_HELLO[: 5 + number * 4])
    return connections


def _opens(victim: Victim) -> Open:
    """Open a tunnel, close it, and begin again."""
    until = time.monotonic() + (3.0 if victim.options.quick else 15.0)
    while time.monotonic() < until:
        uri = _call(victim, "openTunnel", {})
        _call(victim, "closeTunnel", {"uri": uri})
    return []


def _empties(victim: Victim) -> Open:
    """Be a relay's host with a visitor, and go on sending empty messages."""
    made = []
    for number in range(3):
        made.append(_upgraded(victim, f"/client/{number}", _LOGIN))
        made.append(_upgraded(victim, f"/host/{number}", _LOGIN))
    for host in made[1::2]:
        _flood(host, _frame(_BINARY, b"") * 1000, victim)
    return made


def _client(victim: Victim) -> Open:
    """Ping a client that has come to a server which takes no pongs."""
    door = socket.create_server(("127.0.0.1", 0))
    door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    door.settimeout(20.0)
    url = f"ws://127.0.0.1:{door.getsockname()[1]}/tunnel"
    # It would come back at once, and be a new connection.
    victim.pid = Programs(victim.room).start(
        "client", "tunnel-client", f"--connect={url}", "--forward=9001=localhost:1"
    )
    connection, _ = door.accept()
    door.close()
    victim.before = resident(victim.pid), descriptors(victim.pid)
    key = re.findall(rb"(?i)sec-websocket-key: *(\S+)", connection.recv(65536))[0]
    proof = sha1(key + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest()
    connection.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection:"
        b" Upgrade\r\nSec-WebSocket-Accept: " + b64encode(proof) + b"\r\n\r\n"
    )
    return _flood(connection, _frame(_PING, bytes(125), b"") * 1000, victim)


_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(500)

_OPEN: tuple[str, ...] = ()

ATTACKS: dict[str, Attack] = {
    "unread": Attack(
        "answers that nobody reads, the last with Connection: close",
        _unread(
            b"GET /dashboard/style.css HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
        ),
    ),
    "unread10": Attack(
        "answers that nobody reads, the last of HTTP/1.0",
        _unread(b"GET /dashboard/style.css HTTP/1.0\r\n\r\n"),
    ),
    "unreadkept": Attack("answers that nobody reads, kept alive", _unread(b"")),
    "bodies": Attack(
        "HTTP bodies for /rpc without a login",
        _bodies(b"POST /rpc HTTP/1.1\r\nContent-Type: application/json\r\n"),
    ),
    "bodiesxml": Attack(
        "HTTP bodies for /RPC2 with a wrong password",
        _bodies(
            b"POST /RPC2 HTTP/1.1\r\nContent-Type: text/xml\r\n"
            b"Authorization: Basic bm9ib2R5Om5vdGhpbmc=\r\n"
        ),
    ),
    "bodiesopen": Attack(
        "HTTP bodies for a server that asks nobody who they are",
        _bodies(b"POST /rpc HTTP/1.1\r\nContent-Type: application/json\r\n"),
        _OPEN,
    ),
    "wspings": Attack(
        "WebSocket pings without a login, no pong taken",
        _webSocket("/tunnel", _frame(_PING, bytes(125)), head=b""),
    ),
    "wsvisitor": Attack("a visitor's WebSocket pings, no pong taken", _visitorsPings),
    "fragments": Attack(
        "empty WebSocket fragments without a login",
        _webSocket("/tunnel", _frame(0, b""), _frame(1, b"{"), b""),
    ),
    "empties": Attack(
        "a relay's host whose service has closed: empty messages for ever",
        _empties,
        gone=False,
    ),
    "vtunnelpings": Attack(
        "vtunnel's pings, no pong taken",
        _webSocket("/tunnel", _frame(_TEXT, b'{"type":"ping"}')),
    ),
    "vtunnellistens": Attack(
        "vtunnel asks for a port that it does not get, and reads nothing",
        _webSocket("/tunnel", _frame(_TEXT, b'{"type":"listen","port":1}')),
    ),
    "zlayerbeats": Attack(
        "zlayer's heartbeats, no answer taken",
        _webSocket("/tunnel", _zlayer(0x30, bytes(8)), _AUTH),
    ),
    "zlayerregisters": Attack(
        "zlayer registers a port that it does not get, and reads nothing",
        _webSocket("/tunnel", _REGISTER, _AUTH),
    ),
    "framedpings": Attack(
        "pings in a session, no pong taken", _session(_framed(0x30, bytes(8)) * 30)
    ),
    "framedcalls": Attack(
        "calls in a session, no answer taken",
        _session(_calls(("listTunnels", {}), ("no such method", {}))),
    ),
    "moved": Attack(
        "streams that have moved to connections that nobody reads",
        _many(_moved),
        gone=False,
        kept=12,
    ),
    "handshakes": Attack(
        "half TLS handshakes", _halfHandshakes, port="ssl:0:interface=127.0.0.1"
    ),
    "framedopens": Attack(
        "tunnels opened and closed as fast as they are answered", _many(_opens)
    ),
    "clientpings": Attack("WebSocket pings of a server for its client", _client),
}
"""The attacks, by name."""


def prove(options: Options) -> Iterator[Row]:
    """Run them, one after the other."""
    wanted = options.words.get("attacks", "")
    for name in wanted.split(",") if wanted else ATTACKS:
        yield _one(name, ATTACKS[name], options)
