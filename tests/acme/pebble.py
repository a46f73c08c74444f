"""Pebble, an authority for tests, as a process, with what it looks at."""

from __future__ import annotations

import json
import shutil
import ssl
import urllib.request
from pathlib import Path
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import IOpenSSLServerConnectionCreator
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThread
from twisted.protocols.tls import TLSMemoryBIOFactory, TLSMemoryBIOProtocol
from twisted.web.resource import Resource
from twisted.web.server import Request, Site
from zope.interface import implementer

from tests.acme.names import NameServer
from tests.support.loopback import untilOpen
from tests.support.processes import Program, freePort, startProgram
from tests.tls.authority import makeAuthority
from tristunnel.acme.account import Account
from tristunnel.acme.challenges import Answers
from tristunnel.acme.settings import AuthoritySettings, ExternalAccount
from tristunnel.tls.contexts import serverContext
from tristunnel.tls.pem import loadOwnCertificate

__all__ = ["Pebble", "needsPebble"]

needsPebble = None if shutil.which("pebble") else "pebble is not installed"


class _Challenges(Resource):
    isLeaf = True

    def __init__(self, answers: Answers) -> None:
        super().__init__()
        self._answers = answers
        self.asked: list[str] = []

    def render_GET(self, request: Request) -> bytes:
        self.asked.append(request.uri.decode())
        found = self._answers.get(request.uri)
        if found is None:
            request.setResponseCode(404)
        return found or b"nothing"


@implementer(IOpenSSLServerConnectionCreator)
class _ByName:
    def __init__(self, context: SSL.Context, answers: Answers) -> None:
        self._context, self._answers = context, answers
        context.set_tlsext_servername_callback(self._choose)

    def _choose(self, connection: SSL.Connection) -> None:
        name = connection.get_servername() or b""
        found = self._answers.contextFor(name.decode())
        if found is not None:
            connection.set_context(found)

    def serverConnectionForTLS(
        self, tlsProtocol: TLSMemoryBIOProtocol
    ) -> SSL.Connection:
        return SSL.Connection(self._context)


class Pebble:
    """
    An authority that looks at ports of this process, or at others.

    @ivar url: Its directory.
    @ivar ca: Who vouches for its TLS.
    @ivar customers: Whose accounts it takes, by their keys' identifiers; empty for
        anybody's. To be set before it is started.
    """

    def __init__(self, reactor: Any, directory: Path, zone: str = "test.example"):
        directory.mkdir(parents=True)
        self._reactor, self.directory = reactor, directory
        self.answers = Answers(directory / "challenges")
        self.names = NameServer(zone, directory)
        self.challenges = _Challenges(self.answers)
        self._ports: list[Any] = []
        self.customers: dict[str, str] = {}
        self.program: Program | None = None
        authority = makeAuthority()
        self.ca = authority.write(directory / "ca.pem")
        self._pem = directory / "pebble.pem"
        self._key = directory / "pebble.key"
        pem, key = authority.issue(["localhost", "127.0.0.1"])
        self._pem.write_bytes(pem)
        self._key.write_bytes(key)
        self._key.chmod(0o600)
        self.url = self._manage = ""

    async def start(
        self, httpPort: int = 0, tlsPort: int = 0, **environment: str
    ) -> None:
        """Start it; without ports to look at, those here are made."""
        if not httpPort:
            site = Site(self.challenges)
            listening = self._reactor.listenTCP(0, site, interface="127.0.0.1")
            self._ports.append(listening)
            httpPort = listening.getHost().port
        if not tlsPort:
            identity = loadOwnCertificate(self._pem, self._key)
            creator = _ByName(serverContext(identity, ""), self.answers)
            inner = Factory.forProtocol(Protocol)
            factory = TLSMemoryBIOFactory(creator, False, inner)
            listening = self._reactor.listenTCP(0, factory, interface="127.0.0.1")
            self._ports.append(listening)
            tlsPort = listening.getHost().port
        port, manage = freePort(), freePort()
        settings = {
            "listenAddress": f"127.0.0.1:{port}",
            "managementListenAddress": f"127.0.0.1:{manage}",
            "certificate": str(self._pem),
            "privateKey": str(self._key),
            "httpPort": httpPort,
            "tlsPort": tlsPort,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": bool(self.customers),
            "externalAccountMACKeys": self.customers,
        }
        config = self.directory / "pebble.json"
        config.write_text(json.dumps({"pebble": settings}))
        self.program = startProgram(
            self._reactor,
            "pebble",
            [
                *("pebble", "-strict", "-config", str(config)),
                *("-dnsserver", f"127.0.0.1:{self.names.port}"),
            ],
            self.directory,
            # Some nonces are refused, as it likes to do.
            {"PEBBLE_VA_NOSLEEP": "1", "PEBBLE_WFE_NONCEREJECT": "20", **environment},
        )
        # It says so before it listens.
        await self.program.says("ACME directory available")
        await untilOpen(self._reactor, port)
        self.url = f"https://localhost:{port}/dir"
        self._manage = f"https://localhost:{manage}"

    def account(self, external: ExternalAccount | None = None) -> Account:
        ca = str(self.ca)
        settings = AuthoritySettings("me@test.example", self.url, ca, external)
        return Account(settings, self.directory)

    def root(self) -> Deferred[bytes]:
        """The certificate of the authority that signs what is issued."""

        def fetch() -> bytes:
            trust = ssl.create_default_context(cafile=str(self.ca))
            with urllib.request.urlopen(f"{self._manage}/roots/0", context=trust) as at:
                data: bytes = at.read()
                return data

        return deferToThread(fetch)

    async def stop(self) -> None:
        if self.program is not None:
            await self.program.stop()
        await gatherResults([maybeDeferred(each.stopListening) for each in self._ports])
        self.names.stop()
