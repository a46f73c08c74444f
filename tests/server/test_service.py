"""
The server as a service, L{tristunnel.server.service}.
"""

from __future__ import annotations

import errno
from functools import partial
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.error import CannotListenError
from twisted.python.failure import Failure

from tests.dialects.framed.network import NetworkTestCase
from tests.dialects.framed.server_rig import call, hello
from tests.support.waiting import reserved
from tristunnel.errors import TunnelError
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.listeners.udp import UDPListeners
from tristunnel.model.options import TunnelOptions
from tristunnel.server.draining import AT_ONCE
from tristunnel.server.ports import ServerPort
from tristunnel.server.service import RETRY_AFTER, UNKNOWN, TunnelServerService
from tristunnel.wire.framed import FrameType, decodeObject


class _Port:
    """
    A listening port.

    @ivar closed: Whether nobody listens any more.
    """

    def __init__(self) -> None:
        self.closed = False

    def getHost(self) -> IPv4Address:
        return IPv4Address("TCP", "198.51.100.1", 9000)

    def stopListening(self) -> None:
        self.closed = True


class _Endpoint:
    """Listens, or does not."""

    def __init__(self, number: int = 0) -> None:
        self.port = _Port()
        self._number = number

    def listen(self, factory: Any) -> Deferred[Any]:
        if self._number:
            why = OSError(self._number, "no way")
            return fail(Failure(CannotListenError("", 80, why)))
        return succeed(self.port)


class _Paths:
    """Keeps which UDP port was asked for."""

    def __init__(self, claimed: list[int]) -> None:
        self._claimed = claimed

    def port(self, wanted: int) -> int:
        self._claimed.append(wanted)
        return wanted

    def close(self) -> None:
        """Close it."""


