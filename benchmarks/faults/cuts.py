"""
The way between client and server is cut, hung and resumed under load.

Each kind of session has a client of its own, which reaches the server through a
L{Link<tests.faults.way.Link>}. In each round streams of all kinds begin; at a
random moment something happens to each way. Every stream must then be complete,
or have failed at both ends, before the deadline; and visitors must reach the
service again at the same address.

C{--set moments=200} says how many moments in all, C{--set ways=session/tcp} on
which ways only, C{--set faults=fin} which faults only.
"""

from __future__ import annotations

import random
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from twisted.internet.defer import Deferred, DeferredList

from benchmarks.faults.programs import QUICK, Programs, Server, descriptors
from benchmarks.faults.proof import Options, Row
from benchmarks.faults.reacting import Reacting, runReacting
from benchmarks.faults.visitors import arrive
from benchmarks.processes import Room, freePort
from tests.faults.load import Listing, Service, Tale
from tests.faults.way import Leg, Link
from tests.tls.authority import makeAuthority

__all__ = ["prove"]

DEADLINE = QUICK["tristunnel.dialects.framed.liveness"]["DEADLINE"]
"""Seconds of silence after which either side gives a session up, here."""

SLACK = 2.5
"""Seconds beyond that for looking at deadlines, and for a busy machine."""

BACK = 45.0
"""Seconds in which visitors must reach the service again."""

RATE = 1.5e6
"""Bytes per second that a way passes in each direction."""

STREAMS = (
    *(("D", 500_000), ("D", 150_000), ("U", 400_000), ("U", 100_000)),
    *(("B", 200_000), ("E", 8_000), ("E", 4_000)),
)
"""What begins in each round."""

PLAIN = """
import tristunnel.dialects.framed.client as _client
_say = _client.TunnelClientProtocol.sendHandshake
def _plain(self, message):
    message.pop("tristunnel", None)
    _say(self, message)
_client.TunnelClientProtocol.sendHandshake = _plain
"""
"""Makes our client one that knows nothing but W3P."""


@dataclass(frozen=True)
class Kind:
    """
    A kind of session, and of visitors.

    @ivar scheme: How the client connects.
    @ivar options: Of the client.
    @ivar listener: How visitors come; C{ws} through a tunnel with C{via}
        C{"w3p"}, the others through one with a lease.
    @ivar before: Code that the client runs first.
    @ivar faults: What may happen to it; everything, if it is empty.
    @ivar dialect: Another one than C{framed}, with a port that is asked for.
    """

    name: str
    scheme: str = "tcp"
    options: tuple[str, ...] = ("--carrier=session",)
    listener: str = "tcp"
    before: str = ""
    faults: tuple[str, ...] = ()
    dialect: str = ""


_PASSING = ("hang", "hang up", "hang down", "delay")
_NOTICED = ("reset", "fin", "reset one", "fin one", *_PASSING)

KINDS = (
    Kind("session/tcp", options=("--carrier=session",)),
    Kind("session/tls", "tls", ("--carrier=session",)),
    Kind("session/ws", "ws"),
    Kind("session/wss", "wss"),
    Kind("several/tcp", "tcp", ("--carrier=session", "--sessions=3")),
    Kind("direct/tcp", "tcp", ("--carrier=direct",)),
    Kind("direct/tls", "tls", ("--carrier=direct",)),
    Kind("auto/tcp"),
    Kind("auto/tls", "tls"),
    Kind("session/tcp to tls", listener="tls"),
    Kind("direct/tcp to tls", options=("--carrier=direct",), listener="tls"),
    Kind("session/tcp to ws", listener="ws"),
    Kind("direct/tcp to ws", options=("--carrier=direct",), listener="ws"),
    Kind(
        "plain/tcp",
        options=("--carrier=session",),
        before=PLAIN,
        # W3P has no pings: nobody would ever notice the others.
        faults=("reset", "fin", *_PASSING),
    ),
    # Their own signs of life are not as frequent.
    Kind("vtunnel", "ws", (), dialect="vtunnel", faults=_NOTICED),
    Kind("zlayer", "ws", (), dialect="zlayer", faults=_NOTICED),
)


