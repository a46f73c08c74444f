"""
Proxies that the environment names: L{tristunnel.connect.route}, and every
program that connects out.
"""

from __future__ import annotations

import re
import sys
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.trial.unittest import SynchronousTestCase

from tests.cli.test_taps_processes import ProcessTestCase
from tests.support.listening import listenHere
from tests.support.loopback import Talk
from tests.support.processes import startProgram
from tristunnel.connect.address import Trust, parseConnect
from tristunnel.connect.route import connectOptionsBy, isExempt, variableFor
from tristunnel.errors import TunnelError

_CLI = "from tristunnel.cli.main import main; raise SystemExit(main())"

PROXY = "http://proxy.example:3128"


class VariableTests(SynchronousTestCase):
    """Which variable counts."""

    def test_kinds(self) -> None:
        """Each kind of connection has its own, and all have C{ALL_PROXY}. What any HTTP
        client can set in a CGI program's environment is passed over."""
        secure, plain = {"HTTPS_PROXY", "https_proxy"}, {"http_proxy"}
        both = {"ALL_PROXY", "all_proxy"}
        every = (*secure, *plain, *both, "HTTP_PROXY", "WS_PROXY", "NO_PROXY")
        for where, names in (
            ("tls:far.example:9000", secure | both),
            ("wss://far.example/tunnel", secure | both),
            ("ws://far.example/tunnel", plain | both),
            ("tcp:far.example:9000", both),
            ("unix:/run/tunnel", set()),
        ):
            for name in every:
                route = connectOptionsBy(None, "", environment={name: PROXY})
                found = parseConnect(None, where, Trust(), route).route.proxy
                told = "" if found is None else str(found)
                expected = f"proxy.example:3128 ({name})" if name in names else ""
                self.assertEqual(told, expected, f"{where} {name}")

    def test_order(self) -> None:
        """The kind's own variable counts more than that of all, an empty one not at
        all, and C{--proxy} more than any."""
        around = {"ALL_PROXY": "http://all:1", "https_proxy": "", "HTTPS_PROXY": "h:2"}
        self.assertEqual(variableFor("wss", around), "HTTPS_PROXY")
        self.assertEqual(variableFor("tcp", around), "ALL_PROXY")
        for option, told in (("http://line:3", "line:3"), ("none", "None")):
            route = connectOptionsBy(None, option, environment=around)
            server = parseConnect(None, "tls:far.example:9000", Trust(), route)
            self.assertEqual(str(server.route.proxy), told)
        route = connectOptionsBy(None, "", environment=around)
        server = parseConnect(None, "tls:far.example:9000", Trust(), route)
        self.assertEqual(str(server.route.proxy), "h:2 (HTTPS_PROXY)")

    def test_exempt(self) -> None:
        """C{NO_PROXY} keeps servers from it, and that is told."""
        around = {"ALL_PROXY": PROXY, "NO_PROXY": "far.example"}
        server = parseConnect(
            None,
            "tcp:far.example:9000",
            Trust(),
            connectOptionsBy(None, "", environment=around),
        )
        self.assertIsNone(server.route.proxy)
        self.assertEqual(server.route.exempt, "ALL_PROXY")

    def test_notSupported(self) -> None:
        """A proxy that cannot be used is named, with the way out and without its
        password."""
        for name, url, word in (
            ("all_proxy", "SOCKS4://u:pw@proxy:1080", "a SOCKS 4 proxy"),
            ("HTTPS_PROXY", "https://u:pw@proxy:443", "by TLS"),
            ("HTTPS_PROXY", "ftp://u:pw@proxy:443", "http://USER"),
            ("HTTPS_PROXY", "u:pw@proxy:x", "http://USER"),
        ):
            route = connectOptionsBy(None, "", environment={name: url})
            error = self.assertRaises(
                TunnelError, parseConnect, None, "tls:far.example:1", Trust(), route
            )
            for part in (name, word, "none"):
                self.assertIn(part, error.message)
            self.assertNotIn("pw", error.message)
            for where in ("unix:/run/tunnel", "tls:far.example:1"):
                parseConnect(None, where, Trust(), connectOptionsBy(None, "none"))
        error = self.assertRaises(
            TunnelError, connectOptionsBy, None, "socks4://u:pw@proxy:1"
        )
        self.assertIn("--proxy names a SOCKS 4 proxy", error.message)

    def test_socksKinds(self) -> None:
        """Names are looked up at the proxy unless the URL says otherwise."""
        for url, kind, login in (
            ("socks5h://u:p%40w@proxy", "socks5h", ("u", "p@w")),
            ("socks://proxy:1080", "socks5h", None),
            ("socks5://proxy:1080/", "socks5", None),
        ):
            route = connectOptionsBy(None, "", environment={"ALL_PROXY": url})
            server = parseConnect(None, "tls:far.example:1", Trust(), route)
            proxy = server.route.proxy
            assert proxy is not None
            self.assertEqual((proxy.kind, proxy.login), (kind, login))
            self.assertEqual(proxy.where, "proxy:1080")

    def test_noProxy(self) -> None:
        """Names, domains, addresses, networks, ports, and all."""
        for listed, host, expected in (
            ("*", "far.example", True),
            ("", "far.example", False),
            ("far.example", "far.example", True),
            ("FAR.example.", "far.EXAMPLE", True),
            ("other.example, far.example", "a.far.example", True),
            ("other.example far.example", "far.example", True),
            (".far.example", "far.example", True),
            (".far.example", "a.far.example", True),
            ("*.far.example", "a.far.example", True),
            ("far.example", "nearfar.example", False),
            ("far.example:9000", "far.example", True),
            ("far.example:9001", "far.example", False),
            ("b\u00fccher.example", "xn--bcher-kva.example", True),
            ("localhost", "localhost", True),
            ("127.0.0.1", "127.0.0.1", True),
            ("127.0.0.0/8", "127.0.0.9", True),
            ("10.0.0.0/8", "127.0.0.9", False),
            ("192.0.2.1:9000", "192.0.2.1", True),
            ("192.0.2.1:1", "192.0.2.1", False),
            ("::1", "::1", True),
            ("[::1]", "::1", True),
            ("[::1]:9000", "0:0:0:0:0:0:0:1", True),
            ("fe80::/10", "fe80::1%eth0", True),
            ("127.0.0.1", "::ffff:127.0.0.1", True),
            ("0.0.1", "127.0.0.1", False),
            (".", "far.example", False),
        ):
            for name in ("NO_PROXY", "no_proxy"):
                found = isExempt(host, 9000, {name: listed})
                self.assertEqual(found, expected, f"{listed!r} {host}")

    @given(st.text(), st.text(), st.integers(0, 65535))
    def test_anything(self, listed: str, host: str, port: int) -> None:
        """Whatever it says, it says yes or no."""
        self.assertIn(isExempt(host, port, {"NO_PROXY": listed}), (True, False))


