"""Tests for L{tristunnel.util.endpoints}."""

from __future__ import annotations

import io
import os
import socket
import sys
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import quoteStringArgument, serverFromString
from twisted.internet.error import CannotListenError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.testing import MemoryReactor
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.processes import freePort
from tests.support.short import shortDirectory
from tristunnel.cli import access_tap, client_tap, server_tap
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.errors import TunnelError
from tristunnel.util.endpoints import (
    BACKLOG,
    ClearedEndpoint,
    checkBeforeFork,
    clearStaleSocket,
    inBackground,
    listenInFull,
    serverEndpoint,
    splitEndpoint,
    tellOfDaemon,
    unknownKeywords,
    whyNoEndpoint,
)

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


class SplitEndpointTests(SynchronousTestCase):
    def test_examples(self) -> None:
        """Prefix, positional parts and keywords are told apart."""
        for text, parts in (
            ("tcp:9000", ("tcp", ["9000"], {})),
            (
                "tcp:9000:interface=::1".replace("::1", r"\:\:1"),
                ("tcp", ["9000"], {"interface": "::1"}),
            ),
            (
                "tls:host:443:trustRoots=/a=b",
                ("tls", ["host", "443"], {"trustRoots": "/a=b"}),
            ),
            ("unix:/run/a\\:b.sock", ("unix", ["/run/a:b.sock"], {})),
            (
                "systemd:domain=INET:index=0",
                ("systemd", [], {"domain": "INET", "index": "0"}),
            ),
            (
                "tcp:[::1]:80:bindAddress=[fe80::1%lo]",
                ("tcp", ["::1", "80"], {"bindAddress": "fe80::1%lo"}),
            ),
            ("unix:[a]:b", ("unix", ["[a]", "b"], {})),
            ("tls:[:x", ("tls", ["[", "x"], {})),
            ("", ("", [], {})),
            ("tcp:", ("tcp", [""], {})),
            ("a\\", ("a", [], {})),
        ):
            self.assertEqual(splitEndpoint(text), parts)

    @given(
        TEXTS, st.lists(TEXTS, max_size=4), st.dictionaries(TEXTS, TEXTS, max_size=3)
    )
    def test_quoted(
        self, prefix: str, positional: list[str], keywords: dict[str, str]
    ) -> None:
        """What Twisted quotes comes back as it was."""
        # It leaves alone the "=" that would make a keyword.
        quoted = [
            quoteStringArgument(part).replace("=", r"\=")
            for part in [prefix, *positional, *keywords]
        ]
        for place, value in enumerate(keywords.values(), 1 + len(positional)):
            quoted[place] += "=" + quoteStringArgument(value)
        self.assertEqual(
            splitEndpoint(":".join(quoted)), (prefix, positional, keywords)
        )

    @given(st.text())
    def test_anything(self, text: str) -> None:
        """Any string has parts."""
        splitEndpoint(text)


class ListenInFullTests(SynchronousTestCase):
    def test_forms(self) -> None:
        """What people write elsewhere is taken; all else stays as it is."""
        for short, full in (
            ("9000", "ssl:9000:interface=127.0.0.1"),
            ("*:9000", "ssl:9000"),
            ("localhost:9000", "ssl:9000:interface=127.0.0.1"),
            ("192.0.2.1:9000", "ssl:9000:interface=192.0.2.1"),
            ("[::1]:9000", "ssl:9000:interface=\\:\\:1"),
            ("::1:9000", "ssl:9000:interface=\\:\\:1"),
            ("tcp:localhost:9000", "tcp:9000:interface=127.0.0.1"),
            ("/run/tunnel.sock", "unix:/run/tunnel.sock"),
            *((same, same) for same in ("tcp:9000", "tls:d:port=1", "t.example:1", "")),
        ):
            self.assertEqual(listenInFull(short, "ssl", "127.0.0.1"), full)


class UnknownKeywordsTests(SynchronousTestCase):
    def test_known(self) -> None:
        """Known keywords pass."""
        unknownKeywords("--port", {"a": "1"}, {"a", "b"})
        unknownKeywords("--port", {}, set())

    def test_unknown(self) -> None:
        """Another one is named, with those that there are."""
        with self.assertRaises(TunnelError) as caught:
            unknownKeywords("--port", {"a": "1", "z": "1", "c": ""}, {"b", "a"})
        self.assertEqual(caught.exception.code.name, "bad-option")
        self.assertEqual(
            caught.exception.message, "--port: c= is not known; there is a, b"
        )


