"""Tokens of two real servers, each of which has a file of its own."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.task import deferLater

from tests.cli.test_taps_processes import ProcessTestCase
from tests.support.polling import until
from tests.support.processes import Program, freePort
from tests.support.redis import RedisServer
from tristunnel.auth.token_store import TokenStore
from tristunnel.auth.tokens_format import Token
from tristunnel.cli.call import CallFailed, ask, parseCommand
from tristunnel.model.permissions import Permissions


class TokensOfMachinesTests(ProcessTestCase):
    """Two machines are two addresses of this one."""

    if not os.environ.get("TRISTUNNEL_LONG"):
        skip = "set TRISTUNNEL_LONG=1 to revoke tokens at servers of a cluster"
    timeout = 120

    def file(self, number: int) -> Path:
        return self.directory / f"tokens-{number}"

    async def machine(self, number: int) -> Program:
        host, port = f"127.0.0.{number}", freePort()
        program = self.start(
            "tunnel",
            *("--port", f"tcp:{port}:interface={host}", "--interface", host),
            *("--hostname", host, "--cluster", f"redis+unix:{self.redis.path}"),
            *("--cluster-listen", f"tcp:{host}:{freePort()}"),
            *("--cluster-token-file", str(self.directory / "member")),
            *("--auth", f"tokens:{self.file(number)}"),
            *("--state-dir", str(self.directory / host)),
        )
        await program.says("Listening for clients on")
        await program.says("book is there")
        self.places[number] = f"{host}:{port}"
        return program

    async def asked(self, number: int, token: str, *words: str) -> Any:
        command = [f"http://{self.places[number]}", *words]
        request = parseCommand(command, {"TRISTUNNEL_TOKEN": token})
        return await ask(self.reactor, request)

    async def refused(self, number: int, token: str) -> str:
        try:
            await self.asked(number, token, "listTunnels")
        except CallFailed as refusal:
            return str(refusal)
        return ""

    async def learns(
        self, number: int, condition: Callable[[dict[str, Token]], bool]
    ) -> None:
        """Wait until the file of a machine says something."""
        began = time.monotonic()
        await until(lambda: condition(TokenStore(self.file(number)).read().byName))
        print(f"machine {number} knew after {time.monotonic() - began:.2f} s")

    async def begin(self) -> str:
        """Start both; an admin's token, which is in the first one's file alone."""
        self.places: dict[int, str] = {}
        self.redis = RedisServer()
        self.addCleanup(self.redis.stop)
        self.redis.start()
        (self.directory / "member").write_text("a secret of the cluster")
        for number in (1, 2):
            TokenStore(self.file(number)).make()
        rights = frozenset({"admin", "open"})
        admin = TokenStore(self.file(1)).create("admin", Permissions(may=rights))
        self.servers = {number: await self.machine(number) for number in (1, 2)}
        while await self.refused(2, admin):
            await deferLater(self.reactor, 0.1)
        return admin

    async def test_tokens(self) -> None:
        """
        A token that was made at one machine is good at the other; when it is revoked
        there, its client here is gone, and nothing brings it back: neither an engine
        that has lost all, nor a machine that was stopped before.
        """
        admin = await self.begin()
        made = await self.asked(1, admin, "createToken", "name=laptop")
        token = str(made["token"])
        await self.learns(2, lambda tokens: "laptop" in tokens)
        self.assertEqual(await self.refused(2, token), "")
        (self.directory / "laptop").write_text(token)
        (self.directory / "laptop").chmod(0o600)
        # For the grace of an engine that is new.
        await deferLater(self.reactor, 3.5)
        client = self.start(
            "tunnel-client",
            *("--connect", f"tcp:{self.places[2]}", "--forward", "0=127.0.0.1:9"),
            *("--token-file", str(self.directory / "laptop")),
        )
        await client.says("Visitors of")
        before = self.file(2).read_bytes()
        began = time.monotonic()
        await self.asked(1, admin, "revokeToken", "name=laptop")
        await client.says("revoked")
        print(f"the client was told after {time.monotonic() - began:.3f} s")
        self.assertIn("revoked", await self.refused(2, token))

        await self.servers[2].stop()
        self.file(2).write_bytes(before)
        self.redis.kill()
        self.redis.start()
        self.servers[2] = await self.machine(2)
        for number in (1, 2):
            self.assertIn("revoked", await self.refused(number, token))

    async def test_access(self) -> None:
        """Access for three sessions is good for three, wherever they begin."""
        admin = await self.begin()
        (self.directory / "admin").write_text(admin)
        (self.directory / "admin").chmod(0o600)
        await deferLater(self.reactor, 3.5)
        client = self.start(
            "tunnel-client",
            *("--connect", f"tcp:{self.places[1]}", "--forward", "web=127.0.0.1:9"),
            *("--token-file", str(self.directory / "admin"), "--private"),
        )
        await client.says("web")
        asked = ("grantAccess", "service=web", "ttl=600", "uses=3")
        uri = str(await self.asked(1, admin, *asked))
        programs = []
        for number in range(6):
            place = self.places[1 + number % 2]
            here = uri.replace(self.places[1], place)
            programs.append(
                self.start(
                    "tunnel-access",
                    *("--listen", "tcp:0:interface=127.0.0.1"),
                    *("--state-dir", str(self.directory / f"access-{number}")),
                    environment={"TRISTUNNEL_ACCESS": here},
                )
            )
        # Who is refused ends.
        await until(lambda: [each.status for each in programs].count(1) >= 3)
        await deferLater(self.reactor, 2.0)
        self.assertEqual([each.status for each in programs].count(None), 3)

    async def test_edited(self) -> None:
        """What C{tristunnel token} does at one machine counts at the other in time."""
        admin = await self.begin()
        token = TokenStore(self.file(2)).create("phone", Permissions())
        await self.learns(1, lambda tokens: "phone" in tokens)
        self.assertEqual(await self.refused(1, token), "")
        TokenStore(self.file(1)).revoke("phone")
        await self.learns(2, lambda tokens: tokens["phone"].revoked is not None)
        self.assertIn("revoked", await self.refused(2, token))
        self.assertEqual(await self.refused(2, admin), "")
