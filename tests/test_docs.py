"""
The documentation says what is so.
"""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections import defaultdict
from dataclasses import fields
from importlib import import_module
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.protocols.wire import Echo
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase, TestCase

import tristunnel
from tests.wire_example import wireExample
from tristunnel.access_tap import Options as AccessOptions
from tristunnel.cli import parser as tristunnelParser
from tristunnel.client_tap import Options as ClientOptions
from tristunnel.errors import CODES
from tristunnel.rpc.methods import methodsOf
from tristunnel.rpc.words import parseErrand
from tristunnel.server_tap import Options as ServerOptions
from tristunnel.tunnels.options import TunnelOptions
from tristunnel.wire.framed import FrameType

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"

if not DOCS.is_dir():
    skip = "there is no documentation beside these tests"


def page(name: str) -> str:
    """
    @return: The text of a page.
    """
    return (DOCS / name).read_text("utf-8")


def section(text: str, title: str) -> str:
    """
    @return: What is below a title, up to the next one of its kind.
    """
    found = re.search(rf"^{re.escape(title)}\n([-=~])\1+\n", text, re.M)
    if found is None:
        raise LookupError(f"there is no section {title!r}")
    rest = text[found.end() :]
    end = re.search(rf"^[^\n]+\n{found[1]}{{3,}}\n", rest, re.M)
    return rest if end is None else rest[: end.start()]


def documentedOptions() -> dict[str, set[str]]:
    """
    @return: The options that the reference has, by program.
    """
    programs: dict[str, set[str]] = defaultdict(set)
    program = ""
    for line in page("reference.rst").splitlines():
        if line.startswith(".. program:: "):
            program = line.removeprefix(".. program:: ")
        elif line.startswith(".. option:: "):
            for option in line.removeprefix(".. option:: ").split(", "):
                programs[program].add(option.split()[0].removeprefix("--"))
    return programs


def codeBlock(text: str, name: str) -> str:
    """
    @return: The code of a named C{code-block}.
    """
    lines = text.splitlines()
    start = lines.index(f"   :name: {name}") + 1
    block = []
    for line in lines[start:]:
        if line and not line.startswith("   "):
            break
        block.append(line[3:])
    return "\n".join(block)


class ReferenceTests(SynchronousTestCase):
    """
    C{docs/reference.rst} has everything there is, and nothing else.
    """

    def _longOptions(self, options: usage.Options) -> set[str]:
        """
        @return: The names of all options, without dashes.
        """
        return {name.removesuffix("=") for name in options.longOpt}

    def test_serverOptions(self) -> None:
        """
        Every option of C{twistd tunnel} has an entry.
        """
        self.assertEqual(
            documentedOptions()["twistd tunnel"], self._longOptions(ServerOptions())
        )

    def test_clientOptions(self) -> None:
        """
        Every option of C{twistd tunnel-client} has an entry.
        """
        self.assertEqual(
            documentedOptions()["twistd tunnel-client"],
            self._longOptions(ClientOptions()),
        )

    def test_accessOptions(self) -> None:
        """
        Every option of C{twistd tunnel-access} has an entry.
        """
        self.assertEqual(
            documentedOptions()["twistd tunnel-access"],
            self._longOptions(AccessOptions()),
        )

    def test_methods(self) -> None:
        """
        Every remote method has an entry.
        """
        service = Mock()
        found = re.findall(r"^\.\. describe:: (\w+)\(", page("reference.rst"), re.M)
        self.assertEqual(sorted(found), sorted(methodsOf(service)))

    def test_openTunnelOptions(self) -> None:
        """
        Every option of C{openTunnel} has an entry.
        """
        text = section(page("reference.rst"), "Options of openTunnel")
        found = re.findall(r"^``(\w+)``$", text, re.M)
        self.assertEqual(
            sorted(found), sorted(entry.name for entry in fields(TunnelOptions))
        )

    def test_errorCodes(self) -> None:
        """
        Every error code has a section with its number, whether it is
        permanent, a cause and a cure.
        """
        text = section(page("reference.rst"), "Error codes")
        titles = re.findall(r"^([a-z-]+)\n~+\n", text, re.M)
        self.assertEqual(titles, list(CODES))
        for name, code in CODES.items():
            told = section(text, name)
            permanent = ", permanent" if code.permanent else ""
            self.assertTrue(
                told.lstrip().startswith(f"{code.number}{permanent}. *Cause:* "),
                f"{name}: {told}",
            )
            self.assertIn("*Cure:*", told)

    def test_environment(self) -> None:
        """
        Every environment variable that is read has an entry.
        """
        found = set(re.findall(r"^\.\. envvar:: (\w+)", page("reference.rst"), re.M))
        pattern = re.compile(r'"(TRISTUNNEL_[A-Z]+|STATE_DIRECTORY|XDG_STATE_HOME)"')
        package = Path(tristunnel.__file__).parent
        read = {
            name
            for module in package.rglob("*.py")
            for name in pattern.findall(module.read_text("utf-8"))
        }
        self.assertEqual(found, read)


