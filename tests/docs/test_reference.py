"""
The reference has everything there is, and nothing else.
"""

from __future__ import annotations

import ast
import errno
import os
import re
import sys
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any
from unittest.mock import Mock

from twisted.internet.testing import MemoryReactorClock
from twisted.python import usage
from twisted.trial.unittest import SynchronousTestCase

import tristunnel
from tests.docs.pages import DOCS, page, pages
from tristunnel.cli.access_tap import Options as AccessOptions
from tristunnel.cli.client_tap import Options as ClientOptions
from tristunnel.cli.completion import commandLines
from tristunnel.cli.main import parser
from tristunnel.cli.running import PROGRAMS
from tristunnel.cli.server_tap import Options as ServerOptions
from tristunnel.errors import CODES
from tristunnel.forwards.forward import parseForward
from tristunnel.model.gate import GateRules
from tristunnel.model.options import TunnelOptions
from tristunnel.model.policy import VisitorPolicy
from tristunnel.service.methods import methodsOf

if not DOCS.is_dir():
    skip = "there is no documentation beside these tests"

_REFERENCE = "docs/reference.rst"
_TROUBLESHOOTING = "docs/troubleshooting.rst"

_TUNNEL_OPTIONS = [
    part.name
    for each in (TunnelOptions, VisitorPolicy, GateRules)
    for part in fields(each)
    if part.name not in ("policy", "gate")
]


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
    for line in page(_REFERENCE).splitlines():
        if line.startswith(".. program:: "):
            program = line.removeprefix(".. program:: ")
        elif line.startswith(".. option:: "):
            for option in line.removeprefix(".. option:: ").split(", "):
                programs[program].add(option.split()[0].removeprefix("--"))
    return programs


class ReferenceTests(SynchronousTestCase):
    """C{docs/reference.rst} has everything there is, and nothing else."""

    def _longOptions(self, options: usage.Options) -> set[str]:
        """
        @return: The names of all options, without dashes.
        """
        return {name.removesuffix("=") for name in options.longOpt}

    def test_serverOptions(self) -> None:
        """Every option of C{twistd tunnel} has an entry."""
        self.assertEqual(
            documentedOptions()["twistd tunnel"], self._longOptions(ServerOptions())
        )

    def test_clientOptions(self) -> None:
        """Every option of C{twistd tunnel-client} has an entry."""
        self.assertEqual(
            documentedOptions()["twistd tunnel-client"],
            self._longOptions(ClientOptions()),
        )

    def test_accessOptions(self) -> None:
        """Every option of C{twistd tunnel-access} has an entry."""
        self.assertEqual(
            documentedOptions()["twistd tunnel-access"],
            self._longOptions(AccessOptions()),
        )

    def test_commands(self) -> None:
        """Every option of the commands that have a section has an entry there."""
        documented = documentedOptions()
        for line in commandLines(parser()):
            name = " ".join(("tristunnel", *line.words))
            if name in documented:
                options = {each.name.removeprefix("--") for each in line.options}
                self.assertEqual(documented[name] | {"help"}, options, name)
        for name in ("install", "invite", "join", "status"):
            self.assertIn(f"tristunnel {name}", documented)

    def test_moving(self) -> None:
        """
        What is given on the pages on moving for what another program does has only
        options that there are, and services that can be.
        """
        known = {
            "twistd tunnel-client": self._longOptions(ClientOptions()),
            "twistd tunnel-access": self._longOptions(AccessOptions()),
            "twistd tunnel": self._longOptions(ServerOptions()),
        }
        for line in commandLines(parser()):
            options = {each.name.removeprefix("--") for each in line.options}
            known[" ".join(("tristunnel", *line.words))] = options
        every = set().union(*known.values())
        seen = 0
        for name in pages():
            moving = page(name) if name.startswith("docs/moving/") else ""
            for cell in re.findall(r"^     - (.*(?:\n {7}.*)*)", moving, re.M):
                for text in re.findall(r"``([^`]+)``", cell):
                    words = text.split()
                    commands = (" ".join(words[:n]) for n in (3, 2))
                    command = next((each for each in commands if each in known), "")
                    options = set(re.findall(r"(?<!\S)--([a-z][a-z-]*)", text))
                    self.assertLessEqual(options, known.get(command, every), text)
                    if words[:2] in (["tristunnel", "http"], ["tristunnel", "tcp"]):
                        spec = words[2].replace("FINGERPRINT", "00" * 32)
                        parseForward(MemoryReactorClock(), spec)
                    seen += 1
        self.assertGreater(seen, 50)

    def test_programs(self) -> None:
        """The programs of C{tristunnel} have entries for what is their own."""
        documented = documentedOptions()
        for name, program in PROGRAMS.items():
            self.assertRegex(
                page(_REFERENCE), rf"tristunnel (\w+, )*(\w+ and )?{name}\b"
            )
            own = self._longOptions(program.options())
            own -= self._longOptions(ServerOptions())
            own -= self._longOptions(ClientOptions())
            # All three are alike.
            shown = "http" if name in ("tcp", "udp") else name
            self.assertLessEqual(own, documented[f"tristunnel {shown}"])

    def test_methods(self) -> None:
        """Every remote method has an entry."""
        service = Mock()
        found = re.findall(r"^\.\. describe:: (\w+)\(", page(_REFERENCE), re.M)
        self.assertEqual(sorted(found), sorted(methodsOf(service)))

    def test_openTunnelOptions(self) -> None:
        """Every option of C{openTunnel} has an entry."""
        text = section(page(_REFERENCE), "Options of openTunnel")
        found = re.findall(r"^``(\w+)``$", text, re.M)
        self.assertEqual(sorted(found), sorted(_TUNNEL_OPTIONS))

    def test_environment(self) -> None:
        """Every environment variable that is read has an entry."""
        found = set(re.findall(r"^\.\. envvar:: (\w+)", page(_REFERENCE), re.M))
        pattern = re.compile(r'"(TRISTUNNEL_[A-Z]+|STATE_DIRECTORY|XDG_STATE_HOME)"')
        package = Path(tristunnel.__file__).parent
        read = {
            name
            for module in package.rglob("*.py")
            for name in pattern.findall(module.read_text("utf-8"))
        }
        self.assertEqual(found, read)


