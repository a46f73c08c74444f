"""
Three servers in networks of their own, and one whose cable is cut: nothing is reset,
and whatever is sent there vanishes.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

import tristunnel
from tests.cluster import load
from tests.support.processes import Program
from tristunnel.tls.certificates import fingerprintOfFile, selfSigned

_IP = shutil.which("ip") or ""
_ROOT = str(Path(tristunnel.__file__).parent.parent)
_TWISTD = "from twisted.scripts.twistd import run; run()"
_ECHO = """
import socketserver
class Echo(socketserver.BaseRequestHandler):
    def handle(self):
        while data := self.request.recv(65536):
            self.request.sendall(data)
class Server(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128
with Server(("127.0.0.1", 80), Echo) as server:
    print("echo is ready", flush=True)
    server.serve_forever()
"""

PORT = 30_000

if not os.environ.get("TRISTUNNEL_LONG"):
    skip = "set TRISTUNNEL_LONG=1 to cut a machine of a cluster off"
elif os.geteuid() or not _IP:
    skip = "network namespaces need root and iproute2's ip"


def ip(*words: str) -> None:
    subprocess.run([_IP, *words], check=True, timeout=10)


class LostTests(TestCase):
    """Machines 1 to 3, and C{c}, which has the engine, the client and the visitors."""

    timeout = 180

    def setUp(self) -> None:
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)
        self.names = {name: f"tt{os.getpid()}{name}" for name in "123cs"}
        for space in self.names.values():
            ip("netns", "add", space)
            self.addCleanup(ip, "netns", "delete", space)
            ip("-n", space, "link", "set", "lo", "up")
        switch = self.names["s"]
        ip("-n", switch, "link", "add", "br0", "type", "bridge")
        ip("-n", switch, "link", "set", "br0", "up")
        for number, name in enumerate("123c", 1):
            space, port = self.names[name], f"port{name}"
            ip(
                *("-n", switch, "link", "add", port, "type", "veth"),
                *("peer", "name", "net0", "netns", space),
            )
            ip("-n", switch, "link", "set", port, "master", "br0")
            ip("-n", switch, "link", "set", port, "up")
            ip("-n", space, "address", "add", f"10.214.7.{number}/24", "dev", "net0")
            ip("-n", space, "link", "set", "net0", "up")

    def run_(self, where: str, name: str, *command: str) -> Program:
        program = Program(name)
        reactor.spawnProcess(
            program,
            _IP,
            [_IP, "netns", "exec", self.names[where], *command],
            env={**os.environ, "PYTHONPATH": _ROOT},
            path=str(self.directory),
        )
        self.addCleanup(program.kill)
        return program

    def twistd(self, where: str, command: str, *options: str) -> Program:
        return self.run_(
            where,
            f"{command} in {where}",
            *(sys.executable, "-c", _TWISTD, "-n", "--pidfile=", command, *options),
            *("--state-dir", str(self.directory / where)),
        )

    async def begin(self, port: str, connect: str, *options: str) -> Program:
        """Start all, and visit."""
        self.run_(
            "c",
            "redis",
            *("redis-server", "--bind", "10.214.7.4", "--protected-mode", "no"),
            *("--save", "", "--appendonly", "no"),
        )
        (self.directory / "member").write_text("a secret of the cluster")
        servers = [
            self.twistd(
                str(number),
                "tunnel",
                *("--port", port, "--port", "tcp:9080", "--hostname", "t.example"),
                *("--cluster", "redis://10.214.7.4/0"),
                *("--cluster-listen", f"tcp:10.214.7.{number}:9001"),
                *("--cluster-token-file", "member"),
            )
            for number in (1, 2, 3)
        ]
        for each in servers:
            await each.says("Listening for clients on")
        await self.run_("c", "echo", sys.executable, "-c", _ECHO).says("echo is ready")
        await deferLater(reactor, 4.5)
        self.client = self.twistd(
            "c",
            "tunnel-client",
            *("--connect", connect, "--forward", f"{PORT}=127.0.0.1:80", *options),
        )
        await self.client.says("Visitors of")
        if "--standby" in options:
            await self.client.says("stands by")
        # At the machines that are left: a balancer has found out about the other one.
        visiting = self.run_(
            *("c", "load", sys.executable, load.__file__, str(PORT)),
            *("10.214.7.2:9080", "10.214.7.3:9080"),
        )
        await visiting.says(r"healthy \S+ \S+")
        await deferLater(reactor, 2.0)
        return visiting

    async def lose(self, visiting: Program, seconds: float) -> dict[str, Any]:
        """Cut machine 1 off, and say how visits were after that."""
        since = len(self.client.lines)
        began = time.monotonic()
        ip("-n", self.names["s"], "link", "set", "port1", "down")
        await self.client.says("takes over|Connected to", since)
        print(f"another machine has it after {time.monotonic() - began:.2f} s")
        await deferLater(reactor, seconds)
        visiting.order("end")
        said = await visiting.says(r"load (\{.*\})")
        print(said[1])
        found: dict[str, Any] = json.loads(said[1])
        return found

    async def test_standby(self) -> None:
        """
        Visitors are through again within eight seconds, and those who come meanwhile
        wait: nobody is refused.
        """
        visiting = await self.begin("tcp:9000", "tcp:10.214.7.1:9000", "--standby", "1")
        found = await self.lose(visiting, 10.0)
        self.assertLess(found["longest"], 8.0)
        self.assertEqual(found["refused"], [])

    async def test_pinned(self) -> None:
        """The same over TLS: the pin and the name hold at each member's address."""
        path = selfSigned(self.directory, ["t.example"])
        visiting = await self.begin(
            f"ssl:9000:privateKey={path}:certKey={path}",
            "tls:10.214.7.1:9000",
            *("--pin", fingerprintOfFile(path), "--standby", "1"),
        )
        found = await self.lose(visiting, 10.0)
        self.assertLess(found["longest"], 8.0)
        self.assertEqual(found["refused"], [])
