"""
Killing the server, or a client, at any moment, and starting it again at once.

What must be so after each kill: the tunnels are back at their ports, nothing
that was left on the disk keeps anybody from starting, and no transfer ended
early and looked whole.
"""

from __future__ import annotations

import json
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.programs import Programs
from benchmarks.faults.proof import Options, Row
from benchmarks.faults.traffic import Counters, Service, Visitors, download
from benchmarks.processes import Failed, Room, freePort
from tristunnel.auth.tokens_format import TokenList

__all__ = ["prove"]

BACK = 75.0
"""Seconds in which every tunnel must be back: a client waits for a minute at
the most before it tries again."""

_ONCE = {"tristunnel.dialects.base.client": {"SETTLED": 0.0}}
"""What a client does after one kill is looked for, not after several within two
seconds, when it would take the server for one that cannot live."""

_RATE = 1.5e6
_MOST = 1_000_000


class _House:
    """
    A server and its clients, that can be killed and started again.

    @param options: How to run.
    @param room: Where they run.
    @param target: The port of the service.
    """

    def __init__(self, options: Options, room: Room, target: int) -> None:
        self.room = room
        self.programs = Programs(room, _ONCE)
        base = int(options.number("ports", 21000, 21000))
        self.tokens = room.directory / "tokens"
        self.token = _token(self.tokens, "create", "--name", "all").split()[-1]
        self.plain, self.tls = freePort(), freePort()
        # A UNIX socket's path has about a hundred bytes.
        self.socket = room.directory / "s"
        self._server = [
            f"--port=tcp:{self.plain}:interface=127.0.0.1",
            f"--port=ssl:{self.tls}:interface=127.0.0.1",
            f"--port=unix:{self.socket}",
            f"--rpc=unix:{room.directory}/r",
            "--interface=127.0.0.1",
            "--hostname=127.0.0.1",
            f"--ports={base}-{base + 999}",
            f"--auth=tokens:{self.tokens}",
        ]
        self.pids = {"server": self.startServer()}
        said = room.waitForText("server", "SHA-256 fingerprint is", 60.0)
        pin = said.rpartition(" ")[2]
        token = str(room.write("token", self.token))
        Path(token).chmod(0o600)
        ways = {
            "direct": [f"--connect=tcp:127.0.0.1:{self.plain}"],
            "tls": [f"--connect=tls:127.0.0.1:{self.tls}", f"--pin={pin}"],
            "unix": [f"--connect=unix:{self.socket}", "--carrier=session"],
            "websocket": [f"--connect=ws://127.0.0.1:{self.plain}/tunnel"],
        }
        self._clients = {
            name: [*words, f"--forward=0=127.0.0.1:{target}", f"--token-file={token}"]
            for name, words in ways.items()
        }
        self.ports: dict[str, int] = {}
        for name in self._clients:
            self.pids[name] = self.startClient(name)
            address = self.programs.address(name)
            self.ports[name] = int(address.rpartition(":")[2])

    def startServer(self) -> int:
        """Start the server."""
        return self.programs.start("server", "tunnel", *self._server)

    def startClient(self, name: str) -> int:
        """Start a client."""
        return self.programs.start(name, "tunnel-client", *self._clients[name])

    def kill(self, name: str) -> None:
        """Kill somebody and start it again at once."""
        self.room.stop([self.pids[name]], signal.SIGKILL)
        start = self.startServer if name == "server" else None
        self.pids[name] = start() if start else self.startClient(name)

    def untilBack(self, names: list[str]) -> float:
        """
        Wait until tunnels work at their ports.

        @return: Seconds that the last one took.
        @raise Failed: If one does not, with what was said last.
        """
        began, tally = time.monotonic(), Counters()
        for name in names:
            while not download(self.ports[name], 1000, tally, 5.0):
                if time.monotonic() > began + BACK:
                    said = self.room.said(name).splitlines()[-1:]
                    server = self.room.said("server").splitlines()[-1:]
                    raise Failed(f"{name} is not back: {said} {server}")
                time.sleep(0.02)
        return time.monotonic() - began

    def unreadable(self) -> list[str]:
        """The files of state that make no sense."""
        wrong = []
        for path in self.room.directory.glob("*-state/**/*.json"):
            try:
                json.loads(path.read_bytes() or b"{}")
            except ValueError as error:
                wrong.append(f"{path.name}: {error}")
        if TokenList.parse(self.tokens.read_bytes()).problemCount:
            wrong.append("tokens")
        return wrong


