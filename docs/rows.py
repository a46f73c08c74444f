"""
The rows of the tables in the reference, read from the source.

C{docs/tables.py} makes tables of them; this file needs nothing of Sphinx.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Iterator
from dataclasses import fields
from typing import Any
from unittest.mock import MagicMock

Row = tuple[str, ...]


def _optionsOf(program: str) -> Any:
    """
    @return: The options of a command of C{twistd}.
    """
    from tristunnel.cli import access_tap, client_tap, server_tap

    modules: dict[str, Any] = {
        "twistd tunnel": server_tap,
        "twistd tunnel-client": client_tap,
        "twistd tunnel-access": access_tap,
    }
    return modules[program].Options()


def optionGroups(program: str) -> Iterator[tuple[str, list[Row]]]:
    """
    @return: The options of a command as C{--help} groups them: name, default, and
        what C{--help} says.
    """
    from tristunnel.config.help import ABOUT

    options = _optionsOf(program)
    groups = [*options.groups, ABOUT] if options.groups else []
    named = [
        (group.title, [word.partition("=")[0] for word in group.options.split()])
        for group in groups
    ]
    known = {name.removesuffix("=") for name in options.longOpt}
    others = known.difference(*(names for _, names in named))
    named.insert(-1, ("Other options" if named else "", sorted(others)))
    rows = _optionRows(program, options)
    for title, names in named:
        if found := [rows[name] for name in names if name in rows]:
            yield title, found


def _optionRows(program: str, options: Any) -> dict[str, Row]:
    described: dict[str, tuple[str, str]] = {}
    for kind in type(options).__mro__:
        for name, _, *rest in kind.__dict__.get("optFlags", ()):
            described[name] = ("off", rest[0])
        for name, _, *rest in kind.__dict__.get("optParameters", ()):
            default = rest[0] if rest else None
            shown = "" if default in (None, "") else f"``{default}``"
            takes = getattr(rest[2], "takes", "") if rest[2:] else ""
            described[name] = (shown, f"{rest[1]} Takes {takes}." if takes else rest[1])
        for name, method in kind.__dict__.items():
            if name.startswith("opt_") and inspect.isfunction(method):
                text = " ".join((inspect.getdoc(method) or "").split())
                found = re.search(r"\[default: (.*)\]", text)
                text = text[: found.start()].strip() if found else text
                option = name.removeprefix("opt_").replace("_", "-")
                shown = f"``{found[1]}``" if found else ""
                described.setdefault(option, (shown, text))
    rows = {}
    for name in {name.removesuffix("=") for name in options.longOpt}:
        shown, text = described.get(name, ("", ""))
        rows[name] = (f":option:`--{name} <{program} --{name}>`", shown, _plain(text))
    return rows


def tunnelOptionRows() -> Iterator[Row]:
    """
    @return: The options of C{openTunnel}: name, default, and what it says.
    """
    from tristunnel.model.gate import GateRules
    from tristunnel.model.options import TunnelOptions
    from tristunnel.model.policy import VisitorPolicy

    parts = VisitorPolicy, GateRules
    text = " ".join(
        " ".join(each.__doc__ or "" for each in (TunnelOptions, *parts)).split()
    )
    told = dict(re.findall(r"@ivar (\w+): (.*?)(?= @ivar|$)", text))
    own = [
        each for each in fields(TunnelOptions) if each.name not in ("policy", "gate")
    ]
    for entry in (*own, *(each for part in parts for each in fields(part))):
        shown = json.dumps(entry.default).removesuffix(".0")
        yield (f"``{entry.name}``", f"``{shown}``", _plain(told[entry.name]))


def methodRows() -> Iterator[Row]:
    """
    @return: The remote methods: name with parameters, and what it says.
    """
    from tristunnel.service.methods import methodsOf

    for name, method in methodsOf(MagicMock()).items():
        names = [
            each.name if each.default is each.empty else f"{each.name}={each.default!r}"
            for each in inspect.signature(method).parameters.values()
            if each.name != "caller" and each.kind is not each.VAR_KEYWORD
        ]
        text = " ".join((inspect.getdoc(method) or "").split())
        yield (f"``{name}({', '.join(names)})``", _plain(text))


def codeRows() -> Iterator[Row]:
    """
    @return: The error codes: name, number, whether it is permanent, meaning.
    """
    from tristunnel.errors import CODES

    for code in CODES.values():
        yield (
            f":ref:`{code.name} <error-{code.name}>`",
            str(code.number),
            "yes" if code.permanent else "",
            code.meaning,
        )


def metricRows() -> Iterator[Row]:
    """
    @return: The metrics of a server where nothing happens: name, kind, and what
        C{/metrics} says of it.
    """
    from twisted.internet.task import Clock

    from tristunnel.dashboard.metrics import ServerCollector
    from tristunnel.model.memory_book import MemoryBook
    from tristunnel.service.counters import Counters, ReactorLag
    from tristunnel.service.preauth import PreauthLimiter
    from tristunnel.service.tunnel_service import TunnelService

    clock: Any = Clock()
    service = TunnelService(clock, MemoryBook(clock), {})
    limiter = PreauthLimiter(clock.seconds)
    collector = ServerCollector(
        service, Counters(clock.seconds), ReactorLag(clock), limiter
    )
    for family in collector.collect():
        name = family.name + ("_total" if family.type == "counter" else "")
        yield (f"``{name}``", family.type, _plain(family.documentation))


def _plain(text: str) -> str:
    """Make reStructuredText of epytext, or of what C{--help} says."""
    text = re.sub(r"C\{([^{}]*)\}", r"\1", text)
    text = re.sub(r"L\{([^{}<]*)(?:<[^{}]*)?\}", r"\1", text)
    return re.sub(r"([*`|_\\])", r"\\\1", text)
