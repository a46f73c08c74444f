"""Targets that are the client's own: C{socks:}, C{proxy:} and C{files:}."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol
from twisted.internet.protocol import DatagramProtocol
from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase
from twisted.web.client import Agent, readBody
from twisted.web.http_headers import Headers

from tests.support.loopback import LoopbackTestCase, Service, Talk
from tests.support.polling import until
from tests.support.processes import freePort
from tristunnel.cli.client_tap import Options
from tristunnel.connect.proxy import ProxiedEndpoint, parseProxy
from tristunnel.dataplane import lookups
from tristunnel.errors import TunnelError
from tristunnel.forwards import destinations, onward
from tristunnel.forwards.destinations import Destinations, parseDestination
from tristunnel.forwards.forward import parseForward
from tristunnel.listeners.udp import UDPListeners
from tristunnel.wire.proxy_request import ProxyRequestDecoder
from tristunnel.wire.socks import decodeDatagram, encodeDatagram

DATA = os.urandom(600_000)


def allowed(*texts: str) -> Destinations:
    return Destinations(
        [parseDestination(each, "allow=", False, "+") for each in texts], "allow="
    )


class DestinationTests(SynchronousTestCase):
    """Where visitors may go."""

    def judge(self, allow: str, host: str, address: str, port: int = 443) -> bool:
        """Whether a host that leads to an address may be dialled."""
        destinations = allowed(*allow.split())
        try:
            destinations.checkAsked(host, port)
            destinations.checkAddress(host, address, port)
        except TunnelError as error:
            self.assertEqual(error.code.name, "not-permitted")
            return False
        return True

    def test_rules(self) -> None:
        """What counts is the address that is dialled."""
        for allow, host, address, good in (
            ("", "10.0.0.1", "10.0.0.1", False),
            ("10.0.0.0/8", "10.0.0.1", "10.0.0.1", True),
            ("10.0.0.0/8", "11.0.0.1", "11.0.0.1", False),
            ("10.0.0.0/8+80", "10.0.0.1", "10.0.0.1", False),
            ("10.0.0.0/8+80-443", "10.0.0.1", "10.0.0.1", True),
            ("[fd00::]/8", "fd00::1", "fd00::1", True),
            ("[fd00::]/8", "10.0.0.1", "10.0.0.1", False),
            ("10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:10.0.0.1", True),
            # A name leads wherever its owner says.
            ("10.0.0.0/8", "any.example", "10.0.0.1", True),
            ("10.0.0.0/8", "any.example", "127.0.0.1", False),
            ("intra.example+443", "intra.example", "192.0.2.1", True),
            ("intra.example+443", "Intra.Example.".lower(), "192.0.2.1", True),
            ("intra.example+443", "other.example", "192.0.2.1", False),
            ("intra.example+80", "intra.example", "192.0.2.1", False),
            ("intra.example", "192.0.2.1", "192.0.2.1", False),
            ("intra.example", "intra.example", "127.0.0.1", False),
            ("intra.example", "intra.example", "169.254.169.254", False),
            ("intra.example", "intra.example", "::1", False),
            ("intra.example", "intra.example", "0.0.0.0", False),
            ("intra.example 127.0.0.1", "intra.example", "127.0.0.1", True),
            ("localhost", "localhost", "127.0.0.1", True),
            ("localhost", "127.0.0.1", "127.0.0.1", True),
            ("localhost", "evil.example", "127.0.0.1", False),
        ):
            self.assertEqual(self.judge(allow, host, address), good, (allow, host))

    def test_find(self) -> None:
        """Of a name's addresses those remain that may be dialled."""

        def lookUp(reactor: object, host: str) -> Deferred[Any]:
            found: Deferred[Any] = Deferred()
            found.callback(lookups.Answer(["127.0.0.1", "10.0.0.1"], True))
            return found

        self.patch(destinations, "lookUp", lookUp)
        found = allowed("10.0.0.0/8").find(None, "both.example", 1)
        self.assertEqual(
            self.successResultOf(Deferred.fromCoroutine(found)), ["10.0.0.1"]
        )
        refused = allowed("11.0.0.0/8").find(None, "both.example", 1)
        self.failureResultOf(Deferred.fromCoroutine(refused), TunnelError)


