"""Drawing a page in a given number of columns and lines."""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from textwrap import wrap

from rich.cells import cell_len
from rich.console import Console, OverflowMethod, RenderableType
from rich.table import Table as Grid
from rich.text import Text

from tristunnel.screen.model import (
    BAD,
    GOOD,
    PLAIN,
    WARY,
    EventLine,
    Fact,
    Page,
    Row,
    Table,
)

__all__ = ["Pen", "drawPage", "natural"]

_COLOURS = {PLAIN: "", GOOD: "green", WARY: "yellow", BAD: "bold red"}
_GAP = 2
_NARROWEST = 12
_LINES = 3


_FEWEST_EVENTS = 4
"""The lines of events for which tables make room."""


@dataclass(frozen=True)
class _Signs:
    """The signs for states, which are not shown by colour alone."""

    marks: Mapping[str, str]
    more: str
    bars: str


_UNICODE = _Signs(
    {PLAIN: "\u25cf", GOOD: "\u25cf", WARY: "\u25cb", BAD: "\u2717"},
    "\u2026",
    "\u2581\u2582\u2583\u2584\u2585\u2586\u2587\u2588",
)
_ASCII = _Signs({PLAIN: "*", GOOD: "*", WARY: "o", BAD: "x"}, "...", "")


class Pen:
    """
    Draws for one terminal.

    @param encoding: What the terminal understands; more than ASCII is written
        only for UTF-8.
    @param styled: Whether it is a terminal, and not a file of plain text.
    @param environment: The variables that say which colours there are: C{TERM},
        C{COLORTERM}, C{NO_COLOR}.
    """

    def __init__(
        self,
        encoding: str = "utf-8",
        styled: bool = True,
        environment: Mapping[str, str] = os.environ,
    ) -> None:
        self.unicode = encoding.lower().replace("-", "") in ("utf8", "u8")
        self.signs = _UNICODE if self.unicode else _ASCII
        self.overflow: OverflowMethod = "ellipsis" if self.unicode else "crop"
        self.coloured = styled and not environment.get("NO_COLOR")
        self._styled = styled
        self._environment = environment

    def lines(self, parts: Sequence[RenderableType], width: int) -> list[str]:
        """
        Draw parts below each other.

        @return: The lines, with the terminal's codes for their styles.
        """
        out = io.StringIO()
        console = Console(
            file=out,
            width=width,
            height=1000,
            force_terminal=self._styled,
            color_system="auto" if self._styled else None,
            highlight=False,
            markup=False,
            emoji=False,
            legacy_windows=False,
            _environ=self._environment,
        )
        for part in parts:
            console.print(part, no_wrap=True, overflow=self.overflow, crop=True)
        lines = out.getvalue().split("\n")[:-1]
        return lines if self._styled else [line.rstrip() for line in lines]

    def middle(self, text: str, width: int) -> str:
        """Shorten a text in its middle: the ends of an address tell the most."""
        if cell_len(text) <= width:
            return text
        more = self.signs.more
        left = max(0, width - len(more))
        tail = left * 2 // 3
        return text[: left - tail] + more + text[len(text) - tail :]


def natural(page: Page) -> int:
    """The width in which nothing of a page is left out."""
    widths = [_factNames(page) + _GAP + cell_len(fact.text) for fact in page.facts]
    for table in page.tables:
        widths.append(2 + sum(_widths(table)) + _GAP * (len(table.columns) - 1))
    widths += [10 + cell_len(event.text) for event in page.events or ()]
    return max(widths, default=0) + 2


def drawPage(pen: Pen, page: Page, width: int, height: int | None = None) -> list[str]:
    """
    Draw a page.

    @param height: The lines available; C{None} for as many as it takes.
    @return: The lines, at most so many.
    """
    lines = pen.lines([_title(page, width), "", *_facts(pen, page, width)], width)
    events = page.events
    wanted = 0 if events is None else 2 + max(1, len(events))
    for index, table in enumerate(page.tables):
        most = None
        if height is not None:
            behind = sum(
                2 + max(1, len(each.rows)) for each in page.tables[index + 1 :]
            )
            behind += min(wanted, 2 + _FEWEST_EVENTS)
            most = max(1, height - len(lines) - 2 - behind)
        lines += ["", *_table(pen, table, width, most)]
    if events is not None:
        left = None if height is None else height - len(lines) - 2
        if left is None or left > 0:
            parts = [Text("Events", "bold"), *_events(events, width, left)]
            lines += ["", *pen.lines(parts, width)]
    return lines if height is None else lines[:height]


def _title(page: Page, width: int) -> RenderableType:
    title = Text(page.title, "bold")
    for count in range(len(page.hints), 0, -1):
        hints = Text("   ".join(page.hints[:count]), "dim")
        space = width - title.cell_len - hints.cell_len
        if space >= _GAP:
            return Text.assemble(title, " " * space, hints)
    return title


def _factNames(page: Page) -> int:
    return max((cell_len(fact.name) for fact in page.facts), default=0)


def _facts(pen: Pen, page: Page, width: int) -> list[RenderableType]:
    names = _factNames(page)
    return [line for fact in page.facts for line in _fact(pen, fact, names, width)]


