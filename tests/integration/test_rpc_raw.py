"""
Raw tunnels over real sockets, opened by remote calls: nothing is lost on the
way, and nothing is left behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import socket
from functools import partial
from itertools import product
from resource import RLIMIT_NOFILE, getrlimit
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    connectProtocol,
    wrapClientTLS,
)
from twisted.internet.error import ConnectError, ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.trial.unittest import SkipTest

from tests.jsonrpc.loopback import parsed
from tests.support.loopback import LoopbackTestCase, Talk
from tests.support.polling import until
from tests.support.processes import freePort
from tests.tls.authority import makeAuthority
from tristunnel.auth.realm import Authenticator
from tristunnel.dialects.framed.dialect import FramedPortProtocol
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import HTTPPortProtocol, rootOf, rpcPages
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.ports import UNPRIVILEGED, PortRange
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.server.ports import TLSFiles, parsePort
from tristunnel.server.service import TunnelServerService
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.tls.client_context import ServerVerification
from tristunnel.tls.server_context import ReloadingCertificate
from tristunnel.util.descriptor_limit import raiseDescriptorLimit

CALL = {"jsonrpc": "2.0", "id": 1}


def openSockets() -> frozenset[str]:
    found = set()
    for descriptor in os.listdir("/proc/self/fd"):
        # The directory's own descriptor is gone.
        with contextlib.suppress(OSError):
            found.add(os.readlink(f"/proc/self/fd/{descriptor}"))
    return frozenset(each for each in found if each.startswith("socket:"))


def portOf(uri: str) -> int:
    return int(uri.rpartition(":")[2])


class RPCTestCase(LoopbackTestCase):
    """A server on the loopback interface whose tunnels are opened by HTTP."""

    if not os.path.isdir("/proc/self/fd"):
        skip = "there is no /proc to count descriptors in"

    ports: PortRange = UNPRIVILEGED

    async def setUp(self) -> None:  # type: ignore[override] # trial waits for it
        super().setUp()
        # Other tests of the process may have left some.
        self.others = frozenset(self.everything())
        await self.startRPC()
        # What is made once, such as the reactor's own sockets, is made now.
        await self.call("listTunnels")
        await until(lambda: not self.transports())
        self.before = openSockets()

    async def startRPC(self) -> None:
        authority = makeAuthority()
        certificate, key = authority.issue(["localhost"])
        path = self.directory / "visitors.pem"
        path.write_bytes(certificate + key)
        self.creator = ServerVerification(
            "localhost", trustRoots=authority.write(self.directory / "visitors-ca.pem")
        )
        self.tunnels = TunnelService(
            self.reactor,
            MemoryBook(self.reactor),
            {
                "tcp": TCPListeners(self.reactor, "127.0.0.1", self.ports),
                "tls": TCPListeners(
                    self.reactor,
                    "127.0.0.1",
                    self.ports,
                    ReloadingCertificate(str(path)),
                ),
            },
            self.notes,
        )
        self.sessions = TunnelServerFactory(self.reactor, self.tunnels)
        callers = HTTPCallers(Authenticator())
        pages = rpcPages(self.tunnels, callers)
        site = LimitedSite(rootOf(pages), reactor=self.reactor, admit=callers.admit)
        detector = ProtocolDetectorFactory(
            self.reactor,
            [FramedPortProtocol(self.sessions), HTTPPortProtocol(site)],
            self.notes,
        )
        where = parsePort(
            self.reactor,
            "tcp:0:interface=127.0.0.1",
            TLSFiles(),
            self.directory,
            ["localhost"],
        )
        server = TunnelServerService(
            self.reactor, [(where, detector)], self.sessions, self.tunnels, 0.0
        )
        server.startService()
        at: Any = server.listening[0].getHost()
        self.serverPort = at.port
        self.addCleanup(server.stopService)

    def everything(self) -> set[object]:
        return {*self.reactor.getReaders(), *self.reactor.getWriters()}

    def transports(self) -> list[object]:
        new = self.everything() - self.others
        return [each for each in new if ITCPTransport.providedBy(each)]

    def sockets(self) -> int:
        """How many sockets are open that were not when the test began."""
        return len(openSockets() - self.before)

    @staticmethod
    def request(body: object) -> bytes:
        data = json.dumps(body).encode()
        return (
            b"POST /rpc HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%s"
            % (len(data), data)
        )

    async def post(self, body: object) -> Any:
        talk = await self.visit(self.serverPort)
        talk.say(self.request(body))
        await talk.ended()
        talk.close()
        status, _, answer = parsed(bytes(talk.data))
        self.assertEqual(status, 200)
        return json.loads(answer)

    async def call(self, method: str, *args: object, **options: object) -> Any:
        """Call a method; the result, or the error's code."""
        params: object = list(args) or options
        answer = await self.post({**CALL, "method": method, "params": params})
        return (
            answer["result"] if "result" in answer else answer["error"]["data"]["code"]
        )

    async def open(self, **options: object) -> tuple[str, int, int]:
        """Open a tunnel; its URI, the client's port and the visitors' port."""
        uri = await self.call("openTunnel", **options)
        address = await self.call("getTunnelAddress", uri)
        return uri, portOf(uri), portOf(address)

    async def overTLS(self, port: int) -> Talk:
        plain = TCP4ClientEndpoint(self.reactor, "127.0.0.1", port)
        talk: Talk = await connectProtocol(wrapClientTLS(self.creator, plain), Talk())
        self._talks.append(talk)
        return talk

    async def come(self, where: str) -> Talk:
        dial = self.overTLS if where.startswith("tls") else self.visit
        return await dial(portOf(where))

    async def assertNothingLeft(self, *ports: int) -> None:
        """
        Wait until no tunnel is left, and assert that its ports and
        descriptors are free.
        """
        await until(lambda: len(self.tunnels.here) == 0)
        await until(lambda: self.sockets() == 0)
        for port in ports:
            # Another process may have it by now, or the visitor has met itself: the
            # kernel may let it come from there. Neither is a second socket of ours.
            with contextlib.suppress(ConnectError):
                talk = await self.visit(port)
                self.assertLessEqual(self.sockets(), 1)
                talk.abort()
                await until(lambda: self.sockets() == 0)

    def visiting(self, port: int) -> Deferred[Talk]:
        return Deferred.fromCoroutine(self.visit(port))