class TroubleshootingTests(SynchronousTestCase):
    """C{docs/troubleshooting.rst} has every error code, and messages that exist."""

    def test_errorCodes(self) -> None:
        """
        Every error code has a section with its number, whether it is permanent, its
        meaning, causes and cures.
        """
        text = section(page(_TROUBLESHOOTING), "Error codes")
        self.assertEqual(re.findall(r"^([a-z-]+)\n~+\n", text, re.M), list(CODES))
        for name, code in CODES.items():
            permanent = ", permanent" if code.permanent else ""
            told = " ".join(section(text, name).split())
            self.assertRegex(
                told,
                rf"^{code.number}{permanent}\. {re.escape(code.meaning)} "
                r"\*Causes:\* \w.*\. \*Cures:\* \w.*\.",
            )
            self.assertIn(f".. _error-{name}:\n\n{name}\n~", text)

    def test_messages(self) -> None:
        """Every message that the page looks up is one of the program's."""
        quoted = re.findall(
            r"^   \* - ``(.+?)``", section(page(_TROUBLESHOOTING), "By symptom"), re.M
        )
        self.assertGreater(len(quoted), 10)
        package = Path(tristunnel.__file__).parent
        said = [
            str(node.value)
            for module in package.rglob("*.py")
            for node in ast.walk(ast.parse(module.read_text("utf-8")))
            if isinstance(node, ast.Constant)
        ]
        # What the operating system says.
        said.append(os.strerror(errno.ECONNREFUSED))
        for message in quoted:
            self.assertTrue(any(message in each for each in said), message)


class TableTests(SynchronousTestCase):
    """The tables that Sphinx makes of the source."""

    def setUp(self) -> None:
        sys.path.insert(0, str(DOCS))
        self.addCleanup(sys.path.remove, str(DOCS))
        import rows

        self.tables: Any = rows

    def first(self, rows: Iterator[tuple[str, ...]]) -> list[str]:
        """
        @return: The names in the first column. Every row says something.
        """
        names = []
        for name, *_, meaning in rows:
            self.assertTrue(meaning, name)
            found = re.search(r"[<`]([^<`]+?)[>`]*$", name)
            assert found is not None
            names.append(found[1])
        return names

    def test_options(self) -> None:
        """Every option is there, with what it is for."""
        for program, kind in (
            ("twistd tunnel", ServerOptions),
            ("twistd tunnel-client", ClientOptions),
            ("twistd tunnel-access", AccessOptions),
        ):
            wanted = {each.removesuffix("=") for each in kind().longOpt}
            groups = list(self.tables.optionGroups(program))
            self.assertEqual(
                sorted(self.first(row for _, rows in groups for row in rows)),
                [f"{program} --{name}" for name in sorted(wanted)],
            )
            self.assertEqual(
                [title for title, _ in groups][: len(kind.groups)],
                [group.title for group in kind.groups],
            )
            self.assertIn(f".. option-table:: {program}\n", page(_REFERENCE))

    def test_codes(self) -> None:
        """Every error code is there."""
        self.assertEqual(
            self.first(self.tables.codeRows()), [f"error-{name}" for name in CODES]
        )
        self.assertIn(".. code-table::\n", page(_TROUBLESHOOTING))

    def test_methods(self) -> None:
        """Every method is there, and every option of C{openTunnel}."""
        self.assertEqual(
            [each.partition("(")[0] for each in self.first(self.tables.methodRows())],
            list(methodsOf(Mock())),
        )
        self.assertEqual(self.first(self.tables.tunnelOptionRows()), _TUNNEL_OPTIONS)

    def test_metrics(self) -> None:
        """Every metric of the page about them is there."""
        told = re.findall(r"^``(tristunnel_\w+)``", page("docs/metrics.rst"), re.M)
        self.assertEqual(set(self.first(self.tables.metricRows())), set(told))
