"""
Tests for L{tristunnel.dataplane.lookups}.
"""

from __future__ import annotations

import socket
import threading
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.listening import listenHere
from tests.support.loopback import Service, Talk
from tristunnel.dataplane import lookups
from tristunnel.dataplane.dial import NEXT_ADDRESS, HostEndpoint
from tristunnel.dataplane.lookups import FRESH, LIMIT, PATIENCE, Answer, lookUp

reactor: Any = _reactor


class Names:
    """
    A name server that answers when it is told to.

    @ivar asked: The questions without an answer: name and who wants to know.
    """

    def __init__(self) -> None:
        self.asked: list[tuple[str, Any]] = []

    def resolveHostName(self, receiver: Any, host: str, port: int = 0) -> None:
        self.asked.append((host, receiver))

    def answer(self, *hosts: str, failed: bool = False) -> None:
        _, receiver = self.asked.pop(0)
        receiver.failed = failed
        for host in hosts:
            kind = IPv6Address if ":" in host else IPv4Address
            receiver.addressResolved(kind("TCP", host, 0))
        receiver.resolutionComplete()


class LookUpTests(SynchronousTestCase):
    """Who waits for what, and for how long."""

    def setUp(self) -> None:
        clock: Any = Clock()
        self.clock = clock
        self.names: Names = Names()
        clock.nameResolver = self.names

    def look(self, host: str = "db.test", **more: bool) -> Deferred[Answer]:
        return lookUp(self.clock, host, **more)

    def found(self, asking: Deferred[Answer]) -> list[str]:
        return self.successResultOf(asking).addresses

    def test_shared(self) -> None:
        """
        Those who ask for the same share a question, and one that goes does not
        take it along.
        """
        first, second, third = self.look(), self.look(), self.look("other.test")
        self.assertEqual(
            [host for host, _ in self.names.asked], ["db.test", "other.test"]
        )
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.names.answer("192.0.2.1", "2001:db8::1", "192.0.2.1")
        self.assertEqual(self.found(second), ["192.0.2.1", "2001:db8::1"])
        self.assertNoResult(third)

    def test_fresh(self) -> None:
        """An answer serves many visitors at once, and nobody later."""
        self.look()
        self.names.answer("192.0.2.1")
        self.assertEqual(self.found(self.look()), ["192.0.2.1"])
        self.clock.advance(FRESH)
        # Much later, nobody would find a service that has moved.
        self.assertLess(FRESH, 1)
        asking = self.look()
        self.names.answer("192.0.2.2")
        self.assertEqual(self.found(asking), ["192.0.2.2"])

    def test_silent(self) -> None:
        """
        A name server that does not answer is not waited for without end, and
        not asked again meanwhile.
        """
        asking = self.look()
        self.clock.advance(LIMIT)
        failure = self.failureResultOf(asking, DNSLookupError)
        self.assertEqual(
            failure.getErrorMessage(),
            f"the name server did not answer within {LIMIT:g} s where db.test is",
        )
        again = self.look()
        self.assertEqual(len(self.names.asked), 1)
        self.names.answer("192.0.2.1")
        self.assertEqual(self.found(again), ["192.0.2.1"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_lastKnown(self) -> None:
        """
        What was known is used on where the name server is silent or in trouble,
        and not where it says that there is no such name.
        """
        self.look()
        self.names.answer("192.0.2.1")
        self.clock.advance(FRESH)
        asking = self.look()
        self.clock.advance(PATIENCE)
        self.assertEqual(self.successResultOf(asking), (["192.0.2.1"], False))
        self.assertEqual(self.found(self.look()), ["192.0.2.1"])
        self.names.answer(failed=True)
        asking = self.look()
        self.names.answer(failed=True)
        self.assertEqual(self.found(asking), ["192.0.2.1"])
        asking = self.look()
        self.names.answer()
        self.failureResultOf(asking, DNSLookupError)

    def test_here(self) -> None:
        """Names of the hosts file, C{localhost} and addresses ask nobody."""
        hosts = self.mktemp()
        with open(hosts, "w") as written:
            written.write("192.0.2.7 my_db DB.test # one\n2001:db8::7 my_db\n")
        self.patch(lookups, "_HOSTS", hosts)
        for host, expected in (
            ("my_db", ["192.0.2.7", "2001:db8::7"]),
            ("db.test.", ["192.0.2.7"]),
            ("localhost", ["127.0.0.1", "::1"]),
            ("a.localhost", ["127.0.0.1", "::1"]),
            ("fe80::1%lo", ["fe80::1%lo"]),
        ):
            self.assertEqual(self.found(self.look(host)), expected)
        with open(hosts, "w") as written:
            written.write("192.0.2.8 my_db\n")
        self.assertEqual(self.found(self.look("my_db")), ["192.0.2.8"])
        self.assertEqual(self.names.asked, [])


class RaceTests(SynchronousTestCase):
    """Which of a name's addresses are dialled."""

    def setUp(self) -> None:
        memory: Any = MemoryReactorClock()
        self.memory = memory
        self.names: Names = Names()
        memory.nameResolver = self.names
        self.endpoint = HostEndpoint(self.memory, "db.test", 5432)

    def connect(self) -> Deferred[Any]:
        factory = Factory.forProtocol(Talk)
        factory.noisy = False
        return self.endpoint.connect(factory)

    def dialled(self) -> list[str]:
        return [each[0] for each in self.memory.tcpClients]

    def refuse(self, number: int) -> None:
        self.memory.tcpClients[number][2].clientConnectionFailed(
            self.memory.connectors[number], Failure(ConnectionRefusedError())
        )

    def test_next(self) -> None:
        """
        The next address is tried at once after a failure, and beside a slow
        one; the last failure is the result.
        """
        connecting = self.connect()
        self.names.answer("2001:db8::1", "192.0.2.1", "192.0.2.2")
        self.assertEqual(self.dialled(), ["2001:db8::1"])
        self.refuse(0)
        self.assertEqual(self.dialled()[1:], ["192.0.2.1"])
        self.memory.advance(NEXT_ADDRESS)
        self.assertEqual(self.dialled()[2:], ["192.0.2.2"])
        self.refuse(2)
        self.assertNoResult(connecting)
        self.refuse(1)
        self.failureResultOf(connecting, ConnectionRefusedError)
        self.assertEqual(self.memory.getDelayedCalls(), [])

    def test_cancel(self) -> None:
        """Nobody is dialled for a visitor who has left."""
        connecting = self.connect()
        self.names.answer("192.0.2.1", "192.0.2.2")
        connecting.cancel()
        self.failureResultOf(connecting, CancelledError)
        self.assertTrue(self.memory.connectors[0].stoppedConnecting)
        self.assertEqual(self.memory.getDelayedCalls(), [])

    def test_moved(self) -> None:
        """
        Where a remembered address fails, the name is looked up again, for the
        same visitor.
        """
        self.connect()
        self.names.answer("192.0.2.1")
        connecting = self.connect()
        self.refuse(1)
        self.assertNoResult(connecting)
        self.names.answer("192.0.2.2")
        self.assertEqual(self.dialled(), ["192.0.2.1", "192.0.2.1", "192.0.2.2"])


class StuckTests(TestCase):
    """A C library that does not come back."""

    timeout = 60

    async def test_starves(self) -> None:
        """
        Thirty names without an answer stop neither another name nor the
        reactor's own threads.
        """
        stuck = threading.Event()
        self.addCleanup(stuck.set)
        real = socket.getaddrinfo

        def getaddrinfo(host: str, *arguments: Any) -> Any:
            if host.startswith("stuck"):
                stuck.wait()
                raise socket.gaierror(socket.EAI_AGAIN, "no answer")
            return real("127.0.0.1", *arguments)

        self.patch(socket, "getaddrinfo", getaddrinfo)
        waiting = [lookUp(reactor, f"stuck_{each}.test") for each in range(30)]
        service = Service(b"welcome")
        port = listenHere(self, reactor, service)
        for host in ("localhost", "ab--cd.a_b.test"):
            factory = Factory.forProtocol(Talk)
            factory.noisy = False
            endpoint = HostEndpoint(reactor, host, port)
            talk: Any = await endpoint.connect(factory)
            await talk.has(7)
            talk.abort()
            await talk.gone()
            await service.talks.pop().gone()
        for each in waiting:
            self.assertFalse(each.called)
            each.cancel()
            await self.assertFailure(each, CancelledError)
