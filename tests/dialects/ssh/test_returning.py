"""
Tunnels that are kept for clients who know of no leases.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.cred.checkers import InMemoryUsernamePasswordDatabaseDontUse

from tests.dialects.ssh.rig import Peer, SSHTestCase
from tests.support.polling import until
from tristunnel.auth.realm import Authenticator, portalFor
from tristunnel.dialects.conch.client import Credentials
from tristunnel.errors import TunnelError
from tristunnel.service.siblings import Gathered


class Others:
    """Other members of a server, which know what this one does."""

    name = "0"

    def __init__(self) -> None:
        self._published: dict[str, Callable[..., Any]] = {}

    def publish(self, name: str, function: Callable[..., Any]) -> None:
        self._published[name] = function

    async def heed(self, name: str, *params: object, patience: float) -> None:
        """All know it."""

    async def gather(
        self, name: str, caller: None, *params: object, patience: float
    ) -> Gathered:
        answer = await self._published[name](caller, *params)
        return Gathered([("1", answer)], {})


class ReturningTests(SSHTestCase):
    """A client that was cut off and comes back."""

    authenticator = Authenticator(
        portalFor(
            [InMemoryUsernamePasswordDatabaseDontUse(ann=b"secret", bob=b"secret")]
        )
    )

    async def enter(self, name: str = "ann") -> Peer:
        return await self.come(Credentials(name, "secret"))

    async def cut(self, peer: Peer) -> None:
        """Have the connection of a client break without a word."""
        peer.link.abort()
        await until(
            lambda: all(each.clientSide is None for each in self.tunnels.tunnels)
        )

    async def test_back(self) -> None:
        """
        Who asks for any port gets the one back that it had, with the same tunnel, and
        its visitors reach it again.
        """
        await self.startServer()
        peer = await self.enter()
        ports = [await peer.listen(), await peer.listen()]
        await self.cut(peer)
        self.assertEqual(2, len(self.tunnels.tunnels))
        before = {each.uri for each in self.tunnels.tunnels}
        visitor = await self.visit(ports[0])
        await visitor.gone()
        again = await self.enter()
        back = [await again.listen(), await again.listen()]
        self.assertEqual(sorted(ports), sorted(back))
        self.assertEqual(before, {each.uri for each in self.tunnels.tunnels})
        visitor = await self.visit(ports[1])
        await until(lambda: bool(again.channels))
        self.assertNotIn(await again.listen(), ports)

    async def test_elsewhere(self) -> None:
        """What another member knows to be left is had back before the book tells."""
        await self.startServer()
        others: Any = Others()
        self.tunnels.siblings = others
        self.sessions.isAmong(others, lambda: b"secret")
        peer = await self.enter()
        port = await peer.listen()
        await self.cut(peer)
        self.sessions.returning._away.clear()
        self.assertEqual(port, await (await self.enter()).listen())
        self.assertNotEqual(port, await (await self.enter()).listen())

    async def test_certainPort(self) -> None:
        """A certain port is kept, for its owner and for nobody else."""
        await self.startServer()
        peer = await self.enter()
        port = await peer.listen()
        await self.cut(peer)
        other = await self.enter("bob")
        with self.assertRaises(TunnelError):
            await other.forward("localhost", port)
        self.assertNotEqual(port, await other.listen())
        again = await self.enter()
        self.assertEqual(b"", await again.forward("localhost", port))

    async def test_second(self) -> None:
        """A second session of the same client takes nothing from the first."""
        await self.startServer()
        peer = await self.enter()
        port = await peer.listen()
        second = await self.enter()
        self.assertNotEqual(port, await second.listen())
        with self.assertRaises(TunnelError):
            await second.forward("localhost", port)
        await self.visit(port)
        await until(lambda: bool(peer.channels))
        self.assertFalse(second.channels)

    async def test_goodbye(self) -> None:
        """What a client gives back, or leaves with a word, is free at once."""
        await self.startServer()
        peer = await self.enter()
        await peer.listen()
        peer.link.close()
        await until(lambda: not self.tunnels.tunnels)
        self.assertEqual({}, self.tunnels.leases._leases)

    async def test_expires(self) -> None:
        """It is kept for the time of a lease."""
        await self.startServer()
        self.tunnels.leases.seconds = 0.05
        peer = await self.enter()
        await peer.listen()
        peer.link.abort()
        await until(lambda: not self.tunnels.tunnels)
        again = await self.enter()
        await again.listen()
        self.assertEqual(1, len(self.tunnels.tunnels))