class ForwardTests(SynchronousTestCase):
    """What the command line takes."""

    def parse(self, *words: str) -> Options:
        options = Options()
        options.parseOptions(["--connect", "tcp:h:1", *words])
        return options

    def test_refused(self) -> None:
        """What would open a network by oversight is refused, and says what to do."""
        secret = self.mktemp()
        with open(secret, "w") as file:
            file.write("s3cret\n")
        good = f"user=u:password=@{secret}"
        for words, part in (
            ("1080=socks:user=u", "allows nothing"),
            ("1080=socks:allow=10.0.0.0/8", "anybody could use it"),
            ("1080=proxy:allow=10.0.0.0/8", "open=yes"),
            ("1080=socks:allow=10.0.0.0/8:user=u", "go together"),
            ("1080=socks:allow=10.0.0.0/8:user=u:password=pw", "password=@FILE"),
            ("1080=socks:allow=10.0.0.0/8:user=u:password=@no", "cannot be read"),
            ("1080=socks:allow=10.0.0.0/99:open=yes", "not understood"),
            ("1080=socks:allow=a+x:open=yes", "not understood"),
            ("1080=socks:allow=a:open=maybe", "takes yes or no"),
            ("1080=socks:allow=udp/10.0.0.0/8:open=yes", "leave out udp/"),
            ("1080=socks:allow=a:opem=yes", "'opem=' is not known"),
            ("udp/1080=socks:allow=a:open=yes", "not a UDP service"),
            ("1080=socks:allow=a:open=yes,proxy=v2", "no PROXY header"),
            ("80=files:/no/such", "not a directory"),
            ("80=files:", "single directory"),
            ("80=files:/tmp:list=yes", "list= is not known"),
        ):
            error = self.assertRaises(UsageError, self.parse, "--forward", words)
            self.assertIn(part, str(error), words)
        for line in (
            ["--forward", f"1080=socks:allow=10.0.0.0/8:{good}"],
            ["--forward", "1080=socks:allow=10.0.0.0/8:allow=[fd00::]/8:open=yes"],
            ["--forward", "1080=proxy:allow=a", "--allow", "192.0.2.0/24"],
            ["--private", "--forward", "inside=socks:allow=10.0.0.0/8"],
        ):
            self.parse(*line)

    def test_privateBesidePorts(self) -> None:
        """C{--private} is about names, and may stand beside a port."""
        options = self.parse(
            *("--private", "--forward", "db=localhost:1", "--forward", "80=localhost:2")
        )
        self.assertEqual([each.private for each in options.forwards], [True, False])
        self.assertRaises(UsageError, self.parse, "--private", "--forward", "80=h:2")

    def test_datagrams(self) -> None:
        """A port for SOCKS has one for datagrams beside it; a private name has none."""
        for word, count in (
            ("1080=socks:allow=a:open=yes", 2),
            ("n=socks:allow=a:open=yes", 2),
        ):
            forwards = self.parse("--forward", word).forwards
            self.assertEqual(len(forwards), count)
            self.assertTrue(forwards[1].isUDP)
            self.assertEqual(forwards[1].port, forwards[0].port)
        forwards = self.parse("--private", "--forward", "n=socks:allow=a").forwards
        self.assertEqual(len(forwards), 1)

    def test_hosts(self) -> None:
        """A host may have the name of a kind."""
        for text in ("proxy:3128", "80=files:8080", "socks:1080"):
            self.assertIsNone(parseForward(None, text).inner)


class InnerCase(LoopbackTestCase):
    """A client with a proxy into this machine."""

    async def through(self, url: str, port: int) -> Talk:
        talk = Talk()
        endpoint = ProxiedEndpoint(
            self.outside, parseProxy(self.outside, url), "127.0.0.1", port
        )
        await connectProtocol(endpoint, talk)
        self._talks.append(talk)
        return talk

    async def refusal(self, url: str, port: int) -> str:
        """@return: Why a proxy does not connect."""
        try:
            await self.through(url, port)
        except TunnelError as error:
            return error.message
        raise AssertionError("it has connected")