class BytesTests(RPCTestCase):
    """Byte for byte, half-close included."""

    async def exchange(
        self, client: Talk, visitor: Talk, fromClient: bytes, fromVisitor: bytes
    ) -> None:
        """Have each end say all it has to say, and check what the other heard."""
        await visitor.until(lambda talk: talk.eof)
        self.assertEqual(bytes(visitor.data), fromClient)
        visitor.say(fromVisitor)
        visitor.finish()
        await client.gone()
        self.assertEqual(bytes(client.data), fromVisitor)
        await visitor.gone()

    async def test_clientFirst(self) -> None:
        """
        C{nc server 8010 < file}: the client's end has said all and finished
        before a visitor came. The visitor gets it and answers.
        """
        generator = random.Random(1)
        for size in (1, 65536, 65537, 3_000_000):
            data = generator.randbytes(size)
            _, port, address = await self.open()
            client = await self.visit(port)
            client.say(data)
            client.finish()
            # What a small file needs to be all there, and its end.
            await self.call("listTunnels")
            visitor = await self.visit(address)
            await self.exchange(client, visitor, data, b"thank you" * size)
            await self.assertNothingLeft(port, address)

    async def test_visitorFirst(self) -> None:
        """The same when the visitor comes first."""
        data = random.Random(2).randbytes(1_000_000)
        for size in (0, 100, 1_000_000):
            _, port, address = await self.open()
            visitor = await self.visit(address)
            visitor.say(data[:size])
            visitor.finish()
            await self.call("listTunnels")
            client = await self.visit(port)
            await self.exchange(visitor, client, data[:size], data)
            await self.assertNothingLeft(port, address)

    async def test_both(self) -> None:
        """Both directions at once."""
        _, port, address = await self.open()
        client, visitor = await gatherResults(
            [self.visiting(port), self.visiting(address)]
        )
        there, back = (random.Random(n).randbytes(5_000_000) for n in (3, 4))
        for talk, data in ((client, there), (visitor, back)):
            talk.say(data)
            talk.finish()
        await gatherResults([client.gone(), visitor.gone()])
        self.assertEqual((bytes(visitor.data), bytes(client.data)), (there, back))
        (entry,) = self.notes.named("visitorGone")
        self.assertEqual(entry, (5_000_000, 5_000_000, ""))
        await self.assertNothingLeft(port, address)

    async def test_reset(self) -> None:
        """
        A reset arrives as a reset, and not as an end: whatever carries either side,
        with bytes on their way, and with bytes that the breaking end never read.
        """
        kinds = ("tcp", "tls")
        for via, listener, breaking, unread in product(kinds, kinds, (0, 1), (0, 99)):
            uri = await self.call("openTunnel", via=via, listener=listener)
            address = await self.call("getTunnelAddress", uri)
            ends = [await self.come(where) for where in (uri, address)]
            ends[1].say(b"x")
            await ends[0].has(1)
            broken, other = ends[breaking], ends[1 - breaking]
            broken.transport.pauseProducing()
            other.say(bytes(unread))
            broken.say(b"half of a mess")
            await other.has(14)
            broken.abort()
            await other.gone()
            assert other.lost is not None
            case = (via, listener, breaking, unread)
            self.assertIsNone(other.lost.check(ConnectionDone), case)
            self.assertFalse(other.eof, case)
            await self.assertNothingLeft(portOf(uri), portOf(address))

    async def test_leavesWhileWaiting(self) -> None:
        """
        When the client's end is reset before the visitor came, the tunnel is
        over.
        """
        _, port, address = await self.open()
        client = await self.visit(port)
        client.say(b"x")
        await self.call("listTunnels")
        client.abort()
        await self.assertNothingLeft(port, address)

    def fewWait(self, most: int) -> bool:
        return self.tunnels.waiting.taken <= most

    async def test_scanned(self) -> None:
        """
        Port scanners at the URI end nothing, whether they close or reset their
        connections, and a visitor who waits never notices them.
        """
        for waits in (False, True):
            _, port, address = await self.open()
            visitor = await self.visit(address) if waits else None
            for leave in (Talk.finish, Talk.close, Talk.abort):
                scanner = await self.visit(port)
                leave(scanner)
                await until(partial(self.fewWait, int(waits)))
            # All of them and the service are accepted in one turn.
            for _ in range(3):
                socket.create_connection(("127.0.0.1", port)).close()
            client = await self.visit(port)
            visitor = visitor or await self.visit(address)
            visitor.say(b"question")
            await client.has(8)
            client.say(b"answer")
            await visitor.has(6)
            self.assertEqual(bytes(visitor.data), b"answer")
            visitor.close()
            client.close()
            await self.assertNothingLeft(port, address)

    async def test_firstLine(self) -> None:
        """
        Over TCP and TLS, the service is who says the secret; whoever else comes
        hears nothing and hinders nobody.
        """
        for via, come in (("tcp", self.visit), ("tls", self.overTLS)):
            uri = await self.call("openTunnel", via=via, firstLine=True)
            public, _, secret = uri.partition("#")
            address = portOf(await self.call("getTunnelAddress", uri))
            visitor = await self.visit(address)
            visitor.say(b"question")
            others = [await come(portOf(public)) for _ in range(3)]
            others[0].say(b"I am the service now\n")
            others[1].close()
            await others[0].gone()
            self.assertEqual(bytes(others[0].data), b"")
            client = await come(portOf(public))
            client.say(f"{secret}\nanswer".encode())
            await client.has(8)
            await visitor.has(6)
            self.assertEqual(bytes(client.data), b"question")
            self.assertEqual(bytes(visitor.data), b"answer")
            for each in (visitor, client, others[2]):
                each.close()
            await self.assertNothingLeft(portOf(public), address)

    async def test_tls(self) -> None:
        """
        Each side over TCP or TLS. TLS cannot half-close, so that its end is
        the end.
        """
        data = random.Random(5).randbytes(300_000)
        for via in ("tcp", "tls"):
            for listener in ("tcp", "tls"):
                uri = await self.call("openTunnel", via=via, listener=listener)
                address = await self.call("getTunnelAddress", uri)
                self.assertEqual(uri.partition(":")[0], via)
                self.assertEqual(address.partition(":")[0], listener)
                client, visitor = [await self.come(w) for w in (uri, address)]
                visitor.say(b"a request")
                await client.has(9)
                client.say(data)
                client.close()
                await visitor.ended()
                self.assertEqual(bytes(visitor.data), data)
                visitor.close()
                await self.assertNothingLeft(portOf(uri), portOf(address))

    async def test_tlsFileFirst(self) -> None:
        """
        A client's end over TLS that has sent its file and left before the
        visitor came.
        """
        for size in (10, 60_000, 1_000_000):
            data = random.Random(size).randbytes(size)
            _, port, address = await self.open(via="tls", ttl=60)
            client = await self.overTLS(port)
            client.say(data)
            client.close()
            if size < 65536:
                # More than that is not read, nor its end seen.
                await client.gone()
            visitor = await self.visit(address)
            await visitor.ended()
            self.assertEqual(bytes(visitor.data), data)
            visitor.close()
            await self.assertNothingLeft(port, address)


