"""
The time of day stepped by a day, forward and back, at the server, at the
clients and at both, while bytes pass.

The programs run with libfaketime (Debian: C{apt install libfaketime}), which
changes the time of day alone, as C{date --set} does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.faults.programs import QUICK, Programs, Server
from benchmarks.faults.proof import Options, Row
from benchmarks.faults.traffic import Counters, Service, Visitors, download
from benchmarks.processes import Room, freePort

__all__ = ["prove"]

_LIBRARIES = (
    "/usr/lib/x86_64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib/aarch64-linux-gnu/faketime/libfaketime.so.1",
    "/usr/lib64/faketime/libfaketime.so.1",
    "/usr/lib/faketime/libfaketime.so.1",
)

_CONSTANTS = {
    **QUICK,
    "tristunnel.dialects.zlayer.life": {"HEARTBEAT": 1.0, "SILENCE": 3.0},
}

_BROKEN = ("Not connected", "session-lost", "[internal]", "Traceback", "Trying again")

_LONG_RATE = 64e3


class _Clock:
    """
    The time of day of some programs.

    @param path: The file that says how far it is off.
    """

    def __init__(self, path: Path, library: str) -> None:
        self._path = path
        self._library = library
        self.step("+0")

    def step(self, offset: str) -> None:
        """Step it: C{+1d}, C{-1d} or C{+0} off the true time."""
        new = self._path.with_suffix(".new")
        new.write_text(offset)
        os.replace(new, self._path)

    @contextmanager
    def governs(self) -> Iterator[None]:
        """Have the programs that are started meanwhile go by it."""
        changed = {
            "LD_PRELOAD": self._library,
            "FAKETIME_TIMESTAMP_FILE": str(self._path),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "DONT_FAKE_MONOTONIC": "1",
        }
        os.environ.update(changed)
        try:
            yield
        finally:
            for name in changed:
                del os.environ[name]


def prove(options: Options) -> Iterator[Row]:
    """Step clocks."""
    library = next((path for path in _LIBRARIES if Path(path).exists()), "")
    if not library:
        yield Row("the time of day stepped", "there is no libfaketime here")
        return
    directory = options.directory / "clocks"
    with Room(directory) as room:
        here = _Clock(directory / "server.time", library)
        there = _Clock(directory / "client.time", library)
        yield from _streams(options, room, here, there)
        here.step("+0")
        yield from _tokens(room, here)


def _streams(
    options: Options, room: Room, here: _Clock, there: _Clock
) -> Iterator[Row]:
    """Sessions and streams do not notice."""
    wait = options.number("wait", 8.0, 4.0)
    tally, long = Counters(), Counters()
    service, slow = Service(tally), Service(long, _LONG_RATE)
    programs = Programs(room, _CONSTANTS)
    with here.governs():
        server = Server(
            programs, "server", ["tcp:0:interface=127.0.0.1"], "--ports=1024-65535"
        )
    port = server.ports[0]
    plain, web = f"tcp:127.0.0.1:{port}", f"ws://127.0.0.1:{port}/tunnel"
    ways = {
        "direct": [f"--connect={plain}"],
        "session": [f"--connect={plain}", "--carrier=session"],
        "websocket": [f"--connect={web}"],
    }
    ports, slowPorts = list[int](), list[int]()
    with there.governs():
        for target, found in ((service, ports), (slow, slowPorts)):
            kind = "fast" if target is service else "slow"
            for name, words in ways.items():
                _, address = programs.client(
                    f"{name}-{kind}", *words, f"--forward=0=127.0.0.1:{target.port}"
                )
                found.append(int(address.rpartition(":")[2]))
            # Nobody tells zlayer's clients which port they got.
            number = freePort()
            programs.start(
                f"zlayer-{kind}",
                "tunnel-client",
                "--dialect=zlayer",
                f"--connect={web}",
                f"--token-file={_any(room, kind)}",
                f"--forward={number}=127.0.0.1:{target.port}",
            )
            room.waitForPort(number)
            found.append(number)
    steps = [(here, "+1d"), (here, "-1d"), (there, "+1d"), (there, "-1d")]
    steps += [(here, "+0"), (there, "+0")]
    size = int(_LONG_RATE * (wait * (len(steps) + 1)))
    talks = [
        threading.Thread(target=download, args=(each, size, long, 60.0))
        for each in slowPorts
    ]
    for talk in talks:
        talk.start()
    visitors = Visitors(ports, tally, 4, 200_000, seed=options.seed)
    uri = server.call("openTunnel", ttl=2.5 * wait)
    opened = time.monotonic()
    seen: list[bool] = []
    for clock, offset in steps:
        clock.step(offset)
        time.sleep(wait)
        listed = [tunnel["uri"] for tunnel in server.call("listTunnels")]
        age = (time.monotonic() - opened) / wait
        if abs(age - 2.5) > 0.3:
            seen.append((uri in listed) == (age < 2.5))
    for talk in talks:
        talk.join()
    visitors.stop()
    whole, failed, refused, _ = tally.reset()
    yield Row(
        f"{len(steps)} steps of a day, {wait:g} s apart: short transfers",
        f"{whole} whole, {failed} broken, {refused} refused,"
        f" {len(tally.truncated)} cut short",
        bool(whole) and not (failed or refused or tally.truncated),
    )
    whole, failed, refused, _ = long.reset()
    yield Row(
        "streams that last through all steps",
        f"{whole} whole of {len(talks)} ({', '.join(ways)}, zlayer)",
        whole == len(talks) and not long.truncated,
    )
    said = [
        f"{path.stem}: {line}"
        for path in room.directory.glob("*.log")
        for line in path.read_text(errors="replace").splitlines()
        if any(word in line for word in _BROKEN)
    ]
    yield Row(
        "sessions: framed, over WebSocket, and zlayer's with its heartbeats",
        f"{len(said)} lines of trouble in the logs {said[:2] or ''}".strip(),
        not said,
    )
    yield Row(
        "a tunnel with ttl",
        f"was there for its {2.5 * wait:g} s and no longer: {seen}",
        all(seen) and len(seen) >= 3,
    )
    service.close()
    slow.close()


def _any(room: Room, name: str) -> str:
    """A file with a token, for a server that asks for none in particular."""
    path = Path(room.write(f"token-{name}", f"{name}-token"))
    path.chmod(0o600)
    return str(path)


def _create(path: Path, *words: str) -> str:
    """Make a token."""
    command = [sys.executable, "-m", "tristunnel.cli", "token", "create"]
    done = subprocess.run(
        [*command, *words, "--file", str(path)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.split()[-1]


def _tokens(room: Room, here: _Clock) -> Iterator[Row]:
    """What expires goes by the time of day, as whoever wrote it meant."""
    tokens = room.directory / "tokens"
    token = _create(tokens, "--name", "hour", "--expires", "1h")
    programs = Programs(room, QUICK)
    with here.governs():
        server = Server(
            programs,
            "tokens-server",
            ["tcp:0:interface=127.0.0.1"],
            f"--auth=tokens:{tokens}",
        )
    path = Path(room.write("token", token))
    path.chmod(0o600)
    programs.client(
        "hour",
        f"--connect=tcp:127.0.0.1:{server.ports[0]}",
        f"--token-file={path}",
        "--forward=0=127.0.0.1:9",
    )
    before = _ask(server.ports[0], token)
    here.step("+1d")
    line = room.waitForText("hour", "[token-expired]", 10)
    after = _ask(server.ports[0], token)
    here.step("-1d")
    back = _ask(server.ports[0], token)
    yield Row(
        "a token for an hour, a day later and a day earlier",
        f"answers {before}, {after} and {back}; its session ended: "
        f"{'token-expired' in line}",
        (before, after, back) == (200, 403, 200),
    )


def _ask(port: int, token: str) -> int:
    """
    Call the server as a token's holder.

    @return: The HTTP status.
    """
    body = {"jsonrpc": "2.0", "id": 1, "method": "listTunnels", "params": {}}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/rpc",
        json.dumps(body).encode(),
        {"Content-Type": "application/json", "Authorization": f"Bearer {token}"},
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
