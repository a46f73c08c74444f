"""Changing a token file: creating, revoking and fetching tokens."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from hmac import compare_digest
from secrets import token_bytes

from tristunnel.auth.files import onlyWriter, readAtOnce, reasonOf, replaceFile
from tristunnel.auth.tokens_format import (
    LONGEST_INVITATION,
    Token,
    TokenList,
    digestOf,
    formatToken,
    newToken,
    tokenFor,
    tokenNameProblem,
)
from tristunnel.errors import TunnelError, badOption
from tristunnel.model.permissions import Permissions
from tristunnel.util.quantities import formatDuration
from tristunnel.wire.invitation import newCode

__all__ = ["INVITATION_TIME", "JOIN_AGAIN", "MOST_INVITATIONS", "TokenStore"]

INVITATION_TIME = 86400.0
"""The default for the seconds that an invitation is valid."""

MOST_INVITATIONS = 100
"""The most unused invitations."""

JOIN_AGAIN = 60.0
"""Seconds in which a client can get an answer again that was lost."""


class TokenStore:
    """
    A token file, to be changed.

    Lines that it does not understand stay as they are: comments, and broken lines.

    @param path: The file; it is made when the first token is.
    @param now: The time of day.
    """

    def __init__(
        self, path: str | os.PathLike[str], now: Callable[[], float] = time.time
    ) -> None:
        # A link stays a link.
        self._path = os.path.realpath(path)
        self._now = now

    def read(self) -> TokenList:
        """@raise TunnelError: C{bad-option}, if the file cannot be read."""
        return TokenList.parse(self._data())

    def _data(self) -> bytes:
        try:
            return readAtOnce(self._path)[1]
        except FileNotFoundError:
            raise badOption(
                f"there is no token file {self._path!r}: name another with --file, or"
                " make it with: tristunnel token create --name NAME"
            ) from None
        except (OSError, ValueError) as error:
            raise badOption(f"cannot read {self._path!r}: {reasonOf(error)}") from None

    def make(self) -> None:
        """
        Make an empty file, if there is none.

        @raise TunnelError: C{bad-option}, if it cannot be written.
        """
        with onlyWriter(self._path, make=True):
            if not os.path.exists(self._path):
                self._write([])

    def create(
        self, name: str, permissions: Permissions, keys: tuple[bytes, ...] = ()
    ) -> str:
        """
        Make a token. The name of a revoked one may be given again.

        @param keys: Public keys that are equivalent, in SSH's wire format.
        @return: The token, which is stored nowhere.
        @raise TunnelError: C{name-taken}; C{bad-option}, if the file cannot be
            written.
        """
        secret = newToken()
        made = Token(
            name, digestOf(secret), permissions, created=self._now(), keys=keys
        )
        self._add(made)
        return secret

    def _add(self, made: Token, replaces: bool = False) -> None:
        """
        Add a token or an invitation to the file, and remove invitations that expired
        long ago.

        @param replaces: Whether an invitation of its name is removed.
        """
        problem = tokenNameProblem(made.name)
        if problem is not None:
            raise badOption(problem)
        now = self._now()
        with onlyWriter(self._path, make=True):
            data = self._data() if os.path.exists(self._path) else b""
            lines = data.split(b"\n")
            tokens = TokenList.parse(data).byName
            waiting = sum(each.isOpen(now) for each in tokens.values())
            before = tokens.get(made.name)
            if before is not None and before.isGiven(now):
                if before.digest or not replaces:
                    what = "a token" if before.digest else "an invitation"
                    raise TunnelError(
                        "name-taken",
                        f"{what} {made.name!r} already exists; revoke it first, or"
                        " choose another name",
                    )
                waiting -= 1
            if not made.digest and waiting >= MOST_INVITATIONS:
                raise TunnelError(
                    "limit-reached",
                    f"{waiting} invitations wait to be used; revoke some with:"
                    " tristunnel invite --revoke NAME",
                )
            if before is not None:
                # Other servers' records of that name are older.
                made = replace(made, version=before.version)
            for each in sorted(tokens.values(), key=lambda each: -each.line):
                if each.isForgotten(now) or each.name == made.name:
                    del lines[each.line - 1]
            self._write([*_withoutEnd(lines), formatToken(made).encode()])

    def invite(
        self,
        name: str,
        permissions: Permissions,
        seconds: float = INVITATION_TIME,
        replaces: bool = False,
    ) -> str:
        """
        Make an invitation: a code that can be exchanged for one token.

        @param name: The token's; empty for C{client}, or C{client-2} and so on.
        @param seconds: For how long it is valid.
        @param replaces: Whether an unused invitation of that name is replaced instead
            of being an error.
        @return: The code, which is stored nowhere.
        @raise TunnelError: As L{create}; C{limit-reached}, if too many wait.
        """
        if not 1 <= seconds <= LONGEST_INVITATION:
            raise badOption(
                "an invitation is valid for at least a second, and at most"
                f" {formatDuration(LONGEST_INVITATION)}"
            )
        taken = self.read().byName if os.path.exists(self._path) else {}
        names = (f"client-{number}" for number in range(2, len(taken) + 3))
        code, now = newCode(), self._now()
        free = (
            each
            for each in ("client", *names)
            if each not in taken or not taken[each].isGiven(now)
        )
        self._add(
            Token(
                name or next(free),
                b"",
                permissions,
                created=now,
                invitation=digestOf(code),
                until=now + seconds,
            ),
            replaces,
        )
        return code

    def join(self, code: str, nonce: str) -> tuple[Token, str]:
        """
        Take up an invitation. Whoever sends the same nonce again within
        L{JOIN_AGAIN} seconds gets the same token again, since the answer may have
        been lost.

        @param code: As L{readCode<tristunnel.wire.invitation.readCode>} returned it.
        @param nonce: At least 128 random bits of the client's.
        @return: The file's entry for the token, and the token.
        @raise TunnelError: C{invitation-unknown}; who has the right code is told
            C{invitation-used}, C{invitation-expired} or C{token-revoked}.
        """
        with onlyWriter(self._path):
            data = self._data()
            invited = TokenList.parse(data).invited(code.encode())
            if invited is None:
                raise TunnelError("invitation-unknown")
            now = self._now()
            if invited.revoked is not None:
                raise TunnelError("token-revoked", "the invitation was revoked")
            if invited.joined is not None:
                secret = tokenFor(invited.salt, code, nonce)
                late = abs(now - invited.joined) > JOIN_AGAIN
                if late or not compare_digest(digestOf(secret), invited.digest):
                    raise TunnelError("invitation-used")
                return invited, secret
            if not invited.isOpen(now):
                raise TunnelError("invitation-expired")
            salt = token_bytes(32)
            secret = tokenFor(salt, code, nonce)
            made = replace(invited, digest=digestOf(secret), joined=now, salt=salt)
            lines = data.split(b"\n")
            lines[invited.line - 1] = formatToken(made).encode()
            self._write(lines)
        return made, secret

    def revoke(self, name: str) -> Token:
        """
        Mark a token as revoked; doing it twice is not an error.

        @return: The token.
        @raise TunnelError: C{bad-option}, if there is none of that name.
        """
        with onlyWriter(self._path):
            data = self._data()
            lines = data.split(b"\n")
            token = TokenList.parse(data).byName.get(name)
            if token is None:
                raise badOption(f"there is no token {name!r}")
            if token.revoked is None:
                token = replace(token, revoked=self._now())
                lines[token.line - 1] = formatToken(token).encode()
                self._write(lines)
        return token

    def take(self, changes: Iterable[tuple[Token | None, Token]]) -> None:
        """
        Take over other servers' records of tokens.

        @param changes: For each, the entry that this file should have, or C{None}, and
            the entry to replace it with; a different entry stays as it is.
        @raise TunnelError: C{bad-option}, if the file cannot be written.
        """
        with onlyWriter(self._path, make=True):
            data = self._data() if os.path.exists(self._path) else b""
            lines, tokens = data.split(b"\n"), TokenList.parse(data).byName
            new = []
            for before, token in changes:
                line = formatToken(token).encode()
                if tokens.get(token.name) != before:
                    continue
                if before is None:
                    new.append(line)
                else:
                    lines[tokens[token.name].line - 1] = line
            if new:
                lines = [*_withoutEnd(lines), *new]
            if b"\n".join(lines) != data:
                self._write(lines)

    def _write(self, lines: list[bytes]) -> None:
        replaceFile(self._path, b"\n".join(lines).rstrip(b"\n") + b"\n")


def _withoutEnd(lines: list[bytes]) -> list[bytes]:
    """Lines without the empty ones at their end."""
    while lines and not lines[-1].strip():
        lines = lines[:-1]
    return lines
