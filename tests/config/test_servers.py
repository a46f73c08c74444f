"""The servers that a user's clients know by name."""

from __future__ import annotations

import os
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import TestCase

from tristunnel.config.servers import (
    KnownServer,
    KnownServers,
    ServerStore,
    configDirectory,
)
from tristunnel.errors import TunnelError

HOME = KnownServer("home", "home.example")
WORK = KnownServer("work", "tls:t.example:9000", ("ab" * 32,), "tst_secret")


class ServerStoreTests(TestCase):
    def setUp(self) -> None:
        self.path = Path(self.mktemp()) / "tristunnel" / "servers.toml"
        self.store = ServerStore(self.path)

    def problemWith(self, text: str) -> str:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(text)
        self.path.chmod(0o600)
        return self.assertRaises(TunnelError, self.store.read).message

    def test_none(self) -> None:
        """Without a file no server is known, and none is made by reading."""
        self.assertEqual(self.store.read(), KnownServers())
        self.assertFalse(self.path.parent.exists())

    def test_kept(self) -> None:
        """What is kept is read again; the first one is the default."""
        self.store.keep(WORK)
        self.store.keep(HOME)
        known = ServerStore(self.path).read()
        self.assertEqual(known.byName, {"work": WORK, "home": HOME})
        self.assertEqual(known.find(), WORK)
        self.assertEqual(known.find("home"), HOME)

    def test_default(self) -> None:
        """Another one can be the default; who is kept again stays what it is."""
        self.store.keep(WORK)
        self.store.keep(HOME, makeDefault=True)
        self.store.keep(WORK)
        self.assertEqual(self.store.read().find(), HOME)

    def test_private(self) -> None:
        """Nobody else can read the file, whatever the umask."""
        old = os.umask(0)
        self.addCleanup(os.umask, old)
        self.store.keep(WORK)
        self.assertEqual(self.path.stat().st_mode & 0o777, 0o600)
        self.assertEqual(self.path.parent.stat().st_mode & 0o777, 0o700)
        self.assertEqual(
            [each.name for each in self.path.parent.iterdir()], [self.path.name]
        )

    def test_open(self) -> None:
        """Somebody is told who lets others read it."""
        self.store.keep(WORK)
        self.path.chmod(0o644)
        with capturedLogs() as events:
            self.store.read()
        (event,) = events
        self.assertIn("chmod 600", formatEvent(event))

    def test_service(self) -> None:
        """A service that systemd gives the file reads that one, and says nothing of the
        rights that systemd gave it."""
        self.store.keep(WORK)
        self.path.chmod(0o440)
        directory = str(self.path.parent)
        self.patch(os, "environ", {**os.environ, "CREDENTIALS_DIRECTORY": directory})
        with capturedLogs() as events:
            self.assertEqual(ServerStore().read().find(), WORK)
        self.assertEqual(list(events), [])
        self.path.unlink()
        self.assertNotEqual(configDirectory(), self.path.parent)

    def test_forgotten(self) -> None:
        """The only one left is the default."""
        self.store.keep(WORK)
        self.store.keep(HOME)
        self.store.forget("work")
        self.assertEqual(self.store.read(), KnownServers("home", {"home": HOME}))
        error = self.assertRaises(TunnelError, self.store.forget, "hom")
        self.assertEqual(
            error.message, "there is no server called 'hom'; did you mean home?"
        )

    def test_unknown(self) -> None:
        """Who names none, or a wrong one, is told what there is."""
        error = self.assertRaises(TunnelError, KnownServers().find)
        self.assertIn("tristunnel join", error.message)
        self.assertIn("--to HOST", error.message)
        known = KnownServers("", {"home": HOME, "work": WORK})
        error = self.assertRaises(TunnelError, known.find)
        self.assertIn("there is --server home or work", error.message)
        error = self.assertRaises(TunnelError, known.find, "wrok")
        self.assertEqual(
            error.message, "there is no server called 'wrok'; did you mean work?"
        )

    def test_wrong(self) -> None:
        """What is wrong in the file is said with its line."""
        for text, message in (
            ("default = 1", "servers.toml:1: default takes a string"),
            ('server = "x"', "servers.toml:1: write [server.NAME]"),
            ("[server.a]\n", "servers.toml:1: the server needs an address"),
            (
                '[server.a]\nconect = "x"\n',
                "servers.toml:2: unknown key 'conect'; did you mean 'connect'?",
            ),
            ("[server\n", "servers.toml:1: it is not TOML"),
        ):
            self.assertIn(message, self.problemWith(text), text)

    def test_name(self) -> None:
        """A name that no command line could say is refused."""
        for name in ("", "a b", "x" * 65, "a\nb"):
            self.assertRaises(TunnelError, self.store.keep, KnownServer(name, "h"))

    @given(
        st.text("abz-_.", min_size=1),
        st.text(st.characters(exclude_categories=["Cs"]), min_size=1),
        st.lists(st.text(st.characters(exclude_categories=["Cs"]))),
    )
    def test_anything(self, name: str, text: str, pins: list[str]) -> None:
        """Whatever is kept is read as it was."""
        server = KnownServer(name[:64], text, tuple(pins), text)
        self.store.keep(server)
        self.assertEqual(self.store.read().find(server.name), server)
