"""
Two servers and a client in three networks, and a cable that is cut.

It takes more than a minute and root, and runs if C{TRISTUNNEL_LONG} is set;
C{TRISTUNNEL_CUT} is for how many seconds the cable is cut, 60 if unset.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.defer import gatherResults
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from tests.support.networks import ECHO, IP, ROOT, ip, whyNoNetworks
from tests.support.processes import TWISTD, Program
from tristunnel.cli.call import ask, parseCommand

_CUT = float(os.environ.get("TRISTUNNEL_CUT", "60"))
_MUCH = 1 << 25
"""As many bytes prove a stream busy, so that it moves to a connection of its own."""

_VISITOR = """
import socket, sys, threading
held = {}
much = bytes(int(sys.argv[1]))
def talk(skt, said):
    skt.settimeout(20)
    threading.Thread(target=skt.sendall, args=(said,), daemon=True).start()
    left = len(said)
    while left:
        piece = skt.recv(min(left, 65536))
        if not piece: raise OSError("closed")
        left -= len(piece)
def wait(port, skt):
    try:
        skt.settimeout(None)
        while skt.recv(1): pass
    except OSError: pass
    print("gone", port, flush=True)
for line in sys.stdin:
    word, port = line.split()
    try:
        skt = held.pop(port, None) if word in ("again", "leave") else None
        skt = skt or socket.create_connection(("127.0.0.1", int(port)), 5)
        talk(skt, much if word == "hold" else b"hello")
        print("answered", port, flush=True)
    except OSError as error:
        print("refused", port, error, flush=True)
        continue
    if word in ("hold", "again"):
        held[port] = skt
    elif word == "watch":
        held[port] = skt
        threading.Thread(target=wait, args=(port, skt), daemon=True).start()
    else:
        skt.shutdown(socket.SHUT_WR)
        skt.settimeout(5)
        while skt.recv(1): pass
        skt.close()
