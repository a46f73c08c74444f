"""
What an unauthenticated peer can make the server read before it is known who that is.

Each target takes bytes and returns whether they were accepted; it raises
L{Broken} if it did anything but accept them or refuse them as it should.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock

from tests.fuzz.broken import Broken
from tests.fuzz.mutation import mutate
from tests.fuzz.ports import Ports, boring, databases, named, players, proxied, secure
from tests.fuzz.seeds import SEEDS
from tristunnel.connect.address import (
    Trust,
    parseAccessURI,
    parseConnect,
    parseTunnelURI,
)
from tristunnel.dialects.framed.datagram_path import ServerPaths
from tristunnel.errors import TunnelError
from tristunnel.http.xmlrpc import _parse
from tristunnel.jsonrpc.calls import CallError
from tristunnel.jsonrpc.dispatcher import Dispatcher
from tristunnel.jsonrpc.strictjson import BadJSON, decode
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.options import TunnelOptions
from tristunnel.names.heads import UNCHANGED, requestBytes
from tristunnel.names.origin import Origin
from tristunnel.server.hosts import hostAsked
from tristunnel.service.capability import claimTunnel
from tristunnel.service.tickets import Tickets
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.wire import bore, vtunnel, zlayer
from tristunnel.wire.chisel import unpackConfig
from tristunnel.wire.client_hello import ClientHello, readClientHello
from tristunnel.wire.first_bytes import describeFirstBytes, looksLikeTLS
from tristunnel.wire.framed import FrameDecoder, HandshakeDecoder
from tristunnel.wire.http import (
    MOST_HEADERS,
    RequestHead,
    RequestReader,
    ResponseHead,
    ResponseReader,
)
from tristunnel.wire.minecraft import LONGEST as LONGEST_HANDSHAKE
from tristunnel.wire.minecraft import NotMinecraft, readHandshake, refusal
from tristunnel.wire.postgres import LONGEST as LONGEST_OPENING
from tristunnel.wire.postgres import NotPostgres, readOpening
from tristunnel.wire.proxy_request import ProxyRequestDecoder
from tristunnel.wire.sealed import Sealing
from tristunnel.wire.socks import Login, ServerHandshake, decodeDatagram
from tristunnel.wire.ssh import Fields
from tristunnel.wire.vtunnel_ssh import Listen

__all__ = ["PARSERS", "SEEDS", "SERVERS", "Broken", "Ports", "Target", "mutate"]

Target = Callable[[bytes], bool]


def handshake(data: bytes) -> bool:
    """The first message of the framed protocol, in two pieces."""
    decoder = HandshakeDecoder()
    try:
        decoder.feed(data[: len(data) // 2])
        return decoder.feed(data[len(data) // 2 :]) is not None
    except TunnelError:
        return False


def frames(data: bytes) -> bool:
    decoder = FrameDecoder()
    try:
        decoder.feed(data[: len(data) // 3])
        return bool(decoder.feed(data[len(data) // 3 :]))
    except TunnelError:
        return False


def zlayerMessage(data: bytes) -> bool:
    """A message of zlayer's, written again if it is one."""
    try:
        message = zlayer.decodeMessage(data)
    except TunnelError:
        return False
    if zlayer.decodeMessage(zlayer.encodeMessage(message)) != message:
        raise Broken("it is read as something else when it can be written again")
    return True


def vtunnelMessage(data: bytes) -> bool:
    try:
        vtunnel.decodeMessage(data)
    except TunnelError:
        return False
    return True


_dispatcher = Dispatcher({"openTunnel": lambda caller, **options: 1}.get)


def jsonRPC(data: bytes) -> bool:
    """JSON-RPC: there is always an answer in JSON, or none."""
    answers: list[bytes | None] = []
    _dispatcher.dispatch(None, data).addCallback(answers.append)
    if len(answers) != 1:
        raise Broken("there is no answer")
    if answers[0] is None:
        return True
    answer = json.loads(answers[0])
    return not (isinstance(answer, dict) and "error" in answer)


def xmlRPC(data: bytes) -> bool:
    try:
        _parse(data)
    except CallError:
        return False
    return True


def tunnelOptions(data: bytes) -> bool:
    """The options of C{openTunnel}, and the networks in them."""
    try:
        value = decode(data)
        if not isinstance(value, dict):
            return False
        TunnelOptions.fromMapping(value)
    except (BadJSON, TunnelError):
        return False
    return True


