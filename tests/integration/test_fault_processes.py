"""
The two programs killed in the midst of their work. The long form is
C{python -m benchmarks.faults --only kills}.
"""

from __future__ import annotations

from twisted.internet.error import ConnectionDone

from tests.cli.test_taps_processes import ProcessTestCase
from tests.support.loopback import Service, Talk
from tests.support.processes import STEADY, Program
from tests.support.short import shortDirectory

_MUCH = 100_000


class KilledTests(ProcessTestCase):
    """Who is killed breaks its streams, and no half of one looks whole."""

    def assertBroken(self, talk: Talk) -> None:
        """Check that a conversation ended with an error, and with no end before."""
        self.assertFalse(talk.eof)
        assert talk.lost is not None
        self.assertFalse(talk.lost.check(ConnectionDone), talk.lost)

    async def streams(self, *options: str) -> tuple[Program, Program, Talk, Talk]:
        """Begin a stream; the server, the client, the visitor, the service's side."""
        service = Service()
        server = await self.server()
        forward = f"0=127.0.0.1:{self.offer(service)}"
        client = await self.client("--forward", forward, *options)
        visitor = await self.visit()
        visitor.say(bytes(_MUCH))
        serving = await service.arrivals.get()
        serving.say(bytes(_MUCH))
        await visitor.has(_MUCH)
        await serving.has(_MUCH)
        return server, client, visitor, serving

    async def test_server(self) -> None:
        """
        The server's visitor and the client's service see a reset, whether
        the stream has a connection of its own or not.
        """
        for carrier in ("direct", "session"):
            server, client, visitor, serving = await self.streams("--carrier", carrier)
            await server.kill()
            self.assertBroken(await visitor.gone())
            self.assertBroken(await serving.gone())
            await client.kill()

    async def test_client(self) -> None:
        """So they do when the client is killed."""
        for carrier in ("direct", "session"):
            server, client, visitor, serving = await self.streams("--carrier", carrier)
            await client.kill()
            self.assertBroken(await serving.gone())
            self.assertBroken(await visitor.gone())
            await server.kill()

    async def test_unixSocket(self) -> None:
        """
        What a killed server leaves of its UNIX socket does not keep the next
        one from it, nor its client from coming back to its port.
        """
        path = shortDirectory(self) / "s"
        service = Service(b"hello")
        server = await self.server("--ports", STEADY, port=f"unix:{path}")
        forward = f"0=127.0.0.1:{self.offer(service)}"
        client = await self.client("--forward", forward, connect=f"unix:{path}")
        before, since = self.visitors, len(client.lines)
        await server.kill()
        self.assertTrue(path.is_socket())
        await self.server("--ports", STEADY, port=f"unix:{path}")
        self.assertEqual(await self.address(client, since), before)
        await self.hears(service)

    async def test_finished(self) -> None:
        """
        Streams that are over are over: what was finished before the kill is
        whole.
        """
        server, _, visitor, serving = await self.streams()
        serving.finish()
        await visitor.ended()
        self.assertEqual(len(visitor.data), _MUCH)
        visitor.finish()
        await serving.gone()
        await visitor.gone()
        await server.kill()
        assert visitor.lost is not None
        self.assertTrue(visitor.lost.check(ConnectionDone))
