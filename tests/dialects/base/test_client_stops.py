"""How the client service stops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tests.dialects.base.client_rig import ClientServiceTestCase
from tristunnel.dialects.framed.client_service import TunnelClientService


class StopTests(ClientServiceTestCase):
    """Clients that stop, in any state."""

    def test_drain(self) -> None:
        """A client that stops lets its streams finish, and takes no new ones."""
        client = self.client()
        visitor = self.listeners.only().visit()
        visitor.say(b"?")
        self.settle()
        stopping = client.stopService()
        self.clock.advance(0)
        self.settle()
        late = self.listeners.only().visit()
        self.settle()
        self.assertIsNotNone(late.broken)
        self.advance(1)
        self.assertNoResult(stopping)
        self.web.visits[0].transport.write(b"!")
        self.settle()
        self.assertEqual(visitor.taken, b"!")
        visitor.end()
        self.settle()
        self.web.visits[0].transport.loseConnection()
        self.settle()
        self.advance(0.2)
        self.successResultOf(stopping)
        self.assertIsNone(visitor.broken)

    def test_drainEnds(self) -> None:
        """Streams get no more than the grace; then they break."""
        client = self.client()
        visitor = self.listeners.only().visit()
        self.settle()
        stopping = client.stopService()
        self.advance(2.2, 0.1)
        self.successResultOf(stopping)
        self.assertIsNotNone(visitor.broken)

    def test_stopNow(self) -> None:
        """Somebody in a hurry waits for no stream."""
        client = self.client()
        self.listeners.only().visit()
        self.settle()
        stopping = client.stopService()
        self.clock.advance(0)
        client.stopNow()
        self.advance(0.2, 0.1)
        self.successResultOf(stopping)

    def test_stopWhileWaiting(self) -> None:
        """A client that waits for its next attempt stops at once."""
        self.way.away = True
        client = self.client()
        self.stop(client)
        self.advance(100, 10)
        self.assertEqual(self.way.attempts, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stopDuringHandshake(self) -> None:
        """A client whose server has not answered yet stops at once."""
        from twisted.internet.defer import Deferred

        self.makeServer(lambda fields: Deferred())
        client = self.client()
        self.stop(client)
        self.assertEqual(self.sessions.sessions, set())

    def test_stopInObserver(self) -> None:
        """An observer may stop the client, whatever it is just told."""
        for event in ("connected", "acknowledged", "tunnelReady", "disconnected"):
            self.seen.events.clear()
            self.seen.listeners.clear()
            self.way.away = event == "disconnected"
            stopped: list[Any] = []
            client = self.makeClient()
            self.seen.listeners.append(self.stopperAt(event, client, stopped))
            client.startService()
            self.settle()
            self.clock.advance(0)
            self.settle()
            self.assertEqual(len(stopped), 1, event)
            self.successResultOf(stopped[0])
            attempts = self.way.attempts
            self.advance(20, 5)
            self.assertEqual(self.way.attempts, attempts, event)

    def stopperAt(
        self, event: str, client: TunnelClientService, stopped: list[Any]
    ) -> Callable[[tuple[Any, ...]], None]:
        """Make what stops a client when it tells of an event."""

        def told(told: tuple[Any, ...]) -> None:
            if told[0] == event and not stopped:
                stopped.append(client.stopService())

        return told

    def test_startAgain(self) -> None:
        """A client that was stopped can be started again."""
        client = self.client()
        self.stop(client)
        client.startService()
        self.settle()
        self.assertEqual(len(self.seen.named("tunnelReady")), 2)


class StopTLSTests(StopTests):
    """The same over TLS."""

    tls = True