def claims(data: bytes) -> bool:
    """The secret of a tunnel, as a handshake has it; there is no such tunnel."""
    try:
        claim = decode(data)
    except BadJSON:
        return False
    if not isinstance(claim, dict):
        return False
    waiting = claimTunnel(TunnelService(Clock(), MemoryBook(Clock()), {}).find, claim)
    try:
        waiting.send(None)
    except TunnelError as refusal:
        if refusal.code.name != "auth-refused":
            raise Broken(f"it is refused as {refusal.code.name}") from refusal
        return True
    except StopIteration:
        raise Broken("a tunnel was found") from None
    raise Broken("it is not answered at once")


def uris(data: bytes) -> bool:
    """
    What one is told by others to connect to: the URIs of tunnels and of
    access.
    """
    text, good = data.decode("utf-8", "replace"), False
    for parse in (parseTunnelURI, parseAccessURI, parseConnect):
        try:
            parse(_reactor, text, Trust())
            good = True
        except TunnelError as refusal:
            if refusal.code.name != "bad-option":
                raise Broken(f"it is refused as {refusal.code.name}") from refusal
            fragment = text.partition("#")[2]
            isSecret = text.startswith(("w3p://", "w3ps://")) and len(fragment) > 8
            if isSecret and fragment in str(refusal):
                raise Broken("the message has the secret") from refusal
    return good


_reactor: Any = Clock()
_tickets = Tickets(_reactor.seconds)
_tickets.grant(lambda arrival, offer: True)


def tickets(data: bytes) -> bool:
    """The ticket of a direct connection; there is one that nobody knows."""
    text = data.decode("utf-8", "surrogateescape")
    if _tickets.redeem(text) is not None or _tickets.redeem(data) is not None:
        raise Broken("it is good for something")
    if len(_tickets) != 1:
        raise Broken("a ticket is lost")
    return text.count(".") == 1


_arrived: list[bytes] = []
_paths = ServerPaths(_reactor)
_path, _keys = _paths.open(lambda: False, lambda number, data: _arrived.append(data))
_sealing = Sealing(_keys, False)


def datagrams(data: bytes) -> bool:
    """
    Packets of a direct path: a peer's (the first byte is even), of which
    none is right, or what is in a right one of a client's.
    """
    _arrived.clear()
    if data[:1] and data[0] & 1:
        _paths._arrived(_sealing.seal(data[1:]), ("192.0.2.1", 1), None)
        return bool(_arrived)
    name = _keys.name if data[1:2] == b"n" else b""
    _paths._arrived(name + data[1:], ("192.0.2.1", 1), None)
    if _arrived:
        raise Broken("a forged packet was taken")
    return False


def beginnings(data: bytes) -> bool:
    """What is said in the log of a connection's first bytes: a short line."""
    text = describeFirstBytes(data)
    if len(text) > 120 or not text.isprintable():
        raise Broken(f"the log is told {text!r}")
    return looksLikeTLS(data) or "unknown" not in text


