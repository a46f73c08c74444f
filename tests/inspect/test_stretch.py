"""Large bodies of a stream that is looked at go by the kernel, and nothing else."""

from __future__ import annotations

from typing import Any

from tests.dataplane import test_splice
from tests.dataplane.test_splice import Spliced
from tests.inspect.streams import INFO, aForward, aRecord
from tests.support.amounts import pattern
from tests.support.polling import until
from tristunnel.dataplane.join import join, spliceIfPlain
from tristunnel.dataplane.splice import Stretch
from tristunnel.inspect.watched import WatchedEndpoint, watch
from tristunnel.interfaces import Closed

SIZE = 8 * 1024 * 1024
_GET = b"GET /next HTTP/1.1\r\nHost: h\r\n\r\n"
_OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class StretchTests(Spliced):
    """A visitor, C{one}, and a service, C{other}, that is looked at."""

    async def setUp(self) -> None:  # type: ignore[override] # trial waits for it
        self.record = aRecord()

        def joined(visitor: Any, service: Any, closed: Closed) -> None:
            endpoint = watch(aForward(), self.record).endpoint
            assert isinstance(endpoint, WatchedEndpoint)
            _, between = endpoint.watched(INFO)
            toService, toVisitor = between(service, visitor, service, visitor)
            join(toVisitor, toService, closed)

        self.patch(test_splice, "join", joined)
        await self.meet()

    async def blocked(self) -> None:
        """Wait until what goes to the visitor stands still."""
        await until(lambda: (splice := self.ends[1].splice) and splice.blocked)

    async def test_bodies(self) -> None:
        """Both bodies arrive, and what is behind them is looked at again."""
        asked = b"POST /big HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % SIZE
        asked += pattern(SIZE, 1) + _GET
        self.one.say(asked)
        await self.other.has(len(asked))
        answered = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
        answered += pattern(SIZE, 2) + _OK
        self.other.say(answered)
        await self.one.has(len(answered))
        self.assertTrue(self.other.data == asked and self.one.data == answered)
        self.assertEqual([type(splice) for splice in self.moving], [Stretch] * 2)
        big, following = self.record.exchanges.values()
        assert big.response is not None and following.response is not None
        self.assertEqual((big.request.size, big.response.size), (SIZE, SIZE))
        self.assertEqual(bytes(following.response.kept), b"ok")
        self.assertTrue(following.isOver)
        for end in self.ends:
            self.assertIsNone(end.splice)
            self.assertIsNone(end.spliceToUs)

    async def test_slow(self) -> None:
        """A reader who stands still in the midst gets all in the end."""
        answered = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
        answered += pattern(SIZE, 3) + _OK
        self.one.say(_GET * 2)
        await self.other.has(2 * len(_GET))
        self.one.transport.pauseProducing()
        self.other.say(answered)
        await self.blocked()
        self.one.transport.resumeProducing()
        await self.one.has(len(answered))
        self.assertTrue(self.one.data == answered)
        self.assertEqual(
            [each.isOver for each in self.record.exchanges.values()], [True] * 2
        )

    async def test_untilTheEnd(self) -> None:
        """So does a body that ends with the connection."""
        self.one.say(_GET)
        await self.other.has(len(_GET))
        answered = b"HTTP/1.1 200 OK\r\n\r\n" + pattern(SIZE, 4)
        self.other.say(answered)
        self.other.finish()
        await self.one.has(len(answered))
        self.one.finish()
        await self.allOver
        self.assertTrue(self.one.data == answered)
        (exchange,) = self.record.exchanges.values()
        assert exchange.response is not None
        self.assertEqual((exchange.response.size, exchange.problem), (SIZE, ""))

    async def test_detachedMeanwhile(self) -> None:
        """A body that goes by the kernel goes on when the looking ends, with what is in
        a pipe."""
        answered = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE
        answered += pattern(SIZE, 6)
        self.one.say(_GET)
        await self.other.has(len(_GET))
        self.one.transport.pauseProducing()
        self.other.say(answered)
        await self.blocked()
        garbage = b"no HTTP\r\n\r\n"
        self.one.say(garbage)
        await self.other.has(len(_GET + garbage))
        spliceIfPlain(*self.ends)
        self.one.transport.resumeProducing()
        await self.one.has(len(answered))
        self.assertTrue(self.one.data == answered)
        self.assertEqual(len(self.record.notes), 1)

    async def test_detached(self) -> None:
        """What is no HTTP goes by the kernel, too, though it began otherwise."""
        data = b"no HTTP" + pattern(SIZE, 5)
        self.one.say(data)
        await self.other.has(len(data))
        self.assertTrue(self.other.data == data)
        self.assertEqual(len(self.moving), 1)