def _fact(pen: Pen, fact: Fact, names: int, width: int) -> list[RenderableType]:
    colour = _COLOURS[fact.mood]
    mark = "" if fact.mood == PLAIN else f"{pen.signs.marks[fact.mood]} "
    indent = names + _GAP + len(mark)
    first, *others = _wrapped(fact.text, width - indent)
    text = Text.assemble((fact.name.ljust(names + _GAP), "dim"), (mark + first, colour))
    room = min(len(fact.rates), width - text.cell_len - _GAP)
    most = max(fact.rates, default=0.0)
    if pen.signs.bars and room >= 5 and most > 0:
        bars = pen.signs.bars
        drawn = "".join(
            bars[min(len(bars) - 1, int(each / most * len(bars)))]
            for each in fact.rates[-room:]
        )
        text.append(" " * _GAP + drawn, "cyan")
    return [text, *(Text.assemble(" " * indent, (each, colour)) for each in others)]


def _wrapped(text: str, width: int) -> list[str]:
    """Wrap a text into a few lines; the end, with the cure, must not be cut."""
    lines = wrap(
        text,
        max(_NARROWEST, width),
        max_lines=_LINES,
        placeholder=" ...",
        break_on_hyphens=False,
    )
    return lines or [""]


def _widths(table: Table) -> list[int]:
    rows = [[table.title, *table.columns[1:]], *(row.cells for row in table.rows)]
    return [max(map(cell_len, column)) for column in zip(*rows, strict=True)]


def _total(widths: Sequence[int]) -> int:
    return 2 + sum(widths) + _GAP * (len(widths) - 1)


def _table(pen: Pen, table: Table, width: int, most: int | None) -> list[str]:
    """
    Draw a head and at most so many lines, of which the last says how many rows more
    there are.
    """
    if not table.rows:
        nothing = [Text(table.title, "bold"), Text(f"  {table.empty}", "dim")]
        return pen.lines(nothing, width)
    widths = _widths(table)
    # Columns of numbers, except the first, are dropped from the right until the rest
    # fits.
    while len(widths) > table.wide + 1 and _total(widths) > width:
        widths.pop()
    for i in reversed(range(table.wide)):
        excess = _total(widths) - width
        if excess > 0:
            widths[i] = max(min(_NARROWEST, widths[i]), widths[i] - excess)
    grid = Grid(box=None, pad_edge=False, padding=(0, _GAP, 0, 0), header_style="")
    for i, room in enumerate(widths):
        grid.add_column(
            Text(table.columns[i], "dim") if i else Text(table.title, "bold"),
            width=room if i else room + 2,
            justify="left" if i < table.wide else "right",
            no_wrap=True,
            overflow=pen.overflow,
        )
    notes = [_note(row, width) for row in table.rows]
    fitting = len(notes)
    if most is not None:
        # Rows matter more than their notes; the events say the same.
        for note in reversed(notes):
            if len(notes) + sum(map(len, notes)) > most:
                note.clear()
        if fitting > most:
            fitting = most - 1
    for row in table.rows[:fitting]:
        texts = [
            pen.middle(cell, room) if i < table.wide else cell
            for i, (cell, room) in enumerate(zip(row.cells, widths, strict=False))
        ]
        mark = (f"{pen.signs.marks[row.mood]} ", _COLOURS[row.mood])
        # A row without numbers is coloured as a whole.
        style = _COLOURS[BAD] if row.mood == BAD else ""
        grid.add_row(
            Text.assemble(mark, (texts[0], style)),
            *(
                Text(text, style if i < table.wide else "")
                for i, text in enumerate(texts[1:], 1)
            ),
        )
    head, *drawn = pen.lines([grid], width)
    lines = [head]
    for line, note in zip(drawn, notes, strict=False):
        lines += [line, *pen.lines(note, width)]
    more = len(table.rows) - fitting
    if more:
        lines += pen.lines([Text(f"  and {more:,} more", "dim")], width)
    return lines


def _note(row: Row, width: int) -> list[Text]:
    """What is wrong with a row, below it."""
    if not row.note:
        return []
    return [
        Text(f"  {line}", _COLOURS[row.mood]) for line in _wrapped(row.note, width - 2)
    ]


def _events(
    events: Sequence[EventLine], width: int, most: int | None
) -> list[RenderableType]:
    """
    Draw a line for each event, and more for those that need action. Up to a third of
    the lines are kept for lasting events.
    """
    if not events:
        return [Text("  nothing has happened yet", "dim")]
    drawn = [_event(event, width) for event in events]
    if most is None:
        return [line for lines in drawn for line in lines]
    lasting = sum(
        len(lines) for event, lines in zip(events, drawn, strict=True) if event.lasts
    )
    share = min(lasting, max(2, most // 3))
    chosen: list[RenderableType] = []
    for event, lines in zip(events, drawn, strict=True):
        room = most - len(chosen)
        if event.lasts:
            share -= min(share, len(lines))
        elif room <= share:
            continue
        chosen += lines[:room]
    return chosen


def _event(event: EventLine, width: int) -> list[RenderableType]:
    before, colour = f"{event.time}  ", _COLOURS[event.mood]
    texts = [event.text]
    if event.mood != PLAIN:
        texts = _wrapped(event.text, width - len(before))
    lines: list[RenderableType] = []
    for text in texts:
        lines.append(Text.assemble((before, "dim"), (text, colour)))
        before = " " * len(before)
    return lines
