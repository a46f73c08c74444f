"""
Other options of a server that runs, L{tristunnel.server.reload}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.testing import MemoryReactorClock

from tests.config.test_options import FileOptionsTestCase
from tests.tls.authority import makeAuthority
from tristunnel.cli import server_tap, serving
from tristunnel.cli.serving import Serving
from tristunnel.dataplane.memory import HELD
from tristunnel.dialects.zlayer.data import ZLayerSessions
from tristunnel.errors import TunnelError
from tristunnel.listeners.tcp import TCPListeners
from tristunnel.model.permissions import Identity
from tristunnel.server.reload import RESTART, RunningServer
from tristunnel.service.caller import Caller
from tristunnel.service.methods import methodsOf
from tristunnel.service.preauth import PER_ADDRESS
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.util.logs import Log


class RunningServerTests(FileOptionsTestCase):
    """What can change does, and the rest is named."""

    tap = server_tap

    def setUp(self) -> None:
        super().setUp()
        self.made: list[RunningServer] = []
        self.tunnels: TunnelService
        self.addCleanup(setattr, HELD, "most", HELD.most)
        case = self

        class Noted(RunningServer):
            """Shows itself to the test."""

            def __init__(self, *arguments: Any) -> None:
                super().__init__(*arguments)
                case.made.append(self)
                case.tunnels = arguments[1]

        self.patch(serving, "RunningServer", Noted)

    def start(self, text: str) -> Any:
        clock = MemoryReactorClock()
        clock.running = True
        options = self.read(text)
        return Serving(clock, options, Log(options))

    def change(self, text: str) -> dict[str, Any]:
        self.file(text)
        assert self.tunnels.reload is not None
        answer: dict[str, Any] = self.successResultOf(self.tunnels.reload())
        return answer

    def test_everyOption(self) -> None:
        """Each option is either put in force or named as one that needs a restart."""
        self.start("")
        (running,) = self.made
        applied = [name for names in running.appliers for name in names]
        self.assertEqual(len(applied), len(set(applied)))
        self.assertEqual(set(applied) & RESTART, set())
        self.assertEqual(
            set(applied) | RESTART, set(server_tap.Options.configKeys()) - {"config"}
        )

    def test_crowd(self) -> None:
        """Where visitors ask for names, many may come from one address at once."""
        here = IPv4Address("TCP", "192.0.2.1", 1)
        domain = "domain = ['t.example']\n"
        for text, isCrowd in (
            ("port = ['tcp:9000']\n", False),
            (f"port = ['tcp:9000']\nhttp = ['tcp:80']\n{domain}", False),
            (f"port = ['tcp:80']\nhttp = ['tcp:80']\n{domain}", True),
        ):
            # The first one counts clients, the last one visitors.
            clients, *_, visitors = self.start(text)._limiters
            for limiter in (clients, visitors):
                for _ in range(PER_ADDRESS):
                    limiter.enter(here)
            visitors.enter(here)
            if isCrowd:
                clients.enter(here)
            else:
                self.assertRaises(TunnelError, clients.enter, here)

    def test_limits(self) -> None:
        """Limits and times."""
        self.start("")
        answer = self.change(
            "max-clients = 3\nmax-services = 4\naccept-rate = 5\nmax-memory = '6MB'\n"
            "lease = 7\nudp-idle = 8\nmax-visitors = 9\nmax-tunnels = 10\n"
            "max-tunnels-per-caller = 11\ngrace = 12\nports = '2000-2001'\n"
        )
        self.assertEqual(answer["needsRestart"], [])
        self.assertEqual(len(answer["changed"]), 11)
        self.assertIn("max-clients = 3", answer["changed"])
        tunnels = self.tunnels
        self.assertEqual(tunnels.clients.limit, 3)
        self.assertEqual(tunnels.rights.services, 4)
        self.assertEqual(tunnels.clients.acceptLimiter.rate, 5.0)
        self.assertEqual(HELD.most, 6_000_000)
        self.assertEqual(tunnels.leases.seconds, 7.0)
        listeners: Any = tunnels.listeners
        self.assertEqual(listeners["udp"].idle, 8.0)
        self.assertEqual(tunnels.policies.policy.maxVisitors, 9)
        for kind in ("tcp", "udp"):
            self.assertEqual(str(listeners[kind].ports), "2000-2001")
        (running,) = self.made
        self.assertIsNone(running.sessions.shared(ZLayerSessions).ports)
        self.assertEqual(running.server.grace, 12.0)
        self.assertEqual(tunnels.entries.quota.total, 10)
        # All of it back again.
        self.change("")
        self.assertEqual(tunnels.clients.limit, 1000)
        self.assertIsNotNone(running.sessions.shared(ZLayerSessions).ports)
        self.assertEqual(tunnels.policies.policy.maxVisitors, 0)

    def test_restart(self) -> None:
        """What cannot change is named, again and again until it is so."""
        self.start("")
        text = "port = ['tcp:2']\nhostname = 'x'\nlog-format = 'json'\n"
        answer = self.change(text)
        self.assertEqual(answer["changed"], [])
        self.assertEqual(answer["needsRestart"], ["hostname", "log-format", "port"])

    def test_auth(self) -> None:
        """Another file of clients counts for the next login; a list that stays is the
        same one. From nobody asked to somebody asked is a restart."""
        one, two = self.write("one", b"a:1\n"), self.write("two", b"b:2\n")
        self.start(f"auth = ['clients:{one}']")
        (running,) = self.made
        authenticator, (first,) = running.options.authenticator, running._checkers

        def admits(name: str, secret: str) -> bool:
            answer = authenticator.authenticate({"id": name, "secret": secret})
            admitted: list[bool] = []
            answer.addCallbacks(
                lambda identity: admitted.append(True),
                lambda failure: admitted.append(False),
            )
            return admitted[0]

        self.assertEqual((admits("a", "1"), admits("b", "2")), (True, False))
        self.change(f"auth = ['clients:{two}', 'clients:{one}']")
        self.assertEqual((admits("a", "1"), admits("b", "2")), (True, True))
        self.assertIs(running._checkers[1], first)
        self.change(f"auth = ['clients:{two}']")
        self.assertEqual((admits("a", "1"), admits("b", "2")), (False, True))
        answer = self.change("")
        self.assertEqual(answer["needsRestart"], ["auth"])
        self.assertEqual((admits("x", "y"), admits("b", "2")), (False, True))

    def test_certificates(self) -> None:
        """Other certificates are shown to new connections; to speak TLS at all, or not
        any more, takes a restart."""
        authority = makeAuthority()
        for name in ("one", "two"):
            certificate, key = authority.issue([name])
            self.write(f"{name}.pem", certificate, key)
        one = f"'{self.directory}/one.pem'"
        text = f"port = ['tcp:1']\ncertificate = {one}\nvisitor-certificate = {one}"
        self.start(text)
        (running,) = self.made
        (port,) = running.options.serverPorts
        assert port.creator is not None and running.visitorsTLS is not None
        before = (port.creator.creator, running.visitorsTLS.creator)
        answer = self.change(text.replace("one.pem", "two.pem"))
        self.assertEqual(answer["needsRestart"], [])
        after: Any = (port.creator.creator, running.visitorsTLS.creator)
        for old, new in zip(before, after, strict=True):
            self.assertIsNot(old, new)
            self.assertIn("two", new._certificatePath)
        listeners: Any = self.tunnels.listeners["tls"]
        assert isinstance(listeners, TCPListeners)
        self.assertIs(listeners._creator, running.visitorsTLS)
        answer = self.change("port = ['tcp:1']")
        self.assertEqual(answer["needsRestart"], ["certificate", "visitor-certificate"])

    def test_trustedProxies(self) -> None:
        """Proxies that are believed."""
        self.start("")
        (running,) = self.made
        self.assertFalse(running.options.forwarded.speaksFor("10.0.0.1"))
        self.change("trusted-proxy = ['10.0.0.0/8']")
        self.assertTrue(running.options.forwarded.speaksFor("10.0.0.1"))

    def test_nodes(self) -> None:
        """Nodes come and go; one whose words are the same is not touched."""

        def node(name: str, port: int) -> str:
            return (
                f"[[node]]\nname = '{name}'\nconnect = 'tcp:127.0.0.1:{port}'\n"
                "forward = '0=127.0.0.1:1'\n"
            )

        self.start(node("a", 1) + node("b", 1))
        a, b = self.made[0].nodes
        self.change(node("a", 1) + node("b", 2) + node("c", 1))
        names = [each.spec.name for each in self.made[0].nodes]
        self.assertEqual(names, ["a", "b", "c"])
        self.assertIs(self.made[0].nodes[0], a)
        self.assertIsNot(self.made[0].nodes[1], b)
        self.assertIsNone(b.parent)
        self.assertTrue(all(each.parent is not None for each in self.made[0].nodes))
        self.change("")
        self.assertEqual(self.made[0].nodes, [])
        self.assertIsNone(a.parent)

    def test_method(self) -> None:
        """C{reload} is for those who may admin, and for this machine where nobody is
        asked who they are; without a file it says so."""
        self.start("lease = 1")
        reload = methodsOf(self.tunnels)["reload"]
        self.file("lease = 2")
        anybody = Caller(Identity("anonymous", True), "h")
        answer: Any = reload(anybody)
        self.assertEqual(self.successResultOf(answer)["changed"], ["lease = 2"])
        error = self.assertRaises(TunnelError, reload, Caller(Identity("laptop"), "h"))
        self.assertEqual(error.code.name, "not-permitted")
        elsewhere = Caller(Identity("anonymous", True), "h", address="192.0.2.1")
        error = self.assertRaises(TunnelError, reload, elsewhere)
        self.assertEqual(error.code.name, "not-permitted")
        self.tunnels.reload = None
        error = self.assertRaises(TunnelError, reload, anybody)
        self.assertIn("start with --config", error.message)
