"""
The text of a token file: one JSON object per line, without any files.

::

    # a comment
    {"name": "laptop", "sha256": "9f86...", "ports": "9000-9010", "may": ["open"]}

A line holds everything that is known of a token except the token itself. A key that is
not understood makes the whole line invalid instead of being ignored: a misspelled
C{maxTunnels} must not mean that there is no limit.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import secrets
from base64 import urlsafe_b64encode
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from tristunnel.auth.credentials import nameProblem
from tristunnel.auth.files import Lines
from tristunnel.auth.public_keys import formatKey, parseKey
from tristunnel.errors import TunnelError, badOption
from tristunnel.model.names import ANY, parseNames
from tristunnel.model.permissions import RIGHTS, Permissions
from tristunnel.model.policy import (
    POLICY_OPTIONS,
    VisitorPolicy,
    parseCountries,
    parseNetworks,
)
from tristunnel.model.ports import parsePorts
from tristunnel.util.quantities import (
    formatDuration,
    formatRate,
    parseDuration,
    parseRate,
)

__all__ = [
    "LONGEST_INVITATION",
    "PREFIX",
    "Token",
    "TokenList",
    "digestOf",
    "endOf",
    "formatTime",
    "formatToken",
    "newToken",
    "parseTime",
    "parseToken",
    "permissionsFrom",
    "permitted",
    "stateOf",
    "tokenFor",
    "tokenNameProblem",
]

PREFIX = "tst_"
"""The beginning of tokens, by which programs that search for leaked secrets recognize
them."""

LONGEST_INVITATION = 30 * 86400.0
"""The most seconds for which an invitation can be valid."""

_HEX_DIGEST = re.compile(r"[0-9a-fA-F]{64}\Z")
_WORD = re.compile(r"[a-z][a-z0-9-]{0,31}\Z")
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@+-]{0,63}\Z")
_RESERVED = re.compile(r"(anonymous|tunnel-.*|access-.*)\Z")
_NOBODY = bytes(32)
_MAX_LINE = 64 * 1024
_MAX_COUNT = 10**9


@dataclass(frozen=True)
class Token:
    """
    A file's entry for a token, or for an invitation, which is a token that nobody has
    fetched yet.

    @ivar name: Who has it.
    @ivar digest: The SHA-256 of the token, 32 bytes; empty for an invitation.
    @ivar permissions: What it permits.
    @ivar created: When it was made, in seconds since the epoch, or C{None}.
    @ivar revoked: When it was revoked, or C{None}.
    @ivar invitation: The SHA-256 of the code to fetch it with, used or not; or empty.
    @ivar until: Until when that code is valid, in seconds since the epoch.
    @ivar joined: When it was fetched, or C{None}.
    @ivar salt: The salt from which the token was derived together with the client's
        secrets, so that the client may ask again if the answer was lost.
    @ivar keys: Public keys that are as good as the token, in SSH's wire format.
    @ivar version: The number of changes to this entry by the servers of a cluster;
        C{None} without a cluster. The highest one is right.
    @ivar line: Its line, counted from 1; 0 for one that has none yet.
    """

    name: str
    digest: bytes = field(repr=False)
    permissions: Permissions = field(default_factory=Permissions)
    created: float | None = None
    revoked: float | None = None
    invitation: bytes = field(default=b"", repr=False)
    until: float | None = None
    joined: float | None = None
    salt: bytes = field(default=b"", repr=False)
    keys: tuple[bytes, ...] = ()
    version: int | None = None
    line: int = field(default=0, compare=False)

    def isOpen(self, now: float) -> bool:
        """Whether it is an invitation that can be used."""
        isOver = self.revoked is not None or (self.until or 0.0) <= now
        return not self.digest and not isOver

    def isForgotten(self, now: float) -> bool:
        """
        Whether it is an unused invitation that expired long ago. For a while before,
        clients are told that it has expired.
        """
        return not self.digest and now - (self.until or now) > LONGEST_INVITATION

    def isGiven(self, now: float) -> bool:
        """Whether its name is taken: it is valid, or was and may be again."""
        return bool(self.digest and self.revoked is None) or self.isOpen(now)


@dataclass
class TokenList(Lines):
    """
    The content of a token file.

    @ivar byName: The tokens by their names, in the order of the file.
    @ivar byDigest: The same by their digests.
    @ivar byInvitation: Those with a code, by its digest.
    @ivar byKey: Those with public keys, by each of these.
    @ivar byHost: Those that are valid, by the patterns of their hosts. A pattern for
        all hosts reserves none.
    """

    byName: dict[str, Token] = field(default_factory=dict)
    byDigest: dict[bytes, Token] = field(default_factory=dict, repr=False)
    byInvitation: dict[bytes, Token] = field(default_factory=dict, repr=False)
    byKey: dict[bytes, Token] = field(default_factory=dict)
    byHost: dict[str, list[Token]] = field(default_factory=dict)

    def find(self, token: bytes) -> Token | None:
        """
        Find a token, in time that reveals nothing about existing ones: only digests are
        compared, as a whole.
        """
        digest = hashlib.sha256(token).digest()
        found = self.byDigest.get(digest)
        wanted = _NOBODY if found is None else found.digest
        return found if hmac.compare_digest(digest, wanted) else None

    def proved(self, proves: Callable[[bytes], bool]) -> Token | None:
        """
        Find the token that a client has proved to have.

        @param proves: Tells whether a digest is that token's.
        """
        found = [token for digest, token in self.byDigest.items() if proves(digest)]
        return found[0] if found else None

    def invited(self, code: bytes) -> Token | None:
        """Find the invitation of a code, in the same way."""
        digest = hashlib.sha256(code).digest()
        found = self.byInvitation.get(digest)
        wanted = _NOBODY if found is None else found.invitation
        return found if hmac.compare_digest(digest, wanted) else None

    def readLine(self, line: bytes, number: int) -> str | None:
        if len(line) > _MAX_LINE:
            return "it is too long"
        try:
            token = parseToken(line.decode("utf-8"), number)
        except UnicodeDecodeError:
            return "it is not UTF-8"
        except ValueError as error:
            return str(error)
        if token.name in self.byName:
            return "the name is already on an earlier line, which counts"
        if token.digest in self.byDigest or token.invitation in self.byInvitation:
            return "the sha256 is already on an earlier line, which counts"
        if not self.byKey.keys().isdisjoint(token.keys):
            return "a key is already on an earlier line, which counts"
        self.byName[token.name] = token
        if token.digest:
            self.byDigest[token.digest] = token
        if token.invitation:
            self.byInvitation[token.invitation] = token
        self.byKey.update(dict.fromkeys(token.keys, token))
        names = token.permissions.names
        if names is not None and token.revoked is None:
            for pattern in names.patterns:
                if pattern != ANY:
                    self.byHost.setdefault(pattern, []).append(token)
        return None


def newToken() -> str:
    """Make a token: 256 random bits."""
    return PREFIX + secrets.token_urlsafe(32)


def digestOf(token: str) -> bytes:
    """Make the digest of a token, which is stored in its place."""
    return hashlib.sha256(token.encode("utf-8", "surrogatepass")).digest()


def tokenFor(salt: bytes, code: str, nonce: str) -> str:
    """
    Make the token that an invitation is exchanged for: 256 bits that can be derived
    again only with the code and the nonce.

    @param salt: Random bytes, which are stored.
    @param code: The invitation's code, which is not stored.
    @param nonce: The client's nonce, which is not stored.
    """
    made = hmac.digest(salt, f"{code} {nonce}".encode(), "sha256")
    return PREFIX + urlsafe_b64encode(made).rstrip(b"=").decode("ascii")


def tokenNameProblem(name: str) -> str | None:
    """Say what is wrong with the name of a token."""
    if _RESERVED.match(name):
        return "the name is reserved; choose another"
    if nameProblem(name) is not None or _NAME.match(name) is None:
        return "a name has at most 64 letters, digits and any of . _ - + @"
    return None


def parseTime(text: str) -> float:
    """
    Read a date or a time in ISO 8601; UTC unless it says otherwise.

    @return: Seconds since the epoch.
    @raise ValueError: If it is neither.
    """
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp()
    except OverflowError:
        raise ValueError("it is out of range") from None


def formatTime(seconds: float) -> str:
    """Write a time as L{parseTime} reads it, to the second."""
    moment = datetime.fromtimestamp(round(seconds), UTC)
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


# Readers of a line's values; each raises ValueError with the reason.


def _time(value: object) -> float:
    if isinstance(value, str):
        try:
            return parseTime(value)
        except ValueError:
            pass
    raise ValueError("takes a time such as 2030-12-31T00:00:00Z")


def _count(value: object) -> int:
    if type(value) is int and 0 <= value <= _MAX_COUNT:
        return value
    raise ValueError("takes a whole number, from 0 up")


def _rate(value: object) -> int:
    if type(value) is int:
        value = str(value)
    if isinstance(value, str):
        return parseRate(value)
    raise ValueError("takes bytes per second, or text such as 10MB/s")


def _ports(value: object) -> object:
    if type(value) is int:
        value = str(value)
    if isinstance(value, str):
        return parsePorts(value)
    raise ValueError("takes ports such as 9000-9010")


def _names(value: object) -> object:
    return parseNames(value.split(",") if isinstance(value, str) else _strings(value))


def _strings(value: object) -> list[str]:
    if isinstance(value, list) and all(isinstance(each, str) for each in value):
        return value
    raise ValueError("takes a list of strings")


def _protocols(value: object) -> frozenset[str]:
    words = _strings(value)
    if not all(_WORD.match(word) for word in words):
        raise ValueError("takes protocols such as tcp and udp")
    return frozenset(words)


def _rights(value: object) -> frozenset[str]:
    words = _strings(value)
    if not set(words) <= set(RIGHTS):
        raise ValueError(f"takes some of {', '.join(RIGHTS)}")
    return frozenset(words)


def _services(value: object) -> tuple[str, ...]:
    names = _strings(value)
    if not all(0 < len(name) <= 64 and name.isprintable() for name in names):
        raise ValueError("takes names of services")
    return tuple(names)


def _networks(value: object) -> object:
    return parseNetworks(_strings(value))


def _countries(value: object) -> object:
    return parseCountries(_strings(value))


def _seconds(value: object) -> float:
    if (
        isinstance(value, int | float)
        and not isinstance(value, bool)
        and (value == 0 or 1 <= value <= 1e9)
    ):
        return float(value)
    raise ValueError("takes seconds, from 1 up, or 0")


def _keys(value: object) -> tuple[bytes, ...]:
    return tuple(parseKey(each) for each in _strings(value))


def _digits(value: object) -> bytes:
    if isinstance(value, str) and _HEX_DIGEST.match(value):
        return bytes.fromhex(value)
    raise ValueError("is not 64 hexadecimal digits")


_PERMISSIONS: dict[str, Callable[[object], object]] = {
    "ports": _ports,
    "names": _names,
    "protocols": _protocols,
    "maxTunnels": _count,
    "maxVisitors": _count,
    "rate": _rate,
    "expires": _time,
    "may": _rights,
    "services": _services,
}

_HISTORY: dict[str, Callable[[object], object]] = {
    "created": _time,
    "revoked": _time,
    "invitation": _digits,
    "until": _time,
    "joined": _time,
    "salt": _digits,
    "keys": _keys,
    "version": _count,
}

# What is asked of visitors: how a line calls it, what it is in a policy, and who
# reads it.
_READERS = {"rate": _rate, "countries": _countries}
_BY_KIND = {tuple: _networks, int: _count, float: _seconds}
_POLICY: dict[str, tuple[str, Callable[[object], object]]] = {
    part.metadata["inTokens"] or name: (
        name,
        _READERS.get(name, _BY_KIND[type(part.default)]),
    )
    for name, part in POLICY_OPTIONS.items()
}

_OTHERS = {"sha256", *_HISTORY}


def parseToken(line: str, number: int = 0) -> Token:
    """
    Read one line.

    @param number: The line's number, from 1.
    @raise ValueError: Why it is wrong, without secrets.
    """
    try:
        values = json.loads(line, object_pairs_hook=_unique)
    except _Twice as error:
        raise ValueError(str(error)) from None
    except (ValueError, RecursionError):
        raise ValueError("it is not a JSON object") from None
    if not isinstance(values, dict):
        raise ValueError("it is not a JSON object")
    name = values.pop("name", None)
    if not isinstance(name, str):
        raise ValueError("there is no name")
    problem = tokenNameProblem(name)
    if problem:
        raise ValueError(problem)
    history = _read(values, {"sha256": _digits, **_HISTORY})
    digest = history.pop("sha256", b"")
    if not digest and not ("invitation" in history and "until" in history):
        raise ValueError("sha256 is not 64 hexadecimal digits")
    others = {key: each for key, each in values.items() if key not in _OTHERS}
    permissions = _permissions(others)
    return Token(name, digest, permissions, line=number, **history)


def _permissions(values: Mapping[str, object]) -> Permissions:
    unknown = sorted(set(values) - set(_PERMISSIONS) - set(_POLICY))
    if unknown:
        raise ValueError(f"there is no {_shown(unknown[0])}")
    read = _read(values, _PERMISSIONS)
    asked = _read(values, {key: reader for key, (_, reader) in _POLICY.items()})
    policy = VisitorPolicy(**{_POLICY[key][0]: asked[key] for key in asked})
    return Permissions(**read, policy=policy)


def permissionsFrom(values: Mapping[str, object], now: float) -> Permissions:
    """
    Read the permissions of a new token from an RPC.

    @param values: As on a line of a file; C{expires} may also be a duration, such as
        C{"30d"}.
    @param now: Seconds since the epoch.
    @raise TunnelError: C{bad-option}, with what is wrong.
    """
    given = dict(values)
    try:
        if isinstance(expires := given.get("expires"), str):
            given["expires"] = formatTime(endOf(expires, now))
        return _permissions(given)
    except ValueError as error:
        raise badOption(str(error)) from None


def endOf(text: str, now: float) -> float:
    """
    Read when something ends: a time, or a duration until then.

    @param now: Seconds since the epoch.
    @return: The same.
    @raise TunnelError: C{bad-option}, also for a time in the past.
    """
    try:
        moment = parseTime(text)
    except ValueError:
        moment = now + parseDuration(text)
    if moment <= now:
        raise badOption(f"{text[:40]!r} is in the past")
    return moment


def _read(
    values: Mapping[str, object], readers: Mapping[str, Callable[[object], object]]
) -> dict[str, Any]:
    read: dict[str, Any] = {}
    for key, reader in readers.items():
        if values.get(key) is None:
            continue
        try:
            read[key] = reader(values[key])
        except TunnelError as error:
            raise ValueError(f"{key}: {error.message}") from None
        except ValueError as error:
            raise ValueError(f"{key} {error}") from None
    return read


class _Twice(ValueError):
    """A key is given twice, and it is not clear which one counts."""


def _unique(pairs: list[tuple[str, object]]) -> dict[str, object]:
    values = dict(pairs)
    if len(values) < len(pairs):
        raise _Twice("a key appears twice")
    return values


def _shown(text: str) -> str:
    return ascii(text if len(text) <= 40 else text[:40] + "...")


def _same(value: object) -> object:
    return value


_WRITERS: dict[str, Callable[[Any], object]] = {
    "ports": str,
    "names": str,
    "protocols": sorted,
    "expires": formatTime,
    "may": lambda may: [right for right in RIGHTS if right in may],
    "created": formatTime,
    "revoked": formatTime,
    "until": formatTime,
    "joined": formatTime,
    "invitation": bytes.hex,
    "salt": bytes.hex,
    "keys": lambda keys: [formatKey(each) for each in keys],
}


def formatToken(token: Token) -> str:
    """Write one line, without its end."""
    asked = token.permissions.policy.describe()
    given = {
        **vars(token.permissions),
        **{key: asked.get(name) for key, (name, _) in _POLICY.items()},
        **{key: getattr(token, key) for key in _HISTORY},
    }
    values: dict[str, object] = {"name": token.name}
    if token.digest:
        values["sha256"] = token.digest.hex()
    for key in (*_PERMISSIONS, *_HISTORY, *_POLICY):
        absent = (None, b"", ()) if key in _HISTORY else (None, b"")
        if given[key] not in absent:
            values[key] = _WRITERS.get(key, _same)(given[key])
    return json.dumps(values)


def stateOf(token: Token, now: float) -> str:
    """
    Describe whether a token is valid, in a word or two.

    @param now: Seconds since the epoch.
    """
    expires = token.permissions.expires
    if token.revoked is not None:
        return "revoked"
    if not token.digest:
        left = (token.until or 0.0) - now
        return f"invited for {formatDuration(left)}" if left > 0 else "not joined"
    if expires is None:
        return "valid"
    left = expires - now
    return f"valid for {formatDuration(left)}" if left > 0 else "expired"


def permitted(permissions: Permissions) -> str:
    """Describe what a token permits, in a few words."""
    words = [right for right in RIGHTS if right in permissions.may] or ["nothing"]
    if permissions.ports is not None:
        words.append(f"ports {permissions.ports}")
    if permissions.names is not None:
        words.append(f"names {permissions.names}")
    if permissions.protocols is not None:
        words.append("/".join(sorted(permissions.protocols)) or "no protocol")
    if permissions.maxTunnels is not None:
        words.append(f"{permissions.maxTunnels} tunnels")
    if permissions.maxVisitors is not None:
        words.append(f"{permissions.maxVisitors} visitors")
    if permissions.rate is not None:
        words.append(formatRate(permissions.rate))
    words.extend(_asked(permissions.policy))
    if permissions.services is not None:
        words.append(f"services {' '.join(permissions.services)}")
    return ", ".join(words)


def _asked(policy: VisitorPolicy) -> list[str]:
    return [
        part.metadata["words"].format(_WORDS.get(name, str)(getattr(policy, name)))
        for name, part in POLICY_OPTIONS.items()
        if getattr(policy, name)
    ]


def _joined(networks: Iterable[object]) -> str:
    return " ".join(map(str, networks))


_WORDS: dict[str, Callable[[Any], str]] = {
    "allow": _joined,
    "deny": _joined,
    "countries": _joined,
    "rate": formatRate,
    "idle": formatDuration,
    "maxAge": formatDuration,
}
