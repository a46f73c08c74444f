"""C{--node}."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet import reactor
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.cli.server_tap import Options
from tristunnel.errors import TunnelError
from tristunnel.node.spec import parseNode


class SpecTests(SynchronousTestCase):
    """Reading it."""

    def test_forward(self) -> None:
        """A service of this side at a port of the other one."""
        spec = parseNode(
            reactor, "web=tls:b.example.net:9000,forward=8080=localhost:80"
        )
        assert spec.forward is not None
        self.assertEqual((spec.name, spec.server.host), ("web", "b.example.net"))
        self.assertEqual(
            (spec.forward.port, spec.forward.target), (8080, "localhost:80")
        )
        self.assertEqual(spec.credentials, {})

    def test_listen(self) -> None:
        """A port of this side for a service of the other one."""
        spec = parseNode(reactor, "db=tcp:b:9000,listen=tcp:5432,service=postgres")
        self.assertEqual((spec.listen, spec.service), ("tcp:5432", "postgres"))
        self.assertIsNone(spec.forward)
        self.assertIsNotNone(spec.endpoint)

    def test_udp(self) -> None:
        """A UDP service is one, too."""
        spec = parseNode(reactor, "dns=tcp:b:9000,forward=udp/53=localhost:5353")
        assert spec.forward is not None
        self.assertTrue(spec.forward.isUDP)

    def test_token(self) -> None:
        """The token comes from a file, whose name may have a comma."""
        path = Path(self.mktemp())
        path.mkdir()
        (path / "a,b").write_text("secret-token\n")
        written = str(path / "a,b").replace(",", "\\,")
        spec = parseNode(
            reactor, f"web=tcp:b:9000,forward=1=localhost:80,token-file={written}"
        )
        self.assertEqual(spec.credentials, {"token": "secret-token"})

    def test_refused(self) -> None:
        """What is wrong is said, with an example."""
        for text, part in (
            ("", "begins with a name"),
            ("=tcp:b:1", "begins with a name"),
            ("a b=tcp:b:1", "begins with a name"),
            ("web", "either forward or listen"),
            ("web=tcp:b:9000", "either forward or listen"),
            ("web=tcp:b:1,forward=1=h:1,listen=2,service=x", "either"),
            ("web=tcp:b:1,listen=2", "go together"),
            ("web=tcp:b:1,forward=1=h:1,service=x", "go together"),
            ("web=tcp:b:1,forward=1=h:1,forward=2=h:1", "given twice"),
            ("web=tcp:b:1,forward=1=h:1,colour=red", "'colour' is not a setting"),
            ("web=tcp:b:1,forward=1=h:1,pin=zz", "--node web"),
            ("web=nonsense:x,forward=1=h:1", "is not a valid"),
            ("web=tcp:b:1,forward=x", "names no service"),
            ("web=tcp:b:1,listen=nonsense:1,service=x", "is not a valid endpoint"),
            ("web=tcp:b:1,forward=1=h:1,token-file=/nowhere/x", "cannot be read"),
        ):
            error = self.assertRaises(TunnelError, parseNode, reactor, text)
            self.assertEqual(error.code.name, "bad-option")
            self.assertIn(part, error.message)
            self.assertIn("--node", error.message)

    @settings(max_examples=200)
    @given(st.text(alphabet="ab=,\\:1/ -.é\n", max_size=60))
    def test_anything(self, text: str) -> None:
        """Whatever is written is read or refused."""
        try:
            parseNode(reactor, text)
        except TunnelError as error:
            self.assertEqual(error.code.name, "bad-option")

    def test_twice(self) -> None:
        """Names are told apart by."""
        node = ["--node", "web=tcp:b:9000,forward=8080=localhost:80"]
        Options().parseOptions(node)
        error = self.assertRaises(UsageError, Options().parseOptions, node * 2)
        self.assertIn("same name", str(error))
