"""
Tests for L{tristunnel.dialects.framed.spare} and the client's L{Spares}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.dataplane.answers import LOOK, TAKE_TIME
from tristunnel.dialects.framed.client_direct import PING, Spares
from tristunnel.dialects.framed.spare import ClientSpare, ServerSpare
from tristunnel.wire.framed import (
    FrameType,
    encodeCredit,
    encodeFrame,
    encodeObject,
)

_PING = encodeFrame(0, FrameType.PING, encodeCredit(7))
_PONG = encodeFrame(0, FrameType.PONG, encodeCredit(7))
_OPEN = encodeFrame(0, FrameType.OPEN, encodeCredit(0) + encodeObject({}))


_BIG = encodeFrame(0, FrameType.PING, bytes(32000))


class _Cut(StringTransport):
    """
    Notes whether it was cut.
    """

    cut = False

    def abortConnection(self) -> None:
        """Note it."""
        self.cut = True


class ServerSpareTests(SynchronousTestCase):
    """
    The server's side.
    """

    def setUp(self) -> None:
        """
        Make one.
        """
        self.spare = ServerSpare(Clock(), lambda spare: None)
        self.transport = StringTransport()
        self.spare.makeConnection(self.transport)

    def test_pinged(self) -> None:
        """
        While it waits, it gives signs of life.
        """
        self.spare.dataReceived(_PING)
        self.assertEqual(self.transport.value(), _PONG)

    def test_takesNoPongs(self) -> None:
        """
        Who pings and takes no answers costs one answer, and is cut off; so is
        who pings with more than a number.
        """
        clock = Clock()
        for last, ends in ((_PING, False), (_BIG, True)):
            spare = ServerSpare(clock, lambda spare: None)
            transport: Any = _Cut()
            spare.makeConnection(transport)
            transport.producer.pauseProducing()
            spare.dataReceived(_PING * 1000 + last)
            self.assertEqual(transport.value(), b"")
            self.assertEqual(transport.cut, ends)
            clock.pump([LOOK] * int(TAKE_TIME / LOOK))
            self.assertTrue(transport.cut)

    def test_pongAfterOpen(self) -> None:
        """
        A pong that could not be sent is not sent behind C{open}, nor behind
        C{opened}: there it would be the visitor's word, or the service's.
        """
        client = ClientSpare(Clock(), lambda spare: None, lambda spare, info: None)
        client.makeConnection(StringTransport())
        for spare, leave in (
            (self.spare, lambda: self.spare.open({}, lambda end: None)),
            (client, lambda: client.becomeStream()),
        ):
            transport: Any = spare.transport
            transport.producer.pauseProducing()
            spare.dataReceived(_PING)
            producer = transport.producer
            leave()
            producer.resumeProducing()
            self.assertNotIn(_PONG, transport.value())

    def test_pingCrossesOpen(self) -> None:
        """
        A ping that meets C{open} on its way is not answered: the client takes
        whatever comes behind C{open} for the visitor's words.
        """
        self.spare.open({}, lambda end: None)
        self.transport.clear()
        self.spare.dataReceived(_PING)
        self.assertEqual(self.transport.value(), b"")


class _Ways:
    """
    Dials, and gets C{accepted} and C{open} in one piece.
    """

    def __init__(self, transport: StringTransport) -> None:
        self._transport = transport

    def park(self, ticket: str, spare: ClientSpare) -> Deferred[bool]:
        """
        Make a spare connection.
        """
        spare.makeConnection(self._transport)
        spare.dataReceived(_OPEN)
        return succeed(True)


class SparesTests(SynchronousTestCase):
    """
    The client's side.
    """

    def test_openWithAnswer(self) -> None:
        """
        A connection whose visitor is announced together with C{accepted}
        waits no more: pings in it would be words to the service.
        """
        clock, transport = Clock(), StringTransport()
        asked: list[ClientSpare] = []
        ways: Any = _Ways(transport)
        spares = Spares(
            clock,
            ways,
            1,
            lambda count: succeed(["ticket"] if not asked else []),
            lambda spare, info: asked.append(spare),
        )
        spares.start()
        self.addCleanup(spares.stop)
        self.assertEqual(len(asked), 1)
        self.assertEqual(len(spares), 0)
        clock.advance(PING)
        self.assertEqual(transport.value(), b"")
