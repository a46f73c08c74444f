"""What a TLS client says first, whole, in pieces, and damaged."""

from __future__ import annotations

import contextlib
import ssl
import struct

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.wire.client_hello import (
    LONGEST,
    MOST_RECORDS,
    ClientHello,
    readClientHello,
)


def vector(size: int, data: bytes) -> bytes:
    return len(data).to_bytes(size, "big") + data


def extension(kind: int, content: bytes) -> bytes:
    return struct.pack("!H", kind) + vector(2, content)


def name(*names: bytes, kind: int = 0) -> bytes:
    entries = b"".join(bytes([kind]) + vector(2, each) for each in names)
    return extension(0, vector(2, entries))


def alpn(*names: bytes) -> bytes:
    return extension(16, vector(2, b"".join(vector(1, each) for each in names)))


GREASE = extension(0x2A2A, b"") + extension(0x5A5A, b"\x00")


def hello(*extensions: bytes, suites: bytes = b"\x13\x01") -> bytes:
    body = b"\x03\x03" + bytes(32) + vector(1, bytes(32)) + vector(2, suites)
    body += vector(1, b"\x00")
    if extensions:
        body += vector(2, b"".join(extensions))
    return b"\x01" + vector(3, body)


def records(message: bytes, size: int = 16384) -> bytes:
    pieces = (message[at : at + size] for at in range(0, len(message), size))
    return b"".join(b"\x16\x03\x01" + vector(2, piece) for piece in pieces)


def realHello(serverName: str | None, protocols: list[str]) -> bytes:
    context = ssl.create_default_context()
    if protocols:
        context.set_alpn_protocols(protocols)
    context.check_hostname = serverName is not None
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = context.wrap_bio(incoming, outgoing, server_hostname=serverName)
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


class ClientHelloTests(SynchronousTestCase):
    def test_real(self) -> None:
        """OpenSSL's own hello is read."""
        for serverName, protocols, expected in (
            ("Blog.Example.com", ["h2", "http/1.1"], "blog.example.com"),
            (None, [], ""),
            ("b\xfccher.example", ["acme-tls/1"], "xn--bcher-kva.example"),
        ):
            found = readClientHello(realHello(serverName, protocols))
            said = tuple(each.encode() for each in protocols)
            self.assertEqual(found, ClientHello(expected, said))

    def test_parts(self) -> None:
        """What is not there is empty, and what is not known does not matter."""
        for message, expected in (
            (hello(), ClientHello()),
            (hello(GREASE), ClientHello()),
            (hello(GREASE, name(b"a.example.")), ClientHello("a.example")),
            (hello(name(b"x", kind=7)), ClientHello()),
            (
                hello(extension(0xFE0D, bytes(300)), name(b"outer")),
                ClientHello("outer"),
            ),
            (hello(alpn(b"h2"), name(b"my_db")), ClientHello("my_db", (b"h2",))),
            (hello(suites=b"\x0a\x0a\x13\x01"), ClientHello()),
        ):
            self.assertEqual(readClientHello(records(message)), expected)
            self.assertEqual(readClientHello(records(message, 50) + b"more"), expected)

    def test_refused(self) -> None:
        """What no client sends is refused, with a reason."""
        good = hello(name(b"a.example"))
        for data, why in (
            (b"GET / HTTP/1.1\r\n", "no TLS"),
            (b"\x16\x02\x00", "no TLS"),
            (b"\x80\x2e\x01", "no TLS"),
            (b"\x16\x03\x01\x00\x00", "in pieces"),
            (b"\x16\x03\x01\x40\x01", "in pieces"),
            (records(b"\x02" + good[1:]), "another TLS message"),
            (records(b"\x01" + vector(3, bytes(LONGEST))[:100]), "of more than"),
            (records(good[:-1] + b"\xff"), "no name"),
            (records(hello(name(b"a"), name(b"b"))), "twice"),
            (records(hello(name(b"a", b"b"))), "or several"),
            (records(hello(name(b""))), "no name"),
            (records(hello(name(b"a\x00b"))), "no name"),
            (records(hello(name(b"../etc"))), "no name"),
            (records(hello(name(b"a" * 254))), "no name"),
            (records(hello(alpn(b""))), "damaged"),
            (records(hello(extension(16, b"\x00\x09\x02h2"))), "damaged"),
            (records(hello(suites=b"")), "damaged"),
            (records(hello(suites=b"\x13")), "damaged"),
            (records(b"\x01" + vector(3, b"\x03\x03")), "damaged"),
            (records(good, 1), "in pieces" if len(good) > MOST_RECORDS else "damaged"),
        ):
            with self.assertRaises(ValueError, msg=data) as caught:
                readClientHello(data)
            self.assertIn(why, str(caught.exception))

    @given(st.data())
    def test_pieces(self, data: st.DataObject) -> None:
        """
        However a hello is cut, it is read once it is whole, and says before that
        how much more is needed at least.
        """
        message = hello(
            GREASE, name(b"a.example"), alpn(b"h2"), extension(21, bytes(99))
        )
        whole = records(message, data.draw(st.integers(20, 400)))
        cut = data.draw(st.integers(0, len(whole) - 1))
        needed = readClientHello(whole[:cut])
        assert isinstance(needed, int)
        self.assertTrue(cut < needed <= len(whole))
        self.assertEqual(readClientHello(whole), ClientHello("a.example", (b"h2",)))

    @given(st.data())
    def test_damaged(self, data: st.DataObject) -> None:
        """Anything at all is read, refused, or waited for within bounds."""
        whole = bytearray(records(hello(name(b"a.example"), alpn(b"h2")), 60))
        for _ in range(data.draw(st.integers(1, 6))):
            at = data.draw(st.integers(0, len(whole) - 1))
            whole[at] = data.draw(st.integers(0, 255))
        try:
            found = readClientHello(bytes(whole))
        except ValueError as error:
            self.assertLess(len(str(error)), 100)
        else:
            if isinstance(found, int):
                self.assertTrue(len(whole) < found < len(whole) + 20000)
            else:
                self.assertLessEqual(len(found.serverName), 253)
