"""Every way to an engine, and what may be wrong with it, on real servers."""

from __future__ import annotations

import os
from hashlib import sha256
from pathlib import Path
from secrets import token_hex
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from tests.support.polling import until
from tests.support.processes import freePort
from tests.support.redis import RedisServer, SentinelServer
from tests.tls.authority import certificateOf, makeAuthority
from tristunnel.cluster.address import parseEngine
from tristunnel.cluster.redis_book import RedisBook, Times
from tristunnel.cluster.troubles import doubts, explained
from tristunnel.dataplane.reactor import ourReactor
from tristunnel.model.record import TokenRecord

reactor = ourReactor()
PASSWORD = "a-password:@/#"
QUOTED = "a-password%3A%40%2F%23"


class EngineTestCase(TestCase):
    """A test with servers of its own."""

    if not RedisServer.isThere():
        skip = "redis-server is not installed"
    timeout = 60

    def server(self, *options: str, made: RedisServer | None = None) -> RedisServer:
        server = made or RedisServer(*options)
        self.addCleanup(server.stop)
        server.start()
        return server

    def book(self, url: str, name: str = "") -> RedisBook:
        """Be a member of a cluster that has its book there."""
        mark = "&" if "?" in url else "?"
        address = parseEngine(f"{url}{mark}name={name or token_hex(8)}")
        engine = address.connection(reactor, 1.0)
        reader = address.connection(reactor, 3.0)
        times = Times(beat=0.1, memberTTL=1.0, grace=0.0)
        book = RedisBook(reactor, engine, reader, token_hex(4), times=times)
        self.troubles: list[str] = []
        engine.whenTroubled = self.troubles.append
        book.start()
        self.addCleanup(book.stop)
        return book

    async def works(self, book: RedisBook) -> None:
        """Make sure that something is written there, and heard of."""
        heard: list[Any] = []
        self.addCleanup(await book.watch(heard.append))
        await until(lambda: book._isSaid)
        record = TokenRecord(token_hex(4), 1, "y")
        self.assertEqual(await book.putToken(record), record)
        await until(lambda: "token" in [each.kind for each in heard])

    async def trouble(self, url: str) -> str:
        self.book(url)
        await until(lambda: self.troubles)
        self.assertNotIn("\n", self.troubles[0])
        self.assertNotIn(PASSWORD, self.troubles[0])
        return self.troubles[0]


class WaysTests(EngineTestCase):
    """What C{--cluster} may be."""

    async def test_plain(self) -> None:
        """TCP, another database, a UNIX socket; passwords, and users of the ACL."""
        port = freePort()
        server = self.server(
            *("--port", str(port), "--bind", "127.0.0.1", "--requirepass", PASSWORD),
            *("--user", "ann", "on", f">{PASSWORD}", "~tt:*", "+@all"),
            *("-@admin", "-@dangerous", "+info"),
        )
        for url in (
            f"redis://:{QUOTED}@127.0.0.1:{port}/3",
            f"redis://ann:{QUOTED}@127.0.0.1:{port}",
            f"redis+unix://:{QUOTED}@{server.path}?db=2",
            f"unix://ann:{QUOTED}@{server.path}",
        ):
            await self.works(self.book(url))
            self.assertEqual(self.troubles, [])
        for url in (
            f"redis://127.0.0.1:{port}/3",
            f"redis://:wrong@127.0.0.1:{port}",
            f"redis://bob:{QUOTED}@127.0.0.1:{port}",
        ):
            self.assertIn("refuses the user", await self.trouble(url))
        wrong = await self.trouble(f"redis://:{QUOTED}@127.0.0.1:{port}/99")
        self.assertIn("no database with that number", wrong)

    async def test_secure(self) -> None:
        """TLS: an authority, or the certificate itself; another one is refused."""
        directory = Path(self.mktemp()).absolute()
        directory.mkdir()
        authority = makeAuthority()
        ca = authority.write(directory / "ca.pem")
        pem, key = authority.issue(["127.0.0.1"])
        issued = directory / "engine.pem"
        issued.write_bytes(pem + key)
        pin = sha256(certificateOf(pem).public_bytes(Encoding.DER)).hexdigest()
        other = makeAuthority().write(directory / "other.pem")
        port = freePort()
        self.server(
            *("--tls-port", str(port), "--tls-auth-clients", "no"),
            *("--tls-cert-file", str(issued), "--tls-key-file", str(issued)),
            *("--tls-ca-cert-file", str(ca)),
        )
        for query in (f"ca={ca}", f"pin={pin}"):
            await self.works(self.book(f"rediss://127.0.0.1:{port}/0?{query}"))
        for query in (f"ca={other}", f"pin={'0' * 64}"):
            said = await self.trouble(f"rediss://127.0.0.1:{port}/0?{query}")
            self.assertIn("certificate", said.lower())
        said = await self.trouble(f"redis://127.0.0.1:{port}/0")
        self.assertIn("rediss://", said)

    async def test_notThere(self) -> None:
        """Where nothing answers, and what has no such name."""
        self.assertIn("is it running", await self.trouble("redis://127.0.0.1:1"))
        self.assertIn("is it running", await self.trouble("unix:///nonexistent/x"))
        said = await self.trouble("redis://nothing.invalid")
        self.assertIn("its name was not found", said)

    async def test_lost(self) -> None:
        """Who stops, or is cut off, while it logs in, has not been refused."""
        came = 0

        class Mute(Protocol):
            """Cuts everybody off who says something."""

            def dataReceived(self, data: bytes) -> None:
                nonlocal came
                came += 1
                self.transport.loseConnection()

        endpoint = TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1")
        port = await endpoint.listen(Factory.forProtocol(Mute))
        self.addCleanup(port.stopListening)
        book = self.book(f"redis://:x@127.0.0.1:{port.getHost().port}")
        await until(lambda: came > 3)
        await book.stop()
        (said,) = self.troubles
        self.assertIn("without an answer", said)


