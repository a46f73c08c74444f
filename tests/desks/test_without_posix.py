"""
The client, C{expose} and C{join} without the modules that only POSIX systems have, on
the reactors that every system has.
"""

from __future__ import annotations

import ast
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from twisted.trial.unittest import SkipTest, SynchronousTestCase

import tristunnel
from tests.desks.without_posix import REFUSED
from tests.program.rig import serviceOfHere
from tristunnel.program.local import localServer

REACTORS = ("select", "asyncio")

ROOT = Path(tristunnel.__file__).parent.parent

SUITE = (
    "tests.client",
    "tests.connect",
    "tests.forwards",
    "tests.dialects.base",
    "tests.screen.test_draw",
    "tests.program.test_expose",
)
"""What is tested of the client, with C{TRISTUNNEL_LONG=1}."""


def _run(reactor: str, *words: str, limit: float = 100.0) -> str:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.desks.without_posix", reactor, *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=limit,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return ended.stdout


@contextmanager
def _program(reactor: str, *words: str) -> Iterator[subprocess.Popen[str]]:
    running = subprocess.Popen(
        [sys.executable, "-m", "tests.desks.without_posix", reactor, *words],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    try:
        yield running
    finally:
        running.terminate()
        running.communicate(timeout=60)


class DeskTests(SynchronousTestCase):
    """A desk that is no POSIX system."""

    def test_refused(self) -> None:
        """The check that these tests rely on: our modules cannot have those."""
        path = self.mktemp()
        Path(path).write_text(
            "exec('import fcntl', {'__name__': 'json'})\n"
            "try: exec('import fcntl', {'__name__': 'tristunnel.util.x'})\n"
            "except ImportError as error: print(error)\n"
        )
        said = _run("select", os.path.abspath(path))
        self.assertEqual(said, "tristunnel.util.x may not import fcntl\n")
        self.assertIn("fcntl", REFUSED)

    def test_oneModule(self) -> None:
        """Each of these modules is imported by one of ours at the most."""
        package = Path(tristunnel.__file__).parent
        users: dict[str, set[str]] = {name: set() for name in REFUSED}
        for path in package.rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text("utf-8"))):
                names = set()
                if isinstance(node, ast.Import):
                    names = {each.name for each in node.names}
                elif isinstance(node, ast.ImportFrom):
                    names = {node.module or ""}
                for name in names & REFUSED:
                    users[name].add(path.name)
        for name, found in users.items():
            self.assertLessEqual(len(found), 1, f"{name}: {found}")
        self.assertEqual(users["fcntl"], {"descriptor_calls.py"})

    def test_imports(self) -> None:
        """Every module can be imported."""
        path = self.mktemp()
        Path(path).write_text(
            "import importlib, pkgutil, tristunnel\n"
            "names = [m.name for m in pkgutil.walk_packages(tristunnel.__path__,"
            " 'tristunnel.') if '__main__' not in m.name]\n"
            "for name in names: importlib.import_module(name)\n"
            "print(len(names) > 200)\n"
        )
        for reactor in REACTORS:
            self.assertEqual(_run(reactor, os.path.abspath(path)), "True\n", reactor)

    def test_expose(self) -> None:
        """A program exposes a service, and visitors reach it."""
        path = self.mktemp()
        with localServer() as server, serviceOfHere() as port:
            Path(path).write_text(
                "import tristunnel, urllib.request\n"
                f"with tristunnel.expose({port}, server={server!r}) as tunnel:\n"
                "    print(urllib.request.urlopen(tunnel.url).read().decode())\n"
            )
            for reactor in REACTORS:
                said = _run(reactor, os.path.abspath(path))
                self.assertEqual(said, "a page\n", reactor)

    def test_client(self) -> None:
        """The client's command serves visitors, and ends when it is told to."""
        home = os.path.abspath(self.mktemp())
        with localServer() as server, serviceOfHere() as port:
            for reactor in REACTORS:
                words = ("--connect", server, "--forward", f"localhost:{port}")
                with _program(
                    reactor,
                    "tristunnel",
                    "client",
                    *words,
                    "--state-dir",
                    f"{home}-{reactor}",
                ) as client:
                    assert client.stdout is not None
                    for line in client.stdout:
                        word = line.split()[-1]
                        if word.startswith(("tcp://", "http://")):
                            break
                    url = word.replace("tcp://", "http://")
                    with urllib.request.urlopen(url, timeout=30) as answer:
                        self.assertEqual(answer.read(), b"a page", reactor)

    def test_suite(self) -> None:
        """The client's own tests pass there."""
        if not os.environ.get("TRISTUNNEL_LONG"):
            raise SkipTest("set TRISTUNNEL_LONG=1 to run the client's tests twice more")
        for reactor in REACTORS:
            temporary = f"--temp-directory={os.path.abspath(self.mktemp())}"
            words = ("twisted.trial", temporary, *SUITE)
            self.assertIn("PASSED", _run(reactor, *words, limit=900))
