"""
Several clients of one process, and a file that changes them,
L{tristunnel.client.fleet}.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.testing import MemoryReactorClock

from tests.config.test_options import FileOptionsTestCase
from tests.support.notes import ClientNotes
from tristunnel.cli import client_tap
from tristunnel.client.fleet import Clients
from tristunnel.client.visitor import LocalPort
from tristunnel.config.reload import Reload
from tristunnel.dialects.framed.client_service import TunnelClientService
from tristunnel.errors import TunnelError

ONE = '[[client]]\nconnect = "tcp:one:1"\nforward = ["0=h:1"]\n'
TWO = '[[client]]\nconnect = "tcp:two:1"\n[[client.forward]]\nto = "h:2"\nname = "n"\n'
RELAY = (
    '[[client]]\nconnect = "ws://three:1/host"\ndialect = "relay"\nforward = ["=h:3"]\n'
)


class ClientsTests(FileOptionsTestCase):
    """Clients come, go and change, each without the others."""

    tap = client_tap

    def start(self, text: str) -> Clients:
        self.ended: list[bool] = []
        self.notes = ClientNotes()
        self.clock = MemoryReactorClock()
        options = self.read(text)
        clients = Clients(
            self.clock,
            options,
            lambda each: self.notes,
            lambda: self.ended.append(True),
        )
        self.reload = Reload(options, clients.change)
        clients.startService()
        self.addCleanup(self.stop, clients)
        return clients

    def stop(self, clients: Clients) -> None:
        stopping: Deferred[Any] = clients.stopService()
        clients.stopNow()
        for _ in range(20):
            self.clock.advance(0.2)
        self.successResultOf(stopping)

    def change(self, text: str) -> dict[str, Any]:
        self.file(text)
        answer: dict[str, Any] = self.successResultOf(self.reload.reload())
        self.clock.advance(0)
        return answer

    def where(self, clients: Clients) -> list[str]:
        return [member.options.server.where for member in clients.members]

    def test_comeAndGo(self) -> None:
        """A client whose table is gone stops, a new one starts, and one that stays is
        the same."""
        clients = self.start(ONE + TWO)
        first, second = clients.members
        answer = self.change(TWO + RELAY)
        self.assertEqual(
            answer["changed"],
            ["client of tcp:one:1 stopped", "client of ws://three:1/host started"],
        )
        self.assertEqual(self.where(clients), ["tcp:two:1", "ws://three:1/host"])
        self.assertIs(clients.members[0].service, second.service)
        self.assertFalse(first.service.running)
        self.assertEqual((first.service.forGood, second.service.forGood), (True, False))
        self.assertTrue(all(each.service.running for each in clients.members))

    def test_nothing(self) -> None:
        """A file that says the same in other words changes nothing."""
        clients = self.start(ONE + TWO)
        services = [each.service for each in clients.members]
        answer = self.change(f"# hello\ngrace = 7\n{ONE}{TWO}")
        self.assertEqual(answer, {"changed": [], "needsRestart": []})
        self.assertEqual([each.service for each in clients.members], services)

    def test_forwards(self) -> None:
        """Other forwards, or other rules for them, are the running client's."""
        clients = self.start(ONE + TWO)
        first, second = (each.service for each in clients.members)
        answer = self.change(ONE + TWO.replace("h:2", "h:3") + "max-visitors = 3\n")
        self.assertEqual(
            answer["changed"],
            [
                "client of tcp:two:1: forward n=h:2 has new limits on visitors"
                " and leads to h:3"
            ],
        )
        assert isinstance(second, TunnelClientService)
        (forward,) = second.forwards
        assert forward.policy is not None
        self.assertEqual((forward.target, forward.policy.maxVisitors), ("h:3", 3))
        self.assertIs(clients.members[0].service, first)
        # What is asked of all visitors is asked of those of all forwards.
        answer = self.change(f"rate = '5kB/s'\n{ONE}{TWO}")
        self.assertEqual(len(answer["changed"]), 2)
        (forward,) = first.forwards
        self.assertEqual(forward.policy.rate, 5000)

    def test_dials(self) -> None:
        """
        A client's ports that others connect stay as they are while its forwards change;
        others take effect with a new start.
        """
        self.patch(LocalPort, "listen", lambda port: Deferred())
        dials = ONE + 'listen = ["tcp:0=h:9"]\n'
        clients = self.start(dials)
        (member,) = clients.members
        service = member.service
        answer = self.change(dials.replace("h:1", "h:2"))
        self.assertEqual(
            answer["changed"], ["client of tcp:one:1: forward 0=h:1 leads to h:2"]
        )
        self.assertIs(clients.members[0].service, service)
        answer = self.change(dials.replace("h:9", "h:8"))
        self.assertEqual(
            answer["changed"],
            ["client of tcp:one:1 started anew, when its visitors have left"],
        )

    def test_pin(self) -> None:
        """What the files of a forward say is asked, also if its text is the same."""
        pin = self.write("pin", b"2580")
        text = ONE.replace("0=h:1", f"http/blog=h:1,pin={pin}")
        (member,) = self.start(text).members
        self.assertEqual(self.change(text)["changed"], [])
        pin.write_bytes(b"2581")
        spec = f"http/blog=h:1,pin={pin}"
        words = f"client of tcp:one:1: forward {spec} asks something else of visitors"
        self.assertEqual(self.change(text)["changed"], [words])
        self.assertEqual(member.service.forwards[0].gate.pin, b"2581")

    def test_verify(self) -> None:
        """Likewise the secrets of those who sign requests."""
        secret = self.write("secret", b"one")
        text = ONE.replace("0=h:1", f"0=h:1,verify=github:{secret}")
        (member,) = self.start(text).members
        self.assertEqual(self.change(text)["changed"], [])
        secret.write_bytes(b"one\ntwo")
        (told,) = self.change(text)["changed"]
        self.assertIn("takes other signatures", told)
        found = member.service.forwards[0].verification
        self.assertEqual(found.secrets, (b"one", b"two"))

    def test_connection(self) -> None:
        """Credentials, and the way to the server, count from the next connection on,
        and the running one goes on."""
        token = self.write("token", b"first")
        text = f"{ONE}token-file = '{token}'\n"
        clients = self.start(text.replace('forward = ["0=h:1"]\n', ""))
        (member,) = clients.members
        self.assertEqual(member.service._credentials, {"token": "first"})
        token.write_bytes(b"second")
        text = text.replace('forward = ["0=h:1"]\n', "")
        answer = self.change(text)
        words = "client of tcp:one:1: credentials, from its next connection on"
        self.assertEqual(answer["changed"], [words])
        self.assertEqual(member.service._credentials, {"token": "second"})
        answer = self.change(text + "carrier = 'session'\ngrace = 3\n")
        self.assertEqual(
            answer["changed"],
            [
                "client of tcp:one:1: grace",
                "client of tcp:one:1: carrier, from its next connection on",
            ],
        )
        self.assertEqual(member.service._carrier.kind, "session")
        self.assertIs(clients.members[0], member)

    def test_otherDialects(self) -> None:
        """A client of another dialect starts anew when anything of it changes; the
        others do not."""
        clients = self.start(ONE + RELAY)
        first, relay = (each.service for each in clients.members)
        answer = self.change(ONE + RELAY.replace("h:3", "h:4"))
        self.assertEqual(len(answer["changed"]), 1)
        self.assertIn("started anew", answer["changed"][0])
        for _ in range(30):
            self.clock.advance(0.2)
        self.assertFalse(relay.running)
        self.assertIs(clients.members[0].service, first)
        self.assertIsNot(clients.members[1].service, relay)
        self.assertTrue(clients.members[1].service.running)

    def test_restart(self) -> None:
        """What is about the whole process needs a restart."""
        self.start(ONE + TWO)
        answer = self.change(f"log-format = 'json'\nrpc = 'off'\n{ONE}{TWO}")
        self.assertEqual(answer, {"changed": [], "needsRestart": ["log-format", "rpc"]})

    def test_gaveUp(self) -> None:
        """One client that gives up does not end the others, and begins again when the
        file is read again; the process ends with the last one."""
        clients = self.start(ONE + TWO)
        first, second = clients.members
        first.service._gaveUp(TunnelError("auth-refused"))
        self.assertEqual(self.ended, [])
        answer = self.change(ONE + TWO)
        self.assertIn("started anew", answer["changed"][0])
        for _ in range(30):
            self.clock.advance(0.2)
        self.assertEqual(self.where(clients), ["tcp:two:1", "tcp:one:1"])
        self.assertFalse(any(each.over for each in clients.members))
        second.service._gaveUp(TunnelError("auth-refused"))
        self.assertEqual(self.ended, [])
        clients.members[1].service._gaveUp(TunnelError("auth-refused"))
        self.assertEqual(self.ended, [True])

    def test_single(self) -> None:
        """A file without tables is one client, also if it gets another server."""
        clients = self.start('connect = "tcp:one:1"\n')
        answer = self.change('connect = "tcp:two:1"\n')
        self.assertEqual(
            answer["changed"],
            ["client of tcp:one:1 stopped", "client of tcp:two:1 started"],
        )
        self.assertEqual(self.where(clients), ["tcp:two:1"])
        self.assertEqual(self.ended, [])

    def test_target(self) -> None:
        """The tunnel of a URI may lead elsewhere, too."""
        text = 'tunnel = "w3p://one:1/id#secret"\nto = "h:1"\n'
        clients = self.start(text)
        answer = self.change(text.replace("h:1", "h:2"))
        self.assertEqual(len(answer["changed"]), 1)
        self.assertIn("forward 0=h:1 leads to h:2", answer["changed"][0])
        (member,) = clients.members
        self.assertEqual(member.service.forwards[0].target, "h:2")
