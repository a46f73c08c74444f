"""
One visitor reads nothing, among fifty that work.

For every pair of a client's end and a listener: fifty visitors ask small
questions, one after the other, for as long as a round lasts. In every other round
one more visitor asks for bytes without end and reads none of them. The fifty must
get at least nine tenths of the answers that they get without it, and the server
and the client grow by less than 8 MiB.

C{--set pairs=session/tcp:tcp,plain:tcp} only these, C{--set seconds=3} the
length of a round, C{--set rounds=3}.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import median
from typing import Any

from twisted.internet.protocol import ClientFactory

from benchmarks.faults.cuts import PLAIN
from benchmarks.faults.programs import Programs, Server, resident
from benchmarks.faults.proof import Options, Row
from benchmarks.faults.reacting import Reacting, runReacting
from benchmarks.faults.visitors import Arrival, arrive
from benchmarks.processes import Room, freePort
from tests.faults.load import Listing, Service
from tests.tls.authority import makeAuthority

__all__ = ["Rig", "prove"]

WORKING = 50
"""Visitors that work."""

ENDLESS = 10**12
"""Bytes that the stalled visitor asks for: more than it could ever get."""

LOSS = 0.10
"""Part of their rate that the others may lose."""

GROWTH = 8.0
"""MiB by which either program may grow."""

FORGIVING = 20.0
"""Seconds of a round with a dialect that has no credit: there a stalled visitor
costs the others a second, once, until it is reset."""


@dataclass(frozen=True)
class End:
    """
    A kind of client's end.

    @ivar listeners: With which listeners it is tried.
    @ivar seconds: How long a round is, at least.
    """

    name: str
    start: Callable[[Rig, str], str]
    listeners: tuple[str, ...] = ("tcp", "tls", "ws", "local")
    seconds: float = 0.0


class Rig(Reacting):
    """Servers, a service and certificates, and a client at a time."""

    def __init__(self, reactor: Any, options: Options, room: Room) -> None:
        super().__init__(reactor, options, room)
        self.ledger = Listing(reactor.seconds)
        self.service = Service(self.ledger)
        self.chance = random.Random(options.seed)
        self.clients: list[int] = []
        self._count = 0
        self._ends: list[Any] = []
        authority = makeAuthority()
        certificate, key = authority.issue(["localhost", "127.0.0.1"])
        pem = room.write("server.pem", (certificate + key).decode())
        self.ca = str(authority.write(room.directory / "ca.pem"))
        self.programs = Programs(room)
        ports = [
            "tcp:0:interface=127.0.0.1",
            f"ssl:0:interface=127.0.0.1:certKey={pem}:privateKey={pem}",
        ]
        visitors = f"--visitor-certificate={pem}"
        self.servers = {
            "tcp": Server(self.programs, "server", ports, "--accept-rate=0"),
            "tls": Server(
                self.programs, "server-tls", ports, "--accept-rate=0", visitors
            ),
        }
        port = reactor.listenTCP(0, self.service, interface="127.0.0.1", backlog=4096)
        self.target = f"127.0.0.1:{port.getHost().port}"

    def server(self, listener: str) -> Server:
        """The server whose visitors come by C{listener}."""
        return self.servers["tls" if listener == "tls" else "tcp"]

    def client(self, *words: str, before: str = "", printed: bool = True) -> str:
        """
        Start a client.

        @param printed: Whether it prints an address.
        @return: The address.
        """
        self._count += 1
        name = f"client{self._count}"
        pid = self.programs.start(name, "tunnel-client", *words, before=before)
        self.clients.append(pid)
        return self.programs.address(name) if printed else ""

    def local(self, service: str) -> str:
        """Start a client that visits, and listens here."""
        self._count += 1
        name = f"client{self._count}"
        connect = f"--connect=tcp:127.0.0.1:{self.servers['tcp'].ports[0]}"
        listen = "--listen=tcp:0:interface=127.0.0.1"
        words = (connect, listen, f"--service={service}")
        pid = self.programs.start(name, "tunnel-client", *words)
        self.clients.append(pid)
        line = self.room.waitForText(name, f"reach {service}")
        found = re.findall(r"127\.0\.0\.1:(\d+)", line)
        return f"tcp://127.0.0.1:{found[-1]}"

    def dialRaw(self, uri: str) -> None:
        """Be the client's ends of a raw tunnel: the service itself connects."""
        port = int(uri.rpartition(":")[2])
        for _ in range(WORKING + 12):
            factory = ClientFactory()
            factory.noisy = False
            factory.buildProtocol = self.service.buildProtocol  # type: ignore[method-assign] # it is all they need
            self.reactor.connectTCP("127.0.0.1", port, factory)

    def stopClients(self) -> None:
        """End the clients."""
        clients, self.clients = self.clients, []
        self.room.stop(clients)

    async def pair(self, end: End, listener: str) -> None:
        """Measure a pair."""
        what = f"{end.name} : {listener}"
        try:
            address = end.start(self, listener)
            await self.sleep(0.5)
            await self._measure(what, address, end.seconds)
        except Exception as error:
            self.rows.append(Row(what, f"not measured: {error!r}"[:400], False))
        finally:
            self.stopClients()
            await self.until(lambda: not self.service.open, 5.0)
            for each in list(self.service.open):
                each.transport.abortConnection()

    def visit(self, address: str, kind: str, stalled: bool = False) -> Arrival:
        """Have somebody come who never leaves."""
        return arrive(self.reactor, self.ledger, address, kind, ENDLESS, stalled)

    async def _measure(self, what: str, address: str, least: float) -> None:
        """Measure, in rounds with and without a stalled visitor."""
        seconds = max(self.options.number("seconds", 3, 1), least)
        rounds = int(self.options.number("rounds", 3, 2))
        if least:
            rounds = min(rounds, 2)
        working = [self.visit(address, "E") for _ in range(WORKING)]
        here = await self.until(lambda: all(a.tale.visitor.got for a in working), 15)
        if not here:
            silent = sum(not each.tale.visitor.got for each in working)
            raise RuntimeError(f"{silent} of {WORKING} visitors got no answer")
        pids = [*(s.pid for s in self.servers.values()), *self.clients]
        await self.sleep(1.0)
        without: list[int] = []
        beside: list[int] = []
        growth, stalls, ends = 0.0, 0, 0
        while True:
            for _ in range(rounds):
                without.append(await self._count_(working, seconds))
                before = [resident(pid) for pid in pids]
                stalled = self.visit(address, "D", True)
                most = list(before)

                def sample(
                    most: list[float] = most, stalled: Arrival = stalled
                ) -> None:
                    most[:] = map(max, most, map(resident, pids))

                beside.append(await self._count_(working, seconds, sample))
                sample()
                growth = max(
                    growth, *(m - b for m, b in zip(most, before, strict=True))
                )
                service = stalled.tale.service
                stalls += service is not None and service.sent > 0
                ends += service is not None and service.gone is not None
                stalled.leave()
                await self.until(lambda s=stalled: s.tale.over, 5.0)
            loss = 1 - median(beside) / max(median(without), 1)
            if loss < LOSS or len(without) >= 3 * rounds:
                break
        lost = [a for a in working if a.tale.visitor.gone is not None]
        rate = median(without) / seconds
        seen = (
            f"{rate:,.0f} answers a second, {median(beside) / seconds:,.0f} beside a"
            f" stalled visitor ({-loss:+.1%}), {growth:.1f} MiB more at most;"
            f" {len(without)} rounds of {seconds:.0f} s"
        )
        if stalls < len(beside):
            seen += f"; the stalled visitor reached nobody in {len(beside) - stalls}"
        if ends:
            seen += f"; it was reset in {ends}"
        if lost:
            seen += f"; {len(lost)} of the fifty were lost"
        good = loss < LOSS and growth < GROWTH and not lost and stalls == len(beside)
        self.rows.append(Row(what, seen, good))
        for each in working:
            each.leave()
        await self.until(lambda: all(a.tale.over for a in working), 5.0)

    async def _count_(
        self,
        working: list[Arrival],
        seconds: float,
        sample: Callable[[], None] = lambda: None,
    ) -> int:
        """Count the answers in a round."""
        before = sum(each.tale.visitor.got for each in working)
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            await self.sleep(min(0.1, seconds))
            sample()
        return (sum(each.tale.visitor.got for each in working) - before) // 200