class TroubleTests(EngineTestCase):
    """Engines that refuse what they are told."""

    async def test_replica(self) -> None:
        """One that only copies another is of no use, until it is the first itself."""
        port = str(freePort())
        self.server("--port", port, "--bind", "127.0.0.1")
        server = self.server("--replicaof", "127.0.0.1", port)
        book = self.book(f"redis+unix:{server.path}")
        await until(lambda: any("read-only replica" in e for e in self.troubles))
        asking = parseEngine(f"redis+unix:{server.path}").connection(reactor, 1.0)
        self.addCleanup(asking.stop)
        asking.start()
        await until(lambda: asking.isUp)
        await asking.command("REPLICAOF", "NO", "ONE")
        await self.works(book)

    async def test_full(self) -> None:
        """Without memory it takes nothing; with a policy it may forget something."""
        server = self.server("--maxmemory", "1000kb")
        book = self.book(f"redis+unix:{server.path}")
        await until(lambda: any("its memory is full" in e for e in self.troubles))
        await book._engine.command("CONFIG", "SET", "maxmemory", "100mb")
        await self.works(book)

    async def test_protected(self) -> None:
        """One that only talks to its own machine says so."""
        address = _otherAddress()
        if not address:
            self.skipTest("this machine has no address but its loopback")
        port = freePort()
        self.server("--port", str(port), "--bind", "0.0.0.0")
        said = await self.trouble(f"redis://{address}:{port}")
        self.assertIn("protected mode", said)

    async def test_mayNot(self) -> None:
        """A user that may not do all is told what it needs."""
        server = self.server("--user", "ann", "on", f">{PASSWORD}", "~x:*", "+@all")
        said = await self.trouble(f"redis+unix://ann:{QUOTED}@{server.path}")
        self.assertIn("ACL SETUSER", said)

    async def test_tooFewReplicas(self) -> None:
        """One that is cut off from its replicas takes nothing."""
        server = self.server("--min-replicas-to-write", "1")
        said = await self.trouble(f"redis+unix:{server.path}")
        self.assertIn("too few replicas", said)


def _otherAddress() -> str:
    import socket

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            # Nothing is sent.
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return ""
        address: str = probe.getsockname()[0]
        return address


