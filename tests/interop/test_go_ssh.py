"""
chisel's and vtunnel's own programs with ours, both ways.

They run if C{TRISTUNNEL_LONG=1} is set, and the programs are named:

  - C{TRISTUNNEL_CHISEL}: chisel, built from its source;
  - C{TRISTUNNEL_VTUNNEL}: vtunnel's programs of several versions, with C{:} between;
    those before version 0.1.0, which speak JSON and have no keys, may be among them.
"""

from __future__ import annotations

import os
import re
import sys
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol

from tests.docs.standins import Echoing
from tests.interop.rig import LONG, ProgramsTestCase
from tests.support.loopback import Service, Talk, untilOpen
from tests.support.processes import freePort

CHISEL = os.environ.get("TRISTUNNEL_CHISEL", "")
VTUNNEL = [each for each in os.environ.get("TRISTUNNEL_VTUNNEL", "").split(":") if each]


class Asker(DatagramProtocol):
    """
    Asks once.

    @ivar answered: Fires with the answer.
    """

    def __init__(self, port: int) -> None:
        self.answered: Deferred[bytes] = Deferred()
        self._port = port

    def startProtocol(self) -> None:
        assert self.transport is not None
        self.transport.write(b"x" * 5000, ("127.0.0.1", self._port))

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        self.answered.callback(datagram)


