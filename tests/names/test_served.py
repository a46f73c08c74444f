"""A visitor's connection and its run, whatever is asked."""

from __future__ import annotations

from twisted.internet.interfaces import IAddress

from tests.names.rig import Transport, VisitorTestCase, request
from tristunnel.names.exchange import Exchange
from tristunnel.names.origin import Origins
from tristunnel.names.served import FRESH, QUEUE, RUN, ServedConnection
from tristunnel.wire.http import RequestHead, RequestReader


class ServedTests(VisitorTestCase):
    """Which run serves a request, and what holds reading."""

    def setUp(self) -> None:
        super().setUp()
        self.transport = Transport()
        self.connection = ServedConnection(self.site)
        self.connection.makeConnection(self.transport)

    def exchange(self, host: str = "a.example", method: str = "GET") -> Exchange:
        (head, *_) = RequestReader().feed(request(host, method=method))
        assert isinstance(head, RequestHead)
        peer: IAddress = self.transport.getPeer()
        origin = Origins(self.site.proxies, peer, False).of(head)
        made = Exchange(head, host, origin, self.clock.seconds())
        made.route = self.names.table.find("http", host)
        return made

    def reuses(self, exchange: Exchange) -> bool:
        """Whether an exchange gets the run that is there."""
        before = self.connection.run
        assert exchange.route is not None
        found = self.connection.runFor(exchange, exchange.route)
        self.assertEqual(exchange.reused, found is before)
        self.assertIs(self.connection.run, found)
        return exchange.reused

    def test_reused(self) -> None:
        """A run serves more requests, but only its own tunnel's."""
        self.assertFalse(self.reuses(self.exchange()))
        self.assertTrue(self.reuses(self.exchange()))
        self.assertFalse(self.reuses(self.exchange("b.example")))
        self.assertTrue(self.service().finished)

    def test_fresh(self) -> None:
        """What cannot be repeated gets a run that has just been heard."""
        self.reuses(self.exchange())
        assert self.connection.run is not None
        self.connection.run.heardAt = self.clock.seconds()
        self.assertTrue(self.reuses(self.exchange(method="POST")))
        self.clock.advance(FRESH)
        self.assertTrue(self.reuses(self.exchange()))
        self.assertFalse(self.reuses(self.exchange(method="POST")))

    def test_reasons(self) -> None:
        """Reading goes on when there is no reason left to hold it."""
        self.connection.hold(QUEUE, True)
        self.connection.hold(RUN, True)
        self.connection.hold(QUEUE, False)
        self.assertEqual(self.transport.producerState, "paused")
        self.connection.hold(RUN, False)
        self.assertEqual(self.transport.producerState, "producing")

    def test_left(self) -> None:
        """A run that is left no longer holds reading."""
        self.reuses(self.exchange())
        self.service().run.pauseReading()
        self.assertEqual(self.transport.producerState, "paused")
        self.connection.leaveRun()
        self.assertEqual(self.transport.producerState, "producing")

    def test_full(self) -> None:
        """A run that begins while the visitor takes nothing is read only later."""
        self.reuses(self.exchange())
        self.connection.pauseProducing()
        self.reuses(self.exchange("b.example"))
        self.assertTrue(self.service("b.example").paused)
        self.connection.resumeProducing()
        self.assertFalse(self.service("b.example").paused)
