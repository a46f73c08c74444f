"""
PostgreSQL's first messages, as far as they name the database.

They are described in
U{https://www.postgresql.org/docs/current/protocol-message-formats.html}.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from struct import pack, unpack_from

__all__ = [
    "LONGEST",
    "NotPostgres",
    "Opening",
    "StartupMessage",
    "readOpening",
    "refusal",
]

LONGEST = 10_000
"""The most bytes of a first message; PostgreSQL itself takes no more
(C{MAX_STARTUP_PACKET_LENGTH})."""

_CANCEL, _TLS, _GSS = 80877102, 80877103, 80877104
_MAJOR = 3


class NotPostgres(Exception):
    """What came is not a first message of PostgreSQL; the text says why."""


class Opening(Enum):
    """A message that comes before the one that names a database."""

    TLS = "asks for TLS"
    GSS = "asks for encryption by GSSAPI"
    CANCEL = "ends a query of another connection"


@dataclass(frozen=True)
class StartupMessage:
    """
    The message that says what a connection is for.

    @ivar parameters: By name: C{user}, C{database} and others.
    """

    parameters: dict[str, str] = field(default_factory=dict)

    @property
    def database(self) -> str:
        """The database; by default it has the user's name."""
        return self.parameters.get("database") or self.parameters.get("user", "")


def readOpening(data: bytes) -> tuple[StartupMessage | Opening, int] | None:
    """
    Read the beginning of a connection.

    @param data: All that has come so far.
    @return: The message and its length; C{None} if more has to come.
    @raise NotPostgres: If it cannot be one, whatever comes.
    """
    if len(data) < 8:
        # The length of any of them has no more than two bytes.
        if data[:2].strip(b"\0"):
            raise NotPostgres("the first message is too long")
        return None
    size, code = unpack_from("!II", data)
    if not 8 <= size <= LONGEST:
        raise NotPostgres("the first message has an impossible length")
    simple = {_TLS: (Opening.TLS, 8), _GSS: (Opening.GSS, 8)}.get(code)
    if code == _CANCEL:
        # Its key has four bytes, or since protocol 3.2 up to 256.
        simple = Opening.CANCEL, size
    if simple is not None:
        if size != simple[1] or size > 12 + 256:
            raise NotPostgres("the first message has an impossible length")
        return simple if len(data) >= size else None
    if code >> 16 != _MAJOR:
        raise NotPostgres("it is another protocol, or another version of it")
    if len(data) < size:
        return None
    return StartupMessage(_parameters(data[8:size])), size


def _parameters(body: bytes) -> dict[str, str]:
    if not body.endswith(b"\0"):
        raise NotPostgres("the startup message has no end")
    words = body[:-1].split(b"\0")
    if words.pop():
        raise NotPostgres("the startup message has a name without a value")
    if len(words) % 2:
        raise NotPostgres("the startup message has a name without a value")
    try:
        texts = [word.decode() for word in words]
    except UnicodeDecodeError:
        raise NotPostgres("the startup message is not text") from None
    return dict(zip(texts[::2], texts[1::2], strict=True))


def refusal(reason: str, code: str = "08004") -> bytes:
    """
    Write a message, which programs show, about why the visitor is not let in.

    @param reason: A line.
    @param code: The SQLSTATE; by default that the server has refused the connection.
    """
    fields = (("S", "FATAL"), ("V", "FATAL"), ("C", code), ("M", reason))
    body = b"".join(f"{kind}{text}\0".encode() for kind, text in fields) + b"\0"
    return b"E" + pack("!I", len(body) + 4) + body
