"""What a managed client lets its server ask for."""

from __future__ import annotations

import socket
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.forwards import consent as consentModule
from tristunnel.forwards.consent import Consent, ManagedEndpoint
from tristunnel.forwards.destinations import OWN_PORTS, isOwn


class ParseTests(SynchronousTestCase):
    """C{--managed}."""

    def test_wrong(self) -> None:
        """What cannot be understood is refused, with an example."""
        for text in (
            *("", "localhost", "localhost:", ":22", "*:22", "localhost:0", "[::1:22"),
            *("localhost:22-1", "10.0.0.0/33:22", "unix:/run/x", "tcp:localhost:22"),
            "http://localhost:22",
        ):
            error = self.assertRaises(TunnelError, Consent, [text])
            self.assertIn("write for example localhost:*", error.message, text)

    @given(st.text(max_size=30))
    def test_anything(self, text: str) -> None:
        """Whatever is given is understood or refused."""
        try:
            Consent([text])
        except TunnelError as error:
            self.assertEqual(error.code.name, "bad-option")


class TargetTests(SynchronousTestCase):
    """Which targets are covered."""

    def judge(self, target: str, *patterns: str, udp: bool = False) -> bool:
        try:
            Consent(patterns).target(target, udp)
        except TunnelError as error:
            self.assertEqual(error.code.name, "not-permitted")
            self.assertNotIn("\n", error.message)
            return False
        return True

    def test_covered(self) -> None:
        """A name, an address, a network; one port, some, or all."""
        for target, pattern in (
            ("localhost:3000", "localhost:*"),
            ("LOCALHOST.:3000", "localhost:3000"),
            ("127.0.0.1:3000", "localhost:3000"),
            ("[::1]:3000", "localhost:1-4000"),
            ("192.168.1.7:22", "192.168.1.0/24:22"),
            ("[::ffff:192.168.1.7]:22", "192.168.1.0/24:22"),
            ("192.168.1.7:8001", "192.168.1.7:80,8000-8010"),
            ("[fd00::1]:22", "[fd00::]/8:22"),
            ("nas.local:445", "nas.local:445"),
        ):
            self.assertTrue(self.judge(target, pattern), (target, pattern))
        self.assertTrue(self.judge("localhost:53", "udp/localhost:53", udp=True))

    def test_outside(self) -> None:
        """
        A hundred targets outside: other ports, other addresses, names that were not
        said, whatever they lead to, and other ways of writing an address.
        """
        patterns = ("localhost:3000", "192.168.1.0/24:22", "udp/localhost:53")
        outside = [
            *("localhost:3001", "localhost:53", "127.0.0.1:22", "127.0.0.2:3000"),
            *(
                "192.168.2.1:22",
                "192.168.1.1:23",
                "example.com:22",
                "my.localhost:3000",
            ),
            *("127.1:3000", "0x7f000001:3000", "2130706433:3000", "0177.0.0.1:3000"),
            *("0.0.0.0:3000", "[::]:3000", "192.168.1.7.nip.io:22", "192.168.257:22"),
            *("unix:/run/docker.sock", "tcp:localhost:3000", "tls:localhost:3000"),
            *("http://localhost:3000", "localhost:3000/x", "localhost", ":3000", ""),
            *("user@localhost:3000", "localhost:3000:3000", "localhost:03001"),
            *("localhost:99999", "localhost:-1", "localhost:3000\n", "l\0calhost:3000"),
            *("[::1%lo]:22", "[fe80::1%eth0]:22", "[::ffff:10.0.0.1]:22", "systemd:1"),
            *("exec:/bin/sh", "ssl:localhost:3000", "haproxy:tcp:3000", "localhost:*"),
            *(f"192.168.{net}.1:22" for net in range(2, 32)),
            *(f"127.0.0.1:{port}" for port in range(4000, 4032)),
        ]
        self.assertGreaterEqual(len(outside), 100)
        for target in outside:
            self.assertFalse(self.judge(target, *patterns), target)
        self.assertFalse(self.judge("localhost:3000", *patterns, udp=True))

    @given(st.text(max_size=40), st.booleans())
    def test_anything(self, target: str, udp: bool) -> None:
        """What is covered by nobody's word is what was said."""
        patterns = ("localhost:3000", "10.0.0.0/8:22")
        if self.judge(target, *patterns, udp=udp):
            host, port = Consent(patterns).target(target, udp)
            self.assertIn(port, (22, 3000))
            self.assertTrue(
                host.startswith("10.") or host in ("localhost", "127.0.0.1", "::1")
            )


