"""The options of C{openTunnel}, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

from tristunnel.errors import TunnelError
from tristunnel.model.policy import POLICY_OPTIONS, VisitorPolicy, parseNetworks

__all__ = ["TunnelOptions", "policyFrom"]


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
    @ivar lookup: Who else may ask for the address of a tunnel whose URI could be
        guessed: names of owners, or C{"*"} for all.
    @ivar openerOnly: Whether connections to the URI must come from where the
        tunnel was opened.
    @ivar firstLine: Whether a connection to the URI must begin with a line that
        only the URI says.
    @ivar allow: Networks that visitors may come from; empty for all.
    @ivar deny: Networks that they may not come from.
    @ivar maxVisitors: Visitors at once; 0 for any number.
    @ivar visitorsPerAddress: Visitors of one address at once, likewise.
    @ivar visitorRate: Visitors of one address per minute, likewise.
    @ivar rate: Bytes per second that all visitors together may send, and as
        many that they may receive; 0 for any number.
    @ivar idle: Seconds without a byte after which a stream is ended; 0 for
        never.
    @ivar maxAge: Seconds after which a stream is ended; 0 for never.
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
    lookup: tuple[str, ...] = ()
    openerOnly: bool = False
    firstLine: bool = False
    allow: tuple[str, ...] = ()
    deny: tuple[str, ...] = ()
    maxVisitors: int = 0
    visitorsPerAddress: int = 0
    visitorRate: int = 0
    rate: int = 0
    idle: float = 0.0
    maxAge: float = 0.0

    @property
    def policy(self) -> VisitorPolicy:
        """
        What is asked of visitors.

        @raise TunnelError: C{bad-option}.
        """
        return VisitorPolicy(
            parseNetworks(self.allow),
            parseNetworks(self.deny),
            self.visitorsPerAddress,
            self.maxVisitors,
            self.visitorRate,
            self.rate,
            self.idle,
            self.maxAge,
        )

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
                    f"there is no option {name[:64]!r}; there is {', '.join(known)}",
                )
            if value is None:
                continue
            if known[name] is tuple:
                value = _texts(value)
            if known[name] is float and type(value) is int:
                # JSON's integers can be too long for a float.
                value = float(max(-1, min(value, 2**53)))
            if type(value) is not known[name]:
                raise TunnelError(
                    "bad-option", f"option {name} takes {_NAMES[known[name]]}"
                )
            values[name] = value
        result = cls(**values)  # type: ignore[arg-type]
        result._check()
        return result

    def _check(self) -> None:
        for name in ("port", "prefer"):
            if not 0 <= getattr(self, name) <= 65535:
                raise TunnelError("bad-option", f"option {name} takes 0 to 65535")
        for name in ("visitors", "maxVisitors", "visitorsPerAddress", "visitorRate"):
            if not 0 <= getattr(self, name) <= 1_000_000:
                raise TunnelError("bad-option", f"option {name} takes 0 to 1000000")
        parseNetworks((*self.allow, *self.deny))
        if not 0 <= self.rate <= 10**15:
            raise TunnelError("bad-option", "option rate takes bytes per second")
        for name in ("idle", "maxAge"):
            if not (getattr(self, name) == 0 or 1 <= getattr(self, name) <= 1e9):
                raise TunnelError(
                    "bad-option", f"option {name} takes seconds, from 1 up, or 0"
                )
        if not 0 <= self.ttl <= 10 * 365 * 86400:
            raise TunnelError("bad-option", "option ttl takes seconds, up to 10 years")
        if len(self.name) > 64 or not all(
            letter.isalnum() or letter in "-_." for letter in self.name
        ):
            raise TunnelError(
                "bad-option",
                "a name has at most 64 letters, digits, hyphens, dots, underscores",
            )


def policyFrom(options: Mapping[str, object]) -> VisitorPolicy:
    """
    Check what a caller wants to ask of a tunnel's visitors: the options of
    C{openTunnel} that are about them.

    @raise TunnelError: C{bad-option}, naming the one that is wrong.
    """
    for name in options:
        if name not in POLICY_OPTIONS:
            raise TunnelError(
                "bad-option",
                f"a policy has no {name[:64]!r}; it has {', '.join(POLICY_OPTIONS)}",
            )
    return TunnelOptions.fromMapping(options).policy


_NAMES = {
    str: "a string",
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    tuple: "a list of strings",
}


def _texts(value: object) -> object:
    """Read a list of strings, which may be one string with commas between."""
    if isinstance(value, str):
        value = [part for part in value.split(",") if part.strip()]
    if isinstance(value, (list, tuple)) and all(isinstance(v, str) for v in value):
        return tuple(value)
    return value
