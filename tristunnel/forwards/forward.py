"""
What a client offers: C{[udp/][PORT|NAME]=TARGET[,OPTION]...},
C{http/HOST[/PATH]=TARGET}, or a short form.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from twisted.internet.interfaces import IStreamClientEndpoint

from tristunnel.connect.address import Trust
from tristunnel.connect.endpoints import EndpointParts, isKind, noEndpoint
from tristunnel.dataplane.dial import ServiceEndpoint
from tristunnel.dataplane.reactor import polledReactor
from tristunnel.dataplane.tls import tlsOverClientEndpoint
from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.forwards.demand import DemandPlan
from tristunnel.forwards.gate import GateFiles, readGate
from tristunnel.forwards.health import HealthPlan, planOf
from tristunnel.forwards.options import ForwardOptions, splitOptions
from tristunnel.forwards.proxied import ProxyHeaderEndpoint
from tristunnel.forwards.targets import Inner, innerTarget, isInner
from tristunnel.forwards.udp import UDPService
from tristunnel.forwards.verify import Verification, readVerification
from tristunnel.model.names import HOSTS, nameWanted
from tristunnel.model.policy import VisitorPolicy
from tristunnel.util.hosts import parsePlace
from tristunnel.util.port_ranges import expandedForward
from tristunnel.util.words import isName

__all__ = ["Forward", "cannotAsk", "forwardText", "parseForward", "placeWanted"]

_HOST = re.compile(rf"\s*({'|'.join(HOSTS)})/([^/=]*)(/[^=]*)?=\s*(.+)")

_WEB = {"http": 80, "https": 443}
"""The schemes of browsers, and the ports that addresses leave out."""

_NO_WEB = ("minecraft", "postgres", "tls", "udp")
"""Kinds that are not for browsers."""


@dataclass(frozen=True)
class Forward:
    """
    One service on offer.

    @ivar spec: As the user wrote it.
    @ivar port: The visitors' port wanted; 0 for any.
    @ivar name: The tunnel's name, or empty.
    @ivar target: The service, as messages name it.
    @ivar endpoint: The service.
    @ivar scheme: How the visitors' address begins if a browser is to open it:
        C{http} or C{https}; else empty.
    @ivar listener: How visitors connect, as C{openTunnel} takes it; empty for the
        server's default.
    @ivar path: The path of its name below which the tunnel is; empty for all.
    @ivar private: Whether the tunnel has no port for visitors.
    @ivar policy: The limits on this tunnel's visitors; C{None} for those that the
        client sets for all.
    @ivar options: The options after the target.
    @ivar health: How the service's health is checked; C{None} if it is not.
    @ivar inner: The service, if it is one of the client's own.
    @ivar gate: How visitors of its name say who they are.
    @ivar demand: How the service is started for its visitors; C{None} if it is not.
    @ivar verification: How requests must be signed; C{None} if they need not be.
    """

    spec: str
    port: int
    name: str
    target: str
    endpoint: IStreamClientEndpoint | UDPService
    scheme: str = ""
    private: bool = False
    policy: VisitorPolicy | None = None
    listener: str = ""
    path: str = ""
    options: ForwardOptions = field(default_factory=ForwardOptions)
    health: HealthPlan | None = None
    inner: Inner | None = None
    gate: GateFiles = field(default_factory=GateFiles)
    demand: DemandPlan | None = None
    verification: Verification | None = None

    @property
    def beside(self) -> Forward | None:
        """The tunnel for datagrams that its visitors need, too."""
        inner = self.inner
        if inner is None or inner.datagrams is None or self.private or self.hasHost:
            return None
        return replace(
            self,
            spec=f"udp/{self.spec}",
            name="",
            target=f"udp:{self.target}",
            endpoint=inner.datagrams,
            health=None,
            inner=None,
        )

    @property
    def place(self) -> tuple[str, int, str]:
        """
        What stays the same when a tunnel gets another target: its kind, its port and
        its name.
        """
        kind = self.listener if self.hasHost else "udp" if self.isUDP else "tcp"
        return kind, self.port, f"{self.name}{self.path}"

    @property
    def hasHost(self) -> bool:
        """Whether its name is what visitors ask for, in the place of a port."""
        return self.listener in HOSTS.values()

    @property
    def isFixed(self) -> bool:
        """Whether its tunnel can be told from others."""
        return bool(self.port or self.name)

    @property
    def ofFiles(self) -> tuple[GateFiles, Verification | None]:
        """What it has read from files, which may change while its text does not."""
        return self.gate, self.verification

    def isLike(self, other: Forward) -> bool:
        """
        Whether another one asks for exactly the same. (Endpoints cannot be compared,
        but they follow from the text.)
        """
        names = ("spec", "private", "policy", "health", "demand", "ofFiles")
        return all(getattr(self, each) == getattr(other, each) for each in names)

    @property
    def isUDP(self) -> bool:
        return isinstance(self.endpoint, UDPService)

    def asked(self, port: int, name: str) -> Forward:
        """The same, with another port and name for visitors."""
        target = self.target.removeprefix("udp:") if self.isUDP else self.target
        # A service of the client's own has a scheme of its own.
        scheme = self.scheme if self.inner is None else ""
        spec = forwardText(port, name, target, self._kind, scheme, self.path)
        spec += self.options.text
        return replace(self, port=port, name=name, spec=spec)

    def addressFor(self, address: str) -> str:
        """
        Write the tunnel's address as visitors open it.

        @param address: As the server has it, such as C{tcp://HOST:PORT}.
        """
        kind, mark, place = address.partition("://")
        if not (self.scheme and mark and kind in ("tcp", "tls")):
            return address
        scheme = "https" if kind == "tls" else self.scheme
        return f"{scheme}://{place.removesuffix(f':{_WEB[scheme]}')}"

    @property
    def _kind(self) -> str:
        kinds = {listener: kind for kind, listener in HOSTS.items()}
        return kinds.get(self.listener, "udp" if self.isUDP else "")

    @property
    def wanted(self) -> str:
        """What was asked for, for messages."""
        if self.hasHost:
            return f"{self._kind}/{self.name}{self.path}" if self.name else "any name"
        wanted = self.name or (f"port {self.port}" if self.port else "any port")
        return f"UDP {wanted}" if self.isUDP else wanted


def forwardText(
    port: int, name: str, target: str, kind: str = "", scheme: str = "", path: str = ""
) -> str:
    """
    Write a forward in full; one with both a port and a name has no shorter form.

    @param kind: What is in front of the slash, or empty.
    """
    wanted = f"{port}:{name}" if port and name else name or port
    if kind in HOSTS:
        wanted = f"{name}{path}"
    mark = f"{scheme}://" if scheme else ""
    return f"{kind}{'/' if kind else ''}{wanted}={mark}{target}"


def parseForward(reactor: Any, spec: str) -> Forward:
    """
    Read a forward, in full or in one of the usual short forms: C{3000},
    C{localhost:3000}, C{8081=3000}, C{8081:localhost:3000}, C{http://localhost:3000};
    each with options after it.

    @raise TunnelError: C{bad-option}, with the cause and an example.
    """
    body, options = _split(spec)
    place, target = placeWanted(spec, body)
    kind, port, name, path = place
    whole, written, scheme = target, spec, ""
    inner = None
    if isInner(target):
        inner = _inner(reactor, spec, target, kind, options)
        scheme = inner.scheme
    elif target.lower().startswith(("http:", "https:")):
        scheme, target = _fromURL(spec, target)
        if (kind, scheme) == ("http", "https"):
            # Visitors' TLS ends at the server: the client's own goes on from here.
            host, _, number = target.rpartition(":")
            scheme, target = "", f"tls:{host.strip('[]')}:{number}"
    if target.startswith(":") and target[1:].isdecimal():
        target = target[1:]
    if target.isascii() and target.isdecimal():
        target = f"localhost:{target}"
    if target != whole or "=" not in body or ":" in body.partition("=")[0]:
        mark = "" if inner else scheme
        spec = forwardText(port, name, target, kind, mark, path) + options.text
    if kind == "udp":
        if options.health not in ("", "none"):
            raise badOption(
                f"--forward {written!r}: no check tells whether a UDP service is well;"
                f" leave out health={options.health}"
            )
        if options.proxy:
            raise badOption(
                f"--forward {written!r}: the PROXY protocol is for connections, and"
                f" UDP has none; leave out proxy={options.proxy}"
            )
        if scheme:
            raise badOption(f"--forward {written!r}: {scheme} does not go over UDP")
        _verification(written, kind, options, inner)
        service, gate = _udp(reactor, written, target), _gate(written, kind, options)
        text = f"udp:{target}"
        return Forward(spec, port, name, text, service, options=options, gate=gate)
    endpoint = inner.endpoint if inner else _endpoint(reactor, written, target, options)
    return Forward(
        spec,
        port,
        name,
        target,
        endpoint,
        scheme,
        listener=HOSTS.get(kind, ""),
        path=path,
        options=options,
        health=planOf(options.health),
        inner=inner,
        # A short command may still turn this into a name.
        gate=_gate(written, kind, options, not (kind or port or name)),
        verification=_verification(written, kind, options, inner),
    )


def _gate(
    spec: str, kind: str, options: ForwardOptions, mayBeWeb: bool = False
) -> GateFiles:
    try:
        gate = readGate(vars(options))
    except TunnelError as error:
        raise badOption(f"--forward {spec!r}: {error.message}") from None
    if gate.knock:
        if kind in _WEB or options.raw or options.share:
            raise badOption(
                f"--forward {spec!r}: visitors knock at a port of one client; ask those"
                " of an HTTP name by pin=, login=, oidc= or link, and leave out share"
            )
    elif gate and (options.raw or not (kind in _WEB or mayBeWeb)):
        raise cannotAsk(spec, options.raw)
    return gate


def _verification(
    spec: str, kind: str, options: ForwardOptions, inner: Inner | None
) -> Verification | None:
    if not options.verify:
        return None
    try:
        made = readVerification(options.verify)
    except TunnelError as error:
        raise badOption(f"--forward {spec!r}: {error.message}") from None
    what = ""
    if kind in _NO_WEB:
        what = f"{kind}/ is not for HTTP"
    elif options.raw:
        what = "raw joins whole connections"
    elif inner is not None:
        what = "the client's own services take no webhooks"
    if what:
        raise badOption(
            f"--forward {spec!r}: {what}, and signatures are of HTTP requests; leave"
            " out verify="
        )
    return made


def cannotAsk(spec: str, raw: bool = False) -> TunnelError:
    """
    Explain why visitors of a forward cannot be asked to sign in.

    @param raw: Whether the reason is that its connections pass unchanged.
    """
    what = "raw joins whole connections" if raw else "this is not an HTTP name"
    return badOption(
        f"--forward {spec!r}: {what}, of which nobody can ask a PIN or a login;"
        " write http/NAME=TARGET, or limit where visitors come from by allow=,"
        " deny= and countries="
    )


def _inner(
    reactor: Any, spec: str, target: str, kind: str, options: ForwardOptions
) -> Inner:
    if kind == "udp":
        raise badOption(
            f"--forward {spec!r}: {target.partition(':')[0]}: is not a UDP"
            " service; leave"
            " out udp/"
        )
    if options.proxy:
        raise badOption(
            f"--forward {spec!r}: {target.partition(':')[0]}: takes no PROXY header;"
            f" leave out proxy={options.proxy}"
        )
    return innerTarget(reactor, spec, target)


def placeWanted(spec: str, body: str) -> tuple[tuple[str, int, str, str], str]:
    """
    Read where visitors are to connect.

    @param spec: What is read, for messages.
    @param body: The same without options.
    @return: The kind, the port, the name and the path that are wanted; and the target.
    @raise TunnelError: C{bad-option}.
    """
    if found := _HOST.fullmatch(body):
        kind, name, path, target = found.groups("")
        return (kind, 0, *_host(spec, kind, name, path)), target
    wanted, target, isUDP = _parts(body)
    port, name = 0, ""
    if wanted.isascii() and wanted.isdecimal():
        port = int(wanted[:6])
        if port > 65535:
            raise badOption(f"--forward {spec!r}: {wanted[:20]} is not a port")
    elif wanted:
        name = wanted
        if not isName(name):
            raise badOption(f"--forward {printable(spec, 60)!r}: {_noName(name)}")
    return ("udp" if isUDP else "", port, name, ""), target


def _noName(text: str) -> str:
    """Explain why what is in front of C{=} does not name a tunnel."""
    kind, slash, host = text.partition("/")
    if not slash:
        return "a name has at most 64 letters, digits, '-', '_' and '.'"
    if kind.lower() == "https":
        return f"write http/{printable(host, 60)}, which visitors open by https:// too"
    return f"what stands in front of a slash is udp, {', '.join(HOSTS)}"


def _host(spec: str, kind: str, name: str, path: str) -> tuple[str, str]:
    try:
        return nameWanted(kind, name, path)
    except TunnelError as error:
        raise badOption(f"--forward {spec!r}: {error.message}") from None


def _split(spec: str) -> tuple[str, ForwardOptions]:
    try:
        body, options = splitOptions(spec)
    except TunnelError as error:
        raise badOption(f"--forward {spec!r}: {error.message}") from None
    if expandedForward(body) != [body]:
        raise badOption(
            f"--forward {spec!r}: a range is several tunnels, and here is room for"
            " one; write a single port"
        )
    return body, options


def _parts(spec: str) -> tuple[str, str, bool]:
    """
    Split a forward into its parts.

    @return: The port or name wanted, the target, and whether it is UDP.
    """
    text = spec.strip()
    isUDP = text.startswith("udp/") or text.endswith("/udp")
    text = text.removeprefix("udp/").removeprefix("tcp/")
    text = text.removesuffix("/udp").removesuffix("/tcp")
    wanted, equals, target = (part.strip() for part in text.partition("="))
    if not equals or ":" in wanted:
        # "tcp:h:1" has no "=", but an endpoint's keywords may have one.
        known = isKind(text) or isInner(text)
        if known or text.lower().startswith(("udp:", "http:", "https:")):
            wanted, target = "", text
        else:
            wanted, target = _short(spec, text, wanted if equals else "", target)
    if target.lower().startswith(("udp:", "udp/")):
        target, isUDP = target[4:].removeprefix("//"), True
    if not target:
        raise badOption(f"--forward {printable(spec, 60)!r} {_NO_TARGET}")
    return wanted, target, isUDP


_NO_TARGET = (
    "names no service; write its port, for example 3000, or HOST:PORT, or"
    " PORT=HOST:PORT with the port for visitors in front"
)


def _short(spec: str, text: str, before: str, target: str) -> tuple[str, str]:
    """
    Read a forward that is not C{PORT=TARGET}, as people write it who know C{ssh -R} or
    Docker.

    @param before: What comes before C{=}, if it has one.
    @param target: What comes after it.
    @return: The port or name wanted, and the target.
    """
    if target and (asked := re.fullmatch(r"(.*):([0-9]*)", before)):
        address, port = asked.groups()
        if not address:
            return port, target
    elif found := _AS_SSH.fullmatch(text):
        address, port, host, number = found.groups()
        target = f"{host or 'localhost'}:{number}"
        if not address:
            return port, target
    elif not before and re.fullmatch(r"[0-9]+|.*:[0-9]+", text):
        return "", text
    else:
        raise badOption(f"--forward {printable(spec, 60)!r} {_NO_TARGET}")
    raise badOption(
        f"--forward {spec!r} has an address before its port, but the server says at"
        " which of its addresses visitors come (--interface there); write"
        f" {port}={target}"
    )


_AS_SSH = re.compile(
    r"(?:([^:/]*|\[.*\]):)?([0-9]+):(?:([^:/]*[^:/0-9][^:/]*|\[.*\]):)?([0-9]+)"
)


def _fromURL(spec: str, target: str) -> tuple[str, str]:
    url = urlsplit(target)
    host, colon, port = url.netloc.rpartition("@")[2].rpartition(":")
    if not colon or port.endswith("]"):
        host, port = url.netloc, ""
    if not host or url.path.strip("/") or url.query or url.fragment:
        raise badOption(
            f"--forward {spec!r}: a tunnel leads to a whole server; write"
            f" {url.scheme}://{url.netloc or 'localhost:3000'}"
        )
    return url.scheme, f"{host}:{port or _WEB[url.scheme]}"


def _udp(reactor: Any, spec: str, target: str) -> UDPService:
    try:
        return UDPService(reactor, *parsePlace(target))
    except ValueError as error:
        raise badOption(
            f"--forward {spec!r}: {target!r} is not a UDP service ({error}); write"
            " HOST:PORT, for example udp/5353=localhost:53"
        ) from None


def _endpoint(
    reactor: Any, spec: str, target: str, options: ForwardOptions
) -> IStreamClientEndpoint:
    if target.lower().startswith("ssl:"):
        raise badOption(
            f"--forward {spec!r}: ssl: does not verify the server; write tls: instead"
        )
    try:
        over = None
        if not isKind(target):
            below: IStreamClientEndpoint = ServiceEndpoint(reactor, *parsePlace(target))
        else:
            parts = EndpointParts(target)
            if parts.kind == "tls":
                reactor = polledReactor(reactor)
                verification = Trust().verification(parts.host, parts.keywords)
                over = partial(tlsOverClientEndpoint, verification)
            below = parts.endpoint(reactor, ServiceEndpoint)
        if options.proxy:
            return ProxyHeaderEndpoint(options.proxy, below, over)
        return below if over is None else over(below)
    except Exception as error:
        # Endpoint parsers raise all kinds of errors.
        shown = printable(spec, 60)
        what = "it" if target == spec else repr(printable(target, 60))
        raise badOption(
            f"--forward {shown!r}: {what} is not a valid target"
            f" ({noEndpoint(target, error)}); write HOST:PORT, tcp:HOST:PORT,"
            " tls:HOST:PORT or unix:PATH"
        ) from None