class WhyNoEndpointTests(SynchronousTestCase):
    def test_kinds(self) -> None:
        """A kind that nobody knows is named, and what brings those of Tor."""
        for kind, words in (
            ("bogus", "unknown type 'bogus'"),
            ("tor", "tor: comes with txtorcon: pip install txtorcon"),
            ("onion", "onion: comes with txtorcon: pip install txtorcon"),
        ):
            error = ValueError(f"Unknown endpoint type: {kind!r}")
            self.assertEqual(whyNoEndpoint(kind, error), words)


class BacklogTests(TestCase):
    """Connections that wait to be accepted."""

    timeout = 60

    def test_asked(self) -> None:
        """Ports and UNIX sockets have ours, unless another one is given."""
        for before, after in (("", BACKLOG), (":backlog=7", 7)):
            memory = MemoryReactor()
            for kind in ("tcp:1", "tcp6:1", r"tcp:1:interface=[::1]", "unix:/run/x"):
                endpoint = serverEndpoint(memory, kind + before)
                endpoint.listen(Factory.forProtocol(Protocol))
            asked = [each[2] for each in (*memory.tcpServers, *memory.unixServers)]
            self.assertEqual(asked, [after] * 4)

    async def test_crowd(self) -> None:
        """At a UNIX socket of ours, hundreds may come between two turns."""
        path = shortDirectory(self) / "s"
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        port = await serverEndpoint(ourReactor(), f"unix:{path}").listen(factory)
        self.addCleanup(port.stopListening)
        for _ in range(300):
            visitor = socket.socket(socket.AF_UNIX)
            self.addCleanup(visitor.close)
            visitor.setblocking(False)
            # Were there no room it would have to wait.
            visitor.connect(str(path))


class LeftoverTests(TestCase):
    """A UNIX socket whose program was killed."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.path = shortDirectory(self) / "s"
        self.lock = Path(f"{self.path}.lock")

    def leave(self, owner: int | None) -> None:
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(self.path))
        if owner is not None:
            self.lock.symlink_to(str(owner))

    async def listens(self, words: str = "") -> None:
        description = f"unix:{self.path}{words}"
        port: Any = await serverEndpoint(self.reactor, description).listen(
            Factory.forProtocol(Protocol)
        )
        with socket.socket(socket.AF_UNIX) as probe:
            probe.connect(str(self.path))
        await port.stopListening()
        self.assertEqual(list(self.path.parent.iterdir()), [])

    async def test_sameNumber(self) -> None:
        """The number in the lock is our own, as in a container that starts again."""
        self.leave(os.getpid())
        await self.listens()

    async def test_othersNumber(self) -> None:
        """The number is another program's by now."""
        self.leave(os.getppid())
        await self.listens()

    async def test_noLock(self) -> None:
        """The lock is gone, the socket is not."""
        self.leave(None)
        await self.listens()

    async def test_unlocked(self) -> None:
        """A socket that is to have no lock."""
        self.leave(None)
        await self.listens(":lockfile=0")

    async def test_onlyLock(self) -> None:
        """The program was killed before it had the socket."""
        self.lock.symlink_to(str(os.getpid()))
        await self.listens()

    async def test_nothing(self) -> None:
        """There is nothing to tidy up."""
        await self.listens()

    async def test_inUse(self) -> None:
        """A socket where somebody listens is left alone, with its lock."""
        self.lock.symlink_to(str(os.getppid()))
        with socket.socket(socket.AF_UNIX) as other:
            other.bind(str(self.path))
            other.listen()
            with self.assertRaises(CannotListenError):
                await self.listens()
            self.assertTrue(self.path.is_socket())
            self.assertTrue(self.lock.is_symlink())

    def test_noSocket(self) -> None:
        """A file that is no socket is nobody's leftover, nor is what has no file."""
        self.path.write_text("dear diary")
        self.lock.symlink_to(str(os.getpid()))
        clearStaleSocket(str(self.path))
        clearStaleSocket("")
        clearStaleSocket("\0abstract")
        self.assertEqual(self.path.read_text(), "dear diary")
        self.assertTrue(self.lock.is_symlink())

    def test_others(self) -> None:
        """Endpoints of other kinds are Twisted's."""
        for description in ("tcp:0", "tcp:0:interface=[::1]"):
            endpoint = serverEndpoint(self.reactor, description)
            self.assertNotIsInstance(endpoint, ClearedEndpoint)


