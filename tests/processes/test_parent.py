"""Tests for L{tristunnel.processes.parent}, whose members are the test's."""

from __future__ import annotations

import os
import signal
import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.error import ProcessDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.processes.fakes import FakeReactor, descriptors
from tristunnel.errors import TunnelError
from tristunnel.model.record import Place, TunnelLimits, TunnelRecord
from tristunnel.processes import channel
from tristunnel.processes.channel import Message, firstOf
from tristunnel.processes.copies import CopyingReactor, checkCopied
from tristunnel.processes.link import Asker, Link
from tristunnel.processes.parent import CHANNEL, ParentService, PortPlace, memberCommand

LEASE = 30.0


class Process:
    """
    A member that the test plays.

    @ivar begin: What it was told first.
    @ivar told: What it was told then, by name.
    @ivar changes: What it was told of the book.
    @ivar met: Whom it has met, and whether they were about to leave.
    """

    def __init__(
        self, reactor: FakeReactor, output: Any, channel: socket.socket
    ) -> None:
        self.begin: Message = firstOf(channel)
        self.told: list[str] = []
        self.changes: list[dict[str, Any]] = []
        self.met: list[tuple[int, bool]] = []
        self.sockets: list[socket.socket] = []
        self.signals: list[int] = []
        self._output = output
        self.link = Link(reactor, channel, self._method)

    def _method(self, name: str) -> Any:
        def take(asker: Asker, *params: Any) -> None:
            self.told.append(name)
            if name == "changed":
                self.changes += params
            elif name == "meet":
                self.met.append(params)
            self.sockets += asker.message.sockets

        return take

    def signalProcess(self, number: int) -> None:
        self.signals.append(number)

    def end(self) -> None:
        self.link.close()
        for each in (*self.begin.sockets, *self.sockets):
            each.close()
        self._output.processEnded(Failure(ProcessDone(0)))


