"""C{tristunnel.expose}, in a program that knows nothing of Twisted."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from unittest import mock

import tristunnel
from tests.program.rig import ExposeTestCase, _get
from tristunnel.config.servers import KnownServer, ServerStore
from tristunnel.program.local import localServer


class ExposeTests(ExposeTestCase):
    """A service of this machine."""

    def test_with(self) -> None:
        """It is reached while the block runs, and not afterwards."""
        for _ in range(2):
            with self.expose(self.port) as tunnel:
                self.assertEqual(_get(tunnel.url), b"a page")
                self.assertTrue(tunnel.isOpen)
            self.assertFalse(tunnel.isOpen)
            self.assertRaises(OSError, _get, tunnel.url)

    def test_address(self) -> None:
        """The address is the server's word, and the URL what a browser takes."""
        tunnel = self.expose(f"localhost:{self.port}")
        where = tunnel.address.removeprefix("tcp://")
        self.assertEqual(tunnel.url, f"http://{where}")
        self.assertIn(tunnel.url, repr(tunnel))

    def test_port(self) -> None:
        """A port that is asked for is had; a second call takes it over."""
        with self.expose(self.port) as tunnel:
            number = int(tunnel.url.rpartition(":")[2])
        first = self.expose(self.port, port=number)
        second = self.expose(self.port, port=int(first.url.rpartition(":")[2]))
        first.wait(30)
        self.assertEqual(first.url, second.url)
        self.assertEqual(_get(second.url), b"a page")

    def test_inspect(self) -> None:
        """A page shows its requests as long as it is open, to whoever has the token."""
        with self.expose(self.port, inspect="localhost:0") as tunnel:
            _get(f"{tunnel.url}/seen?token=hidden")
            page = tunnel.requestsURL
            opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
            with opener.open(page, timeout=30) as answer:
                place = answer.url
            with opener.open(f"{place}requests.har", timeout=30) as answer:
                (entry,) = json.load(answer)["log"]["entries"]
            self.assertRegex(entry["request"]["url"], "/seen[?]token=[^h]+$")
            self.assertEqual(entry["response"]["content"]["text"], "a page")
        self.assertRaises(OSError, _get, page)
        self.assertEqual(tunnel.requestsURL, "")
        with self.assertRaises(tristunnel.TunnelError) as caught:
            self.expose(self.port, inspect="0.0.0.0:0")
        self.assertRegex(
            caught.exception.message, "^inspect='0.0.0.0:0' .*localhost:4040$"
        )

    def test_arguments(self) -> None:
        """Values of a wrong type are refused in a program's words; C{None} is what was
        left out."""
        for option, value in (
            ("name", 3),
            ("port", "8080"),
            ("port", True),
            ("token", b"x"),
            ("server", 3),
            ("timeout", "x"),
            ("timeout", 0),
            ("timeout", float("inf")),
            ("insecure", "yes"),
            ("udp", 1),
            ("standby", True),
            ("standby", 4),
            ("standby", -1),
        ):
            with self.assertRaises(tristunnel.TunnelError) as raised:
                self.expose(self.port, **{option: value})
            self.assertEqual(raised.exception.code.name, "bad-option")
            self.assertIn(f"{option}=", raised.exception.message)
        for target in (b"localhost:1", 1.5, True, ["a"], 0, "localhost:x"):
            with self.assertRaises(tristunnel.TunnelError) as raised:
                self.expose(target)
            self.assertEqual(raised.exception.code.name, "bad-option")
            self.assertNotIn("--", raised.exception.message)
        with self.assertRaises(TypeError) as unknown:
            self.expose(self.port, nam="x")
        self.assertIn("did you mean name", str(unknown.exception))
        unsaid = dict.fromkeys(("token", "pin", "ca", "name", "port", "timeout"))
        with self.expose(self.port, **unsaid) as tunnel:
            self.assertEqual(_get(tunnel.url), b"a page")

    def test_name(self) -> None:
        """The same with a name, as when a notebook's cell is run again."""
        first = self.expose(self.port, name="demo")
        second = self.expose(self.port, name="demo")
        first.wait(30)
        self.assertEqual((first.isOpen, second.isOpen), (False, True))
        self.assertEqual(_get(second.url), b"a page")

    def test_udp(self) -> None:
        """A UDP service answers."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
            service.bind(("127.0.0.1", 0))
            service.settimeout(30)
            tunnel = self.expose(service.getsockname()[1], udp=True)
            port = int(tunnel.address.rpartition(":")[2])
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as visitor:
                visitor.settimeout(30)
                visitor.sendto(b"question", ("127.0.0.1", port))
                data, back = service.recvfrom(100)
                service.sendto(data + b"?", back)
                self.assertEqual(visitor.recv(100), b"question?")

    def test_threads(self) -> None:
        """Several threads have tunnels of their own at once."""
        pages = []

        def visit() -> None:
            with tristunnel.expose(self.port, server=self.server) as tunnel:
                pages.append((tunnel.url, _get(tunnel.url)))

        threads = [threading.Thread(target=visit) for _ in range(5)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        self.assertEqual(len(set(pages)), 5)
        self.assertEqual({page for _, page in pages}, {b"a page"})

    def test_events(self) -> None:
        """What happens is told in order, also afterwards, to each who asks."""
        with self.expose(self.port) as tunnel:
            _get(tunnel.url)
            seen = []
            for event in tunnel.events():
                seen.append(event.kind)
                if event.kind == "visitor-gone":
                    break
        kinds = [event.kind for event in tunnel.events()]
        self.assertEqual(seen, ["opened", "visitor", "visitor-gone"])
        self.assertEqual(kinds, [*seen, "closed"])

    def test_wait(self) -> None:
        """Waiting ends when somebody closes, and not before."""
        tunnel = self.expose(self.port)
        self.assertRaises(TimeoutError, tunnel.wait, 0.01)
        threading.Thread(target=tunnel.close).start()
        tunnel.wait(30)

    def test_noReactor(self) -> None:
        """The process's own reactor is not touched."""
        code = (
            "import sys, tristunnel\n"
            f"with tristunnel.expose({self.port}, server={self.server!r}): pass\n"
            "print('twisted.internet.reactor' in sys.modules)\n"
        )
        self.assertEqual(_run(code), "False")