def hello(data: bytes) -> bool:
    """What a TLS client says first, in two pieces."""
    try:
        needed = readClientHello(data[: len(data) // 2])
        if isinstance(needed, int) and not len(data) // 2 < needed <= 2**17:
            raise Broken(f"it waits for {needed} bytes")
        return isinstance(readClientHello(data), ClientHello)
    except ValueError:
        return False


def hosts(data: bytes) -> bool:
    """Which host a request is for, as a port that several share finds it."""
    found = hostAsked(data)
    if found is not None and len(found) > 300:
        raise Broken("that is no host")
    return bool(found)


def _heads(pieces: list[bytes]) -> list[RequestHead]:
    reader = RequestReader()
    events = [event for piece in pieces for event in reader.feed(piece)]
    return [event for event in events if isinstance(event, RequestHead)]


_ORIGIN = Origin("192.0.2.1", b"http", "192.0.2.1:1", b"")


def requests(data: bytes) -> bool:
    """Requests for names: the same ones, in whatever pieces they come."""
    whole, half = _heads([data]), len(data) // 2
    if whole != _heads([data[:half], data[half:]]):
        raise Broken("other requests are read in two pieces")
    for head in whole:
        if len(head.headers) > MOST_HEADERS - 10:
            # With ours there are more than fit.
            continue
        written = requestBytes(
            head, UNCHANGED, Origin("192.0.2.1", b"http", "192.0.2.1:1", b"")
        )
        again = _heads([written])
        if len(again) != 1 or again[0].host != head.host:
            raise Broken("what is written is not one request for the same host")
        if (again[0].length, again[0].chunked) != (head.length, head.chunked):
            raise Broken("the body has another length now")
    return bool(whole)


def responses(data: bytes) -> bool:
    """Responses of a service, which nobody trusts either."""
    reader = ResponseReader()
    half = len(data) // 2
    events = [*reader.feed(data[:half]), *reader.feed(data[half:]), *reader.ended()]
    return any(isinstance(event, ResponseHead) for event in events)


def sshFields(data: bytes) -> bool:
    """What vtunnel and chisel say over SSH, and a message's fields."""
    good = False
    fields = Fields(data)
    for read in (
        lambda: Listen.unpack(data),
        lambda: unpackConfig(data),
        lambda: (fields.text(), fields.number(), fields.boolean(), fields.port()),
    ):
        try:
            read()
            good = True
        except TunnelError as refusal:
            if refusal.code.name != "protocol-error":
                raise Broken(f"it is refused as {refusal.code.name}") from refusal
    return good


def minecraft(data: bytes) -> bool:
    try:
        read = readHandshake(data)
    except NotMinecraft:
        return False
    if read is None and len(data) >= LONGEST_HANDSHAKE:
        raise Broken("it waits for more than there can be")
    return read is not None and bool(refusal(read, read.host))


def postgres(data: bytes) -> bool:
    try:
        read = readOpening(data)
    except NotPostgres:
        return False
    if read is None and len(data) >= LONGEST_OPENING:
        raise Broken("it waits for more than there can be")
    return read is not None and read[1] <= len(data)


def socks(data: bytes) -> bool:
    """What a visitor says to a client that is a SOCKS proxy, and its datagrams."""
    server = ServerHandshake(wantsLogin=data[:1] == b"\0")
    good = False
    try:
        event = server.feed(data[1:])
        while isinstance(event, Login):
            event = server.answerLogin(True)
        good = event is not None
        decodeDatagram(data[1:])
    except TunnelError as refusal:
        if refusal.code.name != "protocol-error":
            raise Broken(f"it is refused as {refusal.code.name}") from refusal
    return good


def proxyRequest(data: bytes) -> bool:
    """What a visitor says to a client that is an HTTP proxy."""
    try:
        return ProxyRequestDecoder().feed(data) is not None
    except TunnelError:
        return False


def boreMessages(data: bytes) -> bool:
    """Messages of bore's, as they come."""
    good = False
    try:
        while True:
            message, data = bore.nextMessage(data)
            if message is None:
                return good
            bore.unpack(message)
            good = True
    except TunnelError:
        return False


PARSERS: dict[str, Target] = {
    "requests": requests,
    "responses": responses,
    "handshake": handshake,
    "frames": frames,
    "zlayer": zlayerMessage,
    "vtunnel": vtunnelMessage,
    "jsonrpc": jsonRPC,
    "xmlrpc": xmlRPC,
    "options": tunnelOptions,
    "claims": claims,
    "uris": uris,
    "tickets": tickets,
    "datagrams": datagrams,
    "beginnings": beginnings,
    "hello": hello,
    "hosts": hosts,
    "sshFields": sshFields,
    "boreMessages": boreMessages,
    "minecraft": minecraft,
    "postgres": postgres,
    "socks": socks,
    "proxyRequest": proxyRequest,
}
"""The parsers alone."""

SERVERS: dict[str, Callable[[], Ports]] = {
    "websocket": Ports,
    "port": Ports,
    "pages": lambda: Ports(asked=False),
    "ssh": Ports,
    "tls": lambda: Ports(wrap=secure),
    "names": lambda: Ports(wrap=named),
    "proxy": lambda: Ports(wrap=proxied),
    "players": lambda: Ports(wrap=players),
    "databases": lambda: Ports(wrap=databases),
    "bore": lambda: Ports(wrap=boring),
}
"""Whole servers, which have all parsers and what is around them. Each is to be
closed."""