class ManyTests(RPCTestCase):
    """Many tunnels and many visitors."""

    timeout = 60

    async def test_visitors(self) -> None:
        """A tunnel for 50 visitors, all of whom wait at once for a connection."""
        _, port, address = await self.open(visitors=50)
        visitors = [await self.visit(address) for _ in range(50)]
        for number, visitor in enumerate(visitors):
            visitor.say(b"%d" % number)
        await until(lambda: len(self.notes.named("visitorConnected")) == 50)
        clients = [await self.visit(port) for _ in range(50)]
        for client in clients:
            await client.has(1)
            client.say(b"hello " + client.data)
            client.close()
        for visitor in visitors:
            await visitor.ended()
            visitor.close()
        self.assertEqual(
            sorted(bytes(visitor.data) for visitor in visitors),
            sorted(b"hello %d" % number for number in range(50)),
        )
        await self.assertNothingLeft(port, address)

    async def test_twoHundred(self) -> None:
        """200 tunnels opened and used at once; then all their ports are free."""
        # Both ends of everything are in this process.
        raiseDescriptorLimit()
        if getrlimit(RLIMIT_NOFILE)[0] < 2048:
            raise SkipTest("this process may have too few descriptors")
        opening = [{**CALL, "id": n, "method": "openTunnel"} for n in range(100)]
        answers = await gatherResults(
            [Deferred.fromCoroutine(self.post(opening)) for _ in range(2)]
        )
        uris = [each["result"] for batch in answers for each in batch]
        self.assertEqual(len(set(uris)), 200)
        addresses = [
            answer["result"]
            for part in (uris[:100], uris[100:])
            for answer in await self.post(
                [
                    {**CALL, "id": n, "method": "getTunnelAddress", "params": [uri]}
                    for n, uri in enumerate(part)
                ]
            )
        ]
        await until(lambda: self.sockets() == 400)
        clients = await gatherResults([self.visiting(portOf(uri)) for uri in uris])
        visitors = await gatherResults([self.visiting(portOf(a)) for a in addresses])
        for number, (client, visitor) in enumerate(zip(clients, visitors, strict=True)):
            visitor.say(b"visitor %d" % number)
            client.say(b"client %d" % number)
        for number, (client, visitor) in enumerate(zip(clients, visitors, strict=True)):
            await client.has(len(b"visitor %d" % number))
            await visitor.has(len(b"client %d" % number))
            self.assertEqual(client.data, b"visitor %d" % number)
            self.assertEqual(visitor.data, b"client %d" % number)
        self.assertEqual(len(await self.call("listTunnels")), 200)
        for number, (client, visitor) in enumerate(zip(clients, visitors, strict=True)):
            (client if number % 2 else visitor).close()
            (visitor if number % 2 else client).finish()
        await self.assertNothingLeft(*map(portOf, uris + addresses))

    async def test_disconnecting(self) -> None:
        """
        Callers that leave in the middle of their calls: what they opened is
        there to be closed, and nothing else is left.
        """
        request = self.request({**CALL, "method": "openTunnel"})
        for size in (1, 20, len(request) - 1, len(request)):
            for leave in (Talk.abort, Talk.close, Talk.finish):
                talk = await self.visit(self.serverPort)
                talk.say(request[:size])
                leave(talk)
                await talk.ended()
                talk.close()
        await until(lambda: not self.transports())
        opened = await self.call("listTunnels")
        self.assertGreaterEqual(len(opened), 1)
        for entry in opened:
            # To the end, though the caller is gone before it is reached.
            closing = {**CALL, "method": "closeTunnel", "params": [entry["uri"]]}
            talk = await self.visit(self.serverPort)
            talk.say(self.request(closing))
            talk.close()
        await self.assertNothingLeft()


