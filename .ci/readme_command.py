"""
Print a command of a reStructuredText file.

A command is the first literal block after a comment that marks it::

    .. tests-command

    ::

        trial tests

Usage: readme_command.py FILE MARKER
"""

from __future__ import annotations

import sys
import textwrap
from pathlib import Path


def literalBlock(text: str, marker: str) -> str:
    """
    Find the literal block that a marker announces.

    @param text: The document.
    @param marker: What the comment says, without the dots.

    @return: The lines of the block, without their indentation.

    @raise LookupError: There is no such marker, or no block after it.
    """
    lines = text.splitlines()
    marks = [n for n, line in enumerate(lines) if line.split() == ["..", marker]]
    if len(marks) != 1:
        raise LookupError(f"{len(marks)} comments say '.. {marker}', not one")
    block: list[str] = []
    announced = False
    for line in lines[marks[0] + 1 :]:
        if announced and (line[:1] in (" ", "\t") or not line.strip()):
            block.append(line)
        elif announced:
            break
        announced = announced or "::" in line
    command = textwrap.dedent("\n".join(block)).strip()
    if not command:
        raise LookupError(f"no literal block after '.. {marker}'")
    return command


if __name__ == "__main__":
    name, marker = sys.argv[1:]
    try:
        print(literalBlock(Path(name).read_text(encoding="utf-8"), marker))
    except LookupError as e:
        sys.exit(f"{name}: {e}")
