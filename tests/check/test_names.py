"""What C{--check} says of names and their certificates."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import TestCase

from tests.tls.authority import makeAuthority
from tests.tls.files import FileTestCase
from tristunnel.acme.settings import AuthoritySettings
from tristunnel.acme.store import Renewal, Store
from tristunnel.check.names import NamesCheck
from tristunnel.check.report import Finding
from tristunnel.server.ports import ServerPort, TLSFiles, parsePort
from tristunnel.tls.named import NamedCertificates


class NamesCheckTests(TestCase, FileTestCase):
    def setUp(self) -> None:
        FileTestCase.setUp(self)
        self.addresses: Any = ["192.0.2.7"]
        self.check = NamesCheck(
            reactor,
            ["t.example"],
            [self.port("tcp:80", "--http"), self.port("ssl:443", "--https")],
            None,
            None,
            self.directory,
            self.resolve,
            lambda address: address == "192.0.2.7",
        )

    def port(self, description: str, option: str) -> ServerPort:
        return parsePort(
            MemoryReactorClock(),
            description,
            TLSFiles(),
            self.directory,
            ["localhost"],
            option,
        )

    def resolve(self, name: str) -> Deferred[list[str]]:
        self.assertTrue(name.endswith(".t.example"))
        if self.addresses is None:
            return fail(DNSLookupError("no such name"))
        return succeed(self.addresses)

    async def found(self) -> list[tuple[str, str]]:
        found = await self.check.look()
        several = [found] if isinstance(found, Finding) else list(found)
        return [(each.verdict, each.message) for each in several]

    async def test_good(self) -> None:
        """Names that lead here, and ports that everybody looks at, are right."""
        self.assertEqual({verdict for verdict, _ in await self.found()}, {"OK"})

    async def test_wrong(self) -> None:
        """Each thing that is wrong is in a line of its own, with the cure."""
        for addresses, ports, domains, verdict, why in (
            (None, ("tcp:80",), ["t.example"], "FAIL", "make a DNS entry *.t.example"),
            (["192.0.2.8"], ("tcp:80",), ["t.example"], "WARN", "behind NAT"),
            (["192.0.2.7"], ("tcp:8080",), ["t.example"], "WARN", "not at port 80"),
            (["192.0.2.7"], ("tcp:80",), [], "WARN", "give --domain"),
            (["192.0.2.7"], (), [], "SKIP", "no names"),
        ):
            self.addresses = addresses
            self.check.ports = [self.port(each, "--http") for each in ports]
            self.check.domains = domains
            found = await self.found()
            self.assertTrue(
                any(each == verdict and why in text for each, text in found), found
            )

    async def test_certificates(self) -> None:
        """Own certificates, those got, and why some were not, are told of."""
        authority = makeAuthority()
        self.write("own/a.example.pem", *authority.issue(["a.example"]))
        self.write("own/b.example.pem", b"nothing")
        self.check.own = NamedCertificates(self.directory / "own")
        self.check.authority = AuthoritySettings("a@b.example", "https://localhost:1/d")
        store = Store(self.directory)
        with store.order("c.example"):
            store.remember(
                "c.example", Renewal(next=time.time() + 90, error="no: do x")
            )
        with self.problems():
            found = await self.found()
        texts = [f"{verdict} {text}" for verdict, text in found]
        for verdict, words in (
            ("WARN", "a.example"),
            ("FAIL", "b.example.pem is not PEM"),
            ("FAIL", "localhost:1/d: it cannot be reached"),
            ("FAIL", "none for c.example at the last attempt: no: do x (next in"),
        ):
            self.assertTrue(
                any(each.startswith(verdict) and words in each for each in texts), texts
            )
