"""A managed client and its server, as real programs."""

from __future__ import annotations

import json
import socket
from typing import Any

from tests.integration.test_hostile_processes import HostileTestCase
from tests.support.loopback import Service
from tests.support.processes import Program
from tristunnel.auth.token_store import TokenStore
from tristunnel.model.permissions import Permissions


class ManagedTests(HostileTestCase):
    """The server's operator opens tunnels, within the client's consent."""

    async def call(self, method: str, **params: object) -> Any:
        answer = json.loads(await self.rpc(method, self.admin, **params))
        return answer.get("result", answer.get("error"))

    async def begin(self, *consent: str) -> Program:
        store = TokenStore(str(self.directory / "tokens"))
        store.make()
        self.admin = store.create("admin", Permissions(may=frozenset({"admin"})))
        self.token = store.create("laptop", Permissions())
        await self.server("--auth", f"tokens:{self.directory / 'tokens'}")
        return await self.managedClient(*consent)

    async def managedClient(self, *consent: str) -> Program:
        client = self.start(
            "tunnel-client",
            "--connect",
            f"tcp:127.0.0.1:{self.port}",
            *(word for each in consent for word in ("--managed", each)),
            environment={"TRISTUNNEL_TOKEN": self.token},
        )
        await client.says("The server has admitted")
        return client

    async def test_added(self) -> None:
        """A tunnel that is given is open; one that is taken away is closed."""
        service = Service(b"hello")
        target = f"127.0.0.1:{self.offer(service)}"
        client = await self.begin("localhost:*")
        made = await self.call("addManaged", client="laptop", to=target)
        self.visitors = await self.address(client)
        await self.hears(service)
        (listed,) = await self.call("listManaged")
        self.assertEqual((listed["connected"], listed["refused"]), (True, ""))
        await self.call("removeManaged", id=made["id"])
        await client.says("removed")
        self.assertEqual(await self.call("listTunnels"), [])

    async def test_consentChanged(self) -> None:
        """
        What the user agrees to changes with the file, at once: tunnels outside of it
        are closed, and those that are inside of it now are opened.
        """
        service = Service(b"hello")
        port = self.offer(service)
        first = await self.begin("localhost:1")
        await first.stop()
        await self.call("addManaged", client="laptop", to=f"127.0.0.1:{port}")
        config = self.directory / "client.toml"

        def write(consent: str) -> None:
            connect = f'connect = "tcp:127.0.0.1:{self.port}"\n'
            config.write_text(f"{connect}managed = [{consent}]\n")

        write('"localhost:*"')
        client = self.start(
            "tunnel-client",
            *("--config", str(config)),
            environment={"TRISTUNNEL_TOKEN": self.token},
        )
        self.visitors = await self.address(client)
        await self.hears(service)
        for consent in ('"localhost:2"', ""):
            write(consent)
            client.signal("HUP")
            await client.says("removed" if consent else "managed")
            self.assertEqual(await self.call("listTunnels"), [])
        since = len(client.lines)
        write(f'"localhost:{port}"')
        client.signal("HUP")
        self.visitors = await self.address(client, since)
        await self.hears(service)

    async def test_restart(self) -> None:
        """It is kept over restarts of the client, at the same port."""
        service = Service(b"hello")
        target = f"127.0.0.1:{self.offer(service)}"
        client = await self.begin("localhost:*")
        await self.call("addManaged", client="laptop", to=target)
        before = await self.address(client)
        await client.stop()
        client = await self.managedClient("localhost:*")
        self.assertEqual(await self.address(client), before)

    async def test_outside(self) -> None:
        """
        Of a hundred targets outside its consent none is dialled, and the operator is
        told why.
        """
        allowed = Service(b"hello")
        port = self.offer(allowed)
        forbidden = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(forbidden.close)
        forbidden.setblocking(False)
        closed = forbidden.getsockname()[1]
        client = await self.begin(f"localhost:{port}")
        hosts: tuple[str, ...] = (
            "localhost",
            "127.0.0.1",
            "[::1]",
            "127.1",
            "0x7f000001",
            "2130706433",
        )
        hosts += ("0.0.0.0", "[::]", "[::ffff:127.0.0.1]", "localhost.", "LOCALHOST")
        asked = [f"{host}:{closed}" for host in hosts]
        asked += [f"127.0.0.{n}:{closed}" for n in range(2, 99 - len(hosts) + 2)]
        for target in asked[:99]:
            await self.call("addManaged", client="laptop", to=target)
        await self.call("addManaged", client="laptop", to=f"localhost:{port}")
        self.visitors = await self.address(client)
        await self.hears(allowed)
        listed = await self.call("listManaged")
        refused = [each for each in listed if each["refused"]]
        self.assertEqual(len(refused), 99)
        self.assertEqual(len(await self.call("listTunnels")), 1)
        self.assertRaises(BlockingIOError, forbidden.accept)
