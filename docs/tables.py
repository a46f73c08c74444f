"""
Tables of the reference that Sphinx makes of the source, so that they cannot be
wrong: of options, C{openTunnel}'s options, methods, error codes and metrics.

Each is a directive without content: C{option-table} with the name of a program,
C{tunnel-option-table}, C{method-table}, C{code-table} and C{metric-table}. Names in
them lead to the entries written by hand, which C{tests/docs/test_reference.py}
compares with the source.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import ClassVar

from docutils import nodes
from docutils.parsers.rst import Directive
from docutils.statemachine import StringList
from rows import Row, codeRows, methodRows, metricRows, optionGroups, tunnelOptionRows
from sphinx.application import Sphinx
from sphinx.util.typing import ExtensionMetadata


class _Table(ABC, Directive):
    """A list table of rows."""

    heads: ClassVar[Row] = ()
    widths: ClassVar[tuple[int, ...]] = ()

    @abstractmethod
    def rows(self) -> Iterable[Row]:
        """
        @return: What is in it.
        """

    def run(self) -> list[nodes.Node]:
        """Make the table."""
        lines = [
            ".. list-table::",
            "   :header-rows: 1",
            f"   :widths: {' '.join(map(str, self.widths))}",
            "",
        ]
        for row in [self.heads, *self.rows()]:
            for number, cell in enumerate(row):
                lines.append(f"   {'*' if not number else ' '} - {cell}")
        made = nodes.container()
        self.state.nested_parse(StringList(lines, "tables.py"), 0, made)
        return made.children


class OptionTable(_Table):
    """C{option-table}: the options of the program that is its argument."""

    required_arguments = 1
    final_argument_whitespace = True
    heads = ("option", "default", "meaning")
    widths = (30, 20, 50)

    def rows(self) -> Iterable[Row]:
        """The options, each group below its title."""
        for title, rows in optionGroups(self.arguments[0]):
            if title:
                yield (f"**{title}**", "", "")
            yield from rows


class TunnelOptionTable(_Table):
    """C{tunnel-option-table}: those of C{openTunnel}."""

    heads = ("option", "default", "meaning")
    widths = (25, 15, 60)

    def rows(self) -> Iterable[Row]:
        """The options."""
        return tunnelOptionRows()


class MethodTable(_Table):
    """C{method-table}: the remote methods."""

    heads = ("method", "meaning")
    widths = (55, 45)

    def rows(self) -> Iterable[Row]:
        """The methods."""
        return methodRows()


class CodeTable(_Table):
    """C{code-table}: the error codes."""

    heads = ("name", "number", "permanent", "meaning")
    widths = (25, 12, 13, 50)

    def rows(self) -> Iterable[Row]:
        """The codes."""
        return codeRows()


class MetricTable(_Table):
    """C{metric-table}: the metrics."""

    heads = ("metric", "kind", "meaning")
    widths = (45, 15, 40)

    def rows(self) -> Iterable[Row]:
        """The metrics."""
        return metricRows()


def setup(app: Sphinx) -> ExtensionMetadata:
    """Tell Sphinx of the directives."""
    kinds = (OptionTable, TunnelOptionTable, MethodTable, CodeTable, MetricTable)
    for kind in kinds:
        name = re.sub(r"(?<!^)(?=[A-Z])", "-", kind.__name__).lower()
        app.add_directive(name, kind)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