def _framed(scheme: str, *options: str) -> Callable[[Rig, str], str]:
    """A session of the framed protocol."""

    def start(rig: Rig, listener: str) -> str:
        server, secure = rig.server(listener), scheme in ("tls", "wss")
        at = f"127.0.0.1:{server.ports[int(secure)]}"
        connect = f"{scheme}:{at}"
        if scheme in ("ws", "wss"):
            connect = f"{scheme}://{at}/tunnel"
        words = [f"--connect={connect}", *options]
        words += [f"--ca={rig.ca}"] * secure
        if listener == "ws":
            uri = server.call("openTunnel", via="w3p", listener="ws")
            return rig.client(*words, f"--tunnel={uri}", f"--to={rig.target}")
        name = f"service{rig._count}"
        address = rig.client(*words, f"--forward={name}={rig.target}")
        return rig.local(name) if listener == "local" else address

    return start


def _plain(rig: Rig, listener: str) -> str:
    """A client that speaks W3P and no more."""
    connect = f"--connect=tcp:127.0.0.1:{rig.server(listener).ports[0]}"
    address = rig.client(
        connect, "--carrier=session", f"--forward=0={rig.target}", before=PLAIN
    )
    return address.replace("tcp:", "tls:") if listener == "tls" else address


def _vtunnel(rig: Rig, listener: str) -> str:
    """A client that speaks vtunnel's dialect."""
    port, server = freePort(), rig.server(listener)
    rig.client(
        f"--connect=ws://127.0.0.1:{server.ports[0]}/tunnel",
        "--dialect=vtunnel",
        f"--forward={port}={rig.target}",
        printed=False,
    )
    rig.room.waitForPort(port)
    return f"{listener}://127.0.0.1:{port}"


