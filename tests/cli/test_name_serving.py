"""Who is let in where, when clients and visitors share ports."""

from __future__ import annotations

from typing import Any, cast

from OpenSSL import SSL
from twisted.internet.testing import MemoryReactorClock

from tests.support.notes import ServerNotes
from tests.tls.authority import makeAuthority
from tests.tls.files import FileTestCase
from tristunnel.cli import server
from tristunnel.cli.name_serving import NameServing
from tristunnel.cli.server_tap import Options
from tristunnel.errors import TunnelError
from tristunnel.model.options import TunnelOptions
from tristunnel.names.public import PublicNames
from tristunnel.names.site import NameSite
from tristunnel.names.table import Route
from tristunnel.server.tls_names import TLSNamesFactory
from tristunnel.service.preauth import PreauthLimiter


class _Kind:
    def __init__(self, beginning: bytes) -> None:
        self.beginnings = (beginning,)


class NameServingTests(FileTestCase):
    def setUp(self) -> None:
        super().setUp()
        self.authority = makeAuthority()
        self.ca = str(self.authority.write(self.directory / "ca.pem"))
        self.pem = str(self.write("a.pem", *self.authority.issue(["t.example"])))
        self.names = PublicNames()

    def factory(self, *options: str) -> Any:
        parsed = Options()
        words = ["--state-dir", str(self.directory / "state"), "--domain", "t.example"]
        parsed.parseOptions([*words, *options])
        reactor = MemoryReactorClock()
        self.naming = NameServing(
            *(reactor, parsed, self.names, lambda host: False),
            lambda host: host == "kept.example",
        )
        (port,) = (each for each in parsed.allPorts if each.serving("--https"))
        self.port = port
        return self.naming.factoryFor(
            port,
            ([cast(Any, _Kind(b"client"))], []),
            cast(Any, _Kind(b"GET ")),
            NameSite(reactor, self.names),
            ServerNotes(),
            PreauthLimiter(reactor.seconds),
        )

    @staticmethod
    def asks(creator: Any) -> bool:
        mode: int = creator.serverConnectionForTLS(None).get_context().get_verify_mode()
        return bool(mode & SSL.VERIFY_FAIL_IF_NO_PEER_CERT)

    def test_own(self) -> None:
        """
        Only by its own names does one come to the server itself, and not by those that
        a token keeps, even while nobody has them.
        """
        self.names.table.enter(
            Route("http", "www.other.example", "", TunnelOptions(), lambda *it: None)
        )
        shared = self.factory("--port", "tcp:443", "--https", "tcp:443")
        alone = self.factory("--port", "tcp:9000", "--https", "tcp:443")
        for name, together, apart in (
            *(("t.example", True, True), ("", True, False)),
            *(("blog.t.example", False, False), ("elsewhere.example", True, False)),
            *(("www.other.example", False, False), ("192.0.2.7", True, False)),
            *(("kept.example", False, False),),
        ):
            self.assertEqual(shared.isOwn(name), together, name)
            self.assertEqual(alone.isOwn(name), apart, name)
        self.assertIsNotNone(shared.plain)
        self.assertIsNone(alone.plain)

    def test_numbers(self) -> None:
        """A number alone is a port without TLS for visitors, also where clients' has
        some; one number for all is one port."""
        parsed = server.Options()
        words = ["--state-dir", str(self.directory), "--domain", "t.example"]
        parsed.parseOptions([*words, "--port", "443", "--https", "443", "--http", "80"])
        shared, clear = parsed.allPorts
        self.assertTrue(shared.secure and shared.serving("--https"))
        self.assertEqual(shared.withoutTLS, frozenset())
        self.assertFalse(clear.secure)

    def test_domains(self) -> None:
        """Other domains count at once when the configuration is read again."""
        made = self.factory("--port", "tcp:443", "--https", "tcp:443")
        self.names.liesBelow(["u.example"])
        self.assertFalse(made.isOwn("blog.u.example"))
        self.assertTrue(made.isOwn("u.example"))
        self.assertTrue(made.isOwn("blog.t.example"))

    def test_clientCertificates(self) -> None:
        """
        Whoever comes to the server itself is asked for a certificate, also where it
        is shown one by name, and visitors are not: they get to no client's port.
        """
        self.write("named/t.example.pem", *self.authority.issue(["t.example"]))
        self.write("named/b.t.example.pem", *self.authority.issue(["b.t.example"]))
        for ports in (
            ("--port", "tcp:443", "--https", "tcp:443"),
            ("--port", "tcp:9000", "--https", "tcp:443"),
            ("--port", "ssl:443", "--https", "tcp:443", "--http", "tcp:443"),
        ):
            made: TLSNamesFactory = self.factory(
                *ports,
                *("--client-ca", self.ca, "--certificate", self.pem),
                *("--certificates", str(self.directory / "named")),
            )
            for name in ("t.example", "", "unknown.example"):
                creator = made.own.certificates.creatorFor(name)
                self.assertTrue(self.asks(creator), (ports, name))
            for name in ("b.t.example", "c.t.example"):
                creator = made.visitors.certificates.creatorFor(name)
                self.assertFalse(self.asks(creator), (ports, name))
                self.assertFalse(made.isOwn(name))
            protocols = cast(Any, made.visitors.factory).protocols
            self.assertNotIn(b"client", [b for p in protocols for b in p.beginnings])
            protocols = cast(Any, made.own.factory).protocols
            self.assertIn(b"client", [b for p in protocols for b in p.beginnings])

    def test_covered(self) -> None:
        """A certificate counts if browsers believe it."""
        self.write("named/b.t.example.pem", *self.authority.issue(["b.t.example"]))
        self.factory(
            *("--https", "tcp:443", "--certificates", str(self.directory / "named"))
        )
        self.assertTrue(self.names.isCovered("b.t.example"))
        # What is made here is signed by itself.
        self.assertFalse(self.names.isCovered("c.t.example"))
        self.assertEqual(self.names.offered, {"https", "tls"})

    def test_wrong(self) -> None:
        """What does not go together is refused in one line."""
        for options, why in (
            (("--acme", "a@b.example"), "--http tcp:80"),
            (("--certificates", self.ca), "--certificates"),
            (("--https", "tcp:443", "--acme", "nobody"), "not an e-mail address"),
            (("--https", "tcp:443", "--acme-ca", self.ca), "goes with --acme"),
            (
                ("--https", "tcp:443", "--acme", "a@b.c", "--acme-directory", "http:x"),
                "https://HOST/PATH",
            ),
            (
                ("--https", "tcp:443", "--acme", "a@b.c", "--acme-dns-server", "x"),
                "--acme-dns-key",
            ),
            (
                ("--https", "tcp:443", "--acme", "a@b.c", "--acme-eab", self.ca),
                "two lines",
            ),
            (
                ("--https", "tcp:443", "--acme", "a@b.c", "--acme-dns-hook", "/no/x"),
                "not a program",
            ),
        ):
            with self.assertRaises(Exception) as caught:
                Options().parseOptions(["--state-dir", str(self.directory), *options])
            said = caught.exception
            text = said.message if isinstance(said, TunnelError) else str(said)
            self.assertIn(why, text)
