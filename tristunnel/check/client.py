"""
C{twistd tunnel-client --check}: can this client reach its server, is it the right one,
and does it let the client in? The check connects as the client itself does, layer by
layer.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    NoRouteError,
)
from twisted.internet.error import TimeoutError as ConnectTimeout
from twisted.internet.interfaces import IHandshakeListener, INegotiated
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.check.report import (
    Finding,
    Inquiry,
    certificateFinding,
    fail,
    inTime,
    ok,
    skip,
    warn,
)
from tristunnel.check.silence import MARGIN, holdSilence, unmeasured
from tristunnel.connect.address import ServerAddress
from tristunnel.dataplane.dial import HostEndpoint
from tristunnel.dataplane.lookups import resolveWith
from tristunnel.dialects.base.dialect import Dialect
from tristunnel.dialects.framed.liveness import PING_INTERVAL
from tristunnel.dialects.table import DEFAULT, DIALECTS
from tristunnel.errors import TunnelError
from tristunnel.forwards.forward import Forward
from tristunnel.util.hosts import addressText

__all__ = ["ClientCheck"]

SKEW = 60.0
"""Seconds by which two clocks may differ."""

_LARGEST_HEAD = 16 * 1024


@implementer(IHandshakeListener)
class _Probe(Protocol):
    """Waits until a connection can be used, and may then ask for the time."""

    transport: Any

    def __init__(self, request: bytes = b"") -> None:
        self.ready: Deferred[_Probe] = Deferred()
        self.head: Deferred[bytes] = Deferred()
        # It may be that nobody waits for either.
        self.head.addErrback(lambda failure: b"")
        self._request = request
        self._heard = b""

    def connectionMade(self) -> None:
        if not INegotiated.providedBy(self.transport):
            self._begin()

    def handshakeCompleted(self) -> None:
        self._begin()

    def _begin(self) -> None:
        if self._request:
            self.transport.write(self._request)
        if not self.ready.called:
            self.ready.callback(self)

    def dataReceived(self, data: bytes) -> None:
        self._heard += data
        if b"\r\n\r\n" in self._heard or len(self._heard) > _LARGEST_HEAD:
            self._answer()

    def _answer(self) -> None:
        if not self.head.called:
            self.head.callback(self._heard.partition(b"\r\n\r\n")[0])

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if not self.ready.called:
            self.ready.errback(reason)
        self._answer()


@dataclass(eq=False, repr=False)
class ClientCheck(Inquiry):
    """
    Checks everything between a client and its services' visitors.

    @ivar reactor: Connects and tells time.
    @ivar server: The server.
    @ivar forwards: The services.
    @ivar credentials: What the client says of itself.
    @ivar dialect: What it speaks.
    @ivar resolve: Looks names up.
    @ivar now: The time of day.
    @ivar silence: Seconds for which to hold a silent session; C{None} for a little
        longer than sessions are ever silent, 0 for no such check.
    """

    reactor: Any
    server: ServerAddress
    forwards: Sequence[Forward] = ()
    credentials: Mapping[str, object] = field(default_factory=dict)
    dialect: Dialect = DIALECTS[DEFAULT]
    resolve: Callable[[str], Deferred[list[str]]] | None = None
    now: Callable[[], float] = time.time
    silence: float | None = None

    def __post_init__(self) -> None:
        self._resolve = self.resolve or resolveWith(self.reactor)
        self._greeting = self.server.greeting()
        # Where the first connection goes.
        proxy = self.server.route.proxy
        self._host, self._port = self.server.host, self.server.port
        if proxy is not None:
            host, _, port = proxy.where.rpartition(":")
            self._host, self._port = host, int(port)
        looks: list[tuple[str, Any]] = [
            ("name!", self._name),
            ("route!", self._route),
            ("proxy!", self._proxy),
            ("tls!", self._tls),
            ("websocket!", self._webSocket),
            ("credential!", self._credential),
            ("clock!", self._clock),
            ("service", self._services),
            # This is last, since it takes so long.
            ("idle!", self._idle),
        ]
        if proxy is None and not self.server.route.exempt:
            looks.remove(("proxy!", self._proxy))
        if not self.server.isWebSocket:
            looks.remove(("websocket!", self._webSocket))
        slow = {}
        if wait := self._silenceWanted():
            slow["idle"] = f"keeping a session idle for {wait:g} s"
        super().__init__(looks, slow)

    def _silenceWanted(self) -> float:
        server = self.server
        if not self.dialect.logsIn or server.capability or server.access:
            return 0.0
        return PING_INTERVAL + MARGIN if self.silence is None else self.silence

    # The looks

    async def _name(self) -> Finding:
        host = self._host
        if not host:
            return skip(f"{self.server.where} has none")
        if isIPAddress(host) or isIPv6Address(host):
            return ok(f"{host} is an address")
        try:
            addresses = await inTime(
                self.reactor, self._resolve(host), f"{host} was not found"
            )
        except DNSLookupError:
            raise TunnelError(
                "session-lost",
                f"there is no address for {host}: check the spelling, and this"
                " machine's name server",
            ) from None
        return ok(f"{host} is {', '.join(addresses[:8])}")

    async def _route(self) -> Finding:
        if not self._port:
            return skip(f"{self.server.where} is not a TCP port")
        where = f"{self._host} port {self._port}"
        began = self.reactor.seconds()
        endpoint = HostEndpoint(self.reactor, self._host, self._port, 10.0)
        try:
            probe = await self._connect(endpoint)
        except ConnectionRefusedError:
            why = "refuses connections: is the server running, and is this its port?"
        except (ConnectTimeout, NoRouteError):
            why = (
                "does not answer: a firewall may be dropping packets; try another"
                " port, 443 for example, or --proxy"
            )
        except DNSLookupError:
            why = "has no address"
        except ConnectError as error:
            why = f"was not reached: {error}"
        else:
            passed = self.reactor.seconds() - began
            peer = addressText(probe.transport.getPeer())
            probe.transport.abortConnection()
            return ok(f"{peer} answers in {passed * 1000:.0f} ms")
        raise TunnelError("session-lost", f"{where} {why}")

    async def _proxy(self) -> Finding:
        server = self.server
        if server.route.proxy is None:
            return ok(f"not the one from {server.route.exempt}, because of NO_PROXY")
        endpoint = server.route.reach(self.reactor, server.host, server.port)
        (await self._connect(endpoint)).transport.abortConnection()
        return ok(f"{server.route.proxy} connects to {server.host}")

    async def _tls(self) -> Iterable[Finding] | Finding:
        server = self.server
        if server.verification is None or server.link is None:
            if server.host in ("localhost", "127.0.0.1", "::1", ""):
                return ok("not needed on this machine")
            return warn(
                "nothing is encrypted, and anybody on the network path can pose as the"
                " server:"
                " connect with tls: or wss:"
            )
        probe = await self._connect(server.link)
        handle = probe.transport.getHandle()
        certificate = probe.transport.getPeerCertificate().to_cryptography()
        probe.transport.abortConnection()
        if server.trust.insecure:
            seen = server.verification.seen
            judged = warn(f"--insecure accepts any server: use --pin {seen} instead")
        else:
            version, cipher = (
                handle.get_protocol_version_name(),
                handle.get_cipher_name(),
            )
            judged = ok(f"{server.host} speaks TLS ({version}, {cipher})")
        pinned = bool(server.trust.pins)
        ends = certificateFinding(certificate, "the server's", pinned, self.now)
        return [judged, ends]

    async def _webSocket(self) -> Finding:
        probe = await self._connect(self.server.endpoint)
        probe.transport.loseConnection()
        return ok(f"{self.server.where} opens one")

    async def _credential(self) -> Finding:
        if self.server.capability:
            return skip(
                "not tried, since that would displace whoever serves this tunnel"
            )
        if not self.dialect.logsIn:
            return skip(f"{self.dialect.name} shows it with the WebSocket")
        try:
            session = await self._login()
        except TunnelError as error:
            if error.code.name != "auth-refused":
                raise
            raise TunnelError(
                "auth-refused",
                f"{error.message}: compare them with the server's, ask its operator"
                " whether they were revoked or have expired, and see that they are"
                " given by --token-file, --credentials-file or a variable",
            ) from None
        session.close()
        if not session.extended and self._greeting.tried:
            return warn(
                "the server only accepts us without tristunnel's key in the"
                " credentials:"
                " if it is W3P's, give --extension never, or the first attempt after"
                " each start is in vain"
            )
        spoken = self.dialect.name if session.extended else "plain W3P"
        name = self.credentials.get("id")
        as_ = f" as {name}" if isinstance(name, str) and name else ""
        return ok(f"the server accepts our credentials{as_} ({spoken})")

    async def _login(self, quiet: float = 0.0) -> Any:
        """
        Begin a session.

        @param quiet: For how many seconds it shall have no pings.
        @return: The session, which is to be closed.
        """
        session = await self._greet(quiet)
        try:
            await inTime(self.reactor, session.whenReady(), "no answer came")
        except TunnelError:
            session.close()
            if session.unanswered and self._greeting.unanswered():
                return await self._login(quiet)
            raise
        return session

    async def _greet(self, quiet: float) -> Any:
        factory = self.dialect.checkFactory(
            self.reactor, self.server, self.credentials, quiet, self._greeting.extended
        )
        return await self._wait(self.server.endpoint.connect(factory))

    async def _clock(self) -> Finding:
        server = self.server
        link = server.link or server.endpoint
        host = server.host.partition("%")[0].removesuffix(".") or "localhost"
        request = f"GET /health HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        probe = await self._connect(link, request.encode("ascii", "replace"))
        head = await inTime(self.reactor, probe.head, "no HTTP answer came")
        probe.transport.abortConnection()
        here = self.now()
        dates = [
            line.partition(b":")[2].strip().decode("latin-1")
            for line in head.split(b"\r\n")
            if line.lower().startswith(b"date:")
        ]
        try:
            there = parsedate_to_datetime(dates[0]).timestamp()
        except (IndexError, ValueError, TypeError):
            return skip("the server does not say what time it is")
        skew = here - there
        ahead = "ahead of" if skew > 0 else "behind"
        if abs(skew) > SKEW:
            raise TunnelError(
                "expired",
                f"this machine's clock is {abs(skew):.0f} s {ahead} the server's: set"
                " both by NTP, or valid certificates and tokens may be rejected",
            )
        return ok(f"within {abs(skew) + 1:.0f} s of the server's")

    async def _idle(self) -> Finding:
        if not self.dialect.logsIn:
            return unmeasured(self.server.route.pingInterval)
        wanted = self._silenceWanted()
        if not wanted:
            why = (
                "--check-idle 0" if self.silence == 0 else "the URI is for one session"
            )
            return skip(f"not measured ({why})")
        session = await self._login(wanted)
        try:
            if not session.quiet:
                return skip(
                    "this server sends pings in every session, so the longest idle time"
                    " cannot be measured"
                )
            return await holdSilence(self.reactor, session, PING_INTERVAL)
        finally:
            session.close()

    async def _services(self) -> Iterable[Finding]:
        return [await self._service(forward) for forward in self.forwards]

    async def _service(self, forward: Forward) -> Finding:
        if forward.isUDP:
            return skip(f"{forward.target} speaks UDP")
        if forward.demand is not None:
            return skip(f"{forward.target} is started by its first visitor")
        try:
            probe = await self._connect(forward.endpoint)
        except Exception as error:
            refused = isinstance(error, ConnectionRefusedError)
            return fail(
                (
                    f"nothing listens at {forward.target}"
                    if refused
                    else f"{forward.target} was not reached ({error})"
                )
                + f": start it, or correct --forward {forward.spec}"
            )
        probe.transport.abortConnection()
        return ok(f"{forward.target} accepts connections")

    # Connecting

    async def _connect(self, endpoint: Any, request: bytes = b"") -> _Probe:
        probe = _Probe(request)
        factory = Factory.forProtocol(lambda: probe)
        factory.noisy = False
        await self._wait(endpoint.connect(factory))
        try:
            await self._wait(probe.ready)
        except TunnelError:
            probe.transport.abortConnection()
            raise
        return probe

    async def _wait(self, waiting: Deferred[Any]) -> Any:
        try:
            return await inTime(self.reactor, waiting, "no connection was made")
        except (TunnelError, ConnectError, DNSLookupError):
            raise
        except Exception:
            raise self.server.notReached(Failure()) from None
