"""
The parent of a server's processes: it holds the listening sockets, and starts members
and restarts them. It reads no byte of a user's traffic.
"""

from __future__ import annotations

import os
import secrets
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from socket import socket
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.protocol import Factory, ProcessProtocol, Protocol
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.errors import TunnelError
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.record import Change
from tristunnel.processes.book import answering
from tristunnel.processes.channel import pair
from tristunnel.processes.copies import CopyingReactor
from tristunnel.processes.kept import KeptPorts
from tristunnel.processes.link import Asker, Link
from tristunnel.util.endpoints import cannotListen
from tristunnel.util.process import FAREWELL, GRACE
from tristunnel.util.repeating import stopTimer

__all__ = ["CHANNEL", "ParentService", "PortPlace"]

CHANNEL = 3
"""The descriptor by which a member speaks with its parent."""

SOON = 1.0
"""Seconds that a member must have lived to be restarted at once. Otherwise it is
restarted after this delay, which doubles each time up to L{SLOWEST}."""

SLOWEST = 10.0

LONGEST_LINE = 64 * 1024
"""Bytes of the longest line in a member's log."""


@dataclass(frozen=True)
class PortPlace:
    """
    Where to listen.

    @ivar what: The option and its value, for messages.
    @ivar endpoint: Listens, on a L{CopyingReactor}.
    """

    what: str
    endpoint: Any


class _Output(ProcessProtocol):
    """
    Takes the log of a member's process, and tells of its end.

    @param line: Called with each line.
    @param ended: Called once.
    """

    def __init__(
        self, line: Callable[[str], object], ended: Callable[[], object]
    ) -> None:
        self._line, self._ended = line, ended
        self._partial = {1: b"", 2: b""}

    def childDataReceived(self, childFD: int, data: bytes) -> None:
        *whole, rest = (self._partial[childFD] + data).split(b"\n")
        if len(rest) > LONGEST_LINE:
            whole, rest = [*whole, rest], b""
        self._partial[childFD] = rest
        for each in whole:
            self._line(each.decode("utf-8", "replace"))

    def processEnded(self, reason: Failure) -> None:
        for rest in filter(None, self._partial.values()):
            self._line(rest.decode("utf-8", "replace"))
        self._ended()


@dataclass(eq=False)
class _Member:
    """
    A member.

    @ivar index: Its number, from 0.
    @ivar process: Its process, or C{None} while there is none.
    @ivar link: The link to it, likewise.
    @ivar isReady: Whether it serves.
    @ivar accepts: Whether it also accepts connections, and does not stop.
    @ivar wasReady: Whether it ever has.
    @ivar hasMissed: Whether the book has changed while it could not be told.
    @ivar standIn: The member that accepts in its place.
    @ivar started: When it was started, in seconds.
    @ivar delay: Seconds until it is started again if it ends too soon.
    """

    index: int
    process: Any = None
    link: Link | None = None
    isReady: bool = False
    accepts: bool = False
    wasReady: bool = False
    hasMissed: bool = False
    standIn: _Member | None = None
    started: float = 0.0
    delay: float = 0.0
    restart: Any = None
    ended: list[Deferred[None]] = field(default_factory=list)