class ChiselTests(ProgramsTestCase):
    """chisel's program."""

    if not (LONG and CHISEL):
        skip = "set TRISTUNNEL_LONG=1 and TRISTUNNEL_CHISEL to chisel's program"

    async def test_client(self) -> None:
        """Its client at our server, with a login, a fingerprint, and a proxy."""
        (self.directory / "clients").write_text("laptop:secret\n")
        port = await self.server("--auth", "clients:clients")
        shown = await self.program.says(r"for ssh, (\S+) for chisel")
        service = Service()
        visitors = freePort()
        client = self.run_(
            "chisel",
            CHISEL,
            "client",
            "--auth",
            "laptop:secret",
            "--fingerprint",
            shown[1],
            f"http://127.0.0.1:{port}",
            f"R:127.0.0.1:{visitors}:127.0.0.1:{self.offer(service)}",
        )
        await client.says("Connected")
        await self.passes(visitors, service)
        await self.comesBack(port, visitors, service, "--auth", "clients:clients")

    async def test_refused(self) -> None:
        """Its client with a wrong password, and with a port that is taken."""
        (self.directory / "clients").write_text("laptop:secret\n")
        port = await self.server("--auth", "clients:clients")
        url = f"http://127.0.0.1:{port}"
        remote = f"R:127.0.0.1:{port}:127.0.0.1:1"
        client = self.run_(
            "chisel", CHISEL, "client", "--auth", "laptop:x", url, remote
        )
        await client.says("Authentication failed")
        good = ("--auth", "laptop:secret")
        client = self.run_("chisel", CHISEL, "client", *good, url, remote)
        await client.says(f"port {port}")

    async def test_server(self) -> None:
        """Our client at its server, with a login and its key."""
        port, visitors = freePort(), freePort()
        command = (*chiselServer(port), "--auth", "laptop:secret")
        server = self.run_("chisel", *command)
        shown = await server.says(r"Fingerprint (\S+)")
        await server.says("Listening")
        service = Service()
        client = self.ours(
            "tunnel-client",
            "--dialect",
            "chisel",
            "--connect",
            f"ws://127.0.0.1:{port}",
            "--credentials",
            "id=laptop",
            "--credentials",
            "secret=secret",
            "--host-key",
            shown[1],
            "--forward",
            f"{visitors}=127.0.0.1:{self.offer(service)}",
        )
        await client.says(f"Visitors of tcp://127.0.0.1:{visitors}")
        await self.passes(visitors, service)
        # It comes back to a server that was away.
        await server.stop()
        self.run_("chisel", *command)
        await untilOpen(self.outside, visitors)
        await self.passes(visitors, service)

    async def test_datagrams(self) -> None:
        """UDP, at our server and at its."""
        echo = self.outside.listenUDP(0, Echoing(), interface="127.0.0.1")
        self.addCleanup(echo.stopListening)
        target = f"127.0.0.1:{echo.getHost().port}"
        port, visitors = await self.server("--interface", "127.0.0.1"), freePort()
        remote = f"R:127.0.0.1:{visitors}:{target}/udp"
        client = self.run_(
            "chisel", CHISEL, "client", f"http://127.0.0.1:{port}", remote
        )
        await client.says("Connected")
        await self._ask(visitors)
        port, visitors = freePort(), freePort()
        server = self.run_("chisel", *chiselServer(port))
        await server.says("Listening")
        ours = self.ours(
            "tunnel-client",
            "--dialect",
            "chisel",
            "--connect",
            f"ws://127.0.0.1:{port}",
            "--forward",
            f"udp/{visitors}={target}",
        )
        await ours.says("Visitors of udp://")
        await self._ask(visitors)

    async def test_plainRemotes(self) -> None:
        """Its client's remotes without R: to a service, a proxy, and UDP."""
        echo = self.outside.listenUDP(0, Echoing(), interface="127.0.0.1")
        self.addCleanup(echo.stopListening)
        service = Service()
        target, datagrams = self.offer(service), echo.getHost().port
        more = self.offer(Service(b"hello"))
        port = await self.server(
            "--dial-allow",
            f"127.0.0.1:{target},{more}",
            "--dial-allow",
            f"udp/127.0.0.1:{datagrams}",
        )
        plain, proxy, udp = freePort(), freePort(), freePort()
        client = self.run_(
            "chisel",
            CHISEL,
            "client",
            f"http://127.0.0.1:{port}",
            f"{plain}:127.0.0.1:{target}",
            f"{proxy}:socks",
            f"{udp}:127.0.0.1:{datagrams}/udp",
        )
        await client.says("Connected")
        await self.passes(plain, service)
        await self._ask(udp)
        visitor = await self.visit(proxy)
        visitor.say(b"\5\1\0\5\1\0\1\x7f\0\0\1" + more.to_bytes(2, "big"))
        await visitor.until(lambda each: each.data.endswith(b"hello"))

    async def _ask(self, port: int) -> None:
        for _ in range(3):
            asker = Asker(port)
            listening = self.outside.listenUDP(0, asker, interface="127.0.0.1")
            self.assertEqual(b"x" * 5000, await asker.answered)
            await listening.stopListening()

    async def test_wrongServer(self) -> None:
        """Our client at a server with another key than it was told."""
        port = freePort()
        server = self.run_("chisel", *chiselServer(port))
        await server.says("Listening")
        client = self.ours(
            "tunnel-client",
            "--dialect",
            "chisel",
            "--connect",
            f"ws://127.0.0.1:{port}",
            "--host-key",
            "SHA256:" + "A" * 43,
            "--forward",
            f"{freePort()}=127.0.0.1:1",
        )
        await client.says("the server's key is SHA256:.* and not that of --host-key")


def chiselServer(port: int) -> tuple[str, ...]:
    where = ("--host", "127.0.0.1", "--port", str(port))
    # A key that is the same the next time.
    return (CHISEL, "server", "--reverse", "--key", "seed", *where)