class FewPortsTests(RPCTestCase):
    """A server with two ports."""

    async def startRPC(self) -> None:
        """Find two ports that are free."""
        self.ports = PortRange(tuple((freePort(),) * 2 for _ in range(2)))
        await super().startRPC()

    async def test_exhausted(self) -> None:
        """
        The second tunnel finds no port, and neither does half of one: a
        capability needs one port, a raw tunnel two.
        """
        for _ in range(3):
            uri = await self.call("openTunnel")
            self.assertIn("tcp://", uri)
            self.assertEqual(await self.call("openTunnel"), "ports-exhausted")
            self.assertEqual(
                await self.call("openTunnel", via="w3p"), "ports-exhausted"
            )
            await until(lambda: self.sockets() == 2)
            self.assertIs(await self.call("closeTunnel", uri), None)
            await self.assertNothingLeft(portOf(uri))

    async def test_half(self) -> None:
        """
        When only one port is left, a raw tunnel gets none, and gives that one
        back.
        """
        capability = await self.call("openTunnel", via="w3p")
        for _ in range(3):
            self.assertEqual(await self.call("openTunnel"), "ports-exhausted")
            await until(lambda: self.sockets() == 1)
        taken = portOf(await self.call("getTunnelAddress", capability))
        self.assertEqual(await self.call("openTunnel", port=taken), "port-taken")
        self.assertEqual(await self.call("openTunnel", port=1), "port-not-permitted")
        self.assertIs(await self.call("closeTunnel", capability), None)
        await self.assertNothingLeft(taken)