class ParentService(Service):
    """
    Starts the members, and restarts those that end.

    @param reactor: Tells time, and starts processes.
    @param copying: Opens the places, once for each member.
    @param places: Where the members listen.
    @param command: The command line of a member, whose L{CHANNEL} leads here.
    @param lease: Seconds that the tunnels of a lost member wait for their clients.
    @param line: Writes a line of a member's log.
    @param failed: Called with the reason if a place cannot be had, or no member starts.
    @param grace: Seconds that members get to end.
    """

    _log = Logger(namespace="tristunnel.parent")

    def __init__(
        self,
        reactor: Any,
        copying: CopyingReactor,
        places: Sequence[PortPlace],
        command: Sequence[str],
        lease: float,
        line: Callable[[str], object],
        failed: Callable[[TunnelError], object],
        grace: float = GRACE,
    ) -> None:
        self._reactor = reactor
        self._copying = copying
        self._places = places
        self._command = list(command)
        self._directory = os.getcwd()
        self._lease = lease
        self._line = line
        self._failed = failed
        self._grace = grace
        self._members = [_Member(index) for index in range(copying.count)]
        self._book = MemoryBook(reactor)
        self._ports = KeptPorts()
        self._key = secrets.token_hex(32)
        self._opened: list[Any] = []
        self._begun = self._stopping = False

    # Life

    def privilegedStartService(self) -> None:
        super().privilegedStartService()
        self._listen()

    def startService(self) -> None:
        super().startService()
        self._listen()
        self._book.watch(self._changed)
        if not self._stopping:
            for member in self._members:
                self._start(member)

    def _listen(self) -> None:
        if self._begun:
            return
        self._begun = True
        nobody = Factory.forProtocol(Protocol)
        nobody.noisy = False
        for place in self._places:
            listening = maybeDeferred(place.endpoint.listen, nobody)
            listening.addCallbacks(
                self._opened.append, self._notOpened, errbackArgs=(place.what,)
            )

    def _notOpened(self, failure: Failure, what: str) -> None:
        self._stopping = True
        self._failed(cannotListen(what, failure))

    def stopService(self) -> Deferred[None]:
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        self._stopping = True
        for port in self._opened:
            await maybeDeferred(port.stopListening)
        # No member will ask for them any more.
        self._ports.close()
        self._tellAll("stop")
        killing = self._reactor.callLater(
            self._grace + 2 * FAREWELL + 5.0, self.signal, signal.SIGKILL
        )
        for member in self._members:
            stopTimer(member.restart)
            if member.process is not None:
                ended: Deferred[None] = Deferred()
                member.ended.append(ended)
                await ended
        stopTimer(killing)
        self._ports.close()
        await self._book.stop()

    def hurry(self) -> None:
        """Have members wait for streams no longer."""
        self._tellAll("hurry")

    def _tellAll(self, method: str) -> None:
        # Not by a signal: systemd and others signal all processes of a group, so the
        # members have had one, and a second one would hurry them.
        for member in self._members:
            self._tell(member, method, [])

    def signal(self, number: int) -> None:
        """Pass a signal on to all members."""
        for member in self._members:
            self._signal(member, number)

    def _signal(self, member: _Member, number: int) -> None:
        # If the process is gone, its end is about to be reported.
        with suppress(ProcessExitedAlready):
            if member.process is not None:
                member.process.signalProcess(number)

    # Members

    def _start(self, member: _Member) -> None:
        try:
            self._spawn(member)
        except OSError as problem:
            # There is no memory or descriptor for it now; there may be later.
            self._log.error(
                "Process {process} of this server cannot be started yet: {problem}",
                process=member.index,
                problem=problem.strerror,
            )
            if member.link is not None:
                member.link.close()
            member.restart = self._reactor.callLater(SLOWEST, self._start, member)

    def _spawn(self, member: _Member) -> None:
        ours, theirs = pair()
        member.restart = None
        member.started = self._reactor.seconds()
        member.link = Link(
            self._reactor, ours, self._methodsFor(member).get, index=member.index
        )
        sockets = [place.sockets[member.index].dup() for place in self._copying.places]
        member.link.tell(
            "begin",
            {"index": member.index, "count": len(self._members), "key": self._key},
            b"",
            sockets,
        )
        with theirs, open(os.devnull, "rb") as nothing:
            member.process = self._reactor.spawnProcess(
                _Output(self._line, lambda: self._over(member)),
                self._command[0],
                self._command,
                os.environ,
                self._directory,
                childFDs={
                    0: nothing.fileno(),
                    1: "r",
                    2: "r",
                    CHANNEL: theirs.fileno(),
                },
            )

    def _over(self, member: _Member) -> None:
        """
        Have others take the place of a process that has ended, until it is restarted.
        """
        link, member.link = member.link, None
        if link is not None:
            link.close()
        member.process = None
        member.isReady = False
        ended, member.ended = member.ended, []
        for each in ended:
            each.callback(None)
        if self._stopping:
            return
        if not any(each.wasReady for each in self._members):
            self._stopping = True
            self._failed(TunnelError("internal", "a process of the server has ended"))
            return
        self._log.warn(
            "Process {process} of this server has ended, and is started again",
            process=member.index,
        )
        self._book.memberLost(str(member.index), self._lease)
        self._acceptsNoMore(member)
        lived = self._reactor.seconds() - member.started
        member.delay = 0.0 if lived >= SOON else min(SLOWEST, member.delay * 2 or SOON)
        member.restart = self._reactor.callLater(member.delay, self._start, member)

    def _acceptsNoMore(self, member: _Member) -> None:
        """
        Have others accept in the place of a process that stops, or has ended: whoever
        came to its sockets would wait for as long as it still serves somebody. It may
        be called twice.
        """
        if self._stopping or not member.accepts:
            return
        member.accepts = False
        for each in self._members:
            if each is member or each.standIn is member:
                self._standIn(each)

    def _standIn(self, member: _Member) -> None:
        """
        Have another member accept the connections to the sockets of one that does not.
        """
        count = len(self._members)
        others = (self._members[(member.index + n) % count] for n in range(1, count))
        member.standIn = next((each for each in others if each.accepts), None)
        if member.standIn is not None and member.standIn.link is not None:
            copies = [each.sockets[member.index].dup() for each in self._copying.places]
            self._tell(member.standIn, "standIn", [member.index], copies)

    def _tell(
        self,
        member: _Member,
        method: str,
        params: Sequence[object],
        sockets: Sequence[socket] = (),
    ) -> None:
        if member.link is None or not member.link.isOpen:
            for each in sockets:
                each.close()
            return
        try:
            member.link.tell(method, params, b"", sockets)
        except TunnelError as refusal:
            # It would act on what it knew before.
            self._log.error(
                "Process {process} takes no word any more, and is ended: {refusal}",
                process=member.index,
                refusal=refusal,
            )
            member.link.close()
            self._signal(member, signal.SIGKILL)

    # What members ask

    def _methodsFor(self, member: _Member) -> Mapping[str, Callable[..., object]]:
        return {
            **answering(self._book.ofMember(str(member.index))),
            "ready": lambda asker: self._ready(member),
            "leaving": lambda asker: self._acceptsNoMore(member),
            "keep": self._keep,
            "drop": lambda asker, tunnel: self._ports.drop(tunnel),
            "dropOf": lambda asker, lease: self._ports.dropOf(lease),
            "copies": lambda asker, tunnel: self._copies(member, tunnel),
        }

    def _ready(self, member: _Member) -> None:
        """Tell the others that a member serves now."""
        member.isReady = member.accepts = member.wasReady = True
        missed, member.hasMissed = member.hasMissed, False
        if missed:
            # Perhaps after it has read the book.
            self._tell(member, "changed", [Change("resynced").asDict()])
        standIn, member.standIn = member.standIn, None
        if standIn is not None:
            self._tell(standIn, "standBack", [member.index])
        for other in self._members:
            if other is not member and other.isReady:
                one, two = pair()
                self._tell(other, "meet", [member.index, False], [one])
                isLeaving = not other.accepts
                self._tell(member, "meet", [other.index, isLeaving], [two])
            if other.wasReady and other.standIn is None and not other.accepts:
                self._standIn(other)

    def _keep(self, asker: Asker, tunnel: str, lease: str) -> None:
        if asker.message.missing:
            self._log.warn(
                "There is no descriptor left to keep the port of {tunnel}: it ends with"
                " its process",
                tunnel=tunnel,
            )
        self._ports.keep(tunnel, lease, asker.message.sockets)

    def _copies(self, member: _Member, tunnel: str) -> int:
        copies = self._ports.copies(tunnel)
        # Sent before the answer, which says how many there are.
        self._tell(member, "copied", [tunnel], copies)
        return len(copies)

    def _changed(self, change: Change) -> None:
        if change.kind == "closed":
            self._ports.drop(change.id)
        elif change.kind == "expired":
            self._ports.dropOf(change.id)
        for member in self._members:
            if member.isReady:
                self._tell(member, "changed", [change.asDict()])
            else:
                member.hasMissed = True


def memberCommand(module: str, *words: str) -> list[str]:
    """
    Make the command line of a Python process with the same import path as this one's.

    @param module: The module whose C{run} it calls.
    """
    found = [path for path in sys.path if path]
    code = f"import sys; sys.path[:] = {found!r}; from {module} import run; run()"
    return [sys.executable, "-c", code, *words]