class BackTests(ExposeTestCase):
    """A server that goes away, and comes back."""

    def test_back(self) -> None:
        """
        The tunnel is open again, and the loss is told once, however many attempts
        it takes.
        """
        with ExitStack() as stack:
            server = stack.enter_context(localServer())
            port = int(server.rpartition(":")[2])
            tunnel = tristunnel.expose(self.port, server=server)
            self.addCleanup(tunnel.close)
            events = tunnel.events()
            self.assertEqual(next(events).kind, "opened")
            stack.close()
            self.assertEqual(next(events).kind, "disconnected")
            with localServer(port=port):
                self.assertEqual(next(events).kind, "opened")
                self.assertEqual(_get(tunnel.url), b"a page")


class ServerTests(ExposeTestCase):
    """Which server it is."""

    def test_variable(self) -> None:
        """The environment may name it."""
        with mock.patch.dict(os.environ, {"TRISTUNNEL_SERVER": self.server}):
            self.assertEqual(_get(self.expose(self.port, server="").url), b"a page")

    def test_known(self) -> None:
        """One that was kept is found by its name, and without one as the default."""
        ServerStore().keep(KnownServer("work", self.server))
        for name in ("work", ""):
            self.assertEqual(_get(self.expose(self.port, server=name).url), b"a page")

    def test_refusals(self) -> None:
        """What is wrong is told by an exception with a code and one line."""
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            closed = f"tcp:127.0.0.1:{silent.getsockname()[1]}"
            cases: list[tuple[dict[str, Any], str, str]] = [
                ({"server": ""}, "bad-option", "TRISTUNNEL_SERVER"),
                ({"server": "tcp:127.0.0.1"}, "bad-option", "port"),
                ({"server": closed}, "session-lost", "was not reached"),
                ({"pin": "12"}, "bad-option", "fingerprint"),
                ({"name": "12"}, "bad-option", "name"),
                ({"port": 70000}, "bad-option", "70000"),
                ({"port": 1}, "port-not-permitted", "1"),
                ({"handler": print}, "bad-option", "handler"),
                ({"target": None}, "bad-option", "exposed"),
                ({"target": "nothing at all"}, "bad-option", "target"),
            ]
            for options, code, words in cases:
                target = options.pop("target", self.port)
                with self.assertRaises(tristunnel.TunnelError, msg=options) as raised:
                    self.expose(target, **options)
                self.assertEqual(raised.exception.code.name, code, options)
                self.assertIn(words, raised.exception.message)
                self.assertNotIn("\n", str(raised.exception))

    def test_silent(self) -> None:
        """A server that says nothing is given up when the time is over."""
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen()
            where = f"tcp:127.0.0.1:{silent.getsockname()[1]}"
            with self.assertRaises(tristunnel.TunnelError) as raised:
                self.expose(self.port, server=where, timeout=0.1)
        self.assertIn("within 0.1 s", raised.exception.message)


