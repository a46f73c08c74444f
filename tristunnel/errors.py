"""
What can go wrong, by code.

A refusal crosses every door of the program (a frame, an RPC answer, a log
line), so it is one exception with a stable code, and this table is the only
place that knows all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import isfinite

__all__ = [
    "CODES",
    "LONGEST_HINT",
    "MOST_PLACES",
    "ErrorCode",
    "TunnelError",
    "badOption",
    "boundedHint",
    "boundedPlaces",
    "printable",
    "protocolError",
]

LONGEST_HINT = 600.0
"""Most seconds that a hint when to try again is believed: over plain TCP anybody on
the way can give one."""


def boundedHint(hint: object) -> float | None:
    """
    Read a hint when to try again, as the other side gives it.

    @param hint: Seconds; anything else counts as no hint.
    @return: Seconds, or C{None}.
    """
    if isinstance(hint, bool) or not isinstance(hint, (int, float)) or not hint > 0:
        return None
    return float(min(hint, LONGEST_HINT))


def printable(text: str, most: int = 500) -> str:
    """
    Text for one line of a terminal, whoever wrote it: nothing in it moves the
    cursor, changes colours, begins a line or turns one around.

    @param most: Characters that are left of it.
    """
    short = text[:most]
    if short.isprintable():
        return short
    return "".join(letter if letter.isprintable() else "?" for letter in short)


_LONGEST = 2000
"""Characters of a message; a peer's may be as long as a frame."""


@dataclass(frozen=True)
class ErrorCode:
    """
    A documented reason for refusing or ending something.

    @ivar name: The stable string that programs compare, for example
        C{"port-taken"}.
    @ivar number: The JSON-RPC error number (-32000 and below).
    @ivar meaning: One sentence for people.
    @ivar permanent: Whether the same request would be refused again, so that
        a client should stop instead of trying once more.
    """

    name: str
    number: int
    meaning: str
    permanent: bool = False


_TABLE = (
    ErrorCode(
        "internal", -32000, "An internal error occurred; the log has the details."
    ),
    ErrorCode(
        "auth-refused", -32001, "The credentials were not accepted.", permanent=True
    ),
    ErrorCode(
        "not-permitted",
        -32002,
        "This caller is not allowed to do that.",
        permanent=True,
    ),
    ErrorCode("unknown-tunnel", -32003, "There is no such tunnel."),
    ErrorCode("port-taken", -32004, "The port is in use."),
    ErrorCode(
        "port-not-permitted",
        -32005,
        "The server does not allow this port.",
        permanent=True,
    ),
    ErrorCode("ports-exhausted", -32006, "No port of the range is free."),
    ErrorCode("name-taken", -32007, "Another tunnel has that name."),
    ErrorCode("bad-option", -32008, "An option is missing or invalid.", permanent=True),
    ErrorCode("shutting-down", -32009, "The server is shutting down."),
    ErrorCode("limit-reached", -32010, "A limit has been reached."),
    ErrorCode("client-away", -32011, "The tunnel's client is not connected."),
    ErrorCode("service-refused", -32012, "The service refused the connection."),
    ErrorCode("service-timeout", -32013, "The service did not answer in time."),
    ErrorCode("service-unreachable", -32014, "The service could not be reached."),
    ErrorCode("reset", -32015, "The other end reset the connection."),
    ErrorCode("stalled", -32016, "A slow reader was disconnected."),
    ErrorCode(
        "session-lost", -32017, "The connection between client and server was lost."
    ),
    ErrorCode("displaced", -32018, "The same client connected again from elsewhere."),
    ErrorCode("closed", -32019, "The tunnel was closed."),
    ErrorCode("expired", -32020, "The allowed time has passed."),
    ErrorCode("protocol-error", -32021, "The other side violated the protocol."),
    ErrorCode("handshake-timeout", -32022, "The handshake was not completed in time."),
    ErrorCode("bad-pin", -32023, "The server's certificate is not the pinned one."),
    ErrorCode("token-expired", -32024, "The token has expired.", permanent=True),
    ErrorCode("token-revoked", -32025, "The token was revoked.", permanent=True),
    ErrorCode("unknown-session", -32026, "There is no such session or visitor."),
    ErrorCode(
        "invitation-unknown",
        -32027,
        "This invitation does not exist; ask for a new one.",
        permanent=True,
    ),
    ErrorCode(
        "invitation-used",
        -32028,
        "The invitation was used already; ask for a new one.",
        permanent=True,
    ),
    ErrorCode(
        "invitation-expired",
        -32029,
        "The invitation has expired; ask for a new one.",
        permanent=True,
    ),
    ErrorCode(
        "name-not-permitted",
        -32030,
        "The server does not allow this name.",
        permanent=True,
    ),
    ErrorCode(
        "cluster-away", -32031, "The book of the server's cluster cannot be asked now."
    ),
)