class ProtocolTests(SynchronousTestCase):
    """
    C{docs/protocol.rst} and the code agree.
    """

    def test_example(self) -> None:
        """
        The bytes of the worked example are those that the code writes.
        """
        self.assertEqual(
            page("protocol-example.txt"),
            wireExample(),
            "python -m tests.wire_example > docs/protocol-example.txt makes it anew",
        )

    def test_frameTypes(self) -> None:
        """
        The table has every type of frame.
        """
        rows = re.findall(
            r"^   \* - (0x[0-9a-f]{2})\n     - (\w+)$", page("protocol.rst"), re.M
        )
        self.assertEqual(
            [(int(code, 16), name) for code, name in rows],
            [(int(kind), kind.name.lower()) for kind in FrameType],
        )

    def test_limits(self) -> None:
        """
        The limits in the table are those in the code.
        """
        rows = re.findall(
            r"^   \* - .*\n     - ([0-9,]+)\n     - ([a-z]+\.[a-z]+)\.([A-Z_]+)$",
            page("protocol.rst"),
            re.M,
        )
        self.assertTrue(rows)
        for value, module, name in rows:
            actual = getattr(import_module(f"tristunnel.{module}"), name)
            self.assertEqual(int(value.replace(",", "")), actual, name)


class LinkTests(SynchronousTestCase):
    """
    What a page refers to is there.
    """

    def test_files(self) -> None:
        """
        Relative links, and files that are included, exist.
        """
        patterns = (
            r"`[^`<]*<(?!https?:|#)([^`>]+)>`_",
            r"^\.\. (?:literalinclude|include|image|figure):: (\S+)",
        )
        for path in [*ROOT.glob("*.rst"), *DOCS.rglob("*.rst")]:
            for pattern in patterns:
                for target in re.findall(pattern, path.read_text("utf-8"), re.M):
                    self.assertTrue(
                        (path.parent / target).exists(), f"{path.name}: {target}"
                    )

    def test_pages(self) -> None:
        """
        Every page that is referred to exists.
        """
        for path in DOCS.rglob("*.rst"):
            for name in re.findall(r":doc:`([\w/-]+)`", path.read_text("utf-8")):
                self.assertTrue(
                    (path.parent / f"{name}.rst").exists(), f"{path.name}: {name}"
                )


