"""What a contestant is, and what all of them are made of."""

from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.processes import Failed, Room, which

__all__ = [
    "DIRECT",
    "FAR",
    "HAPROXY",
    "HERE",
    "NEAR",
    "Contestant",
    "Plan",
    "Route",
    "Started",
    "certificateOf",
    "needs",
    "programOf",
]

HAPROXY = "haproxy x2, 1 thread each"
"""The reference for two hops, as the tables name it."""

HERE = "127.0.0.1"

NEAR, FAR = "10.203.0.1", "10.203.0.2"
"""The public side's address on a path between two networks, and the other's."""


@dataclass(frozen=True)
class Route:
    """
    The way between the public side and the service's.

    @ivar server: Where the public side waits for clients.
    @ivar client: Where the other side can be reached, by those that are.
    @ivar beside: Words in front of a command that is to run beside the service.
    """

    server: str = HERE
    client: str = HERE
    beside: tuple[str, ...] = ()


DIRECT = Route()
"""Both are here."""


@dataclass
class Plan:
    """
    How a contestant runs.

    @ivar server: The command at the public side, or empty for none.
    @ivar control: The port where the server waits for clients; 0 for none.
    @ivar client: The command beside the service, or empty for none.
    @ivar public: Where visitors connect; or what tells it once the client
        runs, of what the client has said since.
    @ivar clients: Gives the command for so many more clients at once, or for
        the next one only; C{None} where there is no such thing.
    @ivar together: Whether C{clients} gives one command for all.
    @ivar host: Where C{public} is.
    """

    server: Sequence[str]
    control: int
    client: Sequence[str]
    public: int | Callable[[Room], int]
    clients: Callable[[int], Sequence[str]] | None = None
    together: bool = False
    host: str = HERE


@dataclass
class Started:
    """
    A tunnel that runs.

    @ivar room: Where.
    @ivar plan: What.
    @ivar route: The way between its sides.
    @ivar servers: Process ids at the public side.
    @ivar clients: Process ids beside the service.
    @ivar port: Where visitors connect.
    """

    room: Room
    plan: Plan
    route: Route = DIRECT
    servers: list[int] = field(default_factory=list)
    clients: list[int] = field(default_factory=list)
    port: int = 0

    def startServer(self) -> None:
        """Start the public side, once more if it was stopped."""
        if self.plan.server:
            self.servers = [self.room.start("server", self.plan.server)]

    def startClient(self) -> None:
        """Start what is beside the service."""
        if self.plan.client:
            command = [*self.route.beside, *self.plan.client]
            self.clients = [self.room.start("client", command)]

    @property
    def address(self) -> tuple[str, int]:
        """Where visitors connect."""
        return self.plan.host, self.port

    def look(self) -> int:
        """Say where visitors connect now."""
        public = self.plan.public
        return public if isinstance(public, int) else public(self.room)


@dataclass(frozen=True)
class Contestant:
    """
    One that takes part.

    @ivar name: In the table.
    @ivar plan: Called with a room, the service's port, and a route.
    @ivar missing: Why it cannot take part, or empty.
    @ivar encrypts: Whether bytes travel encrypted.
    @ivar multiplexes: Whether visitors share a connection.
    @ivar kind: C{"ours"}, C{"peer"}, or C{"limit"} for what is no tunnel.
    """

    name: str
    plan: Callable[[Room, int, Route], Plan]
    missing: Callable[[], str] = lambda: ""
    encrypts: bool = False
    multiplexes: bool = False
    kind: str = "peer"

    def start(self, room: Room, service: int, route: Route = DIRECT) -> Started:
        """
        Start both sides, and wait until a visitor is let in.

        @param service: The service's port.
        """
        plan = self.plan(room, service, route)
        started = Started(room, plan, route)
        started.startServer()
        if plan.control:
            room.waitForPort(plan.control, host=route.server)
        started.startClient()
        started.port = started.look()
        room.waitForPort(started.port, host=plan.host)
        return started


def needs(variable: str, *names: str) -> Callable[[], str]:
    """Make the check for a program."""
    return lambda: (
        "" if which(variable, *names) else f"no {names[0]} on PATH; set {variable}"
    )


def programOf(variable: str, *names: str) -> str:
    """Find a program that is known to be there."""
    found = which(variable, *names)
    if found is None:
        raise Failed(f"no {names[0]}")
    return found


def certificateOf(room: Room) -> tuple[str, str]:
    """
    Make a certificate for this machine, for those who do not make their own.

    @return: The files of the certificate and of its key.
    """
    certificate = str(room.directory / "certificate.pem")
    key = str(room.directory / "key.pem")
    if not Path(certificate).exists():
        subprocess.run(
            [
                *("openssl", "req", "-x509", "-nodes", "-days", "2", "-newkey", "ec"),
                *("-pkeyopt", "ec_paramgen_curve:prime256v1", "-subj", "/CN=localhost"),
                *("-addext", f"subjectAltName=DNS:localhost,IP:{HERE},IP:{NEAR}"),
                *("-keyout", key, "-out", certificate),
            ],
            check=True,
            capture_output=True,
        )
    return certificate, key