class OwnPortTests(SynchronousTestCase):
    """The client's own ports."""

    def setUp(self) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.port = listening.getsockname()[1]
        OWN_PORTS.add(self.port)
        self.addCleanup(OWN_PORTS.discard, self.port)

    def test_address(self) -> None:
        """They are refused at every address of this machine, and at no other."""
        for address in (
            "127.0.0.1",
            "127.9.9.9",
            "::1",
            "0.0.0.0",
            "::",
            "::ffff:127.0.0.1",
        ):
            self.assertTrue(isOwn(address, self.port), address)
        self.assertFalse(isOwn("192.0.2.1", self.port))
        self.assertFalse(isOwn("127.0.0.1", self.port + 1))

    def test_target(self) -> None:
        """An address is refused when it is asked for."""
        consent = Consent(["localhost:*", "127.0.0.0/8:*"])
        for host in ("127.0.0.1", "127.0.0.9"):
            error = self.assertRaises(
                TunnelError, consent.target, f"{host}:{self.port}", False
            )
            self.assertIn("own port", error.message)

    def test_name(self) -> None:
        """A name that leads there is not dialled."""
        self.patch(consentModule, "known", lambda host: ["127.0.0.1"])
        endpoint = ManagedEndpoint(Clock(), "innocent.example", self.port)
        self.assertIsNone(endpoint.connectNow())
        dialling = endpoint.dial("127.0.0.1", Factory.forProtocol(Protocol))
        self.failureResultOf(dialling, ConnectionRefusedError)


class ForwardTests(SynchronousTestCase):
    """What a server says is judged before anything is made of it."""

    def test_forward(self) -> None:
        """A forward of its own text, with the port and name that are wanted."""
        asked = {"id": "a1", "to": "localhost:3000", "port": 8080, "name": "web"}
        made = Consent(["localhost:*"]).forward(Clock(), asked)
        self.assertEqual((made.port, made.name), (8080, "web"))
        self.assertEqual(made.spec, "managed/a1=localhost:3000")

    def test_names(self) -> None:
        """A name that visitors ask for, with its path, and options of its service."""
        consent = Consent(["localhost:*"])
        to = "localhost:3000,raw,share=sticky,request=-Cookie"
        asked = {"id": "a1", "to": to, "name": "http/Blog/api/"}
        made = consent.forward(Clock(), asked)
        self.assertEqual(
            (made.listener, made.name, made.path), ("http", "blog", "/api")
        )
        self.assertEqual((made.target, made.port), ("localhost:3000", 0))
        told = {"raw": True, "share": "sticky", "requestHeaders": ["-Cookie"]}
        self.assertLessEqual(told.items(), made.options.asked.items())
        made = consent.forward(
            Clock(), {**asked, "to": "localhost:3", "name": "tls/a.b"}
        )
        self.assertEqual((made.listener, made.name), ("tls-name", "a.b"))
        self.assertEqual(
            consent.forward(Clock(), {**asked, "name": "http/"}).listener, "http"
        )

    def test_wrong(self) -> None:
        """Anything else is refused."""
        good: dict[str, Any] = {"id": "a1", "to": "localhost:3000"}
        wrong: list[Any] = [None, [], "x", {}, {"id": "a1"}, {"to": "localhost:3000"}]
        wrong += [
            {**good, **more}
            for more in (
                {"id": "../x"},
                {"id": 3},
                {"id": "a" * 40},
                {"port": -1},
                {"port": "80"},
                {"port": True},
                {"port": 1e9},
                {"name": "a/b"},
                {"name": "http/a b"},
                {"name": "tls/a=b"},
                {"name": "8080"},
                {"name": "udp/a"},
                {"name": "http/a", "udp": True},
                {"name": "http/a", "port": 80},
                {"to": "localhost:3000,pin=/etc/passwd"},
                {"to": "localhost:3000,proxy=v2"},
                {"to": "localhost:3000,nonsense"},
                {"name": 3},
                {"to": 3},
            )
        ]
        consent = Consent(["localhost:*"])
        for asked in wrong:
            error = self.assertRaises(TunnelError, consent.forward, Clock(), asked)
            self.assertEqual(error.code.name, "not-permitted", asked)
