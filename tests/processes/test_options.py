"""Tests for C{--processes} on the command line, and for what members share."""

from __future__ import annotations

import os
from typing import Any

from twisted.internet.task import Clock
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.cli.belonging import AT_ONCE, shareClients
from tristunnel.cli.server_tap import Options
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Identity
from tristunnel.service.clients import ConnectedClients


class OptionsTests(SynchronousTestCase):
    """What is said on the command line."""

    def options(self, *words: str) -> Options:
        made = Options()
        directory = self.mktemp()
        made.parseOptions([*words, "--port", "tcp:0", "--state-dir", directory])
        return made

    def test_number(self) -> None:
        """One is the default, and 0 is one for each processor that it may use."""
        self.assertEqual(self.options().processes, 1)
        self.assertEqual(self.options("--processes", "3").processes, 3)
        processors = len(os.sched_getaffinity(0))
        self.assertEqual(self.options("--processes", "0").processes, processors)

    def test_share(self) -> None:
        """What the whole server has is divided."""
        self.assertEqual(self.options().share(100), 100)
        self.assertEqual(self.options("--processes", "4").share(100), 25)

    def test_refused(self) -> None:
        """What cannot be divided is refused in one line that names it."""
        for words, named in (
            (("--demo",), "--demo"),
            (("--http", "onion:80"), "--http 'onion:80'"),
            (("--processes", "65"), "--processes"),
            (("--processes", "-1"), "--processes"),
            (("--processes", "two"), "--processes"),
        ):
            with self.assertRaises(usage.UsageError) as raised:
                self.options("--processes", "2", *words)
            text = str(raised.exception)
            self.assertIn(named, text)
            self.assertNotIn("\n", text)


class SharedClientsTests(SynchronousTestCase):
    """How many clients there are at all members together."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.told: list[tuple[object, ...]] = []
        self.published: dict[str, Any] = {}
        self.names = {"1"}
        self.name = "0"
        self.clients = ConnectedClients(self.clock.seconds, 2)
        siblings: Any = self
        self.met = shareClients(self.clock, siblings, self.clients)

    def tell(self, *news: object) -> None:
        self.told.append(news)

    def publish(self, name: str, function: Any) -> None:
        self.published[name] = function

    def enter(self) -> Any:
        return self.clients.enter(
            Identity("ann"), "192.0.2.1:1", "framed", lambda reason: None
        )

    def test_told(self) -> None:
        """The others learn of clients that come and go, once for many."""
        for client in [self.enter(), self.enter()]:
            self.clients.leave(client)
        self.assertEqual(self.told, [])
        self.clock.advance(AT_ONCE)
        self.assertEqual(self.told, [("clients", "0", 0)])
        self.enter()
        self.clock.advance(AT_ONCE)
        self.assertEqual(self.told[1:], [("clients", "0", 1)])
        self.met()
        self.clock.advance(AT_ONCE)
        self.assertEqual(self.told[2:], [("clients", "0", 1)])

    def test_limit(self) -> None:
        """Clients of the others count, as long as those are there."""
        self.published["clients"]("1", 1)
        self.enter()
        self.assertRaises(TunnelError, self.enter)
        self.names.clear()
        self.enter()
