"""
The tunnel service as people use it: our programs under C{twistd}, and curl,
nc, socat, C{xmlrpc.client} and C{jsonrpclib} against them.
"""

from __future__ import annotations

import base64
import json
import os
import re
import shutil
import signal
import sys
import xmlrpc.client
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest, TestCase
from twisted.web.server import Site
from twisted.web.static import Data

from tests.support.listening import listenHere
from tests.support.loopback import Talk
from tests.support.polling import until
from tests.support.processes import Program, runProgram, startTristunnel
from tests.support.short import shortDirectory

try:
    import jsonrpclib
except ImportError:
    jsonrpclib = None

PAGE = b"<h1>Hello from behind the tunnel</h1>\n" * 5000


class _Run(NamedTuple):
    """What came of a program."""

    out: bytes
    err: bytes
    status: int


class ProgramsTestCase(TestCase):
    """A test with our server as a program."""

    timeout = 60

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = Path(self.mktemp()).absolute()
        self.directory.mkdir(parents=True)

    async def server(self, *options: str) -> Program:
        """Start a server, whose first port for clients is C{self.port}."""
        place = ["--interface", "127.0.0.1", "--state-dir", str(self.directory)]
        if "--port" not in options:
            place += ["--port", "tcp:0:interface=127.0.0.1"]
        program = startTristunnel(
            self.reactor, "tunnel", [*place, *options], self.directory
        )
        self.addCleanup(program.kill)
        ready = await program.says(r"for clients on 127\.0\.0\.1:(\d+) \((?!unix)")
        self.port = int(ready[1])
        return program

    async def run_(
        self,
        *words: str,
        environment: Mapping[str, str] | None = None,
    ) -> _Run:
        """Run a program to its end."""
        path = shutil.which(words[0])
        if path is None:
            raise SkipTest(f"{words[0]} is not installed")
        return _Run(
            *await runProgram([path, *words[1:]], environment, str(self.directory))
        )

    async def shell(self, line: str) -> str:
        """
        Run a line of the README, with this test's port in place of 9000 and
        this machine's name in place of the example's.
        """
        line = line.replace("server:9000", f"localhost:{self.port}")
        if shutil.which(line.split()[0]) is None:
            raise SkipTest(f"{line.split()[0]} is not installed")
        run = await self.run_("sh", "-c", line)
        self.assertEqual(run.status, 0, run.err)
        return run.out.decode()

    async def dial(self, port: int) -> Talk:
        where = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port)
        talk: Talk = await connectProtocol(where, Talk())
        return talk

    async def call(self, method: str, *args: object, user: str = "", **by: Any) -> Any:
        """
        Call a method, without a program in between.

        @param user: The name and the secret, with a colon between.
        @return: The result, or the code of the error.
        """
        call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": args or by}
        body = json.dumps(call)
        talk = await self.dial(self.port)
        login = base64.b64encode(user.encode()).decode()
        talk.say(
            "\r\n".join(
                [
                    "POST /rpc HTTP/1.1",
                    f"Host: localhost:{self.port}",
                    "Connection: close",
                    "Content-Type: application/json",
                    f"Content-Length: {len(body)}",
                    *([f"Authorization: Basic {login}"] if user else []),
                    "",
                    body,
                ]
            ).encode()
        )
        await talk.ended()
        talk.close()
        answer = json.loads(bytes(talk.data).partition(b"\r\n\r\n")[2])
        if "error" in answer:
            return answer["error"]["data"]["code"]
        return answer["result"]

    async def rpc(self, *words: str, status: int = 0) -> str:
        """Run C{python -m tristunnel.rpc}; what it printed."""
        url = f"http://localhost:{self.port}"
        run = await self.run_(sys.executable, "-m", "tristunnel.rpc", url, *words)
        self.assertEqual(run.status, status, run.err)
        return (run.err if status else run.out).decode().removesuffix("\n")

    async def client(self, uri: str, target: int) -> Program:
        """Start a client that has nothing but the URI."""
        program = startTristunnel(
            self.reactor,
            "tunnel-client",
            ["--to", f"127.0.0.1:{target}", "--state-dir", str(self.directory)],
            self.directory,
            {"TRISTUNNEL_TUNNEL": uri},
        )
        self.addCleanup(program.kill)
        return program

    def web(self) -> int:
        """Run a web server behind no public port; its port."""
        page = Data(PAGE, "text/html")
        page.isLeaf = True
        return listenHere(self, self.reactor, Site(page))

    async def descriptors(self, program: Program) -> Callable[[], int]:
        """
        @return: What counts the sockets of a program.
        """
        transport: Any = program.transport
        place = f"/proc/{transport.pid}/fd"
        if not os.path.isdir(place):
            raise SkipTest("there is no /proc to count descriptors in")

        def count() -> int:
            names = (f"{place}/{name}" for name in os.listdir(place))
            return sum(_isSocket(name) for name in names)

        return count