def _run(code: str) -> str:
    root = str(Path(tristunnel.__file__).parent.parent)
    ended = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", code],
        env={**os.environ, "PYTHONPATH": root},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert not ended.stderr, ended.stderr
    return ended.stdout.strip()


class ProgramTests(ExposeTestCase):
    """Whole programs, which end by themselves."""

    def test_ends(self) -> None:
        """With the tunnel open; in any thread; whatever was refused."""
        head = f"import tristunnel, threading\nserver = {self.server!r}\n"
        call = f"tristunnel.expose({self.port}, server=server)"
        cases = {
            f"t = {call}\nprint(t.isOpen)": "True",
            f"print({call}.isOpen)": "True",
            f"def f(): {call}; print(1)\n"
            "t = threading.Thread(target=f); t.start(); t.join()": "1",
            f"try: tristunnel.expose({self.port}, server='tcp:127.0.0.1:1')\n"
            "except tristunnel.TunnelError as e: print(e.code.name)": "session-lost",
        }
        for code, said in cases.items():
            self.assertEqual(_run(head + code), said, code)

    def test_portIsFree(self) -> None:
        """A program that has ended leaves its port to the next one."""
        code = (
            "import tristunnel\n"
            f"print(tristunnel.expose({self.port}, server={self.server!r}, port=PORT"
            ").address.rpartition(':')[2])"
        )
        first = _run(code.replace("PORT", "0"))
        self.assertEqual(_run(code.replace("PORT", first)), first)

    def test_reactors(self) -> None:
        """A program with a reactor of either kind has it as before."""
        for install in (
            "from twisted.internet import reactor",
            "from twisted.internet import asyncioreactor, selectreactor\n"
            "asyncioreactor.install()\nfrom twisted.internet import reactor",
        ):
            code = (
                f"{install}\nimport tristunnel\n"
                f"t = tristunnel.expose({self.port}, server={self.server!r})\n"
                "from twisted.internet.threads import deferToThread\n"
                "import urllib.request\n"
                "d = deferToThread(urllib.request.urlopen, t.url)\n"
                "d.addCallback(lambda a: print(a.read().decode()))\n"
                "d.addBoth(lambda _: reactor.stop())\n"
                "reactor.run()\n"
            )
            self.assertEqual(_run(code), "a page", install)

    def test_ownReactor(self) -> None:
        """TLS leaves it to the program which reactor it installs, and when."""
        code = (
            "import sys\n"
            "from twisted.internet.protocol import Factory\n"
            "from tristunnel.dataplane.tls import tlsOverClientEndpoint\n"
            "from tristunnel.tls.client_context import ServerVerification\n"
            "class Below:\n"
            "    connect = lambda self, factory: __import__('twisted.internet.defer')"
            ".internet.defer.Deferred()\n"
            "trust = ServerVerification('a')\n"
            "tlsOverClientEndpoint(trust, Below()).connect(Factory())\n"
            "print('twisted.internet.reactor' in sys.modules)\n"
        )
        self.assertEqual(_run(code), "False")

    def test_names(self) -> None:
        """The package lists what it imports only when it is used."""
        for name in tristunnel.__all__:
            self.assertIn(name, dir(tristunnel))
            self.assertTrue(getattr(tristunnel, name))

    def test_fork(self) -> None:
        """A fork's child leaves its parent's tunnel alone, and can have its own."""
        code = (
            "import os, tristunnel, urllib.request\n"
            f"t = tristunnel.expose({self.port}, server={self.server!r})\n"
            "if os.fork() == 0:\n"
            "    t.close()\n"
            "    assert not t.isOpen\n"
            "    for use in t.wait, t.events:\n"
            "        try: use()\n"
            "        except tristunnel.TunnelError as e: assert 'expose' in str(e)\n"
            "        else: os._exit(4)\n"
            f"    with tristunnel.expose({self.port}, server={self.server!r}) as own:\n"
            "        urllib.request.urlopen(own.url).read()\n"
            "    os._exit(3)\n"
            "print(os.waitstatus_to_exitcode(os.wait()[1]))\n"
            "print(urllib.request.urlopen(t.url).read().decode())\n"
        )
        self.assertEqual(_run(code), "3\na page")
