"""
Good inputs, by target.
"""

from __future__ import annotations

import base64
import json
import socket
import struct

from tests.support.minecraft import handshake, legacyPing
from tests.vectors import readVectors
from tests.websocket.frames import closePayload, frame, upgrade
from tests.wire.test_http import SMUGGLING
from tristunnel.wire.framed import encodeHandshake
from tristunnel.wire.ssh import packNumbers, packText, packTexts

__all__ = ["SEEDS", "clientHello"]


def clientHello(name: str, versions: tuple[int, ...] = (0x0304, 0x0303)) -> bytes:
    """
    Write how TLS begins (RFC 8446, 4.1.2).

    @param name: Which server is meant.
    @param versions: What is offered, newest first.
    """

    def sized(width: int, data: bytes) -> bytes:
        return len(data).to_bytes(width, "big") + data

    def numbers(*values: int) -> bytes:
        return b"".join(value.to_bytes(2, "big") for value in values)

    extensions = {
        0: sized(2, b"\0" + sized(2, name.encode())),
        10: sized(2, numbers(0x001D, 0x0017)),
        13: sized(2, numbers(0x0403, 0x0804, 0x0401)),
        16: sized(2, sized(1, b"http/1.1")),
        43: sized(1, numbers(*versions)),
        51: sized(2, numbers(0x001D) + sized(2, bytes(range(1, 33)))),
    }
    body = numbers(0x0303) + bytes(range(32)) + sized(1, b"")
    body += sized(2, numbers(0x1301, 0x1303, 0xC02B, 0xC02F)) + sized(1, b"\0")
    body += sized(
        2, b"".join(numbers(kind) + sized(2, data) for kind, data in extensions.items())
    )
    return b"\x16\x03\x01" + sized(2, b"\x01" + sized(3, body))


def _proxyHeaders() -> list[bytes]:
    """Headers of the PROXY protocol, of both versions, and what may follow."""
    addresses = socket.inet_aton("192.0.2.9") + socket.inet_aton("198.51.100.1")
    ports = struct.pack("!HH", 777, 9000)
    signature = b"\r\n\r\n\x00\r\nQUIT\n"
    six = socket.inet_pton(socket.AF_INET6, "2001:db8::1") * 2
    return [
        b"PROXY TCP4 192.0.2.9 198.51.100.1 777 9000\r\n",
        b"PROXY TCP6 2001:db8::1 ::1 777 9000\r\n",
        b"PROXY UNKNOWN\r\n",
        signature + b"\x21\x11\x00\x0c" + addresses + ports,
        signature + b"\x21\x21\x00\x24" + six + ports,
        signature + b"\x20\x00\x00\x00",
        signature + b"\x21\x11\x00\x13" + addresses + ports + b"\x02\x00\x04name",
    ]


def _packet(kind: int, payload: bytes) -> bytes:
    """A packet of SSH's before there are keys (RFC 4253, section 6)."""
    padding = 8 - (len(payload) + 6) % 8 + 4
    padding += (8 - (len(payload) + 6 + padding) % 8) % 8
    size = len(payload) + 2 + padding
    return packNumbers(size) + bytes((padding, kind)) + payload + bytes(padding)


def _sshHandshakes() -> list[bytes]:
    """How SSH begins, as far as that is not encrypted (RFC 4253)."""
    version = b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n"
    lists = (
        "curve25519-sha256,mlkem768x25519-sha256,ext-info-c",
        "ssh-ed25519",
        *("aes128-ctr,aes256-ctr",) * 2,
        *("hmac-sha2-256",) * 2,
        *("none",) * 2,
        *("",) * 2,
    )
    offer = _packet(20, bytes(16) + packTexts(*lists) + bytes(5))
    share = _packet(30, packText(b"\x09" + bytes(31)))
    fresh = _packet(21, b"")
    return [
        version + offer + share + fresh,
        version + offer + share + fresh + bytes(64),
        version + _packet(2, packText("x")) + offer,
        version + _packet(4, b"\1" + packTexts("x", "")) + offer + share,
        version + offer + _packet(5, packText("ssh-userauth")),
        version + _packet(1, packNumbers(11) + packTexts("bye", "")),
        b"SSH-chisel-v3-client\r\n" + offer,
    ]