def _fault(
    name: str, way: Link, chance: random.Random, later: Callable[..., Any]
) -> None:
    """
    Have something happen to a way.

    @param later: C{callLater}.
    """
    pick = way.ups()
    if name.endswith(" one"):
        pick = [chance.choice(pick)] if pick else []
    kind = name.removesuffix(" one")
    if kind in ("reset", "refused"):
        way.some(pick, Leg.abort)
        if kind == "refused":
            way.refusing = True
            later(1.0, setattr, way, "refusing", False)
    elif kind == "fin":
        way.some(pick, Leg.close)
    elif kind == "half-open client":
        way.some(pick, Leg.abort, up=False)
        way.some(pick, Leg.hang, down=False)
    elif kind == "half-open server":
        way.some(pick, Leg.abort, down=False)
        way.some(pick, Leg.hang, up=False)
    elif kind in ("black hole", "black hole up", "black hole down", "dark"):
        way.some(
            pick, Leg.hang, up=not kind.endswith("down"), down=not kind.endswith("up")
        )
        if kind == "dark":
            way.silent = True
            later(1.0, setattr, way, "silent", False)
    elif kind.startswith("hang"):
        up, down = not kind.endswith("down"), not kind.endswith("up")
        way.some(pick, Leg.hang, up, down)
        long = chance.uniform(0.2, DEADLINE / 2)
        later(long, way.some, pick, Leg.resume, up, down)
    elif kind == "delay":
        way.delay = chance.uniform(0.05, 0.4)
        later(1.0, setattr, way, "delay", 0.0)
    else:
        raise ValueError(name)


FAULTS = (
    *("reset", "reset one", "refused", "fin", "fin one"),
    *("half-open client", "half-open server"),
    *("black hole", "black hole up", "black hole down", "black hole one", "dark"),
    *_PASSING,
)
"""Everything that happens."""


@dataclass
class Case:
    """
    What faults happen to: a client on a link of its own, and what came of it.

    @ivar address: Where visitors come.
    @ivar moments: How often something happened.
    @ivar late: Seconds from the moment to the last end that knew, at most.
    @ivar back: Seconds until visitors reached the service again, at most.
    """

    kind: Kind
    way: Link
    name: str
    pid: int
    address: str
    moments: int = 0
    complete: int = 0
    failed: int = 0
    late: float = 0.0
    back: float = 0.0
    bad: list[str] = field(default_factory=list)