def _zlayer(rig: Rig, listener: str) -> str:
    """A client that speaks zlayer's dialect."""
    # The ports that zlayer's server gives.
    port, server = rig.chance.randrange(30000, 31000), rig.server(listener)
    token = rig.room.write("token", "tun_any-of-them-will-do-here")
    rig.client(
        f"--connect=ws://127.0.0.1:{server.ports[0]}/tunnel/v1",
        "--dialect=zlayer",
        f"--token-file={token}",
        f"--forward={port}={rig.target}",
        printed=False,
    )
    rig.room.waitForPort(port)
    return f"{listener}://127.0.0.1:{port}"


def _raw(rig: Rig, listener: str) -> str:
    """Raw TCP connections to a URI."""
    server, name = rig.server(listener), f"raw{len(rig.rows)}"
    uri = server.call(
        "openTunnel",
        via="tcp",
        listener="tcp" if listener == "local" else listener,
        visitors=10_000,
        name=name,
    )
    rig.dialRaw(uri)
    address: str = server.call("getTunnelAddress", uri=uri)
    return rig.local(name) if listener == "local" else address


def _rawWebSocket(rig: Rig, listener: str) -> str:
    """Raw WebSockets to a URI."""
    server, name = rig.server(listener), f"host{len(rig.rows)}"
    uri = server.call(
        "openTunnel",
        via="ws",
        listener="tcp" if listener == "local" else listener,
        visitors=10_000,
        name=name,
    )
    rig.client(
        f"--connect={uri}",
        "--dialect=relay",
        f"--forward={'='}{rig.target}",
        printed=False,
    )
    address: str = server.call("getTunnelAddress", uri=uri)
    return rig.local(name) if listener == "local" else address


SESSION = "--carrier=session"
DIRECT = "--carrier=direct"

ENDS = (
    End("session/tcp", _framed("tcp", SESSION)),
    End("session/tls", _framed("tls", SESSION)),
    End("session/ws", _framed("ws", SESSION)),
    End("direct/tcp", _framed("tcp", DIRECT)),
    End("direct/tls", _framed("tls", DIRECT)),
    End("plain", _plain, ("tcp", "tls"), FORGIVING),
    # Its ports are never TLS.
    End("vtunnel", _vtunnel, ("tcp",), FORGIVING),
    End("zlayer", _zlayer, ("tcp", "tls")),
    End("raw tcp", _raw),
    End("raw websocket", _rawWebSocket),
)
"""All kinds of client's ends."""

_QUICK = ("session/tcp:tcp", "direct/tcp:tcp", "session/tls:tls", "raw tcp:tcp")


async def _matrix(rig: Rig) -> None:
    """All pairs."""
    given = rig.options.words.get("pairs", "")
    wanted = given.split(",") if given else list(_QUICK) if rig.options.quick else []
    for end in ENDS:
        for listener in end.listeners:
            if wanted and f"{end.name}:{listener}" not in wanted:
                continue
            await rig.pair(end, listener)
            print(rig.rows[-1], file=_errors(), flush=True)


def _errors() -> Any:
    """Where progress is told."""
    import sys

    return sys.stderr


def prove(options: Options) -> Iterator[Row]:
    """Run, and say what came of it."""
    return runReacting(options, Rig, _matrix)
