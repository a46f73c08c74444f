"""C{tristunnel invite} and C{tristunnel join}, as processes at a real server."""

from __future__ import annotations

import json
import os
import socket
import stat
import sys
import tomllib
from dataclasses import replace
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.portforward import (
    ProxyClient,
    ProxyClientFactory,
    ProxyFactory,
    ProxyServer,
)
from twisted.trial.unittest import SkipTest

from tests.cli.test_taps_processes import ProcessTestCase
from tests.support.listening import listenHere
from tests.support.polling import until
from tests.support.processes import Program, freePort, startProgram
from tests.tls.authority import makeAuthority
from tristunnel.auth.token_store import TokenStore
from tristunnel.wire.invitation import Invitation


class JoinTestCase(ProcessTestCase):
    """
    A server with TLS and tokens, and somebody's command lines.

    @ivar home: Where that somebody's configuration is.
    """

    async def setUp(self) -> None:  # type: ignore[override] # trial waits for it
        super().setUp()
        self.state = self.directory / "tunnel-state"
        self.home = self.directory / "home"
        self.environment: dict[str, str] = {}
        self.home.mkdir()
        TokenStore(self.state / "tokens").make()

    async def server(self, *options: str, **more: Any) -> Program:
        """Start a server, and wait until it has said where invitations lead."""
        program = await super().server(*options, **more)
        await until((self.state / "server.json").exists)
        return program

    async def begin(self) -> Program:
        return await self.server(
            "--auth",
            f"tokens:{self.state / 'tokens'}",
            port="ssl:0:interface=127.0.0.1",
        )

    async def run_(self, *words: str, status: int = 0) -> list[str]:
        """Run C{tristunnel}, and see with what it ends; each line is what it said."""
        program = startProgram(
            self.reactor,
            "tristunnel",
            [sys.executable, "-m", "tristunnel", *words],
            self.directory,
            {
                "XDG_CONFIG_HOME": str(self.home),
                "XDG_STATE_HOME": str(self.home),
                "STATE_DIRECTORY": "",
                **self.environment,
            },
        )
        self.addCleanup(program.kill)
        await program.whenEnded()
        self.assertEqual(program.status, status, program.lines)
        return program.lines

    async def invite(self, *more: str) -> str:
        lines = await self.run_("invite", "--state-dir", str(self.state), *more)
        (line,) = [each for each in lines if each.startswith("tristunnel join ")]
        return line.removeprefix("tristunnel join ")

    def kept(self) -> dict[str, Any]:
        path = self.home / "tristunnel" / "servers.toml"
        self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)
        return tomllib.loads(path.read_text())