class CommandTests(SynchronousTestCase):
    """
    The commands in the documentation are accepted.
    """

    def setUp(self) -> None:
        """
        Make the files that the commands name.
        """
        from tristunnel.tls.certificates import selfSigned

        directory = Path(tempfile.mkdtemp(dir=os.getcwd()))
        self.addCleanup(os.chdir, os.getcwd())
        os.chdir(directory)
        self.patch(os, "environ", {**os.environ, "XDG_STATE_HOME": str(directory)})
        pem = selfSigned(directory, ["localhost"]).read_bytes()
        for name in ("cert", "key", "server-cert", "server-key"):
            (directory / f"{name}.pem").write_bytes(pem)
        (directory / "clients").write_text("laptop:secret\n")
        (directory / "tokens").touch(0o600)
        (directory / "token").write_text("abc\n")
        (directory / "me.json").write_text('{"id": "laptop"}')

    def commands(self, beginning: str) -> list[list[str]]:
        """
        @return: The arguments of the commands that begin so, in literal
            blocks.
        """
        return [
            shlex.split(line.strip().removeprefix(beginning), comments=True)
            for path in [ROOT / "README.rst", *DOCS.glob("*.rst")]
            for line in path.read_text("utf-8").replace("\\\n", " ").splitlines()
            if line.startswith("    ") and line.strip().startswith(beginning)
        ]

    def test_twistd(self) -> None:
        """
        Both commands accept the options that are shown for them.
        """
        kinds: dict[str, type[usage.Options]] = {
            "tunnel": ServerOptions,
            "tunnel-client": ClientOptions,
            "tunnel-access": AccessOptions,
        }
        commands = self.commands("twistd -n --pidfile= ")
        self.assertTrue(commands)
        for name, *arguments in commands:
            options = kinds[name]()
            pin = "0" * 64
            options.parseOptions([a.replace("FINGERPRINT", pin) for a in arguments])

    def test_rpc(self) -> None:
        """
        So does the command for a remote call.
        """
        commands = self.commands("python -m tristunnel.rpc ")
        self.assertTrue(commands)
        for arguments in commands:
            parseErrand(arguments, {})

    def test_tristunnel(self) -> None:
        """
        So does the command for tokens and access sessions.
        """
        commands = self.commands("tristunnel ")
        self.assertTrue(commands)
        for arguments in commands:
            tristunnelParser().parse_args(arguments)

    def test_readme(self) -> None:
        """
        The README has its two commands where other programs look for them.
        """
        text = (ROOT / "README.rst").read_text("utf-8")
        venv = "python3 -m venv .venv && .venv/bin/"
        for marker, command in (
            (
                "main",
                "pip install . && .venv/bin/twistd -n --pidfile= tunnel --demo",
            ),
            ("tests", "pip install -e '.[tests]' && .venv/bin/trial -j2 tests"),
        ):
            self.assertEqual(
                text.count(f".. {marker}-command\n\n::\n\n    {venv}{command}\n"), 1
            )


class _Visitor(Protocol):
    """
    Says something and waits for as much.
    """

    def __init__(self) -> None:
        self.answer: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        """
        Begin.
        """
        assert self.transport is not None
        self.transport.write(b"hello")

    def dataReceived(self, data: bytes) -> None:
        """
        Take the answer.
        """
        self.answer.callback(data)


class EmbeddingTests(TestCase):
    """
    The code in C{docs/embedding.rst} runs.
    """

    async def test_serverAndClient(self) -> None:
        """
        A visitor reaches a service through the server and the client that the
        page shows.
        """
        names: dict[str, Any] = {"print": lambda *words: None}
        for name in ("embedded-server", "embedded-client"):
            exec(codeBlock(page("embedding.rst"), name), names)
        here: Any = reactor
        echo = here.listenTCP(0, Factory.forProtocol(Echo), interface="127.0.0.1")
        self.addCleanup(echo.stopListening)
        server = names["makeServer"](reactor, "tcp:0:interface=127.0.0.1")
        server.startService()
        self.addCleanup(server.stopService)
        at = server.listening[0].getHost().port

        ready: Deferred[str] = Deferred()
        names["Addresses"].tunnelReady = lambda self, address, target: ready.callback(
            address
        )
        client = names["makeClient"](
            reactor, f"tcp:127.0.0.1:{at}", f"0=127.0.0.1:{echo.getHost().port}"
        )
        client.startService()
        self.addCleanup(client.stopService)
        port = int((await ready).rpartition(":")[2])
        visitor = await connectProtocol(
            HostnameEndpoint(reactor, "127.0.0.1", port), _Visitor()
        )
        self.assertEqual(await visitor.answer, b"hello")
        visitor.transport.abortConnection()
