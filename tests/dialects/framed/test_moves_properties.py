"""
A stream that moves in the middle, L{MovableStream.moveTo
<tristunnel.dialects.framed.movable.MovableStream.moveTo>}, against a model: whatever
happens in whichever order, each side has a prefix of what the other one said, is
told of an end only after the last byte, and of a break at both sides.
"""

from __future__ import annotations

import os
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.trial.unittest import SynchronousTestCase

from tests.dataplane.kernel import FakeKernel, FakeReactor
from tests.dialects.framed.memory import RecordingEnd, Side, extendedPair
from tristunnel.dataplane.endings import (
    ALONE,
    DEADLINE,
    KEY,
    TICK,
    EndAcknowledgements,
    MovedEnd,
)
from tristunnel.dataplane.poller import Poller
from tristunnel.dialects.base.multiplexer import Limits
from tristunnel.errors import TunnelError
from tristunnel.wire.framed import FrameType

LONG = bool(os.environ.get("TRISTUNNEL_LONG"))

sides = st.sampled_from(["server", "client"])


class Moving(RuleBasedStateMachine):
    """One stream, its session, and the connection that it moves to."""

    def __init__(self) -> None:
        super().__init__()
        self.moved: dict[str, MovedEnd] = {}
        self.crashed = False
        self.wasCut = False
        self.unreached: Any = None

    @initialize(
        window=st.sampled_from([2**10, 2**16]),
        room=st.sampled_from([7, 3000]),
        isSlow=st.booleans(),
    )
    def open(self, window: int, room: int, isSlow: bool = False) -> None:
        """
        @param isSlow: Whether the client reaches its service only later.
        """
        limits = Limits(streamWindow=window)
        self.pair = extendedPair(limits, limits)
        self.reactor = FakeReactor()
        self.kernel = FakeKernel()
        self.poller = Poller(self.reactor, self.kernel)
        self.sockets: dict[str, Any] = dict(
            zip(("server", "client"), self.kernel.pair(room), strict=True)
        )
        self.pair.client.multiplexer._opened = self._opened
        self.ends: dict[str, RecordingEnd] = {"server": self.pair.server.open()}
        self.pair.settle()
        if not isSlow:
            self.reach()
        self.told: dict[str, EndAcknowledgements] = {}
        for name in ("server", "client"):
            self._acknowledge(name)
        self.endings = {
            name: told.expect(bytes(KEY)) for name, told in self.told.items()
        }

    def _acknowledge(self, name: str) -> None:
        acknowledgements = self.told[name] = EndAcknowledgements(self.reactor)
        multiplexer: Any = self.side(name).multiplexer

        def take(kind: int, payload: bytes) -> bool:
            acknowledgements.arrived(payload)
            return True

        multiplexer.takeOther = take
        multiplexer.whenMoved = self._reachesNothing
        acknowledgements.up(
            lambda payload: multiplexer.sendFrame(0, FrameType.ENDING, payload)
        )

    def _opened(self, stream: Any, info: object) -> None:
        end = self.ends["client"] = RecordingEnd()
        end.stream = self.unreached = stream

    def side(self, name: str) -> Side:
        return self.pair.server if name == "server" else self.pair.client

    def other(self, name: str) -> str:
        return "client" if name == "server" else "server"

    def stream(self, name: str) -> Any:
        return self.ends[name].stream

    def isThere(self, name: str) -> bool:
        """Whether somebody is at this side."""
        return name == "server" or self.unreached is None

    # What happens

    @precondition(lambda self: self.unreached is not None)
    @rule()
    def reach(self) -> None:
        """The client has reached its service."""
        stream, self.unreached = self.unreached, None
        if stream.over:
            self.ends["client"].reset(TunnelError("reset"))
        else:
            self.pair.client.multiplexer.accept(stream)
            self.ends["client"].meet(stream)

    @rule(name=sides, size=st.integers(1, 5000))
    def say(self, name: str, size: int) -> None:
        end = self.ends[name]
        if self.isThere(name) and not (end.ended or end.paused or end.broken):
            start = len(end.said)
            end.say(bytes((start + i) * 31 >> 3 & 255 for i in range(size)))

    @rule(name=sides)
    def end(self, name: str) -> None:
        end = self.ends[name]
        if self.isThere(name) and not (end.ended or end.broken):
            end.end()

    @rule(name=sides, paused=st.booleans())
    def read(self, name: str, paused: bool) -> None:
        if not self.isThere(name):
            return
        if paused:
            self.stream(name).pauseReading()
        else:
            self.stream(name).resumeReading()

    @rule(name=sides, amount=st.sampled_from([1, 20, 1000, None]))
    def carry(self, name: str, amount: int | None) -> None:
        self.pair.carry(self.side(name), amount)

    @rule()
    def turn(self) -> None:
        for reader in list(self.reactor.readers):
            reader.doRead()
        self.reactor.advance(0)

    @precondition(lambda self: len(self.moved) < 2)
    @rule()
    def move(self) -> None:
        """The server lets the stream have the connection, and the client does."""
        name = "client" if self.moved else "server"
        if self.stream(name).over or self.wasCut:
            return
        end = MovedEnd(
            self.poller,
            self.sockets[name],
            lambda end: None,
            None,
            self.endings[name],
            self.stream(name),
        )
        self.moved[name] = end
        end.begin()
        self.stream(name).moveTo(end)

    @precondition(lambda self: self.moved and not self.wasCut)
    @rule()
    def cut(self) -> None:
        """Something on the way breaks the connection."""
        self.wasCut = True
        for each in self.sockets.values():
            each.cut()
        for name in self.ends:
            self._reachesNothing(self.stream(name))

    def _reachesNothing(self, stream: Any) -> None:
        # A client that has not got the connection by now will not get it.
        if self.wasCut:
            stream.moveFailed(TunnelError("session-lost"))

    @rule(name=sides)
    def crash(self, name: str) -> None:
        end = self.ends[name]
        if self.isThere(name) and not (end.broken or self.stream(name).over):
            self.crashed = True
            end.crash()

    # What must be

    @invariant()
    def prefixes(self) -> None:
        for name, end in getattr(self, "ends", {}).items():
            said = self.ends[self.other(name)].said
            assert said.startswith(end.taken)
            if end.finishes:
                assert end.finishes == 1 and end.taken == said
                assert self.ends[self.other(name)].ended

    def teardown(self) -> None:
        """In the end all has come, or both know that it will not."""
        if not hasattr(self, "ends"):
            return
        if self.unreached is not None:
            self.reach()
        for name in self.ends:
            self.read(name, False)
        if self.moved and len(self.moved) < 2:
            # The answer that the client waits for comes at last.
            self.move()
        self.settle()
        for _ in range(round((DEADLINE + ALONE) / TICK)):
            self.reactor.advance(TICK)
            self.settle()
        self.prefixes()
        broken = {name for name, end in self.ends.items() if end.broken}
        if not (self.crashed or self.wasCut):
            assert not broken, broken
        for name, end in self.ends.items():
            other = self.ends[self.other(name)]
            whole = end.taken == other.said and bool(end.finishes) == other.ended
            assert whole or end.broken or end.reset_, (name, self.wasCut)
        if self.wasCut and not self.crashed and broken:
            # Of a stream that has not changed over, nothing is lost.
            assert self.hasChanged()
        for each in self.told.values():
            each.close()

    def hasChanged(self) -> bool:
        return any(
            self.stream(name)._sendsBy is not None or self.stream(name)._farSideMoved
            for name in self.ends
        )

    def settle(self) -> None:
        before: Any = None
        while before != (before := self.progress()) or self.pair.server.sink.held:
            self.pair.settle()
            for _ in range(50):
                self.turn()
            self.pair.settle()

    def progress(self) -> Any:
        return [
            (len(end.taken), end.finishes, end.broken is None)
            for end in self.ends.values()
        ]


class MovingTests(SynchronousTestCase):
    """The model."""

    def test_endsEarly(self) -> None:
        """The connection has ended at both sides when what was said before is read."""
        moving = Moving()
        moving.open(window=1024, room=7)
        moving.say(name="server", size=1)
        moving.move()
        moving.move()
        for name in ("server", "client"):
            moving.end(name=name)
        moving.read(name="client", paused=True)
        moving.carry(name="server", amount=1000)
        moving.turn()
        moving.teardown()

    def test_slowService(self) -> None:
        """Both sides have changed over when the client reaches its service."""
        moving = Moving()
        moving.open(window=1024, room=3000, isSlow=True)
        moving.move()
        moving.move()
        moving.settle()
        moving.reach()
        moving.say(name="server", size=1)
        moving.teardown()

    def test_anyOrder(self) -> None:
        """Whatever happens, in whichever order."""
        run_state_machine_as_test(
            Moving,
            settings=settings(
                max_examples=1000 if LONG else 60, stateful_step_count=40, deadline=None
            ),
        )
