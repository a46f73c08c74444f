"""
A real resolver and a real client of DNS.
"""

from __future__ import annotations

import shutil
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.error import ProcessTerminated
from twisted.internet.protocol import ProcessProtocol
from twisted.internet.utils import getProcessOutputAndValue
from twisted.python.failure import Failure

from tests.integration.udp_loopback import UDPTestCase
from tests.support.processes import freePort

_DIG = shutil.which("dig")
_DNSMASQ = shutil.which("dnsmasq")


class Resolver(ProcessProtocol):
    """
    dnsmasq.

    @ivar ready: Fires when it answers.
    @ivar ended: Fires when it is gone.
    """

    transport: Any

    def __init__(self) -> None:
        self.ready: Deferred[None] = Deferred()
        self.ended: Deferred[None] = Deferred()
        self._said = b""

    def errReceived(self, data: bytes) -> None:
        self._said += data
        if b"started" in self._said and not self.ready.called:
            self.ready.callback(None)

    def processEnded(self, reason: Failure) -> None:
        if not self.ready.called:
            self.ready.errback(RuntimeError(self._said.decode()))
        reason.trap(ProcessTerminated)
        self.ended.callback(None)

    def stop(self) -> Deferred[None]:
        self.transport.signalProcess("KILL")
        return self.ended


class DNSTests(UDPTestCase):
    """C{dig} asks C{dnsmasq} through a tunnel."""

    if not (_DIG and _DNSMASQ):
        skip = "dig and dnsmasq are not installed"

    async def _resolver(self) -> int:
        """Start dnsmasq; its port."""
        while True:
            number = freePort()
            resolver = self._start(number)
            try:
                await resolver.ready
            except RuntimeError as error:
                # Somebody was faster.
                if "in use" not in str(error):
                    raise
            else:
                self.addCleanup(resolver.stop)
                return number

    def _start(self, number: int) -> Resolver:
        resolver = Resolver()
        self.reactor.spawnProcess(
            resolver,
            str(_DNSMASQ),
            [
                "dnsmasq",
                "--keep-in-foreground",
                "--log-facility=-",
                "--conf-file=/dev/null",
                "--pid-file=",
                "--user=",
                f"--port={number}",
                "--listen-address=127.0.0.1",
                "--bind-interfaces",
                "--no-resolv",
                "--no-hosts",
                "--edns-packet-max=4096",
                "--address=/test/192.0.2.7",
                "--address=/test/2001:db8::7",
                *(f"--txt-record=big.test,{n:02}{'x' * 200}" for n in range(12)),
            ],
            env=None,
        )
        return resolver

    async def _dig(self, *question: str) -> str:
        """Ask; a second time only if that is what the answer takes."""
        out, err, code = await getProcessOutputAndValue(
            str(_DIG),
            ("+tries=1", "+time=5", "+ignore", *question),
            reactor=self.reactor,
        )
        self.assertEqual(code, 0, (out + err).decode())
        return str(out.decode())

    async def test_questions(self) -> None:
        """
        Addresses, and an answer of several packets over EDNS, which comes
        whole: over IPv4 and over IPv6.
        """
        number = await self._resolver()
        self.startServer()
        (port,) = await self.startClient(f"udp/0=localhost:{number}")
        for server in ("127.0.0.1", "::1"):
            at = (f"@{server}", "-p", str(port))
            self.assertEqual(
                await self._dig(*at, "a.test", "A", "+short"), "192.0.2.7\n"
            )
            self.assertEqual(
                await self._dig(*at, "a.test", "AAAA", "+short"), "2001:db8::7\n"
            )
            big = await self._dig(*at, "big.test", "TXT", "+bufsize=4096", "+short")
            self.assertEqual(
                sorted(line[1:3] for line in big.split()),
                [f"{n:02}" for n in range(12)],
            )

    async def test_manyAtOnce(self) -> None:
        """Fifty at once, each a flow."""
        number = await self._resolver()
        self.startServer()
        (port,) = await self.startClient(f"udp/0=127.0.0.1:{number}")
        answers = await gatherResults(
            [
                Deferred.fromCoroutine(
                    self._dig("@127.0.0.1", "-p", str(port), f"{n}.test", "+short")
                )
                for n in range(50)
            ]
        )
        self.assertEqual(answers, ["192.0.2.7\n"] * 50)
        self.assertEqual(len(self.notes.named("visitorConnected")), 50)
