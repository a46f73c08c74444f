"""Starting a service, and stopping it when nobody has come for a while."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.demand.command import Command
from tristunnel.forwards.demand import DemandPlan
from tristunnel.util.log_limiter import BoundedLog
from tristunnel.util.quantities import formatDuration
from tristunnel.util.repeating import stopTimer

__all__ = ["Starter"]

RESTART = 5.0
"""Seconds from a failed start to the next attempt."""

STOP = 60.0
"""Seconds that the command that stops a service may take."""

AGAIN = 5.0
"""Seconds after which a sleeping machine is sent another packet."""


class Starter:
    """
    Starts and stops one service, at whatever places it is reached.

    @param reactor: Runs programs, and tells time.
    @param plan: How it is done.
    @param name: The service, as messages name it.
    @param told: Told of changes, as L{ClientObserver.serviceOnDemand} is.

    @ivar looking: Called when nobody needs to look any more whether the service has
        started.
    @ivar problem: Why the last start has failed; empty if it has not.
    """

    _log: ClassVar[Logger] = Logger(namespace="tristunnel.client")

    def __init__(
        self,
        reactor: Any,
        plan: DemandPlan,
        name: str,
        told: Callable[[str, str], object],
    ) -> None:
        self.plan = plan
        self.problem = ""
        self.looking: set[Callable[[], None]] = set()
        self._reactor = reactor
        self._name = name
        self._told = told
        self._bounded = BoundedLog(reactor.seconds, reactor.callLater)
        self._visits = 0
        self._command: Command | None = None
        self._stopping: Deferred[None] | None = None
        self._waiting: list[Deferred[None]] = []
        # Whether the command has been run for this start.
        self._hasRun = False
        # Whether it was we who started it, and have not stopped it.
        self._isOurs = False
        self._until = self._notBefore = self._wakeAgain = 0.0
        self._idle: IDelayedCall | None = None

    @property
    def isStopping(self) -> bool:
        """Whether the service is being stopped: connections to it would be lost."""
        return self._stopping is not None

    @property
    def isLate(self) -> bool:
        """Whether it should have started by now."""
        return bool(0 < self._until <= self._reactor.seconds())

    # Starting

    def begin(self) -> None:
        """Start the service, unless that is under way. Call it again until it is up."""
        now = self._reactor.seconds()
        if self._stopping is not None or (self.problem and now < self._notBefore):
            return
        if not self._until:
            self.problem = ""
            self._until = now + self.plan.wait
            self._wakeAgain = now
            self._hasRun = False
            self._told("starting", "is being started")
        if self.plan.wake is not None and now >= self._wakeAgain:
            self._wakeAgain = now + AGAIN
            self._wake()
        if self.plan.start and not (self._hasRun or self._isOurs or self.problem):
            self._hasRun = True
            self._start()

    def _start(self) -> None:
        command = self._command = Command(self._reactor, self.plan.start, self._said)
        try:
            command.run()
        except OSError as error:
            self._command = None
            self.failed(f"{self.plan.start[0]} was not started: {error.strerror}")
            return
        self._isOurs = True
        command.ended.addCallback(self._ended, command)

    def _ended(self, wrong: str, command: Command) -> str:
        if command is not self._command:
            return wrong
        self._command = None
        # A command that ends without an error may have had something else start the
        # service.
        self._isOurs = bool(self.plan.stop) and not wrong
        if wrong and self._until:
            self.failed(wrong)
        elif not (self._until or self._isOurs):
            self._told("failed", f"has ended: {wrong}" if wrong else "has ended")
        return wrong

    def _wake(self) -> None:
        packet = self.plan.wake
        assert packet is not None
        family = socket.AF_INET6 if ":" in packet.host else socket.AF_INET
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as sending:
                sending.setblocking(False)
                sending.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
                sending.sendto(packet.payload, (packet.host, packet.port))
        except OSError as error:
            self.failed(f"no magic packet was sent to {packet.host}: {error.strerror}")

    def failed(self, why: str) -> None:
        """Note that the service cannot be started for now."""
        self.problem = why
        self._until = 0.0
        self._notBefore = self._reactor.seconds() + RESTART
        self._told("failed", f"was not started: {why}")

    def isUp(self) -> None:
        """Note that the service accepts connections."""
        if self._until:
            self._told("up", "has started")
        self._until = 0.0
        self.problem = ""
        self._waitIdle()

    def _said(self, line: str) -> None:
        self._bounded(self._log.info, "{name}: {line}", name=self._name, line=line)

    # Visits

    def visited(self) -> None:
        """A visitor has come."""
        self._visits += 1
        self._cancelIdle()

    def left(self) -> None:
        """A visitor has left."""
        self._visits -= 1
        self._waitIdle()

    def _cancelIdle(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None

    def _waitIdle(self) -> None:
        self._cancelIdle()
        if self.plan.idle and not self._visits:
            self._idle = self._reactor.callLater(self.plan.idle, self._isIdle)

    def _isIdle(self) -> None:
        self._idle = None
        if self._until:
            # It is being started, for somebody who may wait elsewhere.
            self._waitIdle()
        elif self._isOurs:
            idle = formatDuration(self.plan.idle)
            self._told("asleep", f"is stopped: nobody has come for {idle}")
            self.stop()

    # Stopping

    def close(self) -> Deferred[None]:
        """Stop the service, and never start it again."""
        for stop in list(self.looking):
            stop()
        return self.stop()

    def stop(self) -> Deferred[None]:
        """
        Stop the service, if it was we who started it.

        @return: Fires when that is done, as far as it can be.
        """
        self._cancelIdle()
        if self._stopping is None and self._isOurs:
            self._isOurs, self._until = False, 0.0
            self._stopping = Deferred.fromCoroutine(self._stop())
            self._stopping.addBoth(self._stopped)
        done: Deferred[None] = Deferred()
        if self._stopping is None:
            done.callback(None)
        else:
            self._waiting.append(done)
        return done

    async def _stop(self) -> None:
        if self.plan.stop:
            stopping = Command(self._reactor, self.plan.stop, self._said)
            try:
                stopping.run()
            except OSError as error:
                self._notStopped(f"{self.plan.stop[0]} cannot be run: {error}")
            else:
                late = self._reactor.callLater(STOP, stopping.end)
                wrong = await stopping.ended
                stopTimer(late)
                if wrong:
                    self._notStopped(wrong)
        command, self._command = self._command, None
        if command is not None:
            command.end()
            wrong = await command.ended
            if wrong:
                self._notStopped(wrong)

    def _notStopped(self, why: str) -> None:
        self._log.warn("{name} was not stopped: {why}", name=self._name, why=why)

    def _stopped(self, result: Any) -> None:
        self._stopping = None
        if isinstance(result, Failure):
            self._log.failure("A service was not stopped", result)
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