class ParentReactor(FakeReactor):
    """A reactor that starts no process."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Process] = []

    def spawnProcess(
        self,
        output: Any,
        executable: str,
        arguments: list[str],
        environment: Any,
        directory: str,
        childFDs: dict[int, Any],
    ) -> Process:
        channel = socket.socket(fileno=os.dup(childFDs[CHANNEL]))
        made = Process(self, output, channel)
        self.started.append(made)
        return made


class ParentTests(SynchronousTestCase):
    """A parent with two members."""

    def setUp(self) -> None:
        self.before = descriptors()
        self.reactor = ParentReactor()
        self.failures: list[TunnelError] = []
        self.lines: list[str] = []
        copying = CopyingReactor(self.reactor, 2)
        endpoint = TCP4ServerEndpoint(copying, 0, interface="127.0.0.1")
        self.parent = ParentService(
            self.reactor,
            copying,
            [PortPlace("--port tcp:0", endpoint)],
            ["program"],
            LEASE,
            self.lines.append,
            self.failures.append,
            1.0,
        )
        self.parent.startService()
        self.addCleanup(self.stop)

    def stop(self) -> None:
        """Stop the parent, whose members obey; nothing of it is left."""
        stopping: Any = self.parent.stopService()
        for process in self.reactor.started:
            if process.link.isOpen:
                process.end()
        self.successResultOf(stopping)
        self.assertEqual(self.reactor.getDelayedCalls(), [])
        self.assertLessEqual(descriptors(), self.before)

    def turn(self) -> None:
        for _ in range(5):
            self.reactor.turn()

    def ready(self) -> list[Process]:
        one, other = self.reactor.started
        for each in (one, other):
            each.link.tell("ready")
            self.turn()
        self.reactor.advance(5.0)
        return [one, other]

    def ask(self, process: Process, method: str, *params: object, **more: Any) -> Any:
        asked: Deferred[Any] = process.link.call(method, params, **more)
        self.turn()
        return self.successResultOf(asked)

    def test_begin(self) -> None:
        """Each member has a listening socket of its own, and all have one secret."""
        one, other = (each.begin for each in self.reactor.started)
        keys = set()
        for index, begin in enumerate((one, other)):
            said: Any = begin.head["params"]
            self.assertEqual((said["index"], said["count"]), (index, 2))
            keys.add(said["key"])
        self.assertEqual(len(keys), 1)
        (here,), (there,) = one.sockets, other.sockets
        self.assertEqual(here.getsockname(), there.getsockname())
        self.assertTrue(here.getsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT))

    def test_met(self) -> None:
        """Members that serve are introduced to each other."""
        one, other = self.ready()
        self.assertEqual((one.told, other.told), (["meet"], ["meet"]))
        one.sockets[0].send(b"hello")
        self.assertEqual(other.sockets[0].recv(10), b"hello")

    def test_missed(self) -> None:
        """
        A member for which the book has changed while it began looks at it once more.
        """
        one, other = self.reactor.started
        one.link.tell("ready")
        self.turn()
        self.ask(one, "book.grant", "lease", "hash", "owner")
        record = TunnelRecord(id="t", lease="lease", place=Place("0", 1))
        self.ask(one, "book.open", record.asDict(), TunnelLimits().asDict())
        other.link.tell("ready")
        self.turn()
        self.assertEqual(one.told, ["changed", "meet"])
        self.assertEqual(other.told, ["changed", "meet"])
        self.assertEqual(other.changes[0]["kind"], "resynced")

    def test_killed(self) -> None:
        """
        Another one accepts in the place of a member that is gone, until there is a new
        one, which is begun at once.
        """
        one, other = self.ready()
        one.end()
        self.turn()
        self.assertEqual(other.told[1:], ["standIn"])
        self.assertEqual(
            other.sockets[1].getsockname(), other.begin.sockets[0].getsockname()
        )
        self.reactor.advance(0)
        _, _, again = self.reactor.started
        said: Any = again.begin.head["params"]
        self.assertEqual(said["index"], 0)
        again.link.tell("ready")
        self.turn()
        self.assertEqual(other.told[2:], ["standBack", "meet"])

    def test_leaves(self) -> None:
        """
        Another one also accepts in the place of a member that is about to end, but has
        not yet; whoever begins meanwhile learns that it leaves.
        """
        one, other = self.ready()
        self.assertIsNone(self.ask(one, "leaving"))
        self.assertEqual(other.told[1:], ["standIn"])
        other.end()
        self.reactor.advance(0)
        again = self.reactor.started[2]
        again.link.tell("ready")
        self.turn()
        self.assertEqual(sorted(again.told), ["meet", "standIn"])
        self.assertEqual(again.met, [(0, True)])
        one.end()
        self.turn()
        self.assertEqual(sorted(again.told), ["meet", "standIn"])
        self.reactor.advance(0)
        last = self.reactor.started[3]
        last.link.tell("ready")
        self.turn()
        self.assertEqual(again.told[2:], ["standBack", "meet"])
        self.assertEqual(last.met, [(1, False)])

    def test_allLeave(self) -> None:
        """Nobody accepts in the place of members that all end."""
        one, other = self.ready()
        stopping: Any = self.parent.stopService()
        self.assertIsNone(self.ask(one, "leaving"))
        self.assertEqual(other.told[1:], ["stop"])
        one.end()
        other.end()
        self.successResultOf(stopping)

    def test_killedAgain(self) -> None:
        """One that ends as soon as it has begun is begun less and less often."""
        self.ready()
        self.reactor.started[0].end()
        self.reactor.advance(0)
        for delay in (1.0, 2.0, 4.0, 8.0, 10.0, 10.0):
            count = len(self.reactor.started)
            self.reactor.started[-1].end()
            self.reactor.advance(delay - 0.01)
            self.assertEqual(len(self.reactor.started), count)
            self.reactor.advance(0.01)
            self.assertEqual(len(self.reactor.started), count + 1)

    def test_neverStarts(self) -> None:
        """If the first ones end before they serve, so does the server."""
        self.reactor.started[0].end()
        self.assertEqual(len(self.failures), 1)
        self.reactor.advance(60.0)
        self.assertEqual(len(self.reactor.started), 2)

    def test_cannotStart(self) -> None:
        """A process that cannot be started is tried again, and nothing is left open."""
        self.ready()
        spawn = self.reactor.spawnProcess

        def refuse(*arguments: Any, **more: Any) -> Any:
            raise OSError(12, "Cannot allocate memory")

        self.patch(self.reactor, "spawnProcess", refuse)
        self.reactor.started[0].end()
        self.reactor.advance(0)
        self.reactor.advance(10.0)
        self.patch(self.reactor, "spawnProcess", spawn)
        self.reactor.advance(10.0)
        self.assertEqual(len(self.reactor.started), 3)

    def test_output(self) -> None:
        """What a member writes becomes whole lines."""
        output = self.reactor.started[0]._output
        output.childDataReceived(1, b"one\ntw")
        output.childDataReceived(2, b"error\n")
        output.childDataReceived(1, b"o\nlast")
        self.assertEqual(self.lines, ["one", "error", "two"])
        self.reactor.started[0].end()
        self.assertEqual(self.lines[3:], ["last"])

    def kept(self, process: Process) -> socket.socket:
        """Have a member open a tunnel whose port is kept; the twin of its copy."""
        place = Place.fromDict(self.ask(process, "book.grant", "lease", "hash", "ann"))
        record = TunnelRecord("tunnel", place, "lease")
        self.ask(process, "book.open", record.asDict(), TunnelLimits().asDict())
        bound = socket.create_server(("127.0.0.1", 0))
        process.link.tell("keep", ["tunnel", "lease"], b"", [bound.dup()])
        self.turn()
        return bound

    def isOpen(self, port: int) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    def test_portKept(self) -> None:
        """
        A port outlives its member until the lease is over, and another one can have
        copies of it.
        """
        one, other = self.ready()
        bound = self.kept(one)
        port = bound.getsockname()[1]
        bound.close()
        one.end()
        self.turn()
        self.assertTrue(self.isOpen(port))
        self.assertEqual(self.ask(other, "copies", "tunnel"), 1)
        self.assertEqual(other.sockets[-1].getsockname()[1], port)
        other.sockets.pop().close()
        self.reactor.advance(LEASE)
        self.assertFalse(self.isOpen(port))
        self.assertEqual(self.ask(other, "copies", "tunnel"), 0)

    def test_portDropped(self) -> None:
        """A tunnel that is closed, or gives its port up, has none in the parent."""
        for close in (True, False):
            process = self.reactor.started[0]
            bound = self.kept(process)
            port = bound.getsockname()[1]
            bound.close()
            self.assertTrue(self.isOpen(port))
            if close:
                place = Place("0", 1).asDict()
                self.ask(process, "book.close", "tunnel", place)
            else:
                process.link.tell("drop", ["tunnel"])
                self.turn()
            self.assertFalse(self.isOpen(port))

    def test_signals(self) -> None:
        """Members have the signals that are passed on, and are told to hurry."""
        self.parent.signal(signal.SIGHUP)
        self.parent.hurry()
        self.turn()
        for process in self.reactor.started:
            self.assertEqual(process.signals, [signal.SIGHUP])
            self.assertEqual(process.told, ["hurry"])

    def test_deaf(self) -> None:
        """A member that takes no word any more is ended."""
        one, other = self.ready()
        self.patch(channel, "MOST_WAITING", 0)
        self.parent.hurry()
        for process in (one, other):
            self.assertEqual(process.signals, [signal.SIGKILL])

    def test_stubborn(self) -> None:
        """A member that does not stop is killed."""
        stopping: Any = self.parent.stopService()
        self.turn()
        for process in self.reactor.started:
            self.assertEqual(process.told, ["stop"])
            self.assertEqual(process.signals, [])
        self.reactor.advance(60.0)
        for process in self.reactor.started:
            self.assertEqual(process.signals, [signal.SIGKILL])
            process.end()
        self.successResultOf(stopping)


class CopiesTests(SynchronousTestCase):
    """What can be listened on by several processes."""

    def test_checked(self) -> None:
        """An endpoint of which there can be no copies is refused by its name."""
        for good in ("tcp:9000", "9000", "ssl:9000", "haproxy:tcp6:1", "systemd:x"):
            checkCopied("--port", good)
        for bad in ("onion:80", "autobahn:tcp:9", "haproxy:onion:80"):
            with self.assertRaises(TunnelError) as raised:
                checkCopied("--port", bad)
            self.assertIn(f"--port {bad!r}", raised.exception.message)

    def test_taken(self) -> None:
        """A port that somebody else has is refused, and nothing is left open."""
        before = descriptors()
        with socket.create_server(("127.0.0.1", 0)) as other:
            port = other.getsockname()[1]
            copying = CopyingReactor(FakeReactor(), 3)
            endpoint = TCP4ServerEndpoint(copying, port, interface="127.0.0.1")
            self.failureResultOf(endpoint.listen(None))
        self.assertEqual(copying.places, [])
        self.assertEqual(descriptors(), before)

    def test_command(self) -> None:
        """A member's program finds what its parent's finds."""
        command = memberCommand("tristunnel.cli.member", "twistd", "tunnel")
        self.assertEqual(command[3:], ["twistd", "tunnel"])
        compile(command[2], "command", "exec")
