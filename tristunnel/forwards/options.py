"""What a forward says behind its target: C{localhost:25565,proxy=v2}."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from tristunnel.errors import badOption
from tristunnel.util.words import nearest
from tristunnel.wire.proxy_header import PROXY_HEADERS

__all__ = ["ForwardOptions", "splitOptions"]


@dataclass(frozen=True)
class ForwardOptions:
    """
    The options of one forward; their names are those that users write.

    @ivar proxy: The version of the PROXY protocol that the service expects, or
        empty.
    """

    proxy: str = ""

    @classmethod
    def fromMapping(cls, values: Mapping[str, Any]) -> ForwardOptions:
        """
        Check options.

        @param values: By name: texts, or C{True} for one that stands alone.
        @raise TunnelError: C{bad-option}.
        """
        known = {part.name: type(part.default) for part in fields(cls)}
        for name, value in values.items():
            kind = known.get(name)
            if kind is None:
                raise badOption(
                    f"a forward has no option {name[:60]!r}{nearest(name, known)}"
                )
            if type(value) is not kind:
                form = name if kind is bool else f"{name}=VALUE"
                raise badOption(f"the option {name} of a forward is written {form}")
        made = cls(**values)
        if made.proxy and made.proxy not in PROXY_HEADERS:
            raise badOption(
                f"proxy={made.proxy[:60]} is unknown; write"
                f" {' or '.join('proxy=' + each for each in PROXY_HEADERS)}"
            )
        return made

    @property
    def text(self) -> str:
        """The same as L{splitOptions} reads it."""
        said = ((each.name, getattr(self, each.name)) for each in fields(self))
        return "".join(
            f",{name}" if value is True else f",{name}={value}"
            for name, value in said
            if value
        )


def splitOptions(text: str) -> tuple[str, ForwardOptions]:
    """
    Part a target from the options behind it.

    @param text: C{TARGET[,OPTION[=VALUE]]...}; a comma of the target's own has a
        backslash before it.
    @raise TunnelError: C{bad-option}, for an option that is none.
    """
    target, *said = re.split(r"(?<!\\),", text)
    values: dict[str, str | bool] = {}
    for each in said:
        name, equals, value = (part.strip() for part in each.partition("="))
        if name in values:
            raise badOption(f"the option {name[:60]} of a forward is given twice")
        values[name] = value if equals else True
    return target, ForwardOptions.fromMapping(values)