class WordsTests(SynchronousTestCase):
    """What is said of it."""

    def test_explained(self) -> None:
        """Whatever an engine says becomes one line, and not a long one."""
        for said, why in (
            ("unknown command 'XADD'", "too old"),
            ("ERR wrong number of arguments for 'auth' command", "use Redis 7"),
            ("MOVED 8 10.0.0.7:6379", "after MOVED"),
            ("LOADING Redis is loading the dataset in memory", "it is starting"),
            ("nonsense\r\n" * 99, "it says nonsense"),
        ):
            told = explained(said)
            self.assertIn(why, told)
            self.assertNotIn("\n", told)
            self.assertLess(len(told), 300)

    def test_doubts(self) -> None:
        """An engine that works may forget tunnels, or be too old."""
        info = (
            "# Server\r\nredis_version:7.0.15\r\nmaxmemory:0\r\n"
            "maxmemory_policy:allkeys-lru\r\n"
        )
        self.assertEqual(doubts(info), [])
        (doubt,) = doubts(info.replace("maxmemory:0", "maxmemory:9"))
        self.assertIn("noeviction", doubt)
        (doubt,) = doubts(info.replace("7.0.15", "6.2.5"))
        self.assertIn("6.2.5", doubt)
        self.assertEqual(doubts(""), [])


class SentinelTests(EngineTestCase):
    """An engine that may be another one after a while."""

    if not os.environ.get("TRISTUNNEL_LONG"):
        skip = "set TRISTUNNEL_LONG=1 to have Sentinels choose another engine"

    def where(self) -> tuple[RedisServer, int]:
        port = freePort()
        return RedisServer("--port", str(port), "--bind", "127.0.0.1"), port

    async def test_failover(self) -> None:
        """
        The primary is killed; the replica that follows has not got its last writes,
        and is told them again.
        """
        first, firstPort = self.where()
        self.server(made=first)
        second = self.server(
            *("--port", str(freePort()), "--bind", "127.0.0.1"),
            *("--replicaof", "127.0.0.1", str(firstPort)),
        )
        sentinels = [SentinelServer("127.0.0.1", firstPort) for _ in range(2)]
        for each in sentinels:
            self.server(made=each)
        places = ",".join(f"127.0.0.1:{each.port}" for each in sentinels)
        book = self.book(f"redis+sentinel://127.0.0.1:1,{places}/book/0", "b")
        await self.works(book)
        asking = parseEngine(f"redis+unix:{second.path}").connection(reactor, 1.0)
        self.addCleanup(asking.stop)
        asking.start()
        await until(lambda: asking.isUp)

        async def known() -> Any:
            return await asking.command("HKEYS", "tt:{b}:leases")

        sentinel = parseEngine(f"redis://127.0.0.1:{sentinels[0].port}")
        looking = sentinel.connection(reactor, 1.0)
        self.addCleanup(looking.stop)
        looking.start()
        await until(lambda: looking.isUp)
        while not await looking.command("SENTINEL", "REPLICAS", "book"):
            await deferLater(reactor, 0.1)
        await book.grant("early", "hash", "ann")
        while await known() != ["early"]:
            await deferLater(reactor, 0.02)
        # From now on the replica hears nothing more.
        await asking.command("REPLICAOF", "127.0.0.1", "1")
        place = await book.grant("late", "hash", "ann")
        first.kill()
        await asking.command("REPLICAOF", "127.0.0.1", str(firstPort))
        self.assertEqual(await known(), ["early"])
        began = reactor.seconds()
        await until(lambda: not book._isSaid)
        await until(lambda: book._isSaid)
        print(f"another engine had all after {reactor.seconds() - began:.1f} s")
        await until(lambda: asking.isUp)
        self.assertEqual(sorted(await known()), ["early", "late"])
        claim = await book.claim("late", "hash", "ann")
        assert claim is not None
        self.assertEqual(claim.place.fence, place.fence + 1)
        await self.works(book)

    async def test_notThere(self) -> None:
        """No Sentinel, and one that knows no such engine."""
        said = await self.trouble("redis+sentinel://127.0.0.1:1/book")
        self.assertIn("no Sentinel can be reached", said)
        first, port = self.where()
        self.server(made=first)
        sentinel = SentinelServer("127.0.0.1", port)
        self.server(made=sentinel)
        said = await self.trouble(f"redis+sentinel://127.0.0.1:{sentinel.port}/other")
        self.assertIn("no Sentinel knows an engine 'other'", said)

    async def test_password(self) -> None:
        """Sentinels may want a login of their own."""
        first, port = self.where()
        self.server(made=first)
        sentinel = SentinelServer("127.0.0.1", port, password=PASSWORD)
        self.server(made=sentinel)
        where = f"redis+sentinel://127.0.0.1:{sentinel.port}/book"
        for login in ("", "?sentinel=:wrong"):
            said = await self.trouble(where + login)
            self.assertIn("?sentinel=:PASSWORD", said)
        await self.works(self.book(f"{where}?sentinel=:{QUOTED}", "c"))
