"""Tests for L{tristunnel.auth.certificate}: mutual TLS as a client's identity."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.x509.oid import NameOID
from twisted.cred.strcred import InvalidAuthArgumentString, makeChecker
from twisted.trial.unittest import SynchronousTestCase

from tests.dialects.framed.network import RawPeer
from tests.dialects.framed.server_rig import ServerTestCase, call, hello
from tests.tls.authority import makeAuthority
from tristunnel.auth.certificate import CertificateChecker, certificateName, nameIn
from tristunnel.auth.checkers import checkingCallable
from tristunnel.auth.credentials import TunnelCredentials
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.dialects.framed.dialect import FramedPortProtocol
from tristunnel.dialects.framed.server import TunnelServerFactory
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.forwarded import Forwarded
from tristunnel.http.site import LimitedSite
from tristunnel.http.tree import HTTPPortProtocol, rootOf, rpcPages
from tristunnel.server.detector import ProtocolDetectorFactory
from tristunnel.tls.client_context import ServerVerification
from tristunnel.tls.server_context import ReloadingCertificate


def certificate(common: str, *alternatives: x509.GeneralName) -> x509.Certificate:
    key = ec.generate_private_key(ec.SECP256R1())
    now = datetime.now(UTC)
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common)] if common else []
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509.Name(attributes))
        .issuer_name(x509.Name([]))
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + timedelta(days=1))
    )
    if alternatives:
        builder = builder.add_extension(
            x509.SubjectAlternativeName(alternatives), critical=False
        )
    return builder.sign(key, SHA256())


class NameTests(SynchronousTestCase):
    """Which name a certificate gives."""

    def test_names(self) -> None:
        """The common name, or else the first alternative one that can be a name."""
        dns = x509.DNSName("laptop.example")
        mail = x509.RFC822Name("a@example.org")
        self.assertEqual(nameIn(certificate("laptop", dns)), "laptop")
        self.assertEqual(nameIn(certificate("", mail, dns)), "laptop.example")
        self.assertEqual(nameIn(certificate("", mail)), "a@example.org")
        self.assertEqual(nameIn(certificate("two\nlines", dns)), "laptop.example")
        self.assertEqual(nameIn(certificate("")), "")

    def test_noTLS(self) -> None:
        """Who has shown no certificate has no such name."""
        self.assertEqual(certificateName(object()), "")

    def test_checker(self) -> None:
        """C{--auth certificate} takes the name, and nothing else for one."""
        checker: Any = makeChecker("certificate")
        good = TunnelCredentials({"id": "root"}, None, "laptop")
        self.assertEqual(self.successResultOf(checker.requestAvatarId(good)), b"laptop")
        bad = TunnelCredentials({"id": "laptop", "certificate": "laptop"})
        self.failureResultOf(checker.requestAvatarId(bad))
        self.assertRaises(InvalidAuthArgumentString, makeChecker, "certificate:x")


class MutualTests(ServerTestCase):
    """A server that asks for client certificates."""

    tls = True

    def setUp(self) -> None:
        super().setUp()
        self.authority = makeAuthority()
        self.ca = self.authority.write(self.directory / "ca.pem")
        pem, key = self.authority.issue(["server.example"])
        server = self.write("server.pem", pem, key)
        self.clients = {}
        for name in ("alice", "bob"):
            pem, key = self.authority.issue([name], client=True)
            self.clients[name] = self.write(f"{name}.pem", pem, key)
        self.creator = ReloadingCertificate(server, clientCA=self.ca)
        self.wear("alice")

    def wear(self, name: str) -> None:
        own = self.clients.get(name)
        self._context = self.creator
        self._verification = ServerVerification(
            "server.example", trustRoots=self.ca, certificate=own
        )

    def serve(self, *checkers: Any, trusted: tuple[str, ...] = ()) -> None:
        authenticator = Authenticator(portalFor(checkers) if checkers else None)
        self.sessions = TunnelServerFactory(self.clock, self.service, authenticator)
        callers = HTTPCallers(authenticator, Forwarded(trusted))
        site = LimitedSite(rootOf(rpcPages(self.service, callers)), reactor=self.clock)
        self.door = ProtocolDetectorFactory(
            self.clock,
            [FramedPortProtocol(self.sessions), HTTPPortProtocol(site)],
            self.notes,
        )

    def come(self, *messages: Any) -> RawPeer:
        peer = RawPeer()
        self.join(self.door, peer)
        peer.say(*messages)
        self.settle()
        return peer

    def owners(self, headers: str = "") -> list[str]:
        body = json.dumps({"jsonrpc": "2.0", "id": 1, "method": "listTunnels"})
        request = (
            "POST /rpc HTTP/1.1\r\nHost: server.example\r\n"
            f"Content-Type: application/json\r\n{headers}"
            f"Content-Length: {len(body)}\r\n\r\n{body}"
        )
        peer = self.come(request.encode())
        answer = json.loads(peer.data.rpartition(b"\r\n\r\n")[2])
        return [tunnel["owner"] for tunnel in answer["result"]]

    def test_name(self) -> None:
        """Without C{--auth} the certificate says who a client is, whatever it claims;
        others can neither see nor close what it has."""
        self.serve()
        alice = self.come(hello(), call(1, "openTunnel"))
        uri = self.answers(alice)[1]["result"]
        self.assertEqual(self.notes.named("clientConnected"), [("alice", "framed")])
        self.assertEqual(self.owners(), ["alice"])
        self.wear("bob")
        bob = self.come(hello(id="alice"), call(2, "closeTunnel", uri=uri))
        self.assertEqual(self.notes.named("clientConnected")[1], ("bob", "framed"))
        error = self.answers(bob)[2]["error"]
        self.assertEqual(error["data"]["code"], "unknown-tunnel")
        self.assertEqual(self.owners(), [])

    def test_without(self) -> None:
        """Without a certificate nobody gets as far as the first message."""
        self.serve()
        self.wear("")
        peer = self.come(hello())
        self.assertIsNotNone(peer.lost)
        self.assertEqual(self.notes.named("clientConnected"), [])

    def test_both(self) -> None:
        """With another C{--auth} the certificate alone is not enough, and the name is
        that of the login."""
        self.serve(checkingCallable(lambda fields: fields.get("id") == "laptop"))
        self.come({**hello(), "id": "pending"})
        self.assertEqual(self.notes.named("authenticationFailed"), [("auth-refused",)])
        self.come(hello())
        self.assertEqual(self.notes.named("clientConnected"), [("laptop", "framed")])

    def test_either(self) -> None:
        """With C{--auth certificate} beside another one, either will do."""
        self.serve(checkingCallable(lambda fields: False), CertificateChecker())
        self.come(hello())
        self.assertEqual(self.notes.named("clientConnected"), [("alice", "framed")])

    def test_proxy(self) -> None:
        """A proxy's certificate does not say who sent a request through it."""
        self.serve()
        self.come(hello(), call(1, "openTunnel"))
        self.serve(trusted=("203.0.113.5",))
        self.assertEqual(self.owners("X-Forwarded-For: 192.0.2.9\r\n"), [])
        self.assertEqual(self.owners(), [])
