"""HTTP from anybody: what is read, and what is refused."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.wire.http import (
    MOST_HEAD_BYTES,
    MOST_HEADERS,
    BadMessage,
    MessageEnd,
    RequestHead,
    RequestReader,
    ResponseHead,
    ResponseReader,
)

_HOST = b"Host: a.example\r\n"
_POST = b"POST / HTTP/1.1\r\n" + _HOST
_NEXT = b"GET /next HTTP/1.1\r\n" + _HOST + b"\r\n"
_CHUNKED = b"Transfer-Encoding: chunked\r\n"


def joined(events: list[Any]) -> list[Any]:
    """Pieces of bodies as one, however they were cut."""
    made: list[Any] = []
    for event in events:
        if isinstance(event, bytes) and made and isinstance(made[-1], bytes):
            made[-1] += event
        else:
            made.append(event)
    return made


def read(reader: Any, data: bytes, sizes: list[int] | None = None) -> list[Any]:
    events: list[Any] = []
    for size in sizes or []:
        events += reader.feed(data[:size])
        data = data[size:]
    return joined(events + reader.feed(data))


# What is no request, or not one that everybody reads alike: the status, and the bytes.
SMUGGLING: tuple[tuple[int, bytes], ...] = (
    # Two lengths.
    (400, _POST + b"Content-Length: 3\r\n" + _CHUNKED + b"\r\n0\r\n\r\n"),
    (400, _POST + _CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n"),
    (400, _POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd"),
    (400, _POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    (400, _POST + b"Content-Length: 3, 3\r\n\r\nabc"),
    (400, _POST + b"Content-Length: 3\r\ncontent-length: 0\r\n\r\nabc"),
    # Lengths that are none.
    *(
        (400, _POST + b"Content-Length: %b\r\n\r\nabc" % value)
        for value in (
            b"",
            b"+3",
            b"-1",
            b"0x3",
            b"3a",
            b"3 3",
            b"3.0",
            b'"3"',
            b"\xb3",
            b"1_0",
            b"99999999999999999999999",
        )
    ),
    # Encodings that hide from one of two.
    *(
        (status, _POST + line + b"\r\n\r\n0\r\n\r\n")
        for status, line in (
            (501, b"Transfer-Encoding: xchunked"),
            (501, b"Transfer-Encoding: identity"),
            (501, b"Transfer-Encoding: gzip, chunked"),
            (400, b"Transfer-Encoding: chunked, identity"),
            (400, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity"),
            (400, b"Transfer-Encoding: identity\r\nTransfer-Encoding: chunked"),
            (400, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked"),
            (400, b"Transfer-Encoding: chunked\r\nTransfer-Encoding: x"),
            (501, b"Transfer-Encoding: ,chunked"),
            (501, b"Transfer-Encoding: chunked,"),
            (501, b'Transfer-Encoding: "chunked"'),
            (501, b"Transfer-Encoding: chunked;q=1"),
            (400, b"Transfer-Encoding:\x0bchunked"),
            (400, b"Transfer-Encoding:\x00chunked"),
            (400, b"Transfer-Encoding: chunked\x00"),
            (400, b"Transfer-Encoding : chunked"),
            (400, b"Transfer-Encoding\t: chunked"),
            (400, b" Transfer-Encoding: chunked"),
            (400, b"X: y\r\n Transfer-Encoding: chunked"),
            (400, b"X: y\nTransfer-Encoding: chunked"),
            (400, b"X: y\rTransfer-Encoding: chunked"),
            (400, b"Transfer-Encoding\r\n: chunked"),
            (400, b"Transfer-Encoding:\r\n chunked"),
            (400, b"Transfer-Encoding: chunked\r\n\tx"),
            (400, b"Transfer\xad-Encoding: chunked"),
            (400, b"Transfer-Encoding: chunked\r\nContent-Length: 5"),
            (501, b"Transfer-Encoding: chu\xc3\xb1ked"),
        )
    ),
    (400, b"POST / HTTP/1.0\r\n" + _HOST + _CHUNKED + b"\r\n0\r\n\r\n"),
    # Chunks.
    *(
        (400, _POST + _CHUNKED + b"\r\n" + chunks)
        for chunks in (
            b"0x3\r\nabc\r\n0\r\n\r\n",
            b"3 \r\nabc\r\n0\r\n\r\n",
            b" 3\r\nabc\r\n0\r\n\r\n",
            b"+3\r\nabc\r\n0\r\n\r\n",
            b"-3\r\nabc\r\n0\r\n\r\n",
            b"3\nabc\n0\n\n",
            b"3\r\nabc0\r\n\r\n",
            b"3\r\nabcd\r\n0\r\n\r\n",
            b"3\r\nabc\n0\r\n\r\n",
            b"3;\nx\r\nabc\r\n0\r\n\r\n",
            b"fffffffffffffffff\r\nabc",
            b"\r\n0\r\n\r\n",
            b";x\r\n0\r\n\r\n",
            b"0\r\nContent-Length: 5\r\n\r\n",
            b"0\r\nX: y\n\r\n",
            b"0\r\n X: y\r\n\r\n",
        )
    ),
    # Hosts.
    (400, b"GET / HTTP/1.1\r\n\r\n"),
    (400, b"GET / HTTP/1.0\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\n" + _HOST + _HOST + b"\r\n"),
    (400, b"GET / HTTP/1.1\r\n" + _HOST + b"hOsT: b\r\n\r\n"),
    (400, b"GET http://b.example/ HTTP/1.1\r\n" + _HOST + b"\r\n"),
    (400, b"GET http://a.example@b.example/ HTTP/1.1\r\n" + _HOST + b"\r\n"),
    (400, b"GET http:///x HTTP/1.1\r\n" + _HOST + b"\r\n"),
    (400, b"GET //b.example\\@a/ HTTP/1.1\r\nHost\r\n\r\n"),
    *(
        (400, b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
        for host in (
            b"",
            b"a b",
            b"a,b",
            b"a/b",
            b"a@b",
            b"a:b",
            b"a:1:2",
            b"a#b",
            b"a?b",
            b"a\\b",
            b"\xc3\xa9",
            b"[::1",
            b"a%00b",
            b"'a'",
            b"a:999999",
        )
    ),
    # Lines.
    (400, b"GET / HTTP/1.1\n" + b"Host: a\n\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\x00b\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nX y: z\r\n\r\n"),
    (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n"),
    (400, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    # Versions and methods.
    (505, b"GET /\r\n\r\n"),
    (505, b"GET / HTTP/0.9\r\nHost: a\r\n\r\n"),
    (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    (400, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    (400, b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"),
    (405, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n"),
    (405, b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (501, b"get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    (501, b"NOTHING / HTTP/1.1\r\nHost: a\r\n\r\n"),
    # A body behind an upgrade.
    (
        501,
        b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
        b"Content-Length: 3\r\n\r\nabc",
    ),
    # More than fits.
    (431, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * MOST_HEADERS + b"\r\n"),
    (431, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * MOST_HEAD_BYTES + b"\r\n\r\n"),
    (414, b"GET /" + b"y" * MOST_HEAD_BYTES + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
)


class RequestTests(SynchronousTestCase):
    """L{RequestReader}."""

    def test_refused(self) -> None:
        """
        What two programs may read in two ways is refused, and nothing behind it is a
        request: not as a whole, and not byte by byte.
        """
        for status, data in SMUGGLING:
            for sizes in ([], [1] * len(data) if len(data) < 500 else [7] * 100):
                events = read(RequestReader(), data + _NEXT, sizes)
                shown = data[:120]
                self.assertIsInstance(events[-1], BadMessage, shown)
                heads = [each for each in events if isinstance(each, RequestHead)]
                self.assertLess(len(heads), 2, shown)
                self.assertFalse(any(h.target == b"/next" for h in heads), shown)
                # Some are told of when they are whole, some before.
                bad = [each for each in events if isinstance(each, BadMessage)]
                self.assertEqual(len(bad), 1, shown)
                self.assertIn(bad[0].status, (status, 400), shown)

    def test_silent(self) -> None:
        """What never becomes a head, or a piece of a body, ends after a while."""
        for data in (
            b"\r\n" * MOST_HEAD_BYTES,
            b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 10**6,
            b"GET /" + b"y" * 10**6,
            _POST + _CHUNKED + b"\r\n1;" + b"x" * 10**6,
        ):
            reader, events = RequestReader(), []
            for start in range(0, len(data), 1000):
                events += reader.feed(data[start : start + 1000])
                if events and isinstance(events[-1], BadMessage):
                    break
            self.assertIsInstance(events[-1], BadMessage, data[:40])
            self.assertLess(start, 2 * MOST_HEAD_BYTES)
            self.assertEqual(reader.feed(_NEXT), [])

    def test_messages(self) -> None:
        """What a request says, in each form of its body."""
        reader = RequestReader()
        data = (
            b"GET /x?y HTTP/1.1\r\nHost: A.example:80\r\nX: \t a b \t\r\n\r\n"
            + _POST
            + b"Content-Length: 3\r\n\r\nabc"
            + b"PUT http://a.example HTTP/1.1\r\n"
            + _HOST
            + b"transfer-encoding: Chunked\r\n\r\n2;x=y\r\nab\r\n0\r\nX-T: u\r\n\r\n"
            + b"OPTIONS * HTTP/1.1\r\n"
            + _HOST
            + b"Connection: Close, x\r\n\r\n"
        )
        events = read(reader, data)
        get, end, post, body, _, put, chunk, trailers, options, _ = events
        self.assertEqual((get.method, get.target), (b"GET", b"/x?y"))
        self.assertEqual((get.host, get.get(b"x")), (b"A.example:80", b"a b"))
        self.assertTrue(get.keepAlive)
        self.assertEqual(end, MessageEnd([]))
        self.assertEqual((post.length, post.chunked, body), (3, False, b"abc"))
        self.assertEqual((put.target, put.chunked, chunk), (b"/", True, b"ab"))
        self.assertEqual(trailers.trailers, [(b"x-t", b"X-T", b"u")])
        self.assertEqual((options.target, options.keepAlive), (b"*", False))
        self.assertEqual(options.connection, {b"close", b"x"})

    def test_old(self) -> None:
        """A request of HTTP/1.0 goes on only if it says so."""
        for line, expected in ((b"", False), (b"Connection: Keep-Alive\r\n", True)):
            data = b"GET / HTTP/1.0\r\nHost: a\r\n" + line + b"\r\n"
            head = read(RequestReader(), data)[0]
            self.assertEqual((head.version, head.keepAlive), ("1.0", expected))

    def test_upgrade(self) -> None:
        """What is behind a request for an upgrade waits until that is decided."""
        ask = (
            b"GET / HTTP/1.1\r\nHost: a\r\nConnection: x, Upgrade\r\nUpgrade: y\r\n\r\n"
        )
        reader = RequestReader()
        head, _ = read(reader, ask + _NEXT[:10])
        self.assertEqual(head.upgrade, b"y")
        self.assertEqual(reader.feed(_NEXT[10:]), [])
        self.assertEqual(reader.rest, _NEXT)
        head, _ = reader.goOn()
        self.assertEqual((head.target, reader.rest), (b"/next", None))
        self.assertEqual(read(reader, _NEXT)[0].target, b"/next")

    def test_passOver(self) -> None:
        """Behind a body that somebody else counts, the next request is read."""
        reader = RequestReader()
        read(reader, _POST + b"Content-Length: 9\r\n\r\nabc")
        self.assertTrue(reader.inBody)
        reader.passOver()
        self.assertTrue(reader.isBetween)
        self.assertEqual(read(reader, _NEXT)[0].target, b"/next")

    @given(
        st.lists(
            st.one_of(
                st.sampled_from([data for _, data in SMUGGLING if len(data) < 400]),
                st.just(_NEXT),
                st.just(_POST + b"Content-Length: 5\r\n\r\nabcde"),
                st.just(_POST + _CHUNKED + b"\r\n3\r\nabc\r\n0\r\nT: u\r\n\r\n"),
                st.binary(max_size=40),
            ),
            max_size=5,
        ),
        st.lists(st.integers(1, 40), max_size=40),
    )
    def test_anyPieces(self, parts: list[bytes], sizes: list[int]) -> None:
        """The same is read in whatever pieces it comes, up to what is refused."""
        data = b"".join(parts)
        whole = read(RequestReader(), data)
        cut = read(RequestReader(), data, sizes)
        bad = [isinstance(each, BadMessage) for each in whole]
        self.assertEqual(any(bad), any(isinstance(e, BadMessage) for e in cut))
        if not any(bad):
            self.assertEqual(whole, cut)
        heads = [each for each in whole if isinstance(each, RequestHead)]
        self.assertEqual(heads, [each for each in cut if isinstance(each, RequestHead)])


class ResponseTests(SynchronousTestCase):
    """L{ResponseReader}."""

    def test_refused(self) -> None:
        """A service that cannot be understood is not guessed at."""
        ok = b"HTTP/1.1 200 OK\r\n"
        for data in (
            ok + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            ok + b"Content-Length: 1, 1\r\n\r\na",
            ok + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
            ok + b"Transfer-Encoding: gzip\r\n\r\n0",
            ok + b"X: a\r\n b\r\nContent-Length: 0\r\n\r\n",
            ok + b"X : a\r\nContent-Length: 0\r\n\r\n",
            b"HTTP/1.1 200 OK\nContent-Length: 1\n\na",
            b"HTTP/1.1 20 OK\r\n\r\n",
            b"HTTP/1.1 099 OK\r\n\r\n",
            b"HTTP/1.1 999 OK\r\n\r\n",
            b"HTTP/2.0 200 OK\r\n\r\n",
            b"HTTP/1.1 101 OK\r\n\r\nraw",
            b"ICY 200 OK\r\n\r\n",
            b"SSH-2.0-OpenSSH\r\n",
            ok + b"X: y\r\n" * (MOST_HEADERS + 1) + b"\r\n",
            b"HTTP/1.1 204 No\r\nContent-Length: 3\r\n\r\nabc",
        ):
            events = read(ResponseReader(), data)
            self.assertIsInstance(events[-1], BadMessage, data[:80])

    def test_bodies(self) -> None:
        """Where a response ends."""
        for data, body in (
            (b"200 OK\r\nContent-Length: 3\r\n\r\nabc", b"abc"),
            (b"200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n\r\n", b"a"),
            (b"204 No\r\n\r\n", b""),
            (b"304 Not\r\nContent-Length: 3\r\n\r\n", b""),
            (b"200\r\nContent-Length: 1\r\n\r\na", b"a"),
        ):
            reader = ResponseReader()
            events = read(reader, b"HTTP/1.1 " + data)
            self.assertIsInstance(events[-1], MessageEnd, data)
            self.assertEqual(b"".join(e for e in events if isinstance(e, bytes)), body)
            self.assertEqual(reader.ended(), [])

    def test_untilClose(self) -> None:
        """A response without a length ends with the connection, and no other does."""
        reader = ResponseReader()
        self.assertEqual(read(reader, b"HTTP/1.0 200 OK\r\n\r\nabc")[1:], [b"abc"])
        self.assertEqual(reader.ended(), [MessageEnd([])])
        for data in (
            b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nab",
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nX: y\r\n",
        ):
            reader = ResponseReader()
            reader.feed(data)
            self.assertIsInstance(reader.ended()[0], BadMessage, data)

    def test_head(self) -> None:
        """A response to HEAD has no body, and another one follows."""
        reader = ResponseReader()
        for _ in range(2):
            reader.toHead = True
            head, end = reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n")
            self.assertIsInstance(end, MessageEnd)
            self.assertEqual(head.length, 9)
        events = read(reader, b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
        self.assertEqual(events[1:], [b"a", MessageEnd([])])
        reader.toHead = True
        events = reader.feed(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\na")
        self.assertEqual(events[1], MessageEnd([]))
        self.assertIsInstance(events[2], BadMessage)

    def test_interim(self) -> None:
        """An interim response is followed by the other one; an upgrade by bytes."""
        reader = ResponseReader()
        data = (
            b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
        )
        interim, _, final, _ = read(reader, data)
        self.assertEqual((interim.isInterim, final.isInterim), (True, False))
        data = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n\x81raw"
        head, _ = read(reader, data)
        self.assertEqual((head.upgrade, reader.rest), (b"x", b"\x81raw"))

    @given(
        st.lists(
            st.one_of(
                st.just(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc"),
                st.just(b"HTTP/1.1 103 Early\r\nLink: x\r\n\r\n"),
                st.just(
                    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
                    b"3\r\nabc\r\n0\r\n\r\n"
                ),
                st.binary(max_size=30),
            ),
            max_size=4,
        ),
        st.lists(st.integers(1, 30), max_size=40),
    )
    def test_anyPieces(self, parts: list[bytes], sizes: list[int]) -> None:
        """The same is read in whatever pieces it comes."""
        data = b"".join(parts)
        whole = read(ResponseReader(), data)
        cut = read(ResponseReader(), data, sizes)
        heads = [each for each in whole if isinstance(each, ResponseHead)]
        self.assertEqual(
            heads, [each for each in cut if isinstance(each, ResponseHead)]
        )
        if not any(isinstance(each, BadMessage) for each in whole):
            self.assertEqual(whole, cut)