_ACCESS = "w3p://server:9000/access/00112233445566778899aabbccddeeff#secret"

BACKGROUND = {"nodaemon": 0, "debug": False}


class BeforeForkTests(TestCase):
    """What would fail in the background fails before."""

    def setUp(self) -> None:
        from twisted.internet import reactor

        self.reactor: Any = reactor
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        held = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(held.close)
        self.taken = f"tcp:{held.getsockname()[1]}:interface=127.0.0.1"
        variables = dict(os.environ)
        os.environ["XDG_STATE_HOME"] = str(self.directory)

        def restore() -> None:
            os.environ.clear()
            os.environ.update(variables)

        self.addCleanup(restore)

    def refused(self, tap: Any, *words: str) -> str:
        """Expect that a command ends before it leaves its terminal."""
        options = tap.Options()
        options.parent = BACKGROUND
        options.parseOptions(list(words))
        said = self.assertRaises(SystemExit, tap.makeService, options).code
        self.assertIsInstance(said, str)
        self.assertNotIn("\n", str(said))
        return str(said)

    def test_commands(self) -> None:
        """Each command names the option whose port is taken."""
        connect = ("--connect", "tcp:127.0.0.1:1")
        free = "tcp:0:interface=127.0.0.1"
        for tap, option, words in (
            (server_tap, "--port", ()),
            (server_tap, "--rpc", ("--port", free)),
            (client_tap, "--listen", (*connect, "--service", "x")),
            (client_tap, "--rpc", (*connect, "--forward", "3000")),
            (access_tap, "--listen", ("--access", _ACCESS)),
        ):
            said = self.refused(tap, option, self.taken, *words)
            self.assertIn(f"{option} {self.taken} cannot be listened on", said)
            self.assertIn("choose another", said)

    def test_state(self) -> None:
        """So it is with a directory that cannot be made."""
        where = "/proc/nowhere/state"
        free = "tcp:0:interface=127.0.0.1"
        said = self.refused(server_tap, "--port", free, "--state-dir", where)
        self.assertIn(f"{where} cannot be written to", said)

    async def test_free(self) -> None:
        """What is free still is afterwards: ports and sockets."""
        number = freePort()
        path = os.path.relpath(self.directory / "s")
        for where in (f"tcp:{number}:interface=127.0.0.1", f"unix:{path}:lockfile=1"):
            endpoint = serverFromString(self.reactor, where)
            checkBeforeFork(BACKGROUND, [("--port", endpoint)])
            factory = Factory.forProtocol(Protocol)
            factory.noisy = False
            port = await endpoint.listen(factory)
            await port.stopListening()

    def test_told(self) -> None:
        """Who leaves the terminal says where to look; nobody else does."""
        here = os.path.abspath("")
        for outer, said in (
            ({"nodaemon": 0}, f"Its log is {here}/twistd.log;"),
            ({"nodaemon": 0, "logfile": "a.log"}, f"{here}/a.log;"),
            ({"nodaemon": 0, "rundir": "/r", "logfile": "a.log"}, "/r/a.log;"),
            ({"nodaemon": 0, "syslog": 1}, "the system log;"),
            ({"nodaemon": 1}, ""),
            ({"nodaemon": 0, "debug": True}, ""),
            ({}, ""),
            (None, ""),
        ):
            out = io.StringIO()
            self.patch(sys, "__stdout__", out)
            tellOfDaemon(outer, "server", "look there")
            self.assertEqual(out.getvalue().count("\n"), bool(said))
            self.assertIn(said, out.getvalue())

    def test_foreground(self) -> None:
        """Whoever stays in the foreground is told when it happens."""
        endpoint = serverFromString(self.reactor, self.taken)
        for outer in (None, {}, {"nodaemon": 1}, {"nodaemon": 0, "debug": True}):
            self.assertFalse(inBackground(outer))
            checkBeforeFork(outer, [("--port", endpoint)])
        ends = self.assertRaises(
            SystemExit, checkBeforeFork, BACKGROUND, [("--port x", endpoint)]
        )
        self.assertIn("--port x cannot be listened on", str(ends.code))