"""

if not os.environ.get("TRISTUNNEL_LONG"):
    skip = "set TRISTUNNEL_LONG=1 to cut a cable between servers for a minute"
elif whyNoNetworks():
    skip = whyNoNetworks()


class NamespaceTests(TestCase):
    """Servers A and B share one cable, A and the client another."""

    timeout = 240 + 2 * _CUT

    def setUp(self) -> None:
        self.reactor: Any = _reactor
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        # A UNIX socket's path is short.
        self.sockets = Path(tempfile.mkdtemp(prefix="tt"))
        self.addCleanup(shutil.rmtree, self.sockets)
        self.names = {name: f"tt{os.getpid()}{name}" for name in "abc"}
        for space in self.names.values():
            ip("netns", "add", space)
            self.addCleanup(ip, "netns", "delete", space)
            ip("-n", space, "link", "set", "lo", "up")
        self.lay("a", "b", "10.213.1")
        self.lay("a", "c", "10.213.2")

    def lay(self, one: str, other: str, network: str) -> None:
        left, right = f"v{one}{other}", f"v{other}{one}"
        here, there = self.names[one], self.names[other]
        ip(
            *("-n", here, "link", "add", left, "type", "veth"),
            *("peer", "name", right, "netns", there),
        )
        for space, end, number in ((here, left, 1), (there, right, 2)):
            ip("-n", space, "address", "add", f"{network}.{number}/24", "dev", end)
            ip("-n", space, "link", "set", end, "up")

    def run_(self, where: str, name: str, *arguments: str) -> Program:
        program = Program(name)
        self.reactor.spawnProcess(
            program,
            IP,
            [IP, "netns", "exec", self.names[where], sys.executable, *arguments],
            env={**os.environ, "PYTHONPATH": ROOT},
            path=str(self.directory),
        )
        self.addCleanup(program.kill)
        return program

    def twistd(self, where: str, command: str, *options: str) -> Program:
        state = str(self.directory / f"{command}-{where}")
        return self.run_(
            where,
            f"{command} in {where}",
            *("-c", TWISTD, "-n", "--pidfile=", command),
            *(*options, "--state-dir", state),
        )

    async def status(self, where: str) -> dict[str, dict[str, Any]]:
        request = parseCommand([f"unix:{self.sockets}/{where}", "listNodeTunnels"], {})
        told: Any = await ask(self.reactor, request)
        return {entry["name"]: entry for entry in told}

    async def settled(self, where: str, name: str, **wanted: Any) -> dict[str, Any]:
        while True:
            entry = (await self.status(where))[name]
            if wanted.items() <= entry.items():
                return entry
            await deferLater(self.reactor, 0.1)

    async def test_cut(self) -> None:
        """While the cable is cut, both tunnels say so; when it is mended, they are as
        before. Visitors within the session are gone, and one that has a connection of
        its own goes on. The client at A notices nothing."""
        echo = self.run_("c", "echo", "-u", "-c", ECHO)
        await echo.says("echo is ready")
        a = self.twistd(
            *("a", "tunnel", "--port", "tcp:9000", "--rpc", f"unix:{self.sockets}/a"),
            *("--node", "push=tcp:10.213.1.2:9000,forward=8080=127.0.0.1:7000"),
        )
        b = self.twistd(
            *("b", "tunnel", "--port", "tcp:9000", "--rpc", f"unix:{self.sockets}/b"),
            *("--node", "pull=tcp:10.213.1.1:9000,listen=tcp:8081,service=web"),
        )
        client = self.twistd(
            *("c", "tunnel-client", "--connect", "tcp:10.213.2.1:9000"),
            *("--forward", "web=127.0.0.1:80", "--forward", "7000=127.0.0.1:80"),
        )
        await client.says("Visitors of .*7000")
        await gatherResults(
            [
                a.says("Node tunnel push .* is connected"),
                b.says("Node tunnel pull .* is connected"),
            ]
        )
        visitor = self.run_("b", "visitor", "-u", "-c", _VISITOR, str(_MUCH))
        for order in ("visit 8080", "visit 8081", "hold 8080", "watch 8081"):
            since = len(visitor.lines)
            visitor.order(order)
            await visitor.says(f"answered {order[-4:]}", since)
        before = {"visitors": 1, "visitorsTotal": 2, "bytesIn": 5, "bytesOut": 5}
        for where, name in (("a", "push"), ("b", "pull")):
            entry = await self.settled(where, name, connects=1, **before)
            self.assertEqual((entry["state"], entry["reason"]), ("connected", ""))

        marks = {program: len(program.lines) for program in (a, b, client)}
        cut = time.monotonic()
        ip("-n", self.names["a"], "link", "set", "vab", "down")
        await gatherResults(
            [
                a.says("Node tunnel push .* is reconnecting", marks[a]),
                b.says("Node tunnel pull .* is reconnecting", marks[b]),
                visitor.says("gone 8081"),
            ]
        )
        print(f"noticed after {time.monotonic() - cut:.1f} s")
        after = {**before, "visitors": 0, "bytesIn": 10, "bytesOut": 10}
        for where, name, counts in (("a", "push", before), ("b", "pull", after)):
            entry = await self.settled(where, name, connects=1, **counts)
            self.assertEqual(entry["state"], "reconnecting")
            self.assertNotEqual(entry["reason"], "")
        since = len(visitor.lines)
        visitor.order("visit 8080")
        await visitor.says("refused 8080", since)
        await deferLater(self.reactor, max(0.0, _CUT - (time.monotonic() - cut)))

        marks.update({a: len(a.lines), b: len(b.lines)})
        mended = time.monotonic()
        ip("-n", self.names["a"], "link", "set", "vab", "up")
        await gatherResults(
            [
                a.says("Node tunnel push .* is connected", marks[a]),
                b.says("Node tunnel pull .* is connected", marks[b]),
            ]
        )
        print(f"back {time.monotonic() - mended:.1f} s after it was mended")
        for order in ("visit 8080", "visit 8081", "again 8080", "leave 8080"):
            since = len(visitor.lines)
            visitor.order(order)
            await visitor.says(f"answered {order[-4:]}", since)
        for where, name, total in (("a", "push", _MUCH + 20), ("b", "pull", 15)):
            last = {"visitors": 0, "bytesIn": total, "bytesOut": total}
            entry = await self.settled(where, name, connects=2, visitorsTotal=3, **last)
            self.assertEqual((entry["state"], entry["reason"]), ("connected", ""))
        news = "\n".join(client.lines[marks[client] :])
        self.assertNotIn("Not connected", news)
