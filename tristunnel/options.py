"""
The options of C{openTunnel}, checked.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from tristunnel.errors import TunnelError

__all__ = ["TunnelOptions"]


@dataclass(frozen=True)
class TunnelOptions:
    """
    What a caller may say of the tunnel it wants.

    @ivar via: How the client's end connects; empty for a session's own, and
        for C{"tcp"} at other doors.
    @ivar listener: How visitors connect; empty for the server's default.
    @ivar port: Where visitors connect; 0 for any port.
    @ivar prefer: With C{port} 0, the one to take if it is free: what a
        returning client had before.
    @ivar name: A name to find the tunnel by.
    @ivar visitors: How many visitors it is for; 0 for the default, which is
        one for raw connections and any number for sessions.
    @ivar ttl: Seconds after which it is over; 0 for never.
    @ivar private: Whether there is no public side.
    @ivar resume: The URI of a tunnel of the caller's lease, to go on with.
    """

    via: str = ""
    listener: str = ""
    port: int = 0
    prefer: int = 0
    name: str = ""
    visitors: int = 0
    ttl: float = 0.0
    private: bool = False
    resume: str = ""

    @classmethod
    def fromMapping(cls, options: Mapping[str, object]) -> TunnelOptions:
        """
        Check what a caller gave.

        @raise TunnelError: C{bad-option}, naming the option.
        """
        known = {entry.name: type(entry.default) for entry in fields(cls)}
        values: dict[str, object] = {}
        for name, value in options.items():
            if name not in known:
                raise TunnelError(
                    "bad-option",
                    f"there is no option {name!r}; there is {', '.join(known)}",
                )
            if value is None:
                continue
            if known[name] is float and type(value) is int:
                value = float(value)
            if type(value) is not known[name]:
                raise TunnelError(
                    "bad-option", f"option {name} takes {_NAMES[known[name]]}"
                )
            values[name] = value
        result = cls(**values)  # type: ignore[arg-type]
        result._check()
        return result

    def _check(self) -> None:
        """
        Check the values' ranges.
        """
        for name in ("port", "prefer"):
            if not 0 <= getattr(self, name) <= 65535:
                raise TunnelError("bad-option", f"option {name} takes 0 to 65535")
        if not 0 <= self.visitors <= 1_000_000:
            raise TunnelError("bad-option", "option visitors takes 0 to 1000000")
        if not 0 <= self.ttl <= 10 * 365 * 86400:
            raise TunnelError("bad-option", "option ttl takes seconds, up to 10 years")
        if len(self.name) > 64 or not all(
            letter.isalnum() or letter in "-_." for letter in self.name
        ):
            raise TunnelError(
                "bad-option",
                "a name has at most 64 letters, digits, hyphens, dots, underscores",
            )


_NAMES = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
}