class _Refusing(Factory):
    """A proxy that notes what it is asked, and does nothing."""

    noisy = False

    def __init__(self) -> None:
        self.talks: list[Talk] = []
        self.came: Deferred[Talk] = Deferred()

    def buildProtocol(self, addr: object) -> Talk:
        talk = Talk()
        self.talks.append(talk)
        talk.until(lambda it: b"\r\n\r\n" in it.data).addCallbacks(
            self._tell, lambda gone: None
        )
        return talk

    def _tell(self, talk: Talk) -> None:
        if not self.came.called:
            self.came.callback(talk)


class ProgramTests(ProcessTestCase):
    """Every program that connects out."""

    timeout = 180

    TLS, TCP, WS = "tls:far.example:443", "tcp:far.example:443", "ws://far.example:443/"
    HTTPS, HTTP = "https://far.example", "http://far.example:443"

    def run_(self, kind: str, where: str, *more: str, **around: str) -> Any:
        code = {
            "rpc": ["-m", "tristunnel.rpc", where, "listTunnels"],
            "status": ["-c", _CLI, "status", where],
        }.get(kind)
        if code is not None:
            command = [sys.executable, *code, *more]
            program = startProgram(self.reactor, kind, command, self.directory, around)
            self.addCleanup(program.kill)
            return program
        node = ",".join((f"n={where}", "forward=0=localhost:1", *more))
        options = {
            "tunnel-client": ["--connect", where, "--forward", "0=127.0.0.1:1"],
            "tunnel-access": ["--connect", where, "--service", "x"],
            "tunnel": ["--port", "tcp:0:interface=127.0.0.1", "--node", node],
        }[kind]
        words = () if kind == "tunnel" else more
        return self.start(kind, *options, *words, environment=around)

    async def test_taken(self) -> None:
        """Each follows the environment, and says so in its log."""
        for kind, where, variable in (
            ("tunnel-client", self.TLS, "HTTPS_PROXY"),
            ("tunnel-client", self.WS, "http_proxy"),
            ("tunnel-client", self.TCP, "ALL_PROXY"),
            ("tunnel-access", self.TLS, "https_proxy"),
            ("tunnel", self.TCP, "all_proxy"),
            ("rpc", self.HTTPS, "HTTPS_PROXY"),
            ("rpc", self.HTTP, "http_proxy"),
            ("status", self.HTTPS, "HTTPS_PROXY"),
        ):
            proxy = _Refusing()
            port = listenHere(self, self.reactor, proxy)
            around = {variable: f"http://me:pw@127.0.0.1:{port}"}
            program = self.run_(kind, where, **around)
            talk = await proxy.came
            line, *headers = talk.data.decode().splitlines()
            self.assertEqual(line, "CONNECT far.example:443 HTTP/1.1", kind)
            self.assertIn("Proxy-Authorization: Basic bWU6cHc=", headers)
            if kind.startswith("tunnel"):
                told = f"through the proxy 127.0.0.1:{port} ({variable})"
                log = await program.says(f".*{re.escape(told)}.*")
                self.assertNotIn("pw", log[0])
            talk.say(b"HTTP/1.1 502 No\r\n\r\n")
            await program.says(
                rf"the proxy 127.0.0.1:{port} \({variable}\) answered 502"
            )
            await program.kill()

    async def test_none(self) -> None:
        """C{none} and C{NO_PROXY} keep each from it: what is nowhere is not found
        there."""
        dead = "http://127.0.0.1:1"
        around = {n: dead for n in ("HTTPS_PROXY", "http_proxy", "ALL_PROXY")}
        exempt, option = {"NO_PROXY": "127.0.0.0/8"}, ("--proxy", "none")
        for kind, where, words, variables in (
            ("tunnel-client", "tls:127.0.0.1:2", option, {}),
            ("tunnel-client", "tls:127.0.0.1:2", (), exempt),
            ("tunnel-access", "tcp:127.0.0.1:2", option, {}),
            ("tunnel", "tcp:127.0.0.1:2", ("proxy=none",), {}),
            ("rpc", "http://127.0.0.1:2", option, {}),
            ("rpc", "http://127.0.0.1:2", (), exempt),
            ("status", "https://127.0.0.1:2", option, {}),
        ):
            program = self.run_(kind, where, *words, **around, **variables)
            await program.says("(?i)(refused|not reached|could not connect)")
            self.assertEqual(self.lines(program, "the proxy 127"), [], kind)
            await program.kill()

    async def test_check(self) -> None:
        """C{--check} says which proxy was taken, and which was not."""
        proxy = _Refusing()
        at = listenHere(self, self.reactor, proxy)
        url = f"http://127.0.0.1:{at}"
        program = self.run_("tunnel-client", self.TCP, "--check", ALL_PROXY=url)
        (await proxy.came).say(b"HTTP/1.1 200 OK\r\n\r\n")
        await program.says(r"^OK    proxy .*\(ALL_PROXY\) connects to far.example")
        await program.kill()
        around = {"ALL_PROXY": url, "NO_PROXY": "127.0.0.1"}
        await self.server()
        program = self.run_(
            "tunnel-client", f"tcp:127.0.0.1:{self.port}", "--check", **around
        )
        await program.says(
            r"^OK    proxy .*not the one from ALL_PROXY, because of NO_PROXY"
        )

    async def test_socks(self) -> None:
        """A SOCKS 4 proxy ends each with one line."""
        for kind in ("tunnel-client", "tunnel-access", "tunnel", "rpc", "status"):
            where = self.HTTPS if kind in ("rpc", "status") else self.TCP
            program = self.run_(kind, where, ALL_PROXY="socks4://127.0.0.1:1")
            await program.says("ALL_PROXY names a SOCKS 4 proxy, which is not")
            self.assertNotEqual(await self.ended(program), 0)

    async def ended(self, program: Any) -> int:
        await program.whenEnded()
        self.assertEqual(self.lines(program, "Traceback"), [])
        status: int = program.status
        return status

    def lines(self, program: Any, word: str) -> list[str]:
        return [line for line in program.lines if word in line]
