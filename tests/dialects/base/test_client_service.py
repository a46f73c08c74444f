"""
The client as a service, L{tristunnel.dialects.framed.client_service}, with our own
server.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.base.client_rig import ClientServiceTestCase
from tests.dialects.framed.network import MemoryService
from tristunnel.dialects.base.client import FIRST_DELAY, LONGEST_DELAY, SETTLED, backoff
from tristunnel.dialects.base.lease import ClientLease
from tristunnel.dialects.base.refusals import STEADY
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.errors import TunnelError
from tristunnel.tls.client_context import ServerVerification


class BackoffTests(SynchronousTestCase):
    """How long a client waits before the next attempt."""

    def test_bounds(self) -> None:
        """The bound doubles from one second to one minute, and stays there."""
        for failures in (0, 1, 2, 3, 6, 20, 10_000):
            bound = min(FIRST_DELAY * 2.0 ** min(failures, 100), LONGEST_DELAY)
            for _ in range(50):
                self.assertTrue(0 < backoff(failures) <= bound)

    def test_fullJitter(self) -> None:
        """
        The whole delay is random, also where the bound no longer grows: two
        clients seldom come together.
        """
        delays = [backoff(30) for _ in range(400)]
        self.assertLess(min(delays), LONGEST_DELAY / 4)
        self.assertGreater(max(delays), LONGEST_DELAY * 3 / 4)

    def test_hint(self) -> None:
        """The server's hint is waited for first."""
        for _ in range(50):
            self.assertTrue(30.0 < backoff(0, 30.0) <= 30.0 + FIRST_DELAY)

    def test_steady(self) -> None:
        """The longest interval is long."""
        for _ in range(50):
            self.assertTrue(LONGEST_DELAY / 2 <= backoff(STEADY) <= LONGEST_DELAY)


