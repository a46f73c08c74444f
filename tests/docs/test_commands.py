"""
The commands in the documentation work.
"""

from __future__ import annotations

import os
import re
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from unittest import skipIf

from twisted.trial.unittest import SynchronousTestCase

from tests.docs.pages import DOCS, ROOT, Command, Stray, items, page, pages
from tests.docs.running import PageTestCase, Story
from tests.docs.stories import LEFT_OUT, STORIES
from tests.docs.texts import PORTS
from tristunnel.cli.client_tap import Options as ClientOptions
from tristunnel.cli.server_tap import Options as ServerOptions

if not DOCS.is_dir():
    skip = "there is no documentation beside these tests"


def _commands(name: str) -> list[Command]:
    """
    @return: The commands of a page.
    """
    return [item for item in items(name) if isinstance(item, Command)]


class CommandTests(PageTestCase):
    """Every command of every page is run, in the order of the page."""

    async def _page(self, name: str) -> None:
        await self.runPage(name, STORIES.get(name, Story()), LEFT_OUT.get(name, {}))


def _isThere(name: str) -> bool:
    """Whether a program, or a package, is installed."""
    more = [str(found.parent) for found in Path("/usr/lib").glob("*/*/bin/initdb")]
    path = os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin", *more])
    return bool(shutil.which(name, path=path) or find_spec(name))


def _makeTests() -> None:
    """Make a test for each page that has commands."""
    for name in pages():
        if not _commands(name):
            continue

        async def test(self: Any, name: str = name) -> None:
            await self._page(name)

        word = "".join(
            part.title() for part in re.split(r"\W+", name.removesuffix(".rst"))
        )
        test.__name__ = f"test_{word[0].lower()}{word[1:]}"
        test.__doc__ = f"The commands of C{{{name}}}."
        story = STORIES.get(name, Story())
        missing = [each for each in story.needs if not _isThere(each)]
        skipping = skipIf(bool(missing), f"not installed: {', '.join(missing)}")
        setattr(CommandTests, test.__name__, skipping(test))


if DOCS.is_dir():
    _makeTests()


class LeftOutTests(SynchronousTestCase):
    """Nothing is left out without being noticed."""

    def test_literalBlocks(self) -> None:
        """
        A literal block after C{::} begins with a command. Whatever else a page
        shows is a C{code-block} with its language.
        """
        for name in pages():
            for item in items(name):
                if isinstance(item, Stray):
                    self.fail(
                        f"{name}:{item.line}: {item.text!r} is no command that this"
                        " test knows: write .. code-block:: LANGUAGE, or add the"
                        " program to tests/docs/pages.py"
                    )

    def test_tables(self) -> None:
        """What is said about pages and commands is about such as there are."""
        known = {name: [each.text for each in _commands(name)] for name in pages()}
        for name, story in STORIES.items():
            self.assertIn(name, known)
            for table in (story.beforeEach, story.statuses, story.after, story.prepare):
                for beginning in table:
                    self.assertTrue(
                        any(text.startswith(beginning) for text in known[name]),
                        f"{name}: {beginning}",
                    )
        for name, reasons in LEFT_OUT.items():
            for beginning, reason in reasons.items():
                self.assertTrue(reason)
                self.assertTrue(
                    any(text.startswith(beginning) for text in known[name]),
                    f"{name}: {beginning}",
                )

    def test_ports(self) -> None:
        """
        Every port in a command is one that is moved out of the way, or one of
        those that stay.
        """
        for name in pages():
            for command in _commands(name):
                for found in re.findall(
                    r"(?:localhost|[a-z]\.example\S*?|tcp|ssl):(\d{2,5})(?![\d.])",
                    command.text,
                ):
                    bound = re.search(rf":{found}\b", " ".join(_outputs(name)))
                    self.assertTrue(
                        int(found) in PORTS or int(found) >= 30000 or bound,
                        f"{name}:{command.line}: add {found} to PORTS",
                    )

    def test_ours(self) -> None:
        """
        Our own programs' commands that cannot be run are accepted by their
        parsers, and files and extras that others name are there.
        """
        for name, reasons in LEFT_OUT.items():
            for command in _commands(name):
                if command.text.startswith(tuple(reasons)):
                    self._look(command.text)

    def _look(self, text: str) -> None:
        words = shlex.split(text)
        for kind in ("tunnel", "tunnel-client"):
            if kind in words and ("twistd" in words or "docker" in words):
                options = {"tunnel": ServerOptions, "tunnel-client": ClientOptions}
                # txtorcon looks for Tor as soon as it reads an endpoint.
                given = [re.sub("^onion:.*", "tcp:9000", word) for word in words]
                options[kind]().parseOptions(given[words.index(kind) + 1 :])
        for word in words:
            if word.startswith("contrib/"):
                self.assertTrue((ROOT / word).exists(), text)
            unit = re.match(r"tristunnel-(?:server|client@)", word)
            if unit is not None and words[0] == "systemctl":
                found = list((ROOT / "contrib" / "systemd").glob(f"{unit[0]}*"))
                self.assertTrue(found, text)
            extra = re.fullmatch(r"(?:\.|tristunnel)\[(\w+)\]", word)
            if extra is not None:
                setup = (ROOT / "setup.cfg").read_text("utf-8")
                self.assertIn(f"\n{extra[1]} =\n", setup)

    def test_pidFiles(self) -> None:
        """
        No page, example or message has a program in the foreground write a pid
        file: a second one in the same directory would not start.
        """
        found = 0
        places = ("docs", "examples", "contrib", "tristunnel")
        paths = [each for place in places for each in (ROOT / place).rglob("*")]
        for path in (*paths, ROOT / "README.rst", ROOT / "SECURITY.md"):
            if path.suffix in (".svg", ".png", ".pyc") or path.is_dir():
                continue
            text = " ".join(path.read_text("utf-8").split())
            for words in re.findall(r"twistd((?: -\S+)*) tunnel", text):
                found += 1
                if re.search(r" (-n|--nodaemon)\b", words):
                    self.assertIn(" --pidfile=", words, f"{path}: twistd{words}")
        self.assertGreater(found, 50)

    def test_readme(self) -> None:
        """The README has its two commands where other programs look for them."""
        text = page("README.rst")
        venv = "python3 -m venv .venv && .venv/bin/"
        for marker, command in (
            ("main", "pip install . && .venv/bin/twistd -n --pidfile= tunnel --demo"),
            ("tests", "pip install -e '.[tests]' && .venv/bin/trial -j2 tests"),
        ):
            self.assertEqual(
                text.count(f".. {marker}-command\n\n::\n\n    {venv}{command}\n"), 1
            )


def _outputs(name: str) -> list[str]:
    """
    @return: What the commands of a page print.
    """
    return [line for command in _commands(name) for line in command.output]