def _token(path: Path, *words: str) -> str:
    """Run C{tristunnel token}."""
    command = [sys.executable, "-m", "tristunnel.cli", "token", *words]
    done = subprocess.run(
        [*command, "--file", str(path)], capture_output=True, text=True, check=True
    )
    return done.stdout


def prove(options: Options) -> Iterator[Row]:
    """Kill them."""
    chance = random.Random(options.seed)
    moments = int(options.number("moments", 100, 6))
    tally = Counters()
    service = Service(tally, _RATE)
    with Room(options.directory / "kills") as room:
        house = _House(options, room, service.port)
        house.untilBack(list(house.ports))
        visitors = Visitors(
            list(house.ports.values()), tally, 12, _MOST, _RATE, seed=options.seed
        )
        victims = ["server"] * (moments // 2)
        victims += [chance.choice(list(house.ports)) for _ in range(moments // 2)]
        chance.shuffle(victims)
        times: dict[str, list[float]] = {"server": [], "client": []}
        lost: list[str] = []
        wrong: list[str] = []
        for number, victim in enumerate(victims):
            time.sleep(chance.uniform(0.05, 0.8))
            house.kill(victim)
            kind = "server" if victim == "server" else "client"
            names = list(house.ports) if kind == "server" else [victim]
            try:
                times[kind].append(house.untilBack(names))
            except Failed as error:
                lost.append(f"kill {number} of the {victim}: {error}")
                if len(lost) > 3:
                    break
            wrong += house.unreadable()
        visitors.stop()
        whole, failed, refused, _ = tally.reset()
        for kind, each in times.items():
            every = victims.count("server") if kind == "server" else moments // 2
            spread = sorted(each) or [0.0]
            yield Row(
                f"{every} kills of a {kind}: tunnels are back at their ports",
                f"{len(each)} of {every}, in {spread[len(spread) // 2]:.1f} s"
                f" (median), {spread[-1]:.1f} s at the most",
                len(each) == every,
            )
        for line in lost:
            yield Row("not back", line, False)
        yield Row(
            "transfers under way when somebody is killed",
            f"{whole} whole, {failed} broken visibly, {refused} refused,"
            f" {len(tally.truncated)} cut short without a sign",
            not tally.truncated and bool(whole) and bool(failed),
        )
        for line in tally.truncated[:5]:
            yield Row("cut short", line, False)
        yield Row(
            "what is in the state directories and the token file",
            f"{len(wrong)} files make no sense {wrong[:3] or ''}".strip(),
            not wrong,
        )
        yield from _killToken(options, chance, house)
    service.close()


def _killToken(options: Options, chance: random.Random, house: _House) -> Iterator[Row]:
    """Kill C{tristunnel token create} at any moment."""
    tries = int(options.number("tokens", 40, 5))
    began = time.monotonic()
    _token(house.tokens, "create", "--name", "timed")
    took = time.monotonic() - began
    known, made, problems = {"all", "timed"}, 0, 0
    for number in range(tries):
        name = f"t{number}"
        words = ["token", "create", "--name", name, "--file", str(house.tokens)]
        child = subprocess.Popen(
            [sys.executable, "-m", "tristunnel.cli", *words], stdout=subprocess.DEVNULL
        )
        # Python alone takes most of that to start.
        time.sleep(chance.uniform(0.6, 1.2) * took)
        child.kill()
        child.wait()
        tokens = TokenList.parse(house.tokens.read_bytes())
        problems += tokens.problemCount or not known <= set(tokens.byName)
        made += name in tokens.byName
        known = set(tokens.byName)
    yield Row(
        f"{tries} kills of tristunnel token create",
        f"{made} tokens made; {problems} times the file had lost any, or half of one",
        not problems,
    )
