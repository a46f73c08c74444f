"""
The package's files import each other in one direction.

The order of the rooms is the contract in C{pyproject.toml}, which C{lint-imports}
checks; these tests hold what it does not see.
"""

from __future__ import annotations

import ast
import re
import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

import tristunnel

ROOT = Path(tristunnel.__file__).parent
CONTRACT = ROOT.parent / "pyproject.toml"
LOADERS = ("import_module", "__import__", "namedAny", "namedModule", "namedObject")


def _modules() -> dict[str, ast.Module]:
    found = {}
    for path in ROOT.rglob("*.py"):
        parts = path.relative_to(ROOT.parent).with_suffix("").parts
        name = ".".join(parts).removesuffix(".__init__")
        found[name] = ast.parse(path.read_text("utf-8"))
    return found


def _imported(name: str, tree: ast.Module, known: set[str]) -> set[str]:
    # Everywhere in the file: inside functions and under TYPE_CHECKING, too.
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{name}:{node.lineno}: a relative import"
            module = node.module or ""
            whole = {f"{module}.{each.name}" for each in node.names}
            found |= {each if each in known else module for each in whole}
    return (found & known) - {name}


class LayerTests(SynchronousTestCase):
    """The package's files import each other in one direction."""

    def test_noCircle(self) -> None:
        """No file imports another that leads back to it."""
        modules = _modules()
        graph = {
            name: _imported(name, tree, set(modules)) for name, tree in modules.items()
        }
        self.assertGreater(sum(map(len, graph.values())), 500)
        try:
            TopologicalSorter(graph).prepare()
        except CycleError as e:
            self.fail("imports go round: " + " <- ".join(e.args[1]))

    def test_noHiddenImport(self) -> None:
        """No module of ours is imported by a call, which no contract would see."""
        for name, tree in _modules().items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Call):
                    called = getattr(node.func, "attr", getattr(node.func, "id", ""))
                    self.assertNotIn(called, LOADERS, f"{name}:{node.lineno}")

    def test_picture(self) -> None:
        """The page on the architecture lists the rooms in the order of the contract."""
        page = ROOT.parent / "docs" / "architecture.rst"
        settings = tomllib.loads(CONTRACT.read_text("utf-8"))["tool"]["importlinter"]
        layers = settings["contracts"][0]["layers"]
        rooms = re.findall(r"^   \* - ``(\w+)/?``$", page.read_text("utf-8"), re.M)
        self.assertEqual(rooms, layers)

    def test_list(self) -> None:
        """So do the rules for contributors."""
        text = (ROOT.parent / "CONTRIBUTING.rst").read_text("utf-8")
        listed = text.partition("through others:\n\n")[2].partition("\n\n")[0]
        rooms = re.findall(r"``(\w+)``", re.sub(r"\(.*?\)", "", listed, flags=re.S))
        settings = tomllib.loads(CONTRACT.read_text("utf-8"))["tool"]["importlinter"]
        self.assertEqual(rooms, settings["contracts"][0]["layers"])
