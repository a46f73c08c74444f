"""Tests of L{tristunnel.wire.socks}."""

from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.wire.socks import (
    ClientHandshake,
    Command,
    Login,
    Reply,
    Request,
    ServerHandshake,
    decodeDatagram,
    encodeDatagram,
)

_HOSTS = st.sampled_from(["192.0.2.1", "2001:db8::1", "my_db", "xn--bcher-kva.example"])
_PORTS = st.integers(0, 65535)
_LOGINS = st.none() | st.tuples(st.binary(min_size=1, max_size=255), st.just(b"pw"))


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    return (data[at : at + size] for at in range(0, len(data), size))


class BothRolesTests(SynchronousTestCase):
    """What one role writes the other reads."""

    @given(_HOSTS, _PORTS, _LOGINS, st.integers(1, 40), st.binary(max_size=20))
    def test_talk(
        self,
        host: str,
        port: int,
        login: tuple[bytes, bytes] | None,
        size: int,
        early: bytes,
    ) -> None:
        """In whatever pieces it comes; what follows the handshake is left as it is."""
        client = ClientHandshake(host, port, login)
        server = ServerHandshake(login is not None)
        asked: list[Login | Request] = []
        done = False
        while not done:
            for piece in pieces(client.takeOutgoing(), size):
                if (event := server.feed(piece)) is not None:
                    asked.append(event)
            if asked and isinstance(asked[-1], Login):
                self.assertIsNone(server.answerLogin(True))
                self.assertEqual(asked.pop(), login)
            if asked:
                server.reply(Reply.GOOD, "192.0.2.7", 80)
                server.outgoing += early
            for piece in pieces(server.takeOutgoing(), size):
                if done:
                    client.buffer += piece
                else:
                    done = client.feed(piece)
        self.assertEqual(asked, [Request(Command.CONNECT, host, port)])
        self.assertEqual(client.buffer, early)

    @settings(max_examples=40)
    @given(_HOSTS, _PORTS, st.binary(max_size=100))
    def test_datagrams(self, host: str, port: int, payload: bytes) -> None:
        """A datagram is read as it was written."""
        read = decodeDatagram(encodeDatagram(host, port, payload))
        self.assertEqual(read, (host, port, payload))


class ServerTests(SynchronousTestCase):
    """The server's side."""

    def test_wrong(self) -> None:
        """What is not SOCKS 5 is refused with words, in bounded memory."""
        for sent, words in (
            (b"\x04\x01", "SOCKS 4"),
            (b"GET / HTTP/1.1\r\n", "no SOCKS"),
            (b"\x05\x01\x02", "insists on a login"),
            (b"\x05\x01\x00\x04\x01\x00\x01", "no SOCKS request"),
            (b"\x05\x01\x00\x05\x01\x00\x07\x00\x00", "no kind of SOCKS address"),
            (b"\x05\x01\x00\x05\x01\x00\x03\x02a b\0P", "no host"),
        ):
            server = ServerHandshake()
            error = self.assertRaises(TunnelError, server.feed, sent)
            self.assertEqual(error.code.name, "protocol-error")
            self.assertIn(words, error.message)

    def test_noLogin(self) -> None:
        """Who gives no login where one is wanted is told so."""
        server = ServerHandshake(wantsLogin=True)
        self.assertRaises(TunnelError, server.feed, b"\x05\x01\x00")
        self.assertEqual(server.takeOutgoing(), b"\x05\xff")

    def test_kinds(self) -> None:
        """A kind of address that there is not has its own answer."""
        server = ServerHandshake()
        self.assertRaises(TunnelError, server.feed, b"\x05\x01\0\x05\x01\0\x09\0\0")
        self.assertEqual(server.takeOutgoing()[2:4], b"\x05\x08")

    def test_addressAsName(self) -> None:
        """An address that is sent as a name is an address."""
        event = ServerHandshake().feed(b"\x05\x01\0\x05\x01\0\x03\x08[2::0:1]\0P")
        self.assertEqual(event, Request(Command.CONNECT, "2::1", 80))

    @given(st.lists(st.binary(max_size=30), max_size=10), st.booleans())
    def test_anything(self, chunks: list[bytes], wantsLogin: bool) -> None:
        """Nothing but C{protocol-error} comes of anything."""
        server = ServerHandshake(wantsLogin)
        for chunk in chunks:
            try:
                if isinstance(server.feed(chunk), Login):
                    server.answerLogin(True)
            except TunnelError as error:
                self.assertEqual(error.code.name, "protocol-error")
                return

    @given(st.binary(max_size=40))
    def test_anyDatagram(self, data: bytes) -> None:
        """Nor of any datagram."""
        try:
            decodeDatagram(data)
        except TunnelError as error:
            self.assertEqual(error.code.name, "protocol-error")


class ClientTests(SynchronousTestCase):
    """The client's side."""

    def test_refusals(self) -> None:
        """What a proxy refuses is told in words."""
        for answers, code, words in (
            (b"HTTP/1.1 400", "protocol-error", "not a SOCKS 5 proxy"),
            (b"\x05\xff", "auth-refused", "asks for a login"),
            (b"\x05\x02", "auth-refused", "asks for a login"),
            (b"\x05\x00\x05\x02", "session-lost", "rules do not allow it"),
            (b"\x05\x00\x05\x63", "session-lost", "answered 99"),
        ):
            client = ClientHandshake("far.example", 1)
            if answers[1:2] == b"\0":
                self.assertFalse(client.feed(answers[:2]))
                answers = answers[2:]
            error = self.assertRaises(TunnelError, client.feed, answers)
            self.assertEqual(error.code.name, code)
            self.assertIn(words, error.message)

    def test_wrongPassword(self) -> None:
        """A login that is refused is told of."""
        client = ClientHandshake("far.example", 1, (b"me", b"pw"))
        client.feed(b"\x05\x02")
        self.assertTrue(client.takeOutgoing().endswith(b"\x01\x02me\x02pw"))
        error = self.assertRaises(TunnelError, client.feed, b"\x01\x01")
        self.assertEqual(error.code.name, "auth-refused")

    def test_tooLong(self) -> None:
        """What has no room is refused before anything is sent."""
        for host, login in (
            ("a." * 200, None),
            ("h", (b"x" * 256, b"")),
            ("h", (b"", b"")),
        ):
            self.assertRaises(TunnelError, ClientHandshake, host, 1, login)
