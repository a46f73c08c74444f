"""
Closing connections without a reset that destroys what was sent: on a kernel in
memory, and on real sockets.
"""

from __future__ import annotations

import errno
import gc
import select
import socket
from typing import Any
from weakref import ref

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import serverFromString
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from tests.dataplane.kernel import FakeSocket, FakeTLS
from tests.dataplane.test_poller import ByteTLS, PolledTestCase
from tests.support.ends import NotingEnd
from tests.support.short import shortDirectory
from tests.tls.authority import makeAuthority
from tests.tls.files import FileTestCase
from tristunnel.dataplane import leaving
from tristunnel.dataplane.join import join
from tristunnel.dataplane.leaving import DISCARDED, LEAVING
from tristunnel.dataplane.poller import READ
from tristunnel.dataplane.reactor import polledReactor
from tristunnel.dataplane.sockets import SocketEnd
from tristunnel.dataplane.tls import tlsOverEndpoint
from tristunnel.dataplane.transport import SocketTransport
from tristunnel.errors import TunnelError
from tristunnel.tls.server_context import ReloadingCertificate


class Shaken(FakeTLS):
    """TLS that is up."""

    def __init__(self, below: FakeSocket) -> None:
        super().__init__(below)
        self.shaken = True


class Owner(Protocol):
    """Notes why its connection was lost."""

    reason: Any = None

    def connectionLost(self, reason: Any = None) -> None:
        assert self.reason is None, "lost twice"
        self.reason = reason


class LeavingTests(PolledTestCase):
    """Connections whose owner leaves."""

    def setUp(self) -> None:
        super().setUp()
        # The sockets are the test's, and their numbers are not.
        self.untaken = 0
        self.patch(leaving, "bytesUntaken", lambda connection: self.untaken)

    def pair(self, tls: Any = None) -> tuple[SocketTransport, Owner, Any, FakeSocket]:
        """A transport, its owner, and both ends of its connection."""
        near, far = self.kernel.pair(1 << 20)
        owner = Owner()
        over: Any = tls and tls(near)
        transport = SocketTransport(self.poller, near, owner, over)  # type: ignore[arg-type] # a fake
        transport.begin()
        self.turn()
        return transport, owner, near, far

    def test_unread(self) -> None:
        """
        Bytes that come before a close, or after it, do not destroy what was said: what
        comes is discarded until the other side ends, too.
        """
        for tls in (None, Shaken):
            transport, owner, near, far = self.pair(tls)
            transport.pauseProducing()
            near.incoming = b"a request's body" * 10
            transport.write(b"no")
            transport.loseConnection()
            self.turn()
            owner.reason.trap(ConnectionDone)
            self.assertEqual((near.closed, near.incoming), (False, b""))
            near.incoming = b"more of it"
            self.turn()
            self.assertEqual((far.incoming, near.incoming), (b"no", b""))
            self.assertTrue(near.weEnded)
            near.peerEnded = True
            self.turn()
            self.assertTrue(near.closed)
            self.assertEqual((far.incoming, far.problem), (b"no", 0))
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_nothingUnread(self) -> None:
        """Where nothing can be lost, nothing is waited for."""
        for tls in (None, Shaken):
            transport, owner, near, far = self.pair(tls)
            transport.write(b"no")
            transport.loseConnection()
            self.turn()
            owner.reason.trap(ConnectionDone)
            self.assertEqual((near.closed, far.incoming), (True, b"no"))
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_untaken(self) -> None:
        """
        As long as the other side takes something the connection stays, and no longer.
        """
        transport, _, near, _ = self.pair()
        self.untaken = 10_000
        transport.loseConnection()
        self.turn()
        for _ in range(5):
            self.untaken -= 1000
            self.reactor.pump([1] * int(LEAVING + 1))
            self.assertFalse(near.closed)
        self.reactor.pump([1] * int(LEAVING + 2))
        self.assertTrue(near.closed)
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_flood(self) -> None:
        """Who sends without end is read no more after a while, and is then closed."""
        for self.untaken in (10, 0):
            transport, _, near, _ = self.pair()
            near.incoming = bytes(DISCARDED * 4)
            transport.loseConnection()
            for _ in range(10):
                self.turn()
            self.assertGreaterEqual(len(near.incoming), DISCARDED * 3 - 2 * READ)
            self.assertEqual(near.closed, not self.untaken)
            self.reactor.pump([1] * int(LEAVING + 2))
            self.assertTrue(near.closed)

    def test_many(self) -> None:
        """Their number is bounded."""
        self.patch(leaving, "MOST_LEAVING", 3)
        pairs = [self.pair() for _ in range(5)]
        for transport, _, near, _ in pairs:
            near.incoming = b"x"
            transport.loseConnection()
            self.turn()
        self.assertEqual(
            [near.closed for _, _, near, _ in pairs], [True, True, False, False, False]
        )
        self.poller.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_writtenBehindTheEnd(self) -> None:
        """What was written goes out though the other side has ended its direction."""
        for tls in (None, Shaken):
            transport, owner, near, far = self.pair(tls)
            near.room = 2
            transport.write(b"answer")
            near.peerEnded = True
            self.turn()
            self.assertIsNotNone(owner.reason)
            self.assertFalse(near.closed)
            near.room = 1 << 20
            self.turn()
            self.assertEqual((near.closed, far.incoming), (True, b"answer"))

    def test_writtenAfterABreak(self) -> None:
        """What is written to a connection that was broken goes to nobody."""
        transport, owner, near, _ = self.pair()
        # So that it keeps what is sent, which a reset destroys at the far side.
        near.peer = None

        def received(data: bytes) -> None:
            transport.abortConnection()
            transport.write(b"too late")

        self.patch(owner, "dataReceived", received)
        near.incoming = b"nonsense"
        self.turn()
        owner.reason.trap(ConnectionAborted)
        self.assertEqual((b"", True), (near.outgoing, near.closed))

    def test_notInTheClear(self) -> None:
        """What is written before TLS is up never goes out."""
        transport, _, near, far = self.pair(FakeTLS)
        transport.write(b"secret")
        transport.loseConnection()
        self.turn()
        near.peerEnded = True
        transport._finishBoth()
        for _ in range(3):
            self.turn()
        self.assertEqual((near.closed, far.incoming), (True, b""))