def _seeds() -> dict[str, list[bytes]]:
    offer = {
        "versions": [1],
        "streamWindow": 262144,
        "sessionWindow": 33554432,
        "lease": {"id": "x", "secret": "y"},
        "tunnel": {"id": "0011223344556677", "secret": "s"},
        "direct": "auto",
    }
    hello = encodeHandshake({"id": "laptop", "token": "tun_x", "tristunnel": offer})
    ticket = encodeHandshake({"tristunnel": {"ticket": "abc"}})
    access = encodeHandshake({"tristunnel": {"access": {"id": "a", "secret": "b"}}})
    recorded = [
        bytes.fromhex(line["hex"])
        for line in readVectors("w3p-http-get")
        if "hex" in line
    ]
    binary = [bytes.fromhex(line["hex"]) for line in readVectors("zlayer-messages")]
    texts = [
        line["text"].encode()
        for line in readVectors("vtunnel-http-get")
        if "text" in line
    ]
    call = json.dumps(
        {
            "jsonrpc": "2.0",
            "id": 1,
            "method": "openTunnel",
            "params": {"port": 8080, "allow": ["10.0.0.0/8"]},
        }
    ).encode()
    batch = b"[" + b",".join([call] * 3) + b"]"
    xml = (
        b'<?xml version="1.0"?><methodCall><methodName>openTunnel</methodName><params>'
        b"<param><value><struct><member><name>port</name><value><int>1</int></value>"
        b"</member></struct></value></param></params></methodCall>"
    )
    options = json.dumps(
        {
            "port": 1,
            "name": "x",
            "ttl": 1.5,
            "allow": "10.0.0.0/8,::1",
            "rate": 5,
            "idle": 60,
            "private": True,
        }
    ).encode()

    def post(path: str, body: bytes, *more: str) -> bytes:
        lines = [
            f"POST {path} HTTP/1.1",
            "Host: server:9000",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            *more,
        ]
        return "\r\n".join([*lines, "", ""]).encode() + body

    def get(path: str, *more: str) -> bytes:
        lines = [f"GET {path} HTTP/1.1", "Host: server:9000", *more]
        return "\r\n".join([*lines, "", ""]).encode()

    basic = base64.b64encode(b"laptop:secret").decode()
    beginnings = [
        hello,
        ticket,
        access,
        post("/rpc", call),
        post("/rpc", batch, f"Authorization: Basic {basic}"),
        post("/RPC2", xml, "Authorization: Bearer tun_x"),
        post("/knock/0123456789abcdef/0123456789abcdef0123456789abcdef", b"pin=1234"),
        post(
            "/join",
            b"",
            "X-Forwarded-For: 192.0.2.1",
            "X-Forwarded-Proto: https",
            "Authorization: Invitation k7f3-9q2m-abcd-efgh",
            "Idempotency-Key: 3q2-7wEjRWeJq83vASNFZw",
        ),
        b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n" * 2,
        upgrade() + frame(2, hello),
        upgrade() + b"".join(frame(2, message) for message in binary[:3]),
        upgrade() + b"".join(frame(1, text) for text in texts[:3]),
        upgrade() + frame(2, b"a", fin=False) + frame(9, b"ping") + frame(0, b"b"),
        upgrade("/host/x") + frame(2, b"bytes"),
        upgrade("/client", Authorization="Bearer x") + frame(8, closePayload(1000)),
        upgrade("/client/room?token=tun_x") + frame(2, b"bytes"),
        upgrade(X_Forwarded_For="192.0.2.1, [2001:db8::1]:5, 10.0.0.1"),
        get("/", "X-Forwarded-For: 192.0.2.1:99", "X-Forwarded-Proto: https"),
    ]
    cookie = "Cookie: a=b; tristunnel_form=" + "x" * 32
    form = b"form=" + b"0" * 64 + b"&id=c123456789012"
    pages = [
        get("/", cookie),
        get("/?done=tunnel"),
        get("/metrics", "Accept: application/openmetrics-text;version=1.0.0"),
        get("/dashboard/end?id=0011223344556677", cookie),
        get("/dashboard/events", "Sec-Fetch-Site: same-origin"),
        get("/dashboard/live.js", "If-None-Match: x"),
        post("/dashboard/act", form, "Origin: http://server:9000", cookie).replace(
            b"application/json", b"application/x-www-form-urlencoded"
        ),
        post("/dashboard/act", b"", "Transfer-Encoding: chunked").replace(
            b"Content-Length: 0\r\n", b""
        )
        + b"5\r\nid=c1\r\n0\r\n\r\n",
        get("/health", "X-Forwarded-For: 192.0.2.1, 10.1.2.3") * 2,
    ]
    hellos = [
        clientHello("a.example"),
        clientHello("x.b.example", (0x0303,)),
        clientHello("other.example.", (0x0304,)),
        clientHello("c.example")[:-60],
        b"\x15\x03\x01\x00\x02\x02\x30",
    ]
    claim = {"id": "0011223344556677", "secret": "s" * 32}
    uris = [
        b"w3p://server:9000/0011223344556677#secret",
        b"w3ps://[2001:db8::1]:443/0011223344556677#secret",
        b"w3p://server:9000/access/0011223344556677#secret",
        b"ws://server:9000/host/x",
        b"tls:[::1]:443",
        b"tcp:server:9000",
    ]
    players = [
        handshake("play.example\0FML3\0"),
        handshake("play.example", state=2),
        legacyPing("play.example"),
    ]
    programs = [
        struct.pack("!II", 8, 80877103),
        struct.pack("!II", 8, 80877104),
        struct.pack("!IIII", 16, 80877102, 1, 2),
        struct.pack("!II", 29, 196608) + b"user\0bob\0database\0b\0\0",
        struct.pack("!II", 18, 196610) + b"user\0bob\0\0",
    ]
    headers = _proxyHeaders()
    boring = [
        b'{"Hello":0}\0',
        b'{"Authenticate":"%s"}\0{"Hello":8080}\0' % (b"0f" * 32),
        b'{"Accept":"6ba7b810-9dad-11d1-80b4-00c04fd430c8"}\0and more',
    ]
    return {
        "ssh": _sshHandshakes(),
        "socks": [
            b"\1\5\1\0\5\1\0\1\x7f\0\0\1\0P",
            b"\1\5\1\0\5\3\0\3\x04host\0P",
            b"\0\5\1\2\1\2me\2pw\5\1\0\4" + bytes(16) + b"\0P",
            b"\1\0\0\0\1\x7f\0\0\1\0Pdatagram",
        ],
        "proxyRequest": [
            b"CONNECT h:443 HTTP/1.1\r\nProxy-Authorization: Basic bWU6cHc=\r\n\r\n",
            b"GET http://u@h:80/a?b HTTP/1.0\r\nHost: h\r\nConnection: x\r\n\r\n",
        ],
        "sshFields": [
            b'{"port":9000,"local_addr":"localhost:3000"}',
            b'{"Version":"1","Remotes":[{"LocalHost":"","LocalPort":"1",'
            b'"RemoteHost":"a","RemotePort":"2","Reverse":true}]}',
            packText("localhost") + packNumbers(1) + b"\1" + packNumbers(80),
        ],
        "boreMessages": boring,
        "bore": boring,
        "handshake": [hello, ticket, access, *recorded[:2]],
        "frames": [piece for piece in recorded if piece[:7] != b"W3PTUNL"],
        "zlayer": binary,
        "vtunnel": texts,
        "jsonrpc": [call, batch],
        "xmlrpc": [xml],
        "options": [options],
        "websocket": [each for each in beginnings if b"Upgrade" in each],
        "port": beginnings,
        "pages": pages,
        "tls": hellos,
        "names": [*hellos, *beginnings[:8:3]],
        "hello": hellos[:3],
        "requests": [
            get("/"),
            b"POST /x HTTP/1.1\r\nHost: a:80\r\nContent-Length: 3\r\n\r\nabc"
            + get("/"),
            b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            b"3;x=y\r\nabc\r\n0\r\nT: u\r\n\r\n" + get("/2"),
            b"GET http://a/ HTTP/1.1\r\nHost: a\r\nConnection: upgrade, x\r\n"
            b"Upgrade: websocket\r\nX: y\r\n\r\nraw",
            *(data for _, data in SMUGGLING if len(data) < 1000),
        ],
        "responses": [
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n"
            b"Content-Length: 3\r\n\r\nabcHTTP/1.1 204 No\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n",
            b"HTTP/1.0 200 OK\r\nX: y\r\n\r\nuntil the end",
        ],
        "minecraft": players,
        "players": players,
        "postgres": programs,
        "databases": [*programs[:2], *programs[3:], *hellos[:2]],
        "hosts": [get("/"), get("http://a.example:80/x")],
        "proxy": [header + each for header in headers for each in beginnings[:8:3]],
        "claims": [json.dumps(claim).encode(), b"{}", b'{"id":1,"secret":null}'],
        "uris": uris,
        "tickets": [b"0011223344556677." + b"x" * 32, b".", b"a"],
        "datagrams": [
            b"\x00" + b"n" * 8 + bytes(7) + b"\x01" + bytes(20),
            b"\x01" + struct.pack("!I", 1) + b"datagram",
            b"\x01" + struct.pack("!IBQ", 0, 1, 5),
            b"\x01" + struct.pack("!IBQ", 0, 2, 5),
        ],
        "beginnings": [b"GET /", b"SSH-2.0-x", b"\x16\x03\x01", b"PROXY TCP4", b""],
    }


SEEDS = _seeds()
"""Good inputs, by target."""
