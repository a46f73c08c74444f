"""Lines of TOML, L{tristunnel.config.file}."""

from __future__ import annotations

import tomllib
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.config.file import Path, linesOf


def pathsIn(value: Any, path: Path = ()) -> set[Path]:
    found = {path} if path else set()
    if isinstance(value, dict):
        for key, each in value.items():
            found |= pathsIn(each, (*path, key))
    elif isinstance(value, list):
        for index, each in enumerate(value):
            found |= pathsIn(each, (*path, index))
    return found


class _Writer:
    """Writes a document in many styles, and knows where everything is."""

    def __init__(self, draw: Any) -> None:
        self.text = ""
        self.lines: dict[Path, int] = {}
        self._draw = draw
        self._count = 0

    @property
    def line(self) -> int:
        return self.text.count("\n") + 1

    def one(self, *choices: str) -> str:
        return str(self._draw(st.sampled_from(choices)))

    def key(self) -> tuple[str, str]:
        self._count += 1
        name = f"{self.one('k', 'a.b', 'x y', '#', '[', 'é', '=')}{self._count}"
        if name[0] == "k":
            return name, self.one(name, f'"{name}"', f"'{name}'")
        escaped = "".join(f"\\u{ord(letter):04x}" for letter in name)
        return name, self.one(f'"{name}"', f"'{name}'", f'"{escaped}"')

    def gap(self) -> str:
        return self.one("", " ", "\n", "  \n\t", ' # "x" = [1\n', "\n# ''' [[\n\n")

    def scalar(self) -> str:
        return self.one(
            "1", "-2.5e3", "true", "1979-05-27 07:32:00Z", "inf", '"]}#,"', "'[\"'",
            r'"\"\\"', '"""\n""x"" # [\n\\"""\n"""', '"""a"""""', "'''\n''\n'''",
            "'''b'''''", '""', "''", '""""""', r'"""\\"""',
        )  # fmt: skip

    def value(self, path: Path, depth: int) -> None:
        kind = self.one("scalar", "scalar", "array", "inline") if depth else "scalar"
        if kind == "scalar":
            self.text += self.scalar()
        elif kind == "array":
            self.text += "[" + self.gap()
            for index in range(self._draw(st.integers(0, 3))):
                if index:
                    self.text += "," + self.gap()
                self.lines[(*path, index)] = self.line
                self.value((*path, index), depth - 1)
                self.text += self.gap()
            self.text += "]"
        else:
            self.text += "{"
            for index in range(self._draw(st.integers(0, 3))):
                self.text += ", " if index else " "
                self.pair(path, depth - 1)
            self.text += "}"

    def pair(self, path: Path, depth: int) -> None:
        dotted = []
        for _ in range(self._draw(st.integers(1, 2))):
            name, written = self.key()
            path = (*path, name)
            self.lines[path] = self.line
            dotted.append(written)
        self.text += self.one(".", " . ").join(dotted) + self.one("=", " = ", "\t=")
        self.value(path, depth)

    def document(self) -> None:
        self.text += self.gap()
        counts: dict[str, int] = {}
        path: Path = ()
        for _ in range(self._draw(st.integers(0, 6))):
            if self.text and not self.text.endswith("\n"):
                self.text += "\n"
            kind = self.one("pair", "pair", "table", "tables")
            if kind == "pair":
                self.pair(path, 2)
            elif kind == "table":
                name, written = self.key()
                path = (name,)
                self.lines[path] = self.line
                self.text += f"[ {written}]"
            else:
                name = self.one("one", "two")
                counts[name] = counts.get(name, 0) + 1
                self.lines.setdefault((name,), self.line)
                path = (name, counts[name] - 1)
                self.lines[path] = self.line
                self.text += f"[[{name} ]]"
            self.text += self.one("\n", " # comment\n", "\n\n")


@st.composite
def documents(draw: Any) -> _Writer:
    writer = _Writer(draw)
    writer.document()
    return writer


class LinesTests(SynchronousTestCase):
    """Where everything is."""

    def test_example(self) -> None:
        """Keys, tables, arrays of tables and what is in arrays have lines."""
        text = (
            "# nothing\n"
            'port = "tcp:1"\n'
            "\n"
            "[[forward]]  # first\n"
            'to = """\n'
            '[[forward]]"""\n'
            "allow = [\n"
            "  'a',\n"
            "  'b']\n"
            "[[forward]]\n"
            "  [forward.inner]\n"
            "  x.y = {z = 1}\n"
        )
        self.assertEqual(
            linesOf(text),
            {
                ("port",): 2,
                ("forward",): 4,
                ("forward", 0): 4,
                ("forward", 0, "to"): 5,
                ("forward", 0, "allow"): 7,
                ("forward", 0, "allow", 0): 8,
                ("forward", 0, "allow", 1): 9,
                ("forward", 1): 10,
                ("forward", 1, "inner"): 11,
                ("forward", 1, "inner", "x"): 12,
                ("forward", 1, "inner", "x", "y"): 12,
                ("forward", 1, "inner", "x", "y", "z"): 12,
            },
        )

    def test_lineEnds(self) -> None:
        """The line ends of another system count once."""
        self.assertEqual(
            linesOf("a = 1\r\nb = '''\r\n\r\n'''\r\nc = 2"),
            {("a",): 1, ("b",): 2, ("c",): 5},
        )

    @settings(max_examples=200)
    @given(documents())
    def test_documents(self, written: _Writer) -> None:
        """Whatever the style, each part of a document is found, on its line, and
        nothing else."""
        meant = tomllib.loads(written.text)
        found = linesOf(written.text)
        self.assertEqual(set(found), pathsIn(meant))
        self.assertEqual(found, written.lines)

    @settings(max_examples=200)
    @given(
        st.lists(
            st.sampled_from(
                [
                    *"ab.= []{}\"'#\n1,\\\t",
                    *('"""', "'''", "[[a]]\n", "\nc = ", "[b]\n"),
                ]
            ),
            max_size=25,
        ).map("".join)
    )
    def test_anything(self, text: str) -> None:
        """What C{tomllib} takes is never more than this can read."""
        try:
            meant = tomllib.loads(text)
        except tomllib.TOMLDecodeError:
            return
        self.assertEqual(set(linesOf(text)), pathsIn(meant))
