"""
Real programs at both ends: a gigabyte, ten thousand requests, WebSockets, shared names.

What was measured is printed, for whoever runs this by hand.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
import time
from http.client import HTTPConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

from twisted.internet import reactor as _reactor
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from tests.support.processes import Program, startTristunnel
from tests.support.short import shortDirectory
from tristunnel.cli.call import CallRequest, ask, parseTarget
from tristunnel.cli.question import liveSockets
from tristunnel.client.control import clientSockets

reactor: Any = _reactor

if not os.environ.get("TRISTUNNEL_LONG"):
    skip = "set TRISTUNNEL_LONG=1 to look at a gigabyte, and at ten thousand requests"

_BLOCK = bytes(range(256)) * 4096
_MANY = 10_000


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    wbufsize = -1

    def log_message(self, *arguments: Any) -> None:
        pass

    def do_GET(self) -> None:
        blocks = 1024 if self.path == "/big" else 0
        body = b"" if blocks else b"x" * 1000
        self.send_response(200)
        self.send_header("Content-Length", str(blocks * len(_BLOCK) + len(body)))
        self.end_headers()
        self.wfile.write(body)
        with contextlib.suppress(OSError):
            for _ in range(blocks):
                self.wfile.write(_BLOCK)

    def do_POST(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(data), data))


def _cpu(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def _resident(pid: int) -> int:
    found = re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{pid}/status").read_text("ascii"))
    assert found is not None
    return int(found[1]) * 1024


def _get(port: int, path: str, host: str = "h") -> int:
    """
    @return: How many bytes came, all of which were right.
    """
    connection = HTTPConnection("127.0.0.1", port, timeout=120)
    connection.request("GET", path, headers={"Host": host})
    answer = connection.getresponse()
    size = 0
    while data := answer.read(len(_BLOCK)):
        assert path != "/big" or data == _BLOCK
        size += len(data)
    connection.close()
    return size


def _ask(port: int, times: int) -> None:
    connection = HTTPConnection("127.0.0.1", port, timeout=60)
    for number in range(times):
        connection.request("POST", f"/{number}", b"y" * 3000, {"Host": "h"})
        assert connection.getresponse().read() == b"y" * 3000
    connection.close()


class LongTests(TestCase):
    """A server, a client that keeps requests, and one that does not."""

    timeout = 300

    async def setUp(self) -> None:  # type: ignore[override] # trial waits for it
        site = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
        self.addCleanup(site.server_close)
        self.addCleanup(site.shutdown)
        Thread(target=site.serve_forever, daemon=True).start()
        self.service = f"127.0.0.1:{site.server_port}"
        self.directory = Path(shortDirectory(self))
        self.server = self._start(
            "tunnel",
            *("--port", "tcp:0:interface=127.0.0.1", "--interface", "127.0.0.1"),
            *("--http", "tcp:0:interface=127.0.0.1", "--domain", "t.example.com"),
        )
        found = await self.server.says(r"Listening for clients on \S+:(\d+)")
        self.to = f"tcp:127.0.0.1:{found[1]}"
        found = await self.server.says(r"visitors of names on \S+:(\d+)")
        self.names = int(found[1])

    def _start(self, command: str, *options: str, state: str = "") -> Program:
        directory = self.directory / (state or command)
        words = [*options, "--state-dir", str(directory)]
        program = startTristunnel(reactor, command, words, self.directory)
        self.addCleanup(program.stop)
        return program

    async def _client(
        self, state: str, *options: str, forward: str = ""
    ) -> tuple[Program, str]:
        client = self._start(
            "tunnel-client",
            *("--connect", self.to, "--forward", forward or f"0={self.service}"),
            *options,
            state=state,
        )
        found = await client.says(r"^(\w+://\S+)$")
        return client, found[1]

    async def _call(self, state: str, method: str, **params: object) -> Any:
        (path,) = liveSockets(clientSockets(self.directory / state))
        target = parseTarget(f"unix:{path}")
        return await ask(reactor, CallRequest(target, method, params))

    def _say(self, text: str) -> None:
        print(f"\n    {text}", file=sys.__stdout__, flush=True)

    async def test_gigabyte(self) -> None:
        """A gigabyte passes untouched, and as fast as without anybody looking."""
        ways: dict[str, tuple[int, int]] = {}
        for state, options in (("plain", ()), ("looks", ("--inspect=localhost:0",))):
            client, address = await self._client(state, *options)
            assert client.transport is not None
            pid: Any = client.transport.pid
            ways[state] = pid, int(address.rpartition(":")[2])
        best: dict[str, list[float]] = {state: [] for state in ways}
        spent: dict[str, list[float]] = {state: [] for state in ways}
        for _ in range(4):
            for state, (pid, port) in ways.items():
                began, before = time.monotonic(), _cpu(pid)
                size = await deferToThread(_get, port, "/big")
                self.assertEqual(size, 1 << 30)
                best[state].append(time.monotonic() - began)
                spent[state].append(_cpu(pid) - before)
        for state in ways:
            self._say(
                f"{state}: best of 4 {min(best[state]):.2f} s, client"
                f" {min(spent[state]):.2f} CPU s for a GiB"
            )
        (one, *_) = (await self._call("looks", "listRequests"))["requests"]
        self.assertEqual((one["responseSize"], one["problem"]), (1 << 30, ""))
        self.assertLess(min(best["looks"]), 1.5 * min(best["plain"]))
        self.assertLess(min(spent["looks"]), 1.5 * min(spent["plain"]) + 0.05)

    async def test_many(self) -> None:
        """Ten thousand requests take no more memory than two thousand."""
        client, address = await self._client(
            "many", "--inspect=localhost:0", "--inspect-memory", "2MiB"
        )
        assert client.transport is not None
        pid: Any = client.transport.pid
        port = int(address.rpartition(":")[2])
        await deferToThread(_ask, port, 2000)
        before = _resident(pid)
        await deferToThread(_ask, port, _MANY - 2000)
        after = _resident(pid)
        found = await self._call("many", "listRequests")
        self._say(
            f"{before >> 10} KiB after 2,000, {after >> 10} KiB after {_MANY:,};"
            f" {len(found['ids'])} are kept"
        )
        self.assertEqual(found["ids"][-1], _MANY)
        self.assertLessEqual(len(found["ids"]), 500)
        self.assertLess(after - before, 3 << 20)

    async def test_names(self) -> None:
        """Requests for a name, from two clients that share it, are at both of them."""
        for state in ("first", "second"):
            await self._client(
                *(state, "--inspect=localhost:0"),
                forward=f"http/blog={self.service},share=round-robin",
            )
        for _ in range(4):
            self.assertEqual(
                await deferToThread(_get, self.names, "/x", "blog.t.example.com"), 1000
            )
        kept = [
            await self._call(state, "listRequests") for state in ("first", "second")
        ]
        self.assertEqual([len(each["ids"]) for each in kept], [2, 2])
        self.assertEqual(kept[0]["requests"][0]["host"], "blog.t.example.com")

    async def test_canceled(self) -> None:
        """A visitor who leaves in the midst of an answer is said to have left."""
        _, address = await self._client("gone", "--inspect=localhost:0")
        port = int(address.rpartition(":")[2])

        def leave() -> None:
            connection = HTTPConnection("127.0.0.1", port, timeout=60)
            connection.request("GET", "/big", headers={"Host": "h"})
            connection.getresponse().read(100_000)
            connection.close()

        await deferToThread(leave)
        while True:
            (one,) = (await self._call("gone", "listRequests"))["requests"]
            if one["over"]:
                break
        self.assertNotEqual(one["problem"], "")
        self.assertLess(one["responseSize"], 1 << 30)

    async def test_webSocket(self) -> None:
        """Messages of real programs are seen, compressed ones too."""
        from websockets.sync.client import connect
        from websockets.sync.server import serve

        def answer(connection: Any) -> None:
            for message in connection:
                connection.send(message * 2)

        server = serve(answer, "127.0.0.1", 0)
        self.addCleanup(server.shutdown)
        Thread(target=server.serve_forever, daemon=True).start()
        port = server.socket.getsockname()[1]
        _, address = await self._client(
            "socket", "--inspect=localhost:0", forward=f"0=127.0.0.1:{port}"
        )
        where = f"ws://{address.rpartition('/')[2]}/chat"

        def chat(compression: str | None) -> None:
            with connect(where, compression=compression) as connection:
                for text in ("hello", "hello", '{"a":1}'):
                    connection.send(text)
                    assert connection.recv() == text * 2
                connection.send(b"\x00\xff")
                assert connection.recv() == b"\x00\xff" * 2

        for compression in (None, "deflate"):
            await deferToThread(chat, compression)
        for id in (1, 2):
            one = await self._call("socket", "getRequest", id=id)
            told = [
                (each["fromVisitor"], each["text"], each["note"])
                for each in one["frames"]
                if each["opcode"] == "text"
            ]
            self.assertEqual(told[:2], [(True, "hello", ""), (False, "hellohello", "")])
            self.assertEqual([note for _, _, note in told], [""] * 6)
        self.assertIn("permessage-deflate", json.dumps(one["response"]["headers"]))
