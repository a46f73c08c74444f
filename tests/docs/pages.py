"""
The pages of the documentation, and the commands and files in them.

A literal block after C{::} holds commands, each with what it prints below it; so
does a C{code-block} of the language C{console}, with C{$} before each command.
A C{code-block} with a caption is the file of that name. Anything else that is
shown is a C{code-block} with its language.
"""

from __future__ import annotations

import re
import textwrap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["DOCS", "ROOT", "Command", "File", "Stray", "items", "page", "pages"]

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"

_PROGRAMS = [
    "trial",
    "twistd",
    "python",
    "python3",
    "pip",
    "tristunnel",
    "curl",
    "ssh",
    "psql",
    "nc",
    "dig",
    "docker",
    "nginx",
    "certbot",
    "useradd",
    "install",
    "runuser",
    "systemctl",
    "systemd-analyze",
    "sphinx-build",
    "man",
    "export",
    "mkdir",
    "echo",
    "printf",
    "cat",
    "cd",
    "kill",
    "tox",
    "towncrier",
    "ruff",
    "mypy",
    "pre-commit",
    "pydoctor",
    "zsh",
    "git",
    "openssl",
    "apt-get",
    "chmod",
]

_COMMAND = re.compile(
    r"(?:[A-Z_]+=(?:\$\([^)]*\)|\S)* )*(?:\S*/bin/|\.ci/)?(?:run\b|"
    + "|".join(map(re.escape, _PROGRAMS))
    + r")(?:\s|$)"
)

_PROMPTED = re.compile(r"\$ ")


@dataclass(frozen=True)
class Command:
    """
    A command, as a page gives it.

    @ivar page: The page's path below the checkout.
    @ivar line: Its line there.
    @ivar text: The command, on one line.
    @ivar output: What the page says that it prints.
    """

    page: str
    line: int
    text: str
    output: tuple[str, ...] = ()


@dataclass(frozen=True)
class File:
    """
    A file that a page shows.

    @ivar name: Its name.
    @ivar text: Its content.
    """

    name: str
    text: str


@dataclass(frozen=True)
class Stray:
    """
    A literal block that holds no command.

    @ivar line: Its line.
    @ivar text: Its first line.
    """

    line: int
    text: str


def pages() -> list[str]:
    """
    @return: The paths of all pages below the checkout, the README first.
    """
    found = [*sorted(ROOT.glob("*.rst")), *sorted(DOCS.rglob("*.rst"))]
    names = [path.relative_to(ROOT).as_posix() for path in found]
    built = ("docs/_build/", "docs/api/")
    return sorted(
        (name for name in names if not name.startswith(built)),
        key=lambda name: (name != "README.rst", name),
    )


def page(name: str) -> str:
    """
    @return: The text of a page.
    """
    return (ROOT / name).read_text("utf-8")


def _blocks(text: str) -> Iterator[tuple[int, str, dict[str, str], list[str]]]:
    """
    Find literal blocks.

    @return: Of each the line, the language (empty after C{::}), the options and
        the lines.
    """
    lines = text.splitlines()
    number = 0
    while number < len(lines):
        line = lines[number]
        number += 1
        directive = re.match(r"(\s*)\.\. code-block:: ?(\S*)", line)
        if directive is None and (
            not line.rstrip().endswith("::") or line.lstrip().startswith(".. ")
        ):
            continue
        margin = len(line) - len(line.lstrip())
        body: list[str] = []
        start = number
        while number < len(lines) and (
            not lines[number].strip()
            or len(lines[number]) - len(lines[number].lstrip()) > margin
        ):
            body.append(lines[number])
            number += 1
        body = textwrap.dedent("\n".join(body)).splitlines()
        options: dict[str, str] = {}
        while directive and body and body[0].startswith(":"):
            _, key, value = body.pop(0).split(":", 2)
            options[key] = value.strip()
            start += 1
        while body and not body[0].strip():
            body.pop(0)
            start += 1
        yield start + 1, directive[2] if directive else "", options, body


def items(name: str) -> list[Command | File | Stray]:
    """
    @return: What a page holds, from the top to the bottom.
    """
    found: list[Command | File | Stray] = []
    for start, language, options, body in _blocks(page(name)):
        if language == "console":
            found.extend(_commands(name, start, body, _PROMPTED))
        elif language:
            if "caption" in options:
                found.append(File(options["caption"], "\n".join(body).rstrip() + "\n"))
        elif not body or not _COMMAND.match(body[0]):
            found.append(Stray(start, body[0] if body else ""))
        else:
            found.extend(_commands(name, start, body))
    return found


def _commands(
    name: str, start: int, body: list[str], beginning: re.Pattern[str] = _COMMAND
) -> Iterator[Command]:
    """
    Read a block of commands.

    @param beginning: How a command begins.
    """
    output: list[str] = []
    command, at = "", start
    more = False
    for number, line in enumerate(body):
        if more:
            command += " " + line.strip().removesuffix("\\").rstrip()
            more = line.endswith("\\")
        elif beginning.match(line):
            if command:
                yield Command(name, at, command, tuple(output))
            line = line.removeprefix("$ ")
            command, at, output = line.removesuffix("\\").rstrip(), start + number, []
            more = line.endswith("\\")
        elif line.strip():
            output.append(line.strip())
    yield Command(name, at, command, tuple(output))