def _isSocket(path: str) -> bool:
    try:
        return os.readlink(path).startswith("socket:")
    except OSError:
        return False


class ReadmeTests(ProgramsTestCase):
    """What the README and the project's description show."""

    async def test_curl(self) -> None:
        """Two lines of curl, then nc and another connection."""
        await self.server()
        answer = await self.shell(
            "curl -s http://server:9000/rpc"
            """ -d '{"jsonrpc":"2.0","id":1,"method":"openTunnel"}'"""
        )
        found = re.fullmatch(
            r'{"jsonrpc": "2\.0", "id": 1, "result": "(tcp://localhost:(\d+))"}\n',
            answer,
        )
        assert found is not None, answer
        answer = await self.shell(
            "curl -s http://server:9000/rpc -d"
            """ '{"jsonrpc":"2.0","id":2,"method":"getTunnelAddress","""
            f""""params":["{found[1]}"]}}'"""
        )
        visitors = re.fullmatch(
            r'{"jsonrpc": "2\.0", "id": 2, "result": "tcp://localhost:(\d+)"}\n', answer
        )
        assert visitors is not None, answer
        visitor = await self.dial(int(visitors[1]))
        (self.directory / "file").write_bytes(PAGE)
        visitor.say(b"thanks")
        visitor.finish()
        heard = await self.shell(f"nc -N localhost {found[2]} < file")
        self.assertEqual(heard, "thanks")
        await visitor.gone()
        self.assertEqual(bytes(visitor.data), PAGE)
        self.assertEqual(await self.call("listTunnels"), [])

    async def test_socat(self) -> None:
        """A web server is reached with nothing but openTunnel, socat and curl."""
        program = await self.server()
        count = await self.descriptors(program)
        web = self.web()
        before = count()
        uri = await self.call("openTunnel")
        address = await self.call("getTunnelAddress", uri)
        between, (fetched, _) = await _both(
            self.run_("socat", uri.replace("//", "").upper(), f"TCP:127.0.0.1:{web}"),
            self.run_("curl", "-s", "-H", "Connection: close", _http(address)),
        )
        self.assertEqual(fetched, PAGE)
        self.assertEqual(between[1], 0)
        self.assertEqual(await self.call("listTunnels"), [])
        # The last caller's own connection may not have been noticed gone.
        await until(lambda: count() == before)
        self.assertNotEqual((await self.run_("curl", "-s", _http(address))).status, 0)

    async def test_pythons(self) -> None:
        """XML-RPC with C{xmlrpc.client}, JSON-RPC with jsonrpclib."""
        await self.server()

        def byXMLRPC() -> None:
            with xmlrpc.client.ServerProxy(
                f"http://localhost:{self.port}/RPC2", allow_none=True
            ) as proxy:
                uri = proxy.openTunnel()
                self.assertIn("tcp://localhost:", uri)
                self.assertIn("tcp://localhost:", proxy.getTunnelAddress(uri))
                named = proxy.openTunnel({"via": "w3p", "name": "shop", "ttl": 60})
                self.assertIn("w3p://localhost:", named)
                entries: Any = proxy.listTunnels()
                self.assertEqual([e["name"] for e in entries], ["", "shop"])
                for entry in entries:
                    self.assertIs(proxy.closeTunnel(entry["uri"]), None)
                fault = self.assertRaises(xmlrpc.client.Fault, proxy.closeTunnel, uri)
                self.assertEqual(fault.faultCode, -32003)

        def byJSONRPC() -> None:
            proxy = jsonrpclib.ServerProxy(f"http://localhost:{self.port}/rpc")
            uri = proxy.openTunnel(visitors=3)
            self.assertIn("tcp://localhost:", proxy.getTunnelAddress(uri))
            self.assertIs(proxy.closeTunnel(uri), None)
            error = self.assertRaises(
                jsonrpclib.ProtocolError, proxy.getTunnelAddress, uri
            )
            self.assertIn(-32003, error.args[0])
            proxy("close")()

        await deferToThread(byXMLRPC)
        if jsonrpclib is not None:
            await deferToThread(byJSONRPC)

    async def test_command(self) -> None:
        """
        C{python -m tristunnel.rpc} prints results as they are and errors as one
        line.
        """
        await self.server()
        uri = await self.rpc("openTunnel", "via=w3p", "name=shop", "ttl=60")
        self.assertRegex(uri, r"\Aw3p://localhost:\d+/[0-9a-f]{16}#\S{32}\Z")
        listed = json.loads(await self.rpc("listTunnels"))
        self.assertEqual(listed[0]["uri"], uri.partition("#")[0])
        error = await self.rpc("openTunnel", "name=shop", status=1)
        self.assertIn("'shop'", error)
        self.assertNotIn("\n", error)
        self.assertEqual(await self.rpc("closeTunnel", uri), "null")
        self.assertIn("unknown-tunnel", await self.rpc("closeTunnel", uri, status=1))