class ProxyTests(InnerCase):
    """C{socks:} and C{proxy:}, by our own client's proxies."""

    async def begin(self, *kinds: str) -> Service:
        """Start all. C{self.ports} are those of the proxies."""
        service = Service(b"banner")
        self.at = self.offer(service)
        (self.directory / "secret").write_text("pw\n")
        login = f"user=me:password=@{self.directory / 'secret'}"
        await self.startServer()
        self.ports = await self.startClient(
            *(f"0={kind}:allow=127.0.0.1+{self.at}:{login}" for kind in kinds)
        )
        return service

    async def test_connects(self) -> None:
        """Bytes pass both ways, each end by itself."""
        service = await self.begin("socks", "proxy")
        schemes = ("socks5h", "http")
        for scheme, port in zip(schemes, self.ports, strict=True):
            url = f"{scheme}://me:pw@127.0.0.1:{port}"
            talk = await self.through(url, self.at)
            at = await service.arrivals.get()
            await talk.has(6)
            talk.say(DATA)
            talk.finish()
            await at.ended()
            self.assertEqual(bytes(at.data), DATA)
            at.say(DATA)
            at.finish()
            await talk.ended()
            self.assertEqual(bytes(talk.data), b"banner" + DATA)

    async def test_refuses(self) -> None:
        """What is not allowed, a wrong password, none, and what is not there."""
        self.patch(onward, "PENALTY", 0.01)
        await self.begin("socks", "proxy")
        socks, web = (
            f"{scheme}://{{}}127.0.0.1:{port}"
            for scheme, port in zip(("socks5h", "http"), self.ports, strict=True)
        )
        for url, login, port, words in (
            (socks, "me:pw@", 1, "rules do not allow it"),
            (socks, "me:no@", self.at, "does not take this user"),
            (socks, "", self.at, "asks for a login"),
            (web, "me:pw@", 1, "403"),
            (web, "me:no@", self.at, "407"),
            (web, "", self.at, "407"),
        ):
            self.assertIn(words, await self.refusal(url.format(login), port))

    async def test_nobodyThere(self) -> None:
        """A service that does not answer is told of in the protocol's own words."""
        await self.startServer()
        port = freePort()
        ports = await self.startClient(
            *(f"0={kind}:allow=127.0.0.1:open=yes" for kind in ("socks", "proxy"))
        )
        for scheme, at, words in zip(
            ("socks5h", "http"), ports, ("refused there", "502"), strict=True
        ):
            url = f"{scheme}://127.0.0.1:{at}"
            self.assertIn(words, await self.refusal(url, port))

    async def test_silence(self) -> None:
        """A visitor who does not say where to go is let go, as one who speaks
        something else."""
        self.patch(onward, "PATIENCE", 0.05)
        await self.startServer()
        ports = await self.startClient("0=socks:allow=10.0.0.0/8:open=yes")
        await (await self.visit(ports[0])).ended()
        talk = await self.visit(ports[0])
        talk.say(b"GET / HTTP/1.1\r\n\r\n")
        await talk.ended()
        self.assertEqual(bytes(talk.data), b"")

    async def test_absoluteForm(self) -> None:
        """A plain request goes on as its server takes it, without the password."""
        service = await self.begin("proxy")
        talk = await self.visit(self.ports[0])
        talk.say(
            f"GET http://127.0.0.1:{self.at}/a?b HTTP/1.1\r\nHost: x\r\nA: 1\r\n"
            "Proxy-Authorization: Basic bWU6cHc=\r\nConnection: keep-alive, A\r\n"
            "\r\nbody".encode()
        )
        at = await service.arrivals.get()
        await at.until(lambda each: each.data.endswith(b"body"))
        self.assertEqual(
            bytes(at.data).decode(),
            f"GET /a?b HTTP/1.1\r\nHost: 127.0.0.1:{self.at}\r\n"
            "Connection: close\r\n\r\nbody",
        )
        await talk.has(6)


class _Datagrams(DatagramProtocol):
    def __init__(self, answer: Callable[[bytes], bytes] | None = None) -> None:
        self.answer = answer
        self.came: Deferred[bytes] = Deferred()

    def datagramReceived(self, datagram: bytes, addr: Any) -> None:
        if self.answer is not None:
            self.transport.write(self.answer(datagram), addr)
        elif not self.came.called:
            self.came.callback(datagram)


class DatagramTests(InnerCase):
    """SOCKS's UDP ASSOCIATE."""

    async def test_associate(self) -> None:
        """
        Datagrams pass while the connection is there that has asked for them, to what is
        allowed alone.
        """
        await self.startServer()
        self.tunnels.listeners["udp"] = UDPListeners(self.reactor, "127.0.0.1")
        services = []
        for name in (b"a", b"b"):
            echo = _Datagrams(lambda data, name=name: name + data)  # type: ignore[misc] # of this round
            port = self.outside.listenUDP(0, echo, interface="127.0.0.1")
            self.addCleanup(port.stopListening)
            services.append(port.getHost().port)
        (tcp,) = await self.startClient(
            f"0=socks:allow=127.0.0.1+{services[0]}:open=yes"
        )
        await until(lambda: len(self.seen.named("tunnelReady")) == 2)
        udp = int(self.seen.named("tunnelReady")[1][0].rpartition(":")[2])
        visitor = _Datagrams()
        mine = self.outside.listenUDP(0, visitor, interface="127.0.0.1")
        self.addCleanup(mine.stopListening)
        talk = await self.visit(tcp)
        talk.say(b"\x05\x01\x00\x05\x03\x00\x01\0\0\0\0\0\0")
        await talk.has(12)
        self.assertEqual(
            bytes(talk.data[2:]), b"\5\0\0\1\0\0\0\0" + udp.to_bytes(2, "big")
        )
        for port in reversed(services):
            datagram = encodeDatagram("127.0.0.1", port, b"x")
            mine.write(datagram, ("127.0.0.1", udp))
        answer = decodeDatagram(await visitor.came)
        self.assertEqual(answer, ("127.0.0.1", services[0], b"ax"))
        talk.close()
        await talk.gone()


