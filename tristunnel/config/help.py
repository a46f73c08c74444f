"""C{--help} of programs with many options: in groups, by purpose."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

__all__ = ["ABOUT", "OptionGroup", "helpText", "helpWidth"]

_INDENT, _NARROW = 26, 6
"""The columns where texts begin: beside their options, and below them on a narrow
terminal."""


def helpWidth() -> int:
    """Find the number of columns that help may use."""
    return min(100, max(40, shutil.get_terminal_size().columns)) - 2


@dataclass(frozen=True)
class OptionGroup:
    """
    Options that belong together.

    @ivar title: What they are about.
    @ivar options: Their names, each with C{=} and the placeholder of its value if it
        takes one: C{"connect=SERVER check"}.
    """

    title: str
    options: str

    @property
    def names(self) -> list[str]:
        return [word.partition("=")[0] for word in self.options.split()]


ABOUT = OptionGroup("Help", "help version help-auth help-auth-type=KIND")


def helpText(
    usage: str,
    description: str,
    examples: Sequence[str],
    groups: Sequence[OptionGroup],
    texts: Mapping[str, str],
    defaults: Mapping[str, object],
) -> str:
    """
    Write the text of C{--help}.

    @param usage: The usage of the command.
    @param examples: Whole command lines.
    @param groups: The groups of options, the needed ones first; options in no group
        come last.
    @param texts: What each option does.
    @param defaults: The defaults.
    """
    width = helpWidth()
    head = textwrap.wrap(
        f"Usage: {usage}",
        width,
        subsequent_indent=" " * 9,
        break_long_words=False,
        break_on_hyphens=False,
    )
    lines = [*head, "", *textwrap.wrap(description, width)]
    if examples:
        lines += ["", "Examples:", *(f"  {each.rstrip()}" for each in examples)]
    named = {name for group in (*groups, ABOUT) for name in group.names}
    others = " ".join(sorted(set(texts) - named))
    for group in (*groups, OptionGroup("Other options", others), ABOUT):
        words = [
            word for word in group.options.split() if word.partition("=")[0] in texts
        ]
        if words:
            lines += ["", f"{group.title}:"]
        for word in words:
            name = word.partition("=")[0]
            text, default = " ".join(texts[name].split()), defaults.get(name)
            if default and "[default" not in text:
                shown = f"{default:g}" if isinstance(default, float) else default
                text += f" [default: {shown}]"
            lines += _option(word, text, width)
    return "\n".join([*lines, ""])


def _option(word: str, text: str, width: int) -> list[str]:
    name = f"  --{word.replace('=', ' ', 1)}"
    indent = _INDENT if width >= 2 * _INDENT else _NARROW
    told = textwrap.wrap(text, width - indent)
    first = [] if len(name) > indent - 2 else [f"{name:{indent}}{told.pop(0)}"]
    return [*(first or [name]), *(" " * indent + line for line in told)]