class CapabilityTests(ProgramsTestCase):
    """A server that asks everybody who they are, and a client that has a URI."""

    async def test_wholeWay(self) -> None:
        """
        Opened with credentials, served without any, reached by anybody; the
        secret is in no log. A client with a wrong one ends and says why; the
        other, which was in, goes on when the tunnel is closed, and says why.
        """
        (self.directory / "clients").write_text("plane:secret words\nlaptop:*\n")
        (self.directory / "clients").chmod(0o600)
        server = await self.server("--auth", f"clients:{self.directory / 'clients'}")
        call = '{"jsonrpc":"2.0","id":1,"method":"openTunnel","params":{"via":"w3p"}}'
        curl = ["curl", "-s", f"http://localhost:{self.port}/rpc", "-d", call]
        refused = await self.run_(*curl, "-w", "%{http_code}")
        self.assertEqual(refused.out[-3:], b"401")
        wrong = await self.run_(*curl, "-w", "%{http_code}", "-u", "plane:wrong")
        self.assertEqual(wrong.out[-3:], b"401")
        basic = await self.run_(*curl, "-u", "plane:secret words")
        uri = json.loads(basic.out)["result"]
        bearer = await self.run_(
            *curl, "-H", "Authorization: Bearer plane:secret words"
        )
        other = json.loads(bearer.out)["result"]
        secret = uri.partition("#")[2]

        user = "plane:secret words"
        address = await self.call("getTunnelAddress", uri, user=user)
        client = await self.client(uri, self.web())
        await client.says(f"Visitors of {address} reach")
        page = await self.run_("curl", "-s", _http(address))
        self.assertEqual(page.out, PAGE)

        liar = await self.client(uri[:-1] + ("x" if uri[-1] != "x" else "y"), 9)
        await liar.whenEnded()
        self.assertEqual(liar.status, 1)
        self.assertTrue(
            any("Giving up: this tunnel does not exist" in s for s in liar.lines)
        )
        self.assertNotIn("Traceback", "".join(liar.lines))

        listed = await self.call("listTunnels", user=user)
        self.assertEqual(len(listed), 2)
        self.assertNotIn("#", json.dumps(listed))
        for each in (uri, other):
            await self.call("closeTunnel", each, user=user)
        await client.says(
            "this tunnel does not exist .*: trying again at the longest interval"
        )
        await client.stop()
        self.assertEqual(client.status, -signal.SIGTERM)
        await server.stop()
        for program in (server, client, liar):
            self.assertNotIn(secret, "\n".join(program.lines))