class GoodbyeTests(PolledTestCase):
    """TLS's goodbye, and what comes before it."""

    def test_full(self) -> None:
        """It waits for room in the kernel, whoever ends first."""
        for peerFirst in (False, True):
            made, connection = self.make(ByteTLS)
            connection.room = 3
            made.write(b"abc")
            connection.peerEnded = peerFirst
            self.turn()
            made.endWriting()
            self.turn()
            self.assertEqual((connection.outgoing, made.ended), (b"abc", peerFirst))
            self.assertEqual((connection.weEnded, connection.closed), (False, False))
            connection.room = 10
            self.turn()
            self.assertEqual((connection.weEnded, connection.closed), (True, peerFirst))
            connection.peerEnded = True
            self.turn()
            self.assertTrue(connection.closed)
            assert made.reason is not None
            made.reason.trap(ConnectionDone)

    def test_resetBehindIt(self) -> None:
        """A reset does not take what came before the goodbye, though it is held."""
        made, connection = self.make(Shaken)
        made.hold()
        connection.incoming = b"whole"
        connection.peerEnded = connection.hungUp = True
        connection.problem = errno.ECONNRESET
        self.turn()
        self.assertIsNone(made.reason)
        connection.problem = 0
        made.resume()
        self.turn()
        self.assertEqual((made.data, made.ended), (b"whole", True))

    def test_resetWithoutIt(self) -> None:
        """What came before a reset is passed on, and then the reset."""
        made, connection = self.make(Shaken)
        made.hold()
        connection.incoming = b"half"
        connection.problem, connection.hungUp = errno.ECONNRESET, True
        self.turn()
        made.resume()
        for _ in range(3):
            self.turn()
        self.assertEqual((made.data, made.ended), (b"half", False))
        assert made.reason is not None
        made.reason.trap(ConnectionLost)


class Deaf(Shaken):
    """TLS whose other side takes nothing."""

    def send(self, data: bytes | memoryview) -> int:
        raise SSL.SysCallError(errno.EPIPE, "Broken pipe")


class RefusedTests(PolledTestCase):
    """Stream ends over TLS whose other side has left."""

    def test_answered(self) -> None:
        """
        An answer that is not taken any more does not cost what was said before the
        goodbye; who answers learns of it behind that.
        """
        for goodbye, told in ((True, ["finish", "reset"]), (False, ["reset"])):
            connection: Any = self.kernel.socket()
            over: Any = Deaf(connection)
            end = SocketEnd(self.poller, connection, lambda end: None, over)
            peer = NotingEnd()
            end.begin()
            end.join(peer, lambda reason: None)
            end.pauseReading()
            connection.incoming, connection.peerEnded = b"whole", goodbye
            end.write(b"answer")
            self.turn()
            end.write(b"more of it")
            self.turn()
            self.assertEqual(peer.told, [])
            connection.problem = 0 if goodbye else errno.ECONNRESET
            end.resumeReading()
            for _ in range(3):
                self.turn()
            self.assertEqual(peer.told, [b"whole", *told])
            self.assertTrue(connection.closed)