class JoinTests(JoinTestCase):
    # A dozen programs, one after another.
    timeout = 120

    async def test_whole(self) -> None:
        """An invitation of a server that runs becomes a token there, and what is kept
        here is enough to connect with: once."""
        await self.begin()
        invitation = await self.invite("--name", "laptop", "--ports", "30000-31000")
        lines = await self.run_("join", invitation)
        self.assertEqual(
            lines,
            [
                f"Joined 127.0.0.1:{self.port} as laptop. Now share a port of this"
                " machine: tristunnel http 3000"
            ],
        )
        kept = self.kept()
        (name,) = kept["server"]
        self.assertEqual((name, kept["default"]), (f"127.0.0.1-{self.port}",) * 2)
        server = kept["server"][name]
        self.assertEqual(server["connect"], f"tls:127.0.0.1:{self.port}")
        self.assertEqual(server["pin"][0][:34], Invitation.parse(invitation).pin.hex())
        tokens = TokenStore(self.state / "tokens").read()
        self.assertEqual(tokens.byName["laptop"], tokens.find(server["token"].encode()))
        await self.client(
            "--pin",
            server["pin"][0],
            "--forward",
            "0=localhost:1",
            connect=server["connect"],
            environment={"TRISTUNNEL_TOKEN": server["token"]},
        )
        self.assertTrue(30000 <= self.visitors <= 31000)
        again = await self.run_("join", invitation, "--name", "other", status=1)
        self.assertEqual(
            again, ["tristunnel: The invitation was used already; ask for a new one."]
        )
        self.assertEqual(list(self.kept()["server"]), [name])

    async def test_listed(self) -> None:
        """Invitations are listed and revoked, and those of a second server are kept
        beside the first, under a name of one's own."""
        await self.begin()
        first, second = await self.invite(), await self.invite("--expires", "7190s")
        options = ("invite", "--state-dir", str(self.state))
        lines = await self.run_(*options, "--list")
        self.assertEqual([line.split()[0] for line in lines], ["client", "client-2"])
        self.assertIn("invited for 1h59m", lines[1])
        await self.run_(*options, "--revoke", "client")
        refused = await self.run_("join", first, status=1)
        self.assertEqual(refused, ["tristunnel: the invitation was revoked"])
        await self.run_("join", second, "--name", "work")
        lines = await self.run_("join", await self.invite(), "--name", "play")
        self.assertIn("tristunnel http 3000 --server play", lines[0])
        self.assertEqual(list(self.kept()["server"]), ["work", "play"])

    async def test_wrong(self) -> None:
        """What cannot be is said in one line, before anything is asked of a server."""
        for words, said in (
            (("join", "t.example.com"), "what follows the # is missing"),
            (("join", "t.example.com#abc"), "has 3 letters and digits"),
            (("invite", "--state-dir", "nowhere"), "no server with tokens has run"),
        ):
            status = 2 if words[0] == "join" else 1
            (line,) = await self.run_(*words, status=status)
            self.assertIn(said, line)

    async def test_unreachable(self) -> None:
        """A server that does not answer: which port to open."""
        invitation = Invitation("127.0.0.1", freePort(), bytes(17), "0" * 16)
        (line,) = await self.run_("join", str(invitation), status=1)
        self.assertIn(f"open TCP port {invitation.port} in its firewall", line)
        # One that swallows what is sent to it, as a firewall does.
        listener = socket.socket()
        self.addCleanup(listener.close)
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        port = listener.getsockname()[1]
        fill = [socket.socket() for _ in range(4)]
        for each in fill:
            self.addCleanup(each.close)
            each.setblocking(False)
            each.connect_ex(("127.0.0.1", port))
        invitation = Invitation("127.0.0.1", port, bytes(17), "0" * 16)
        (line,) = await self.run_("join", str(invitation), "--timeout", "0.5", status=1)
        self.assertIn(f"open TCP port {port} in the server's firewall", line)

    async def test_first(self) -> None:
        """A server without tokens prints one invitation, on a line of its own; a newer
        one makes it void, and once it was taken up there is none any more."""
        tokens = self.state / "tokens"
        tokens.unlink()
        invitations: list[list[str]] = []
        for turn in range(3):
            server = startProgram(
                self.reactor,
                "tristunnel server",
                [
                    *(sys.executable, "-m", "tristunnel", "server"),
                    *("--port", "ssl:0:interface=127.0.0.1"),
                    *("--state-dir", str(self.state)),
                ],
                self.directory,
            )
            self.addCleanup(server.kill)
            await self.listening(server)
            if turn < 2:
                word = (await server.says(r"^tristunnel join (\S+)$"))[1]
                self.assertTrue(word.startswith(f"127.0.0.1:{self.port}#"), word)
            if turn == 1:
                code = invitations[0][0].partition("#")[2]
                (said,) = await self.run_(
                    "join", f"127.0.0.1:{self.port}#{code}", status=1
                )
                self.assertIn("ask for a new one", said)
                await self.run_("join", word)
            await server.stop()
            invitations.append([each for each in server.lines if "#" in each])
        self.assertEqual([len(lines) for lines in invitations], [1, 1, 0])
        self.assertEqual(len(TokenStore(tokens).read().byDigest), 1)

    async def test_lostAnswer(self) -> None:
        """Where the first answer is lost on the way, the second attempt has the same
        token: no invitation is lost."""
        await self.begin()
        invitation = Invitation.parse(await self.invite("--name", "laptop"))
        tokens = self.state / "tokens"
        lost: list[bytes] = []

        class Back(ProxyClient):
            def dataReceived(self, data: bytes) -> None:
                if not lost and b"joined" in tokens.read_bytes():
                    lost.append(data)
                    self.peer.transport.abortConnection()
                else:
                    super().dataReceived(data)

        class Further(ProxyClientFactory):
            protocol = Back

        class Way(ProxyServer):
            clientProtocolFactory = Further

        way = ProxyFactory("127.0.0.1", self.port)
        way.protocol = Way
        port = listenHere(self, self.reactor, way)
        through = replace(invitation, port=port)
        (line,) = await self.run_("join", str(through), "--name", "work")
        self.assertIn("as laptop", line)
        self.assertEqual(len(lost), 1)
        kept = self.kept()["server"]["work"]["token"].encode()
        self.assertIsNotNone(TokenStore(tokens).read().find(kept))

    async def test_signed(self) -> None:
        """A certificate that an authority vouches for is not pinned, since it is
        renewed; one that nobody here knows is."""
        authority = makeAuthority()
        pem = self.directory / "server.pem"
        pem.write_bytes(b"".join(authority.issue(["localhost"])))
        trusted = authority.write(self.directory / "authority.pem")
        mine = self.directory / "mine.pem"
        mine.write_bytes(b"".join(authority.issue(["laptop"], client=True)))
        server = await self.server(
            *("--auth", f"tokens:{self.state / 'tokens'}", "--certificate", str(pem)),
            *("--client-ca", str(trusted)),
        )
        for number, pinned in ((0, False), (1, True)):
            invitation = await self.invite("--hostname", "localhost")
            self.environment = {} if number else {"SSL_CERT_FILE": str(trusted)}
            words = ("join", invitation, "--name", f"n{number}")
            await self.run_(*words, "--certificate", str(mine))
            self.assertEqual("pin" in self.kept()["server"][f"n{number}"], pinned)
        self.assertFalse([line for line in server.lines if "alert" in line])
        # Without a certificate of one's own.
        (line,) = await self.run_("join", await self.invite(), status=1)
        self.assertIn("requires a certificate of this client: give --certif", line)

    async def test_otherServer(self) -> None:
        """Who shows another certificate, or none, is not told the code."""
        await self.begin()
        heard: list[bytes] = []

        class Listens(Protocol):
            def dataReceived(self, data: bytes) -> None:
                heard.append(data)
                assert self.transport is not None
                self.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
                self.transport.loseConnection()

        class Closes(Protocol):
            def connectionMade(self) -> None:
                assert self.transport is not None
                self.transport.loseConnection()

        port, penalty = (
            listenHere(self, self.reactor, Factory.forProtocol(each))
            for each in (Listens, Closes)
        )
        code = "k7f39q2mabcdefgh"
        for number, said in (
            (self.port, "is not the server of this invitation"),
            (port, "does not use TLS"),
            (penalty, "too many logins from an address have failed"),
        ):
            invitation = Invitation("127.0.0.1", number, b"x" * 17, code)
            (line,) = await self.run_("join", str(invitation), status=1)
            self.assertIn(said, line)
        self.assertNotIn(code.encode(), b"".join(heard))

    async def test_place(self) -> None:
        """The server says where it is, and the operator knows better."""
        await self.begin()
        text = await self.invite("--hostname", "t.example.com", "--port", "9000")
        self.assertTrue(text.startswith("t.example.com#"), text)
        text = await self.invite("--hostname", "2001:db8::1", "--port", "443")
        self.assertTrue(text.startswith("2001:db8::1,443#"), text)
        place = json.loads((self.state / "server.json").read_text())
        self.assertEqual((place["host"], place["port"]), ("127.0.0.1", self.port))

    async def test_noTLS(self) -> None:
        """Without TLS there is nothing to know the server by."""
        await self.server("--auth", f"tokens:{self.state / 'tokens'}")
        (line,) = await self.run_("invite", "--state-dir", str(self.state), status=1)
        self.assertIn("an invitation needs a server with TLS", line)
        self.assertEqual((self.state / "tokens").read_bytes(), b"\n")

    async def test_others(self) -> None:
        """Root writes to no file because a server's user says so."""
        if os.geteuid():
            raise SkipTest("only root can give files away")
        await self.begin()
        await self.invite()
        victim = self.directory / "victim"
        victim.write_text("precious")
        place = self.state / "server.json"
        fields = json.loads(place.read_text())
        place.write_text(json.dumps({**fields, "tokens": str(victim)}))
        os.chown(place, 12345, 12345)
        (line,) = await self.run_("invite", "--state-dir", str(self.state), status=1)
        self.assertIn("is not the server's: if it is right, give --file", line)
        self.assertEqual(victim.read_text(), "precious")

    async def test_notKept(self) -> None:
        """Where nothing can be kept, nothing is fetched."""
        await self.begin()
        invitation = await self.invite()
        for word in ("a b", "a/b"):
            (line,) = await self.run_("join", invitation, "--name", word, status=1)
            self.assertIn("a server's name has letters", line)
        (self.home / "tristunnel").write_text("a file")
        (line,) = await self.run_("join", invitation, status=1)
        self.assertIn("cannot use directory", line)
        os.unlink(self.home / "tristunnel")
        await self.run_("join", invitation)