class ElsewhereTests(ProgramsTestCase):
    """Where RPC is served."""

    LIST = '{"jsonrpc":"2.0","id":1,"method":"openTunnel"}'

    async def status(self, port: int, path: str = "/rpc") -> bytes:
        run = await self.run_(
            "curl",
            *("-s", "-o", "/dev/null", "-w", "%{http_code}", "-d", self.LIST),
            f"http://localhost:{port}{path}",
        )
        return run.out

    async def test_unix(self) -> None:
        """
        C{--rpc unix:} serves it there, and no more on C{--port}, where there
        is still the health page.
        """
        path = shortDirectory(self) / "rpc.sock"
        await self.server("--rpc", f"unix:{path}:mode=600", "--hostname", "127.0.0.1")
        call = ["curl", "-s", "--unix-socket", str(path), "-d", self.LIST]
        answer = await self.run_(*call, "http://localhost/rpc")
        self.assertIn("tcp://127.0.0.1:", json.loads(answer.out)["result"])
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        run = await self.run_(
            sys.executable, "-m", "tristunnel.rpc", f"unix:{path}", "listTunnels"
        )
        self.assertEqual(len(json.loads(run.out)), 1)
        for where in ("/rpc", "/RPC2"):
            self.assertEqual(await self.status(self.port, where), b"404")
        health = await self.run_("curl", "-s", f"http://localhost:{self.port}/health")
        self.assertEqual(health.out, b"ok\n")

    async def test_loopback(self) -> None:
        """
        So does C{--rpc tcp:} with a port of its own; what a capability names
        is the port for clients.
        """
        server = await self.server("--rpc", "tcp:0:interface=127.0.0.1")
        ports = {
            int(line.split("127.0.0.1:")[1].split()[0])
            for line in server.lines
            if "Listening for" in line
        }
        while len(ports) < 2:
            found = await server.says(r"127\.0\.0\.1:(\d+) \(", len(server.lines))
            ports.add(int(found[1]))
        statuses = {port: await self.status(port) for port in ports}
        self.assertEqual(sorted(statuses.values()), [b"200", b"404"])
        clients = next(port for port in ports if statuses[port] == b"404")
        self.port = next(port for port in ports if statuses[port] == b"200")
        uri = await self.call("openTunnel", via="w3p")
        self.assertIn(f"w3p://localhost:{clients}/", uri)

    async def test_proxied(self) -> None:
        """
        Behind C{haproxy:}, a caller that names no host gets the address that
        it had reached; one that does gets that name. Callers are told apart by
        their own addresses.
        """
        await self.server(
            *("--port", "haproxy:tcp:0:interface=127.0.0.1"),
            *("--max-tunnels-per-caller", "1"),
        )
        for header, host, expected in (
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 5000 443\r\n", b"", "198.51.100.1"),
            (b"PROXY TCP6 2001:db8::7 2001:db8::1 5000 443\r\n", b"", "[2001:db8::1]"),
            (
                b"PROXY TCP6 2001:db9::7 2001:db8::1 5000 443\r\n",
                b"Host: tunnel.example\r\n",
                "tunnel.example",
            ),
            (b"PROXY TCP4 192.0.2.7 198.51.100.1 5001 443\r\n", b"", ""),
        ):
            talk = await self.dial(self.port)
            talk.say(
                b"%sPOST /rpc HTTP/1.0\r\nContent-Type: application/json\r\n%s"
                b"Content-Length: %d\r\n\r\n%s"
                % (header, host, len(self.LIST), self.LIST.encode())
            )
            await talk.ended()
            talk.close()
            body = bytes(talk.data).partition(b"\r\n\r\n")[2]
            answer = json.loads(body)
            if expected:
                self.assertIn(f"tcp://{expected}:", answer["result"])
            else:
                self.assertEqual(answer["error"]["data"], {"code": "limit-reached"})

    async def test_few(self) -> None:
        """The bounds can be configured."""
        await self.server("--max-tunnels", "3", "--max-tunnels-per-caller", "2")
        await self.call("openTunnel")
        await self.call("openTunnel")
        self.assertEqual(await self.call("openTunnel"), "limit-reached")

    async def test_drains(self) -> None:
        """A server that is stopped lets the visitors of raw tunnels finish."""
        server = await self.server("--grace", "30")
        uri = await self.call("openTunnel")
        address = await self.call("getTunnelAddress", uri)
        talks = []
        for where in (uri, address):
            talks.append(await self.dial(int(where.rpartition(":")[2])))
        talks[0].say(b"a")
        await talks[1].has(1)
        server.signal("TERM")
        await server.says("Received SIGTERM")
        talks[1].say(b"still here")
        await talks[0].has(10)
        talks[0].close()
        talks[1].finish()
        await server.whenEnded()
        self.assertFalse(any("shutting-down" in line for line in server.lines))


def _http(address: str) -> str:
    return address.replace("tcp:", "http:")


async def _both(one: Any, other: Any) -> list[tuple[bytes, int]]:
    """Run two programs at the same time; what each printed, and its status."""
    running = [Deferred.fromCoroutine(each) for each in (one, other)]
    runs = [await each for each in running]
    return [(run.out, run.status) for run in runs]