class FilesTests(InnerCase):
    """C{files:}."""

    async def get(self, path: bytes, **headers: str) -> tuple[int, bytes]:
        agent = Agent(self.outside)
        answer = await agent.request(
            b"GET",
            b"http://127.0.0.1:%d%s" % (self.port, path),
            Headers({name: [value] for name, value in headers.items()}),
        )
        return answer.code, await readBody(answer)

    async def begin(self, *words: str) -> None:
        root = self.directory / "site"
        (root / "sub").mkdir(parents=True)
        (root / ".git").mkdir()
        (root / "big").write_bytes(DATA)
        (root / "sub" / "a.txt").write_text("text")
        (root / ".git" / "config").write_text("secret")
        (self.directory / "secret").write_text("secret")
        (root / "out").symlink_to(self.directory / "secret")
        (root / "hidden").symlink_to(root / ".git" / "config")
        (root / "in").symlink_to(root / "sub" / "a.txt")
        os.mkfifo(root / "pipe")
        await self.startServer()
        (self.port,) = await self.startClient(":".join([f"0=files:{root}", *words]))

    async def test_files(self) -> None:
        """What is in the directory, and nothing else."""
        await self.begin()
        for path, code, body in (
            (b"/big", 200, DATA),
            (b"/sub/a.txt", 200, b"text"),
            (b"/in", 200, b"text"),
            (b"/", 404, None),
            (b"/sub/", 404, None),
            (b"/out", 404, None),
            (b"/hidden", 404, None),
            (b"/pipe", 404, None),
            (b"/.git/config", 404, None),
            (b"/%2e%2e/secret", 404, None),
            (b"/..%2fsecret", 404, None),
            (b"/a%00b", 404, None),
            (b"/%ff", 404, None),
        ):
            found, text = await self.get(path)
            self.assertEqual(found, code, path)
            if body is not None:
                self.assertEqual(text, body)
            else:
                self.assertNotIn(b"secret", text)

    async def test_ranges(self) -> None:
        """Parts of a file, however odd the request."""
        await self.begin()
        for said, code, body in (
            ("bytes=1-2", 206, b"ex"),
            ("bytes=-2", 206, b"xt"),
            ("bytes=-1000", 206, b"text"),
            ("bytes=9-", 416, b""),
            ("bytes=" + ",".join(["0-1"] * 50), 200, b"text"),
            ("bytes=\xff", 200, b"text"),
            ("lines=1-2", 200, b"text"),
        ):
            found = await self.get(b"/sub/a.txt", range=said)
            self.assertEqual(found, (code, body), said)

    async def test_listing(self) -> None:
        """A listing, where it is wanted, has what can be had."""
        await self.begin("listing=yes", "index=big")
        _, text = await self.get(b"/sub/")
        self.assertIn(b"a.txt", text)
        self.assertEqual(await self.get(b"/"), (200, DATA))
        os.unlink(self.directory / "site" / "big")
        _, text = await self.get(b"/")
        for name in (b"sub/", b'"in"'):
            self.assertIn(name, text)
        for name in (b"out", b"hidden", b"pipe", b".git"):
            self.assertNotIn(name, text)


class RequestTests(SynchronousTestCase):
    """The parser of requests to an HTTP proxy."""

    @given(st.lists(st.binary(max_size=40), max_size=6), st.booleans())
    def test_anything(self, chunks: list[bytes], begins: bool) -> None:
        """Nothing but an error of ours comes of anything."""
        decoder = ProxyRequestDecoder()
        if begins:
            chunks = [b"GET http://", *chunks, b" HTTP/1.1\r\n\r\n"]
        for chunk in chunks:
            try:
                decoder.feed(chunk)
            except TunnelError:
                return

    def test_wrong(self) -> None:
        """Each mistake has its words."""
        for sent in (
            b"GET / HTTP/1.1\r\n\r\n",
            b"GET https://h/ HTTP/1.1\r\n\r\n",
            b"CONNECT h HTTP/1.1\r\n\r\n",
            b"CONNECT h:99999 HTTP/1.1\r\n\r\n",
            b"GET http://h:x/ HTTP/1.1\r\n\r\n",
            b"GET http://h/ HTTP/1.1\r\nA b: c\r\n\r\n",
            b"GET http://h/ HTTP/1.1\r\nA: b\nC: d\r\n\r\n",
            b"nonsense\r\n\r\n",
            b"x" * 70_000,
        ):
            error = self.assertRaises(TunnelError, ProxyRequestDecoder().feed, sent)
            self.assertEqual(error.code.name, "protocol-error", sent)
