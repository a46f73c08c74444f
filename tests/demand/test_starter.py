"""Tests for L{tristunnel.demand.starter}: when programs are run, and told to end."""

from __future__ import annotations

import os
import signal
from typing import Any

from twisted.internet.error import ProcessDone, ProcessTerminated
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.demand import command
from tristunnel.demand.starter import AGAIN, RESTART, STOP, Starter
from tristunnel.forwards.demand import DemandPlan, MagicPacket


class _Run:
    """A process that ends when the test says so."""

    def __init__(self, number: int, protocol: Any, words: list[str]) -> None:
        self.pid = number
        self.protocol = protocol
        self.words = words
        self.signals: list[int] = []
        self.isForgotten = False
        protocol.makeConnection(self)

    def closeStdin(self) -> None:
        """It reads nothing."""

    def loseConnection(self) -> None:
        self.isForgotten = True

    def end(self, status: int = 0) -> None:
        reason = ProcessTerminated(status) if status else ProcessDone(0)
        self.protocol.processExited(Failure(reason))
        self.protocol.processEnded(Failure(reason))


class _Reactor(Clock):
    """Runs programs, in a way."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[_Run] = []
        self.problem: OSError | None = None

    def spawnProcess(
        self, protocol: Any, path: str, words: list[str], environment: dict[str, str]
    ) -> None:
        if self.problem is not None:
            raise self.problem
        self.runs.append(_Run(1000 + len(self.runs), protocol, words[5:]))


class StarterTests(SynchronousTestCase):
    """One service."""

    def setUp(self) -> None:
        self.reactor = _Reactor()
        self.patch(os, "killpg", self._signal)
        self.signalProblem: OSError | None = None
        self.sent: list[bytes] = []
        self.told: list[tuple[str, str]] = []

    def _signal(self, leader: int, number: int) -> None:
        if self.signalProblem is not None:
            raise self.signalProblem
        self.reactor.runs[leader - 1000].signals.append(number)

    def starter(self, **plan: Any) -> Starter:
        made = Starter(
            self.reactor,
            DemandPlan(**plan),
            "blog",
            lambda *change: self.told.append(change),
        )
        self.patch(made, "_wake", lambda: self.sent.append(b""))
        return made

    def up(self, **plan: Any) -> Starter:
        made = self.starter(start=("run",), **plan)
        made.begin()
        made.visited()
        made.isUp()
        return made

    def test_startsOnce(self) -> None:
        starter = self.starter(start=("run", "it"))
        for _ in range(3):
            starter.begin()
        (run,) = self.reactor.runs
        self.assertEqual(run.words, ["run", "it"])

    def test_endsWell(self) -> None:
        """A command may tell another to run the service, and is run once."""
        starter = self.starter(start=("run",))
        starter.begin()
        self.reactor.runs[0].end()
        starter.begin()
        self.assertEqual(len(self.reactor.runs), 1)
        self.assertEqual(starter.problem, "")

    def test_fails(self) -> None:
        """A start that fails is tried again, after a while."""
        starter = self.starter(start=("run",))
        starter.begin()
        self.reactor.runs[0].protocol.outReceived(b"no disk\n")
        self.reactor.runs[0].end(3)
        self.assertEqual(starter.problem, "run ended with status 3: no disk")
        starter.begin()
        self.assertEqual(len(self.reactor.runs), 1)
        self.reactor.advance(RESTART)
        starter.begin()
        self.assertEqual(len(self.reactor.runs), 2)
        self.assertEqual(starter.problem, "")

    def test_notRun(self) -> None:
        self.reactor.problem = OSError(12, "Cannot allocate memory")
        starter = self.starter(start=("run",))
        starter.begin()
        self.assertEqual(starter.problem, "run was not started: Cannot allocate memory")

    def test_late(self) -> None:
        starter = self.starter(start=("run",), wait=7.0)
        starter.begin()
        self.reactor.advance(6.9)
        self.assertFalse(starter.isLate)
        self.reactor.advance(0.1)
        self.assertTrue(starter.isLate)

    def test_idle(self) -> None:
        """Without visitors it is told to end, and killed if it does not."""
        starter = self.up(idle=5.0)
        self.reactor.advance(50.0)
        starter.left()
        self.reactor.advance(4.9)
        (run,) = self.reactor.runs
        self.assertEqual(run.signals, [])
        self.reactor.advance(0.1)
        self.assertEqual(run.signals, [signal.SIGTERM])
        self.assertTrue(starter.isStopping)
        self.reactor.advance(command.PATIENCE)
        self.assertEqual(run.signals, [signal.SIGTERM, signal.SIGKILL])
        run.end(9)
        self.assertFalse(starter.isStopping)
        starter.begin()
        self.assertEqual(len(self.reactor.runs), 2)

    def test_told(self) -> None:
        """It tells what becomes of the service."""
        starter = self.up(idle=5.0)
        starter.left()
        self.reactor.advance(5.0)
        self.reactor.runs[0].end(15)
        starter.begin()
        self.reactor.runs[1].end(3)
        self.assertEqual(
            self.told,
            [
                ("starting", "is being started"),
                ("up", "has started"),
                ("asleep", "is stopped: nobody has come for 5s"),
                ("starting", "is being started"),
                ("failed", "was not started: run ended with status 3"),
            ],
        )

    def test_endsUp(self) -> None:
        """One that ends while it is up has failed, but for what only starts it."""
        self.up()
        self.reactor.runs[0].end()
        self.assertEqual(self.told[2:], [("failed", "has ended")])
        self.up(stop=("halt",))
        self.reactor.runs[1].end()
        self.assertEqual(self.told[-1], ("up", "has started"))

    def test_cannotBeEnded(self) -> None:
        """
        What has left the group, or is another user's, is waited for in bounded time.
        """
        for problem in (ProcessLookupError(), PermissionError()):
            starter = self.up()
            run = self.reactor.runs[-1]
            run.protocol.processExited(Failure(ProcessDone(0)))
            self.signalProblem = problem
            stopped = starter.stop()
            self.reactor.advance(command.PATIENCE)
            self.assertTrue(run.isForgotten)
            self.assertNoResult(stopped)
            self.reactor.advance(command.MORE)
            self.successResultOf(stopped)

    def test_stays(self) -> None:
        """A visitor in time keeps it, and so does 0 for the time."""
        starter = self.up(idle=5.0)
        starter.left()
        self.reactor.advance(4.9)
        starter.visited()
        self.reactor.advance(99.0)
        self.assertFalse(starter.isStopping)
        endless = self.up(idle=0.0)
        endless.left()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_leavesEarly(self) -> None:
        """What is being started is not stopped, though its visitor has left."""
        starter = self.starter(start=("run",), idle=1.0)
        starter.begin()
        starter.visited()
        starter.left()
        self.reactor.advance(3.0)
        self.assertFalse(starter.isStopping)
        starter.isUp()
        self.reactor.advance(1.0)
        self.assertTrue(starter.isStopping)

    def test_startsNotMeanwhile(self) -> None:
        starter = self.up()
        starter.stop()
        starter.begin()
        self.assertEqual(len(self.reactor.runs), 1)

    def test_another(self) -> None:
        """What runs already, and by others, is nobody's to stop."""
        starter = self.starter(start=("run",), idle=1.0)
        starter.visited()
        starter.isUp()
        starter.left()
        self.reactor.advance(2.0)
        self.assertFalse(starter.isStopping)
        self.successResultOf(starter.stop())
        self.assertEqual(self.reactor.runs, [])

    def test_stopCommand(self) -> None:
        starter = self.up(stop=("halt", "it"))
        self.reactor.runs[0].end()
        done = starter.stop()
        self.assertEqual(self.reactor.runs[1].words, ["halt", "it"])
        self.assertNoResult(done)
        self.reactor.runs[1].end()
        self.successResultOf(done)

    def test_stopCommandHangs(self) -> None:
        starter = self.up(stop=("halt",))
        done = starter.stop()
        self.reactor.advance(STOP)
        self.assertEqual(self.reactor.runs[1].signals, [signal.SIGTERM])
        self.reactor.runs[1].end(15)
        # What still runs is told in the usual way.
        self.assertEqual(self.reactor.runs[0].signals, [signal.SIGTERM])
        self.reactor.runs[0].end(15)
        self.successResultOf(done)

    def test_crashes(self) -> None:
        """A service that ends while it is up is started for its next visitor."""
        starter = self.up()
        self.reactor.runs[0].end(1)
        starter.begin()
        self.assertEqual(len(self.reactor.runs), 2)

    def test_wakes(self) -> None:
        """A packet may get lost, so there are more, until the machine is up."""
        starter = self.starter(wake=MagicPacket(b"123456"))
        starter.begin()
        starter.begin()
        self.assertEqual(len(self.sent), 1)
        self.reactor.advance(AGAIN)
        starter.begin()
        self.assertEqual(len(self.sent), 2)

    def test_longLines(self) -> None:
        """A program that writes no line's end fills no memory."""
        starter = self.starter(start=("run",))
        starter.begin()
        protocol = self.reactor.runs[0].protocol
        for _ in range(100):
            protocol.outReceived(b"x" * 10_000)
        self.assertLess(len(protocol._rest), 1000)