class TunnelServerServiceTests(NetworkTestCase):
    """Listening, and stopping without cutting anybody off."""

    def start(self, *endpoints: _Endpoint, grace: float = 5.0) -> TunnelServerService:
        self.failures: list[TunnelError] = []
        server = TunnelServerService(
            self.clock,
            [
                (ServerPort(f"tcp:{n}", endpoint), self.sessions)  # type: ignore[arg-type] # a fake
                for n, endpoint in enumerate(endpoints)
            ],
            self.sessions,
            self.service,
            grace,
            self.failures.append,
        )
        server.privilegedStartService()
        server.startService()
        return server

    def test_listens(self) -> None:
        """Every port is opened once, before privileges are given up."""
        server = self.start(_Endpoint(), _Endpoint())
        self.assertEqual(len(server.listening), 2)
        self.assertEqual(server.numbers, {"tcp:0": 9000, "tcp:1": 9000})
        self.assertEqual(self.failures, [])

    def test_claimsItsOwn(self) -> None:
        """What the server needs is its own from the start: the UDP port for direct
        paths is open before anybody can ask for it, and no owner gets a number where
        clients come in, whatever the protocol and the address."""
        for direct in (False, True):
            claimed: list[int] = []
            self.service.clientPort = (0, False)
            if direct:
                self.sessions.paths = _Paths(claimed)
            tcp, udp = TCPListeners(self.clock), UDPListeners(self.clock)
            self.service.listeners.update(tcp=tcp, tls=TCPListeners(self.clock))
            self.service.listeners["udp"] = udp
            self.start(_Endpoint())
            self.assertEqual(claimed, [9000] if direct else [])
            self.assertEqual(udp.own, {9000} if direct else set())
            for listeners in (tcp, self.service.listeners["tls"]):
                opening = listeners.open(
                    TunnelOptions(port=9000), lambda end, address: None, reserved
                )
                refusal = self.failureResultOf(opening, TunnelError).value
                self.assertEqual(refusal.code.name, "port-taken")

    def test_cannot(self) -> None:
        """A port that cannot be had is told with its cause and a cure."""
        for number, code, cure in (
            (errno.EADDRINUSE, "port-taken", "stop the program that uses it"),
            (errno.EACCES, "port-not-permitted", "CAP_NET_BIND_SERVICE"),
            (errno.EADDRNOTAVAIL, "bad-option", "not have that address"),
            (errno.ENOENT, "bad-option", "choose another"),
        ):
            self.start(_Endpoint(number))
            (reason,) = self.failures
            self.assertEqual(reason.code.name, code)
            self.assertIn("--port tcp:0 cannot be listened on: no way", reason.message)
            self.assertIn(cure, reason.message)

    def test_stopsAtOnce(self) -> None:
        """Without streams there is nothing to wait for; nothing is left."""
        endpoint = _Endpoint()
        server = self.start(endpoint)
        peer = self.dial(hello(), call(1, "openTunnel"))
        self.assertEqual(len(self.listeners.open_), 1)
        stopping = server.stopService()
        self.settle()
        self.advance(0.2, 0.1)
        self.successResultOf(stopping)
        self.assertTrue(endpoint.port.closed)
        self.assertEqual(self.listeners.open_, {})
        self.assertIsNotNone(peer.lost)
        goaway = next(f for f in peer.frames() if f.kind == FrameType.GOAWAY)
        self.assertEqual(decodeObject(goaway.payload)["retryAfter"], RETRY_AFTER)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_drains(self) -> None:
        """Streams get their time, and no more than that."""
        server = self.start(_Endpoint())
        peer = self.dial(hello(), call(1, "openTunnel"))
        visitor = self.listeners.only().visit()
        stopping = server.stopService()
        self.advance(4.5, 0.5)
        self.assertNoResult(stopping)
        self.assertIsNone(visitor.broken)
        self.assertIsNone(peer.lost)
        self.advance(1, 0.5)
        self.successResultOf(stopping)
        assert visitor.broken is not None
        self.assertEqual(visitor.broken.code.name, "shutting-down")

    def test_hurries(self) -> None:
        """Whoever is in a hurry waits no longer."""
        server = self.start(_Endpoint(), grace=1000.0)
        self.dial(hello(), call(1, "openTunnel"))
        visitor = self.listeners.only().visit()
        stopping = server.stopService()
        self.advance(1, 0.5)
        self.assertNoResult(stopping)
        server.hurry()
        self.advance(0.2, 0.1)
        self.successResultOf(stopping)
        self.assertIsNotNone(visitor.broken)

    def test_othersGoOn(self) -> None:
        """
        Where others take its place, it waits for the first bytes of connections that it
        has accepted, but not for ever, and clients are told to come back at once.
        """
        for isPatient in (True, False):
            self.makeServer()
            waiting = [1]
            server = self.start(_Endpoint())
            server.isLast, server.unknown = (lambda: False), partial(sum, waiting)
            peer = self.dial(hello())
            stopping = server.stopService()
            self.settle()
            self.advance(UNKNOWN / 2, 0.1)
            self.assertNoResult(stopping)
            if isPatient:
                waiting[0] = 0
            self.advance(0.2 if isPatient else UNKNOWN, 0.1)
            self.successResultOf(stopping)
            goaway = next(f for f in peer.frames() if f.kind == FrameType.GOAWAY)
            self.assertEqual(decodeObject(goaway.payload)["retryAfter"], AT_ONCE)

    def test_allStop(self) -> None:
        """
        If it turns out that the others stop, too, clients are not told to come back at
        once.
        """
        server, leaving = self.start(_Endpoint()), Deferred[None]()
        isLast: list[bool] = []
        server.isLast, server.leaving = (lambda: bool(isLast)), (lambda: leaving)
        peer = self.dial(hello())
        stopping = server.stopService()
        isLast.append(True)
        leaving.callback(None)
        self.settle()
        self.successResultOf(stopping)
        goaway = next(f for f in peer.frames() if f.kind == FrameType.GOAWAY)
        self.assertEqual(decodeObject(goaway.payload)["retryAfter"], RETRY_AFTER)

    def test_last(self) -> None:
        """Where nobody does, it does not wait for such connections."""
        server = self.start(_Endpoint())
        server.unknown = lambda: 1
        stopping = server.stopService()
        self.settle()
        self.successResultOf(stopping)

    def test_clientGoesDuringStop(self) -> None:
        """A client that goes while the server stops leaves no lease behind."""
        server = self.start(_Endpoint())
        self.dial(hello(), call(1, "openTunnel"))
        self.successResultOf(self.service.leases.close())
        self.wires[-1].cut()
        stopping = server.stopService()
        self.advance(0.2, 0.1)
        self.successResultOf(stopping)
        self.assertEqual(self.clock.getDelayedCalls(), [])