class VTunnelTests(ProgramsTestCase):
    """vtunnel's programs, each version."""

    if not (LONG and VTUNNEL):
        skip = "set TRISTUNNEL_LONG=1 and TRISTUNNEL_VTUNNEL to vtunnel's programs"

    async def test_clients(self) -> None:
        """Their clients at our server."""
        port = await self.server()
        for program in VTUNNEL:
            service, visitors = Service(), freePort()
            client = self.run_(
                program,
                program,
                "client",
                "-server",
                f"ws://127.0.0.1:{port}/",
                "-forward",
                f"{visitors}=127.0.0.1:{self.offer(service)}",
            )
            await untilOpen(self.outside, visitors)
            await self.passes(visitors, service)
            if any("Listen OK" in line for line in client.lines):
                # The first version has no answers, and does not come back.
                await self.comesBack(port, visitors, service)
            await client.stop()

    async def test_servers(self) -> None:
        """Our client at their servers, without keys."""
        for program in VTUNNEL:
            await self._serve(program, (), ())

    async def test_keys(self) -> None:
        """Our client at their servers, with keys."""
        for program, private, public in await self._keys():
            theirs = ("-client-key", public)
            await self._serve(program, theirs, ("--credentials", f"key={private}"))

    async def _keys(self) -> list[tuple[str, str, str]]:
        """
        Have the programs make keys.

        @return: Each program that has keys, a private one and its public one.
        """
        made = []
        for program in VTUNNEL:
            keys = self.run_(program, program, "keygen")
            await keys.whenEnded()
            told = "\n".join(keys.lines)
            private = re.search(r"vt-priv-\S+", told)
            public = re.search(r"vt-pub-\S+", told)
            if private is not None and public is not None:
                made.append((program, private[0], public[0]))
        self.assertTrue(made, "none of these programs has keys")
        return made

    async def test_domains(self) -> None:
        """Their clients' domains are names of our server, with headers if they have."""
        web = freePort()
        names = ("--http", f"tcp:{web}:interface=127.0.0.1", "--domain", "t.localhost")
        port = await self.server(*names)
        for number, program in enumerate(VTUNNEL):
            service, host = Service(), f"v{number}.t.localhost"
            offered = f"{host}=127.0.0.1:{self.offer(service)}"
            url = f"ws://127.0.0.1:{port}/"
            client = self.run_(
                program, program, "client", "-server", url, "-forward", offered
            )
            said = await client.says(r"Forward OK|invalid")
            if said[0] == "invalid":
                # The first versions have none on their command line.
                continue
            visitor, talk = await self._ask(web, host, service)
            talk.say(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
            await visitor.until(lambda each: each.data.endswith(b"hi"))
            visitor.close()
            await client.stop()

    async def _ask(self, web: int, host: str, service: Service) -> tuple[Talk, Talk]:
        visitor = await self.visit(web)
        visitor.say(f"GET / HTTP/1.1\r\nHost: {host}\r\n\r\n".encode())
        talk = await service.arrivals.get()
        await talk.until(lambda each: b"\r\n\r\n" in each.data)
        self.assertIn(host.encode(), bytes(talk.data))
        return visitor, talk

    async def test_manyKeys(self) -> None:
        """Of several tokens with keys, the URL says which is a client's."""
        programs = await self._keys()
        for number, (_, _, public) in enumerate(programs):
            command = ("-m", "tristunnel", "token", "create", "--file", "tokens")
            more = ("--name", f"t{number}", "--key", public)
            made = self.run_("token", sys.executable, *command, *more)
            await made.whenEnded()
            self.assertEqual(0, made.status)
        port = await self.server("--auth", "tokens:tokens")
        for number, (program, private, _) in enumerate(programs):
            service, visitors = Service(), freePort()
            url = f"ws://127.0.0.1:{port}/?id=t{number}"
            client = self.run_(
                program,
                program,
                "client",
                "-key",
                private,
                "-server",
                url,
                "-forward",
                f"{visitors}=127.0.0.1:{self.offer(service)}",
            )
            await client.says("Listen OK")
            await self.passes(visitors, service)
            await client.stop()

    async def _serve(self, program: str, theirs: Any, ours: Any) -> None:
        port, visitors, service = freePort(), freePort(), Service()
        server = self.run_(program, program, "server", "-port", str(port), *theirs)
        await server.says("Starting server")
        client = self.ours(
            "tunnel-client",
            "--dialect",
            "vtunnel",
            "--connect",
            f"ws://127.0.0.1:{port}/",
            *ours,
            "--forward",
            f"{visitors}=127.0.0.1:{self.offer(service)}",
        )
        await client.says(f"Visitors of tcp://127.0.0.1:{visitors}")
        await self.passes(visitors, service)
        await client.stop()
        await server.stop()