CODES: dict[str, ErrorCode] = {code.name: code for code in _TABLE}
"""Every code by its name."""


MOST_PLACES = 16
"""Other members that a client is told of."""


def boundedPlaces(said: object) -> tuple[str, ...]:
    """
    Take other members' addresses from the other side, as far as they make sense: the
    first L{MOST_PLACES}, none longer than a name and a port can be. An empty one is
    where the other side was reached.

    @param said: Anything at all.
    """
    listed = said[:MOST_PLACES] if isinstance(said, list) else []
    return tuple(
        each
        for each in listed
        if isinstance(each, str) and len(each) <= 264 and each.isprintable()
    )


class TunnelError(Exception):
    """
    Something was refused or ended, for a reason that has a code.

    @ivar code: The entry of L{CODES}.
    @ivar message: One line that names the cause and, where there is one, the
        cure. It may be shown to the other side, so it holds no secrets; and it may
        quote the other side, so what is not printable is replaced here, once
        for every refusal and reason that comes in.
    @ivar retryAfter: Seconds after which trying again makes sense, or C{None}.
    @ivar final: Whether whoever tells of it makes no other attempt, and says so next.
    @ivar elsewhere: Other members of the server to go to, as C{HOST:PORT}; empty for
        another process at the same address.
    @ivar stated: Whether the other side itself has said so, with the code, in a
        message of the protocol. An HTTP status is none: proxies, firewalls and
        captive portals have them as well.
    """

    final = False
    stated = False
    elsewhere: tuple[str, ...] = ()

    def __init__(
        self, code: str, message: str = "", retryAfter: float | None = None
    ) -> None:
        self.code = CODES.get(code, CODES["internal"])
        self.message = printable(message, _LONGEST) or self.code.meaning
        self.retryAfter = retryAfter
        super().__init__(self.message)

    @classmethod
    def said(
        cls, code: str, message: str = "", retryAfter: float | None = None
    ) -> TunnelError:
        """Make one that the other side L{stated}."""
        error = cls(code, message, retryAfter)
        error.stated = True
        return error

    @classmethod
    def fromDict(cls, fields: Mapping[str, object], default: str) -> TunnelError:
        """
        Read what L{asDict} has made at the other side.

        @param fields: Anything at all is tolerated in it.
        @param default: The code where it has none that is known.
        """
        code, text = fields.get("code"), fields.get("message")
        error = cls.said(
            code if isinstance(code, str) and code in CODES else default,
            text[:500] if isinstance(text, str) else "",
            boundedHint(fields.get("retryAfter")),
        )
        error.elsewhere = boundedPlaces(fields.get("elsewhere"))
        return error

    def asDict(self) -> dict[str, object]:
        """The error for the other side: C{code}, C{message} and C{retryAfter}."""
        fields: dict[str, object] = {"code": self.code.name, "message": self.message}
        if self.retryAfter is not None and isfinite(self.retryAfter):
            fields["retryAfter"] = self.retryAfter
        if self.elsewhere:
            fields["elsewhere"] = list(self.elsewhere)
        return fields

    def __str__(self) -> str:
        return f"{self.message} [{self.code.name}]"


def badOption(message: str) -> TunnelError:
    """
    The error for an option, or a file that one names, that cannot be used.

    @param message: One line with what it is, the cause and the cure.
    @return: C{bad-option}, to be raised.
    """
    return TunnelError("bad-option", message)


def protocolError(message: str) -> TunnelError:
    """
    The error for bytes that no honest peer sends.

    @param message: One line with what is wrong with them.
    @return: C{protocol-error}, to be raised.
    """
    return TunnelError("protocol-error", message)