class BrokenTests(PolledTestCase):
    """Stream ends whose other side is broken after it has said all."""

    def test_whole(self) -> None:
        """
        What was said before its end still goes out, and the reset comes behind that;
        but if it is the program that wants to be rid of the bytes, they are dropped.
        """
        for code, taken in (("reset", b"whole"), ("stalled", b"wh")):
            connection: Any = self.kernel.socket()
            end = SocketEnd(self.poller, connection, lambda end: None)
            closed: list[Any] = []
            end.begin()
            end.join(NotingEnd(), closed.append)
            connection.room = 2
            end.write(b"whole")
            end.finish()
            end.reset(TunnelError(code))
            self.assertEqual([each.code.name for each in closed], [code])
            connection.room = 10
            self.turn()
            self.assertEqual(
                (connection.outgoing, connection.closed, connection.wasReset),
                (taken, True, True),
            )
            self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_half(self) -> None:
        """Without an end, nothing is waited for."""
        connection: Any = self.kernel.socket()
        end = SocketEnd(self.poller, connection, lambda end: None)
        end.begin()
        end.join(NotingEnd(), lambda reason: None)
        connection.room = 2
        end.write(b"half")
        end.reset(TunnelError("reset"))
        self.assertEqual((connection.closed, connection.wasReset), (True, True))


class ForgottenTests(PolledTestCase):
    """Stream ends that are over."""

    def test_noCircles(self) -> None:
        """
        Two ends that have said all to each other are gone with their last owner, not
        when the garbage collector finds them.
        """
        gc.disable()
        self.addCleanup(gc.enable)
        sockets: list[Any] = [self.kernel.socket(), self.kernel.socket()]
        ends = [SocketEnd(self.poller, each) for each in sockets]
        for each in ends:
            each.start()
        join(ends[0], ends[1], lambda reason: None)
        known = [ref(each) for each in ends]
        for each in sockets:
            each.incoming, each.peerEnded = b"whole", True
        del ends, each
        for _ in range(3):
            self.turn()
        self.assertEqual([each.outgoing for each in sockets], [b"whole"] * 2)
        self.assertEqual([end() for end in known], [None, None])


ANSWER = bytes(range(256)) * 4096


class Refusing(Protocol):
    """Says much, and closes, without a look at what comes."""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.pauseProducing()

    def handshakeCompleted(self) -> None:
        """TLS is up."""

    def answer(self) -> None:
        transport: Any = self.transport
        transport.write(ANSWER)
        transport.loseConnection()


class LoopbackTests(FileTestCase, TestCase):
    """The same on this machine."""

    if not hasattr(select, "epoll"):
        skip = "there is no epoll"

    def setUp(self) -> None:
        super().setUp()
        from twisted.internet import reactor

        self.reactor = polledReactor(reactor)

    async def answered(self, kind: str) -> bytes:
        """
        Send bytes that nobody reads, and read what is answered.

        @param kind: C{tcp}, C{unix} or C{tls}.
        """
        directory = shortDirectory(self)
        path = str(directory / "socket")
        where = f"unix:{path}" if kind == "unix" else "tcp:0:interface=127.0.0.1"
        endpoint = serverFromString(self.reactor, where)
        if kind == "tls":
            certificate, key = makeAuthority().issue(["localhost"])
            pem = directory / "pem"
            pem.write_bytes(certificate + key)
            endpoint = tlsOverEndpoint(ReloadingCertificate(str(pem)), endpoint)
        refusing = Refusing()
        port: Any = await endpoint.listen(Factory.forProtocol(lambda: refusing))
        self.addCleanup(port.stopListening)
        family = socket.AF_UNIX if kind == "unix" else socket.AF_INET
        at: Any = path if kind == "unix" else ("127.0.0.1", port.getHost().port)
        visitor = socket.socket(family)
        self.addCleanup(visitor.close)

        def ask() -> Any:
            visitor.connect(at)
            if kind != "tls":
                visitor.sendall(bytes(100_000))
                return visitor
            over = SSL.Connection(SSL.Context(SSL.TLS_METHOD), visitor)
            over.set_connect_state()
            over.do_handshake()
            over.sendall(bytes(100_000))
            return over

        def take(carrier: Any) -> bytes:
            taken = b""
            try:
                while data := carrier.recv(10_000):
                    taken += data
            except SSL.ZeroReturnError:
                pass
            return taken

        carrier = await deferToThread(ask)
        refusing.answer()
        data = await deferToThread(take, carrier)
        visitor.close()
        return data

    async def _test(self, kind: str) -> None:
        self.assertTrue(await self.answered(kind) == ANSWER)

    def test_tcp(self) -> Deferred[None]:
        """Over TCP the whole answer is taken."""
        return Deferred.fromCoroutine(self._test("tcp"))

    def test_unix(self) -> Deferred[None]:
        """Over a UNIX socket, too."""
        return Deferred.fromCoroutine(self._test("unix"))

    def test_tls(self) -> Deferred[None]:
        """Over TLS, too, with its goodbye."""
        return Deferred.fromCoroutine(self._test("tls"))