class _Proof(Reacting):
    """The whole of it."""

    def __init__(self, reactor: Any, options: Options, room: Room) -> None:
        super().__init__(reactor, options, room)
        self.chance = random.Random(options.seed)
        self.ledger = Listing(reactor.seconds)
        self.service = Service(self.ledger)
        self.faults: Counter[str] = Counter()
        self.outcome: dict[str, Counter[str]] = {}
        self.cases: list[Case] = []

    # Beginning

    def build(self) -> None:
        """Start the programs."""
        authority = makeAuthority()
        certificate, key = authority.issue(["localhost", "127.0.0.1"])
        pem = self.room.write("server.pem", (certificate + key).decode())
        ca = str(authority.write(self.room.directory / "ca.pem"))
        programs = Programs(self.room, QUICK)
        ports = [
            "tcp:0:interface=127.0.0.1",
            f"ssl:0:interface=127.0.0.1:certKey={pem}:privateKey={pem}",
        ]
        visitors = f"--visitor-certificate={pem}"
        self.servers = {
            "tcp": Server(programs, "server", ports, "--accept-rate=0"),
            "tls": Server(programs, "server-tls", ports, "--accept-rate=0", visitors),
        }
        port = self.reactor.listenTCP(0, self.service, interface="127.0.0.1")
        target = f"127.0.0.1:{port.getHost().port}"
        wanted = self.options.words.get("ways", "")
        for number, kind in enumerate(KINDS):
            if wanted and kind.name not in wanted.split(","):
                continue
            secure = kind.scheme in ("tls", "wss")
            server = self.servers["tls" if kind.listener == "tls" else "tcp"]
            way = Link(self.reactor, server.ports[int(secure)], RATE)
            name = f"client{number}"
            at = f"127.0.0.1:{way.port}"
            connect = f"{kind.scheme}:{at}"
            if kind.scheme in ("ws", "wss"):
                connect = f"{kind.scheme}://{at}/tunnel"
            address, words = "", [f"--connect={connect}", *kind.options]
            if secure:
                words.append(f"--ca={ca}")
            if kind.listener == "ws":
                uri = server.call("openTunnel", via="w3p", listener="ws")
                words += [f"--to={target}", f"--tunnel={uri}"]
            elif kind.dialect:
                given = freePort()
                if kind.dialect == "zlayer":
                    given = self.chance.randrange(30000, 31000)
                    token = self.room.write("token", "tun_any-of-them-will-do-here")
                    words += [f"--token-file={token}"]
                    words[0] += "/v1"
                words.append(f"--dialect={kind.dialect}")
                words.append(f"--forward={given}={target}")
                address = f"tcp://127.0.0.1:{given}"
            else:
                words.append(f"--forward=0={target}")
            # It connects through this process, which must go on meanwhile.
            pid = programs.start(name, "tunnel-client", *words, before=kind.before)
            self.cases.append(Case(kind, way, name, pid, address))

    async def ready(self, case: Case) -> None:
        """Wait for a client's tunnel."""
        if case.kind.dialect:
            await self.until(lambda: self._listens(case.address), 30.0)
            return
        until = time.monotonic() + 30
        while time.monotonic() < until:
            found = re.findall(r"(?m)^(\w+://\S+)$", self.room.said(case.name))
            if found:
                case.address = found[-1]
                return
            await self.sleep(0.1)
        raise RuntimeError(f"{case.kind.name}: {self.room.said(case.name)[-1500:]}")

    def _listens(self, address: str) -> bool:
        """Whether visitors can come."""
        return any(
            each["address"] == address and each["connected"]
            for server in self.servers.values()
            for each in server.call("listTunnels")
        )

    # Visitors

    def visit(self, case: Case, kind: str, size: int) -> Tale:
        """Begin a stream."""
        return arrive(self.reactor, self.ledger, case.address, kind, size).tale

    async def over(self, tale: Tale, seconds: float) -> bool:
        """Wait until a stream is over, as for L{until}."""
        return await self.until(lambda: tale.over, seconds)

    # A round

    async def round(self, case: Case, fault: str, moment: float) -> None:
        """Begin streams, have something happen to the way, and see."""
        kinds = list(STREAMS)
        if case.kind.listener != "tcp":
            # Who ends both directions at once cannot have both apart.
            kinds = [each for each in kinds if each[0] != "B"]
        if case.kind.before or case.kind.dialect:
            # These close both directions at once, too.
            kinds = [each for each in kinds if each[0] in "DE"]
        tales = [self.visit(case, *each) for each in kinds]
        await self.sleep(moment)
        _fault(fault, case.way, self.chance, self.reactor.callLater)
        at = self.reactor.seconds()
        case.moments += 1
        self.faults[fault] += 1
        passing = fault in _PASSING
        patience = 20.0 if passing else DEADLINE + SLACK
        live = [tale for tale in tales if not tale.over]
        inTime = await self.until(lambda: all(t.over for t in live), patience)
        where = f"{case.kind.name}, {fault} at {moment:.2f} s"
        if not inTime and not passing:
            # Others than the one that was cut may take longer; and late is not
            # the same as never.
            await self.until(lambda: all(t.over for t in live), 15.0)
        for tale in tales:
            case.bad += [f"{where}: {p}: {tale}" for p in self.problems(case, tale)]
            if tale.complete:
                case.complete += 1
            elif not tale.over:
                case.bad.append(f"{where}: nobody knows in the end: {tale}")
            else:
                case.failed += 1
                if passing:
                    case.bad.append(f"{where}: should have been complete: {tale}")
                elif tale.lasted - at > patience:
                    late = tale.lasted - at
                    case.bad.append(f"{where}: known only {late:.1f} s after: {tale}")
        if not passing:
            ends = [tale.lasted - at for tale in live if not tale.complete]
            case.late = max([case.late, *ends])
        case.way.clear()
        began = self.reactor.seconds()
        while True:
            if case.kind.before:
                await self.ready(case)
            probe = self.visit(case, "E", 400)
            await self.over(probe, 3.0)
            took = self.reactor.seconds() - began
            if probe.complete:
                break
            for problem in probe.faults():
                case.bad.append(f"{where}, afterwards: {problem}: {probe}")
            if took > BACK:
                case.bad.append(f"{where}: no visitor comes through after {took:.0f} s")
                break
            await self.sleep(0.1)
        case.back = max(case.back, took)

    @staticmethod
    def problems(case: Case, tale: Tale) -> list[str]:
        """
        What must not be. A plain client's own end of a stream ends both
        directions, since W3P has but one frame for that: so a service that has
        said its last word is told the same at once.
        """
        plain = bool(case.kind.before or case.kind.dialect)
        if plain and tale.service is not None and tale.service.finished:
            return [
                each for each in tale.faults() if not each.startswith("service saw")
            ]
        return tale.faults()

    async def drive(self, case: Case, count: int) -> None:
        """All rounds of a way."""
        await self.ready(case)
        for _ in range(3):
            # What was asked for ahead is there now, and limits know the tunnel.
            probe = self.visit(case, "D", 70_000)
            await self.over(probe, 10.0)
            if not probe.complete:
                case.bad.append(f"{case.kind.name}, before anything: {probe}")
        only = self.options.words.get("faults", "")
        allowed = [
            each
            for each in case.kind.faults or FAULTS
            if not only or each in only.split(",")
        ]
        queue: list[str] = []
        for _ in range(count):
            if not queue:
                queue = list(allowed)
                self.chance.shuffle(queue)
            await self.round(case, queue.pop(), self.chance.uniform(0.0, 1.2))
            print(
                f"{case.kind.name}: {case.moments} of {count}, {len(case.bad)} bad",
                file=sys.stderr,
            )

    async def run(self) -> None:
        """Everything."""
        self.build()
        every = int(self.options.number("moments", 200, 26))
        each, more = divmod(every, len(self.cases))
        counts = [each + (n < more) for n in range(len(self.cases))]
        for case in self.cases:
            await self.ready(case)
        await self.sleep(0.5)
        tunnels = self._tunnels()
        pids = [server.pid for server in self.servers.values()]
        open_ = sum(map(descriptors, pids))
        began = time.monotonic()
        work: list[Deferred[Any]] = [
            Deferred.fromCoroutine(self.drive(case, count))
            for case, count in zip(self.cases, counts, strict=True)
        ]
        for ok, result in await DeferredList(work, consumeErrors=True):
            if not ok:
                self.rows.append(Row("a way", result.getTraceback(), False))
        took = time.monotonic() - began
        self._table(took)
        left = await self.until(lambda: not self.service.open, 5.0)
        self.rows.append(
            Row(
                "connections left at the service",
                f"{len(self.service.open)} after the last round",
                left,
            )
        )
        after = self._tunnels()
        self.rows.append(
            Row(
                "tunnels and addresses afterwards",
                f"{len(after)} of {len(tunnels)} as before, no visitor left"
                if after == tunnels
                else f"before {tunnels}, after {after}",
                after == tunnels,
            )
        )
        now = sum(map(descriptors, pids))
        self.rows.append(
            Row(
                "descriptors of the servers",
                f"{open_} before, {now} after",
                abs(now - open_) <= 40,
            )
        )
        said = "\n".join(
            path.read_text(errors="replace")
            for path in self.room.directory.glob("*.log")
        )
        self.rows.append(
            Row(
                "tracebacks in the programs' logs",
                str(said.count("Traceback")),
                "Traceback" not in said,
            )
        )

    def _tunnels(self) -> list[tuple[str, str, int]]:
        """What tunnels there are, but for clients' who have no lease."""
        plain = {
            case.address for case in self.cases if case.kind.before or case.kind.dialect
        }
        return sorted(
            (each["uri"], each["address"], each["visitors"])
            for server in self.servers.values()
            for each in server.call("listTunnels")
            if each["connected"] and each["address"] not in plain
        )

    def _table(self, took: float) -> None:
        """A row for each way."""
        for case in self.cases:
            seen = (
                f"{case.moments} moments, {case.complete} streams complete,"
                f" {case.failed} failed at both ends, the last known"
                f" {case.late:.1f} s after; back within {case.back:.1f} s"
            )
            self.rows.append(Row(case.kind.name, seen, not case.bad))
            for problem in case.bad[:8]:
                self.rows.append(Row("  " + case.kind.name, problem, False))
        words = ", ".join(f"{name} {n}" for name, n in sorted(self.faults.items()))
        self.rows.append(
            Row("moments", f"{sum(self.faults.values())} in {took:.0f} s: {words}")
        )


def prove(options: Options) -> Iterator[Row]:
    """Run, and say what came of it."""
    return runReacting(options, _Proof, _Proof.run)
