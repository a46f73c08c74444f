"""Names that ask their visitors, with a server, a client and a web server."""

from __future__ import annotations

from urllib.parse import parse_qs, urlsplit

from tests.gate.rig import PIN, quickly
from tests.names.test_loopback import NamesLoopbackCase
from tests.support.loopback import Talk
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import ANONYMOUS_IDENTITY
from tristunnel.service.caller import Caller
from tristunnel.service.granting import Granting

_ASKED = b"has no sign-in for visitors"
"""What a site says that has no gate, and lets nobody in."""

_GET = b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n"


class GateLoopbackTests(NamesLoopbackCase):
    """What a tunnel asks, from its opening on."""

    async def asked(self, number: int, data: bytes) -> bytes:
        talk: Talk = await self.visit(number)
        talk.say(data)
        await talk.ended()
        talk.close()
        return bytes(talk.data)

    async def test_opened(self) -> None:
        """
        Who has no listener that can ask is refused; another client of the same lease
        asks something else later; a link leads in where links do.
        """
        number = await self.serve("http/b={}")
        caller = Caller(ANONYMOUS_IDENTITY, "127.0.0.1", 9000)
        for options in (
            {"pin": PIN},
            {"pin": PIN, "listener": "http", "name": "a", "raw": True},
            {"pin": PIN, "private": True, "name": "a"},
        ):
            with self.assertRaises(TunnelError) as caught:
                await self.tunnels.openTunnel(caller, options)
            self.assertIn("at HTTP names only", caught.exception.message)
        wanted = {"listener": "http", "name": "a"}
        await self.tunnels.openTunnel(caller, {**wanted, "link": True})
        self.assertIn(_ASKED, await self.asked(number, _GET))
        granting = Granting(self.tunnels)
        link = urlsplit(await granting.grantAccess(caller, "a", 60.0))
        self.assertEqual(link.netloc, f"a.example:{number}")
        self.assertEqual(link.path, "/.tristunnel/link")
        self.assertEqual(set(parse_qs(link.query)), {"id", "secret"})
        shown = granting.listAccess(caller)[0]
        self.assertEqual(shown["service"], "http:a.example")
        with self.assertRaises(TunnelError) as caught:
            await granting.grantAccess(caller, "b", 60.0)
        self.assertIn("are not let in by links", caught.exception.message)

    async def test_shared(self) -> None:
        """Who shares a name has to ask the same of its visitors."""
        await self.serve("http/b={}")
        caller = Caller(ANONYMOUS_IDENTITY, "127.0.0.1", 9000)
        wanted = {"listener": "http", "name": "a", "share": "sticky"}
        await self.tunnels.openTunnel(caller, {**wanted, "pin": PIN})
        await self.tunnels.openTunnel(caller, {**wanted, "pin": quickly("2580")})
        for other in ({}, {"link": True}, {"pin": PIN, "link": True}):
            with self.assertRaises(TunnelError) as caught:
                await self.tunnels.openTunnel(caller, {**wanted, **other})
            self.assertIn("ask the same of its visitors", caught.exception.message)

    async def test_changed(self) -> None:
        """A client that comes back with another PIN has that asked."""
        number = await self.serve("http/b={}")
        tunnel = self.tunnels.tunnels[0]
        session = self.client.session
        for pin in (PIN, quickly("1111"), ""):
            options = {"listener": "http", "name": "b", "resume": tunnel.uri}
            await session.call("openTunnel", **options, **({"pin": pin} if pin else {}))
            answer = await self.asked(
                number,
                b"GET / HTTP/1.1\r\nHost: b.example\r\nConnection: close\r\n\r\n",
            )
            self.assertEqual(_ASKED in answer, bool(pin))
            record = await self.tunnels.entries.find(tunnel.uri)
            self.assertEqual("pin" in record.options, bool(pin))
        shown = await self.tunnels.listTunnels(Caller(tunnel.owner, "x", 1))
        self.assertEqual([each["gate"] for each in shown], [{}])
