"""Tests for the options of a cluster, and L{tristunnel.cluster.address}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.endpoints import UNIXClientEndpoint
from twisted.internet.testing import MemoryReactorClock
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tests.tls.files import FileTestCase
from tristunnel.cli.server_tap import Options
from tristunnel.cluster.address import EngineAddress, parseEngine
from tristunnel.cluster.sentinel import SentinelEndpoint
from tristunnel.errors import TunnelError
from tristunnel.util.endpoints import BACKLOG

PASSWORD = "very secret"


class EngineAddressTests(SynchronousTestCase):
    """What C{--cluster} takes."""

    def test_read(self) -> None:
        """Host, port, database, login and name; the password is not shown."""
        for text, address in (
            ("redis://10.0.0.5", EngineAddress((("10.0.0.5", 6379),))),
            (
                "redis://:very%20secret@h:7/3?name=prod",
                EngineAddress((("h", 7),), False, "", 3, "", PASSWORD, "prod"),
            ),
            (
                "rediss://ann:very%20secret@[2001:db8::1]/",
                EngineAddress((("2001:db8::1", 6379),), True, "", 0, "ann", PASSWORD),
            ),
            (
                f"rediss://h/0?pin={'0a' * 32}",
                EngineAddress((("h", 6379),), True, pin=b"\n" * 32),
            ),
            (
                "redis+unix:/run/redis?db=2&name=a",
                EngineAddress((("/run/redis", 0),), database=2, name="a"),
            ),
            (
                "redis+sentinel://:very%20secret@a,b:7,[::1]:8/book/2",
                EngineAddress(
                    (("a", 26379), ("b", 7), ("::1", 8)),
                    primary="book",
                    database=2,
                    password=PASSWORD,
                ),
            ),
            (
                "redis+sentinel://a/book?sentinel=ann:very%20secret",
                EngineAddress(
                    (("a", 26379),), primary="book", sentinelLogin=("ann", PASSWORD)
                ),
            ),
            ("rediss+sentinel://a/book", EngineAddress((("a", 26379),), True, "book")),
        ):
            read = parseEngine(text)
            self.assertEqual(read, address)
            self.assertNotIn(PASSWORD, repr(read))
            endpoint = read.endpoint(MemoryReactorClock())
            isUNIX = isinstance(endpoint, UNIXClientEndpoint)
            self.assertEqual(isUNIX, not read.places[0][1])
            isSentinel = isinstance(endpoint, SentinelEndpoint)
            self.assertEqual(isSentinel, bool(read.primary))

    def test_wrong(self) -> None:
        """Anything else is refused in one line, without the password."""
        for text in (
            "",
            "10.0.0.5",
            "http://h",
            "redis+sentinel://h",
            "redis+sentinel://h?sentinel=:very-secret",
            "redis://h?sentinel=:very-secret",
            "redis+sentinel://" + ",".join("h" * 17) + "/book",
            "redis://h,i/0",
            "redis://h/0?ca=x",
            "rediss://h/0?ca=/nonexistent/ca",
            "rediss://h/0?pin=x",
            "redis://",
            "redis://:very-secret@h:x/0",
            "redis://:very-secret@h/zero",
            "redis://:very-secret@h/0?name=a b",
            "redis://:very-secret@h/0?user=x",
            "redis://:very-secret@h/0#x",
            "redis+unix:",
            "redis+unix:/run/redis?db=x",
        ):
            with self.assertRaises(TunnelError) as caught:
                parseEngine(text)
            self.assertEqual(caught.exception.code.name, "bad-option", text)
            self.assertNotIn("\n", caught.exception.message)
            self.assertNotIn("very-secret", caught.exception.message)

    @given(st.text() | st.text().map("redis://{}".format))
    def test_strange(self, text: str) -> None:
        """Whatever is written is an address, or refused."""
        try:
            read = parseEngine(text)
        except TunnelError as error:
            self.assertEqual(error.code.name, "bad-option")
        else:
            self.assertTrue(read.places[0][0])


class OptionsTests(FileTestCase):
    """The options of the server."""

    def setUp(self) -> None:
        super().setUp()
        self.secret = str(self.write("member", b"a secret of the cluster\n"))

    def options(self, *words: str) -> Options:
        options = Options()
        arguments = ["--port", "tcp:0", "--state-dir", str(self.directory / "state")]
        options.parseOptions([*arguments, *words])
        return options

    def whole(self, *more: str, listen: str = "tcp:10.0.0.1:9001") -> Options:
        return self.options(
            *("--cluster", "redis://h/0", "--cluster-listen", listen),
            *("--cluster-token-file", self.secret),
            *more,
        )

    def test_read(self) -> None:
        """An address is where to listen, and how to connect to it."""
        cluster = self.whole("--member-ttl", "8", "--hold", "3", "--lease", "9").cluster
        self.assertEqual(cluster.advertise, "tcp:10.0.0.1:9001")
        self.assertEqual(cluster.description, "tcp:9001:interface=10.0.0.1")
        # All who have waited for a client that has moved come at once.
        self.assertEqual(vars(cluster.listen)["_backlog"], BACKLOG)
        self.assertEqual(cluster.secret, b"a secret of the cluster")
        times = cluster.times
        self.assertEqual((times.beat, times.memberTTL, times.lease), (2.0, 8.0, 9.0))
        self.assertEqual((cluster.hold, cluster.all), (3.0, True))
        cluster = self.whole(
            *("--cluster-advertise", "tls:a:9", "--cluster-ports", "own"),
            listen="unix:/run/x",
        ).cluster
        self.assertEqual((cluster.advertise, cluster.all), ("tls:a:9", False))
        self.assertIsNone(self.options().cluster)

    def test_processes(self) -> None:
        """Each process has a port of its own for other members."""
        keyed = ("--cluster-advertise", "tcp:a:7")
        for more, listen, index, found in (
            ((), "tcp:h:9001", 0, ("tcp:9001:interface=h", "tcp:h:9001")),
            ((), "tcp:h:9001", 2, ("tcp:9003:interface=h", "tcp:h:9003")),
            (keyed, "tcp:port=9001", 1, ("tcp:port=9002", "tcp:a:8")),
        ):
            options = self.whole("--processes", "2", *more, listen=listen)
            options.checkCluster(None, {}, index)
            cluster = options.cluster
            self.assertEqual((cluster.description, cluster.advertise), found)

    def test_refused(self) -> None:
        """What does not go together, and what several machines cannot do."""
        for words, why in (
            (("--acme", "a@b.example", "--http", "tcp:0"), "same --certificates"),
            (("--demo",), "--demo works on one machine"),
            (("--cluster-advertise", "x"), "--cluster-advertise x: "),
            (("--cluster-ports", "some"), "all"),
            (("--member-ttl", "1"), "--member-ttl"),
            (("--cluster", "x"), "'x' is not an engine"),
        ):
            error = self.assertRaises(UsageError, self.whole, *words)
            self.assertIn(why, str(error))
            self.assertNotIn("\n", str(error))
        for listen, why in (
            ("tcp:9001", "add --cluster-advertise"),
            ("nonsense:1:interface=x", "add --cluster-advertise"),
        ):
            error = self.assertRaises(UsageError, self.whole, listen=listen)
            self.assertIn(why, str(error))
        processes = ("--processes", "2", "--cluster-advertise", "tls:a:9")
        error = self.assertRaises(UsageError, self.whole, *processes, listen="unix:/x")
        self.assertIn("each of --processes needs one of its own", str(error))
        for words, why in (
            (("--hold", "3"), "--hold goes with --cluster"),
            (("--cluster", "redis://h"), "needs --cluster-listen"),
            (
                ("--cluster", "redis://h", "--cluster-listen", "tcp:127.0.0.1:1"),
                "needs --cluster-token-file",
            ),
        ):
            error = self.assertRaises(UsageError, self.options, *words)
            self.assertIn(why, str(error))

    def test_secret(self) -> None:
        """The file has a secret, and not a short one."""
        for data, why in ((b"short\n", "16"), (b"x" * 5000, "4096")):
            self.secret = str(self.write("other", data))
            self.assertIn(why, str(self.assertRaises(UsageError, self.whole)))
        self.secret = str(self.directory / "nowhere")
        self.assertIn("No such file", str(self.assertRaises(UsageError, self.whole)))