class ClientServiceTests(ClientServiceTestCase):
    """The client connects, opens its tunnels, and comes back."""

    def test_events(self) -> None:
        """The observer is told what happens, in order."""
        self.client()
        visitor = self.listeners.only().visit()
        visitor.say(b"question")
        self.settle()
        self.web.visits[0].transport.write(b"answer")
        self.settle()
        visitor.end()
        self.settle()
        self.web.visits[0].transport.loseConnection()
        self.settle()
        self.assertEqual(
            self.seen.events,
            [
                ("connected",),
                ("credentialsSent",),
                ("acknowledged", "framed"),
                ("tunnelReady", "tcp://server.example:41001", "web"),
                ("serviceConnected", "web"),
                ("serviceGone", "web", 6, 8, ""),
            ],
        )
        self.assertEqual(visitor.taken, b"answer")
        self.assertTrue(visitor.finished)
        self.assertEqual(self.notes.named("visitorGone"), [(8, 6, "")])

    def test_serviceSpeaksFirst(self) -> None:
        """A visitor who says nothing hears a service that speaks first."""
        self.client(self.forward(service=MemoryService(b"SSH-2.0-test\r\n")))
        visitor = self.listeners.only().visit()
        self.settle()
        self.assertEqual(visitor.taken, b"SSH-2.0-test\r\n")

    def test_serviceRefuses(self) -> None:
        """Where no service is, the visitor is reset and the client says so."""
        self.web.refusing = True
        self.client()
        visitor = self.listeners.only().visit()
        self.settle()
        assert visitor.broken is not None
        self.assertEqual(visitor.broken.code.name, "service-refused")
        self.assertIn("nothing listens at web", visitor.broken.message)
        self.assertEqual(self.seen.named("serviceFailed"), [("web", "service-refused")])

    def test_serviceIsSilent(self) -> None:
        """A service that does not answer in time is given up."""
        self.web.silent = True
        self.client()
        visitor = self.listeners.only().visit()
        self.settle()
        self.advance(9)
        self.assertIsNone(visitor.broken)
        self.advance(2)
        assert visitor.broken is not None
        self.assertEqual(visitor.broken.code.name, "service-timeout")
        self.assertEqual(self.web.cancelled, 1)
        self.assertEqual(self.seen.named("serviceFailed"), [("web", "service-timeout")])

    def test_visitorLeavesEarly(self) -> None:
        """
        A visitor that leaves before the service answered takes the attempt
        with it, and nobody complains.
        """
        self.web.silent = True
        self.client()
        visitor = self.listeners.only().visit()
        self.settle()
        visitor.crash()
        self.settle()
        self.assertEqual(self.web.cancelled, 1)
        self.assertEqual(self.seen.named("serviceFailed"), [])

    def test_serviceResets(self) -> None:
        """A reset by the service is a reset for the visitor."""
        self.client()
        visitor = self.listeners.only().visit()
        self.settle()
        service = self.web.visits[0]
        pump = self.web.pumps[0]
        pump.clientIO.disconnected = pump.serverIO.disconnected = True
        from twisted.internet.error import ConnectionLost
        from twisted.python.failure import Failure

        pump.clientIO.protocol.connectionLost(Failure(ConnectionLost()))
        self.settle()
        self.assertIsNotNone(service)
        assert visitor.broken is not None
        self.assertEqual(visitor.broken.code.name, "reset")

    def test_severalForwards(self) -> None:
        """Each tunnel leads to its own service."""
        other = MemoryService(b"other")
        self.client(self.forward(8080), self.forward(name="other", service=other))
        self.assertEqual(sorted(self.listeners.open_), [8080, 41001])
        visitor = self.listeners.open_[41001].visit()
        self.settle()
        other.settle()
        self.settle()
        self.assertEqual(visitor.taken, b"other")
        self.assertEqual(self.web.visits, [])

    def test_anyPortLast(self) -> None:
        """A tunnel on any port does not get the one that another asks for."""
        client = self.client(self.forward(name="blog"), self.forward(41001))
        ready = ("tunnelReady", "tcp://server.example:41001", "web")
        self.assertIn(ready, self.seen.events)
        self.stop(client)

    def test_credentials(self) -> None:
        """The credentials reach the server's filter as they are."""
        asked: list[dict[str, object]] = []

        def remember(fields: Any) -> bool:
            asked.append(dict(fields))
            return True

        self.makeServer(remember)
        self.client(credentials={"id": "laptop", "more": [1, {"x": None}]})
        self.assertEqual(asked, [{"id": "laptop", "more": [1, {"x": None}]}])

    def test_refused(self) -> None:
        """
        A client whose credentials are refused gives up and says why; there is
        no second attempt.
        """
        self.makeServer(lambda fields: False)
        self.client()
        self.assertEqual(self.seen.events[-1], ("gaveUp", "auth-refused"))
        self.assertEqual([reason.code.name for reason in self.gaveUp], ["auth-refused"])
        self.advance(200, 20)
        self.assertEqual(self.way.attempts, 1)

    def comeBack(self, client: TunnelClientService, isVerified: bool) -> None:
        """Have a client that was in lose its connection, and come back."""
        if isVerified:
            creator = ServerVerification("server.example")
            client._server = replace(client._server, verification=creator)
        self.assertEqual(len(self.seen.named("tunnelReady")), 1)
        self.wires[-1].cut()
        self.advance(4)
        self.assertEqual(self.way.attempts, 2)

    def goesOn(self, code: str) -> None:
        """Check that a client has said no, and has not given up."""
        self.assertEqual(self.gaveUp, [])
        self.assertEqual(self.seen.named("disconnected")[-1][0], code)
        self.assertIn("longest interval", self.seen.named("disconnected")[-1][1])
        self.assertEqual(self.delays[-1], (STEADY, None))
        before = self.way.attempts
        self.makeServer()
        self.advance(4)
        self.assertEqual(self.way.attempts, before + 1)
        self.assertEqual(len(self.seen.named("tunnelReady")), 2)

    def test_refusedLater(self) -> None:
        """
        A client that was in goes on when it is refused without TLS, where anybody
        on the way can do so.
        """
        client = self.client()
        self.makeServer(lambda fields: False)
        self.comeBack(client, False)
        self.goesOn("auth-refused")

    def test_refusedVerified(self) -> None:
        """By verified TLS it is the server that refuses, and that is final."""
        client = self.client()
        self.makeServer(lambda fields: False)
        self.comeBack(client, True)
        self.assertEqual([r.code.name for r in self.gaveUp], ["auth-refused"])
        self.advance(200, 20)
        self.assertEqual(self.way.attempts, 2)

    def test_refusedOnTheWay(self) -> None:
        """
        What has no code of the protocol is not the server's word, by whatever
        way it comes.
        """
        for isVerified in (False, True):
            self.seen.events.clear()
            client = self.client()
            self.way.attempts = 1
            self.way.refusal = TunnelError("auth-refused", "answered 403 Forbidden")
            self.comeBack(client, isVerified)
            self.way.refusal = None
            self.goesOn("auth-refused")
            self.stop(client)

    def test_tunnelsRefusedLater(self) -> None:
        """The same holds for a server that lets the client in and opens nothing."""
        for isVerified in (False, True):
            self.seen.events.clear()
            self.makeServer()
            client = self.client(self.forward(8080))
            self.way.attempts = 1
            self.makeServer()
            self.listeners.forbidden.add(8080)
            self.comeBack(client, isVerified)
            if isVerified:
                self.assertEqual([r.code.name for r in self.gaveUp], ["not-permitted"])
            else:
                self.goesOn("not-permitted")
            self.stop(client)

    def test_firstAttemptFailed(self) -> None:
        """The very first try is when the user is there; the second one is not."""
        self.way.away = True
        self.client()
        self.way.away = False
        self.makeServer(lambda fields: False)
        self.advance(4)
        self.assertEqual(self.gaveUp, [])
        self.assertEqual(self.delays[-1], (STEADY, None))

    def test_noServer(self) -> None:
        """
        A server that is not there is tried again and again, at growing
        intervals.
        """
        self.way.away = True
        self.client()
        self.advance(9.5)
        self.assertEqual(self.way.attempts, 4)
        self.assertEqual(self.delays, [(0, None), (1, None), (2, None), (3, None)])
        self.assertEqual(self.seen.named("reconnectQueued"), [(3.0,)] * 4)
        self.assertEqual(self.seen.named("disconnected")[0][0], "session-lost")
        self.way.away = False
        self.advance(3)
        self.assertEqual(len(self.seen.named("tunnelReady")), 1)

    def test_samePortAfterLoss(self) -> None:
        """A lost connection is made again, with the same tunnel."""
        self.client()
        before = self.seen.named("tunnelReady")
        self.wires[-1].cut()
        self.advance(3)
        self.assertEqual(self.seen.named("tunnelReady"), before * 2)
        self.assertEqual(self.notes.named("tunnelDestroyed"), [])
        visitor = self.listeners.only().visit()
        visitor.say(b"hello")
        self.settle()
        self.assertEqual(self.web.visits[0].data, b"hello")

    def test_comesBack(self) -> None:
        """
        While the port of a server that was there refuses, it is tried several
        times a second; after ten seconds at growing intervals.
        """
        self.client()
        self.way.away = True
        self.wires[-1].cut()
        self.advance(3)
        before = self.way.attempts
        self.clock.pump([0.05] * 60)
        tried = self.way.attempts - before
        self.assertTrue(9 <= tried <= 21, tried)
        self.way.away = False
        self.clock.pump([0.05] * 7)
        self.settle()
        self.assertEqual(len(self.seen.named("tunnelReady")), 2)
        self.way.away = True
        self.wires[-1].cut()
        self.clock.pump([0.05] * 400)
        self.assertGreater(len(self.delays), 3)

    def test_settled(self) -> None:
        """A session that lasted makes the next delay short again."""
        self.way.away = True
        self.client()
        self.advance(9.5)
        self.way.away = False
        self.advance(3)
        self.advance(SETTLED + 1)
        self.wires[-1].cut()
        self.advance(1)
        self.assertEqual(self.delays[-1], (0, None))

    def test_lostAgain(self) -> None:
        """
        The processes of a server end one after the other, as in an update: a session
        that served in between is no failure.
        """
        self.client()
        for _ in range(3):
            self.wires[-1].cut()
            self.advance(3)
            self.advance(SETTLED + 1)
        self.assertEqual(self.delays, [(0, None)] * 3)

    def test_notSettled(self) -> None:
        """A session that is lost at once counts as a failure."""
        self.client()
        for _ in range(4):
            self.wires[-1].cut()
            self.advance(3)
        self.assertEqual([failures for failures, _ in self.delays], [0, 1, 2, 3])

    def test_hint(self) -> None:
        """The server says when to come back."""
        self.client()
        reason = TunnelError("shutting-down", retryAfter=7.0)
        self.sessions.leave(reason)
        self.sessions.close(reason)
        self.settle()
        self.assertEqual(self.delays, [(0, 7.0)])
        self.assertEqual(self.seen.named("disconnected")[0][0], "shutting-down")

    def test_samePortAfterClientRestart(self) -> None:
        """
        A client that was killed and starts again has its port back at once,
        from a session that the server believes to be alive.
        """
        path = self.directory / "lease.json"
        first = ClientLease(path)
        first._open()
        self.client(lease=first)
        ((address, _),) = self.seen.named("tunnelReady")
        # As the kernel does when a process is killed; the server is not told.
        first.close()
        second = ClientLease(path)
        second._open()
        self.client(lease=second)
        self.assertEqual(
            [event[0] for event in self.seen.named("tunnelReady")], [address] * 2
        )
        self.assertEqual(self.notes.named("clientGone"), [("anonymous", "displaced")])
        visitor = self.listeners.only().visit()
        visitor.say(b"hello")
        self.settle()
        self.assertEqual([visit.data for visit in self.web.visits], [b"hello"])
        second.close()

    def test_samePortAfterServerRestart(self) -> None:
        """
        A server that knows no lease any more gives the same port again, since
        the client asks for it.
        """
        self.listeners._next = 42000
        self.client()
        self.assertEqual(list(self.listeners.open_), [42001])
        self.makeServer()
        self.wires[-1].cut()
        self.advance(3)
        self.assertEqual(list(self.listeners.open_), [42001])
        visitor = self.listeners.only().visit()
        visitor.say(b"hello")
        self.settle()
        self.assertEqual(self.web.visits[0].data, b"hello")

    def test_portTaken(self) -> None:
        """
        A port that somebody has is asked for again until it is free; other
        tunnels work meanwhile.
        """
        self.listeners.taken.add(8080)
        self.client(self.forward(8080), self.forward(name="other"))
        self.assertEqual(self.seen.named("tunnelFailed"), [("port 8080", "port-taken")])
        self.assertEqual(list(self.listeners.open_), [41001])
        self.advance(3)
        self.assertEqual(len(self.seen.named("tunnelFailed")), 2)
        self.listeners.taken.clear()
        self.advance(3)
        self.assertEqual(sorted(self.listeners.open_), [8080, 41001])
        self.assertEqual(self.gaveUp, [])

    def test_goodbye(self) -> None:
        """
        A client that nobody could come back as frees its port when it stops, for
        the next one at once; so does one that was taken out of the configuration.
        One whose lease is in a file keeps it.
        """
        cases: list[tuple[ClientLease | None, bool, list[int]]] = [
            (None, False, []),
            (ClientLease(self.directory / "left.json"), True, []),
            (ClientLease(self.directory / "kept.json"), False, [8080]),
        ]
        for lease, forGood, ports in cases:
            client = self.client(self.forward(8080), lease=lease)
            client.forGood = forGood
            self.stop(client)
            self.assertEqual(list(self.listeners.open_), ports)

    def test_portFree(self) -> None:
        """A client that waits for a port has it as soon as the other one leaves."""
        first = self.client(self.forward(8080))
        self.client(self.forward(8080), lease=ClientLease())
        ((_, code),) = self.seen.named("tunnelFailed")
        self.assertEqual(code, "port-taken")
        before = self.clock.seconds()
        self.stop(first)
        self.assertEqual(len(self.seen.named("tunnelReady")), 2)
        self.assertEqual(list(self.listeners.open_), [8080])
        self.assertEqual(self.clock.seconds(), before)

    def test_portNotPermitted(self) -> None:
        """
        A port that is not given out ends the client if it is all that it
        wanted, and is not asked for again.
        """
        self.listeners.forbidden.add(80)
        self.client(self.forward(80))
        self.assertEqual(
            self.seen.named("tunnelFailed"), [("port 80", "port-not-permitted")]
        )
        self.assertEqual([r.code.name for r in self.gaveUp], ["not-permitted"])
        self.advance(100, 10)
        self.assertEqual(self.way.attempts, 1)

    def test_portNotPermittedAmongOthers(self) -> None:
        """A port that is not given out is told; the other tunnels work."""
        self.listeners.forbidden.add(80)
        self.client(self.forward(80), self.forward())
        self.assertEqual(self.gaveUp, [])
        self.assertEqual(list(self.listeners.open_), [41001])

    def test_forwardsThatAreGone(self) -> None:
        """
        Tunnels that a lease has kept for a client that no longer offers them
        are closed.
        """
        path = self.directory / "lease.json"
        lease = ClientLease(path)
        lease._open()
        self.client(self.forward(8080), self.forward(8081), lease=lease)
        lease.close()
        again = ClientLease(path)
        again._open()
        del again.uris["8081=web"]
        self.client(self.forward(8080), lease=again)
        self.assertEqual(list(self.listeners.open_), [8080])
        again.close()

    def test_tunnelClosedByServer(self) -> None:
        """The client says when the server has closed one of its tunnels."""
        client = self.client()
        assert client.session is not None
        (uri,) = client._lease.uris.values()
        client.session.call("closeTunnel", uri=uri)
        self.settle()
        self.assertEqual(
            [code for _, code in self.seen.named("tunnelFailed")], ["closed"]
        )


class ClientServiceTLSTests(ClientServiceTests):
    """The same over TLS."""

    tls = True
