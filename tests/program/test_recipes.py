"""The programs in C{docs/howto/python.rst} run, and end by themselves."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.docs.pages import DOCS, page
from tests.docs.test_embedding import codeBlock
from tests.program.rig import serviceOfHere
from tests.support.processes import pythonWords
from tristunnel.program.local import localServer

if not DOCS.is_dir():
    skip = "there is no documentation beside these tests"

VISIT = """
import urllib.request
print(urllib.request.urlopen(tunnel.url).read().decode())
"""


class RecipeTests(SynchronousTestCase):
    """What the page shows."""

    def setUp(self) -> None:
        server, service = localServer(), serviceOfHere()
        self.server = server.__enter__()
        self.addCleanup(server.__exit__, None, None, None)
        self.port = service.__enter__()
        self.addCleanup(service.__exit__, None, None, None)
        self.environment = {
            **os.environ,
            "TRISTUNNEL_SERVER": self.server,
            "PYTHONPATH": str(DOCS.parent),
        }

    def code(self, name: str) -> str:
        return codeBlock(page("docs/howto/python.rst"), name).replace(
            "3000", str(self.port)
        )

    def run_(self, *arguments: str) -> str:
        ended = subprocess.run(
            [*pythonWords(), *arguments],
            env=self.environment,
            capture_output=True,
            text=True,
            timeout=100,
            check=False,
        )
        self.assertEqual(ended.returncode, 0, ended.stderr + ended.stdout)
        return ended.stdout

    def test_script(self) -> None:
        """The first program, without its wait."""
        visit = VISIT.strip().replace("\n", "\n    ")
        code = self.code("python-script").replace("tunnel.wait(60)", visit)
        self.assertIn("a page", self.run_("-c", code))

    def test_errors(self) -> None:
        """An error is told with its code and in one line."""
        said = self.run_("-c", self.code("python-errors"))
        self.assertRegex(said, r"\Asession-lost .*\n\Z")

    def test_asyncio(self) -> None:
        """An asyncio program sees the tunnel open, and ends."""
        said = self.run_("-c", self.code("python-asyncio"))
        self.assertRegex(said, r"\Ahttp://\S+\nopened tcp://\S+\n\Z")

    def test_handlers(self) -> None:
        """A function, FastAPI, Flask and Django each answer through a tunnel."""
        for name in ("function", "fastapi", "flask", "django"):
            said = self.run_("-c", self.code(f"python-{name}") + VISIT)
            self.assertIn("hello", json.loads(said.split("\n", 1)[1]), name)

    def test_lifespan(self) -> None:
        """A tunnel opens and closes with an application's lifespan."""
        code = self.code("python-lifespan") + (
            "\nfrom fastapi.testclient import TestClient\nwith TestClient(app): pass\n"
        )
        self.assertRegex(self.run_("-c", code), r"\Ahttp://\S+\n\Z")

    def test_notebook(self) -> None:
        """A cell runs, runs again, and awaits the other form."""
        code = (
            "import nbformat, nbclient, json\n"
            "from jupyter_client import AsyncKernelManager\n"
            f"cell = {self.code('python-notebook')!r}\n"
            "later = 'async with tristunnel.aio.expose(PORT) as other: pass\\n'\n"
            f"later = later.replace('PORT', '{self.port}') + 'print(tunnel.isOpen)'\n"
            "cells = [nbformat.v4.new_code_cell(c) for c in (cell, cell, later)]\n"
            "book = nbformat.v4.new_notebook(cells=cells)\n"
            # The ports that it chooses by itself may be somebody else's a moment later.
            "kernel = AsyncKernelManager(transport='ipc')\n"
            "nbclient.NotebookClient(book, timeout=90, km=kernel).execute()\n"
            "print(json.dumps([c.outputs[0].text for c in book.cells]))\n"
        )
        first, second, later = json.loads(self.run_("-c", code).splitlines()[-1])
        self.assertRegex(first, r"\Ahttp://\S+\n\Z")
        self.assertNotEqual(first, second)
        self.assertEqual(later, "True\n")

    def test_pytest(self) -> None:
        """The fixtures work in a test run of their own."""
        home = Path(self.mktemp())
        home.mkdir()
        (home / "test_page.py").write_text(self.code("python-pytest"))
        said = self.run_("-m", "pytest", "-q", "-p", "no:cacheprovider", str(home))
        self.assertIn("1 passed", said)
