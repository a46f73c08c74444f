"""C{--auth tokens:PATH}: a file of tokens and what each of them permits."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from hmac import compare_digest
from secrets import token_bytes
from weakref import WeakValueDictionary

from twisted.cred.checkers import ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.cred.strcred import ICheckerFactory, InvalidAuthArgumentString
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from twisted.plugin import IPlugin
from zope.interface import implementer

from tristunnel.auth.credentials import ITunnelCredentials, TunnelCredentials
from tristunnel.auth.files import (
    FollowedFile,
    onlyWriter,
    readAtOnce,
    reasonOf,
    replaceFile,
)
from tristunnel.auth.tokens_format import (
    Token,
    TokenList,
    digestOf,
    formatTime,
    formatToken,
    newToken,
    tokenFor,
    tokenNameProblem,
)
from tristunnel.errors import TunnelError, badOption
from tristunnel.model.permissions import (
    Grant,
    GrantedName,
    Permissions,
    RefusedWithReason,
)
from tristunnel.util.files import defaultStateDirectory
from tristunnel.util.quantities import formatDuration
from tristunnel.util.words import plural
from tristunnel.wire.invitation import newCode

__all__ = [
    "INVITATION_TIME",
    "JOIN_AGAIN",
    "LOOK_INTERVAL",
    "MOST_INVITATIONS",
    "TokenCheckerFactory",
    "TokenFile",
    "TokenStore",
    "defaultTokenFile",
]

LOOK_INTERVAL = 1.0
"""Seconds between two looks at the file while its tokens are in use."""

INVITATION_TIME = 86400.0
"""Seconds for which an invitation is good, if nothing is said."""

LONGEST_INVITATION = 30 * 86400.0
"""The most seconds for which one can be good."""

MOST_INVITATIONS = 100
"""Invitations that may wait to be used at once."""

JOIN_AGAIN = 60.0
"""Seconds in which a client whose answer was lost gets it again."""

_SOONEST = 0.001


def defaultTokenFile() -> str:
    """The file of tokens where nobody names another."""
    return str(defaultStateDirectory() / "tokens")


def _tokenOf(credentials: ITunnelCredentials) -> bytes:
    """The token that a client sent: alone, or as the password of any id."""
    sent = credentials.fields.get("token")
    if isinstance(sent, str):
        return sent.encode("utf-8", "surrogatepass")
    return TunnelCredentials(credentials.fields, credentials.peer).password


def _over(code: str, what: str, when: float) -> RefusedWithReason:
    """The refusal of who has a token that is no longer good."""
    at = formatTime(when).replace("T", " ")[:-4]
    return RefusedWithReason(TunnelError(code, f"the token {what} at {at} UTC"))


class TokenStore:
    """
    A token file, to be changed.

    What it does not understand it leaves as it is: comments, and lines that
    are broken.

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

        @param keys: Public keys that are as good, as SSH has them on the wire.
        @return: The token, which is kept nowhere.
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
        Put a token, or an invitation, in the file, and remove the invitations that
        are over since long.

        @param replaces: Whether an invitation of its name has to go.
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
            for each in sorted(tokens.values(), key=lambda each: -each.line):
                # For a while, who is late is told so.
                late = now - (each.until or now) > LONGEST_INVITATION
                if (late and not each.digest) or each.name == made.name:
                    del lines[each.line - 1]
            while lines and not lines[-1].strip():
                lines.pop()
            self._write([*lines, formatToken(made).encode()])

    def invite(
        self,
        name: str,
        permissions: Permissions,
        seconds: float = INVITATION_TIME,
        replaces: bool = False,
    ) -> str:
        """
        Make an invitation: a code that is good for one token.

        @param name: The token's; empty for C{client}, or C{client-2} and so on.
        @param seconds: For how long it is good.
        @param replaces: Whether an unused invitation of that name is void from now
            on, and no error.
        @return: The code, which is kept nowhere.
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
        @return: What the file says of the token, and the token.
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
        Mark a token as revoked; doing it twice is no error.

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

    def _write(self, lines: list[bytes]) -> None:
        replaceFile(self._path, b"\n".join(lines).rstrip(b"\n") + b"\n")


@implementer(ICredentialsChecker)
class TokenFile:
    """
    Admits whoever has a token of a file, and follows the changes of that
    file: at each login and each use, and every second while one of its tokens
    is in use.

    A token that the file calls revoked is over at once. One whose line is gone
    or broken is over when the file has been the same for a second, so that an
    editor that writes in two steps ends nobody's session.

    @see: L{tristunnel.auth.tokens_format} for what is in the file.
    """

    credentialInterfaces = (ITunnelCredentials,)
    _log = Logger()

    def __init__(
        self,
        path: str | os.PathLike[str],
        clock: IReactorTime | None = None,
        now: Callable[[], float] = time.time,
    ) -> None:
        """
        @param path: The file. A relative path counts from the directory that
            is current now, wherever a daemon goes later.
        @param clock: Says when to look; the reactor, if it is left out.
        @param now: The time of day.
        @raise TunnelError: C{bad-option} when the file cannot be read.
        """
        cure = "make one with: tristunnel token create --name NAME --file {path}"
        self._file = FollowedFile(path, "token file", cure, self._log, self._load)
        self._path = self._file.path
        self._clock = clock
        self._now = now
        self._tokens = TokenList()
        self._changed = 0.0
        self._count = -1
        self._grants: WeakValueDictionary[bytes, Grant] = WeakValueDictionary()
        self._missing: set[bytes] = set()
        self._looking: IDelayedCall | None = None
        self._file.begin()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self._path!r}>"

    # Logins

    def requestAvatarId(
        self, credentials: ITunnelCredentials
    ) -> Deferred[bytes | tuple[()]]:
        """
        Look a token up.

        @param credentials: With the token in C{token}, or in place of a
            password; an C{id} beside it does not matter.
        @return: fires with a L{GrantedName}; fails with C{UnauthorizedLogin},
            or with L{RefusedWithReason} for a token that is over.
        """
        self.follow()
        token = self._tokens.byKey.get(credentials.key)
        if token is None:
            token = self._tokens.find(_tokenOf(credentials))
        if token is None:
            return fail(UnauthorizedLogin())
        if token.revoked is not None:
            return fail(_over("token-revoked", "was revoked", token.revoked))
        expires = token.permissions.expires
        if expires is not None and expires <= self._now():
            return fail(_over("token-expired", "expired", expires))
        return succeed(GrantedName(token.name.encode(), self._grantOf(token)))

    @property
    def takesKeys(self) -> bool:
        """Whether a token has public keys."""
        self.follow()
        return bool(self._tokens.byKey)

    def knowsKey(self, user: str, key: bytes) -> bool:
        """Whether a token has a public key, whatever the id beside it."""
        self.follow()
        token = self._tokens.byKey.get(key)
        return token is not None and token.revoked is None

    def keysOf(self, user: str) -> list[bytes]:
        """
        The public keys of a token.

        @param user: The token's name; empty for all.
        """
        self.follow()
        return [
            key
            for key, token in self._tokens.byKey.items()
            if token.name == (user or token.name) and token.revoked is None
        ]

    def _grantOf(self, token: Token) -> Grant:
        grant = self._grants.get(token.digest)
        if grant is None or grant.ended is not None:
            grant = Grant(
                token.permissions,
                now=self._now,
                look=self.follow,
                watched=self._watched,
            )
            self._grants[token.digest] = grant
        return grant

    def join(self, code: str, nonce: str) -> tuple[Token, str]:
        """
        Take up an invitation, as L{TokenStore.join}. A code that nobody has given
        out costs no look at the file.
        """
        self.invited(code)
        joined = self.store.join(code, nonce)
        self.follow()
        return joined

    def invited(self, code: str) -> Token:
        """
        Find what an invitation was made for.

        @raise TunnelError: C{invitation-unknown}.
        """
        self.follow()
        found = self._tokens.invited(code.encode())
        if found is None:
            raise TunnelError("invitation-unknown")
        return found

    # For operators

    def tokens(self) -> list[Token]:
        """What the file says of each token, in its order."""
        return list(self._tokens.byName.values())

    def holdersOf(self, patterns: Iterable[str]) -> set[str]:
        """
        Say which tokens keep hosts for themselves.

        @param patterns: Of the hosts, as
            L{patternsFor<tristunnel.model.names.patternsFor>} returns them.
        @return: The names of those that are in force.
        """
        now = self._now()
        return {
            token.name
            for pattern in patterns
            for token in self._tokens.byHost.get(pattern, ())
            if (token.permissions.expires or now + 1) > now
        }

    @property
    def path(self) -> str:
        """The file."""
        return str(self._path)

    @property
    def store(self) -> TokenStore:
        """The same file, to be changed; L{follow} puts that in force."""
        return TokenStore(self._path, self._now)

    def revoke(self, name: str) -> None:
        """
        Revoke a token in the file, and end what lives on it at once.

        @raise TunnelError: C{bad-option}, if there is none of that name, or if
            the file cannot be written.
        """
        self.store.revoke(name)
        self.follow()

    # Following the file

    def follow(self) -> None:
        """
        Read the file again if it is not the one that was read. What cannot be
        read leaves the last good content in force, and is logged once.
        """
        self._file.follow()
        # Also if the clock was set back since.
        if self._missing and abs(self._now() - self._changed) >= LOOK_INTERVAL:
            self._endMissing()

    def _load(self, status: os.stat_result, data: bytes) -> None:
        self._tokens = TokenList.parse(data)
        self._changed = self._now()
        count = sum(
            bool(each.digest) and each.revoked is None
            for each in self._tokens.byName.values()
        )
        # Invitations come and go in the same file.
        if count != self._count:
            self._count = count
            self._log.info(
                "The token file {path!r} has {count}",
                path=self._path,
                count=plural(count, "token"),
            )
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            self._log.warn(
                "Others may write to the token file {path!r}; run: chmod 600 {path}",
                path=self._path,
            )
        self._file.logProblems(self._tokens)
        self._apply()

    def _apply(self) -> None:
        self._missing.clear()
        for digest, grant in list(self._grants.items()):
            token = self._tokens.byDigest.get(digest)
            if token is None:
                self._missing.add(digest)
            elif token.revoked is not None:
                self._log.info("The token {name} is revoked", name=token.name)
                grant.end(TunnelError("token-revoked"))
            elif token.permissions != grant.permissions:
                grant.change(token.permissions)

    def _endMissing(self) -> None:
        missing, self._missing = self._missing, set()
        for digest in missing:
            grant = self._grants.get(digest)
            if grant is not None:
                grant.end(TunnelError("token-revoked", "the token has been removed"))

    # Looking by itself

    def _watched(self) -> None:
        inUse = any(grant.inUse for grant in list(self._grants.values()))
        if inUse and self._looking is None:
            self._lookLater()
        elif not inUse and self._looking is not None:
            self._looking.cancel()
            self._looking = None

    def _lookLater(self) -> None:
        """Look again in a while, or when the next token in use expires."""
        if self._clock is None:
            # Not before it is needed: a checker is made while options are
            # read, when the reactor may not be chosen yet.
            from twisted.internet import reactor

            self._clock = IReactorTime(reactor)
        now = self._now()
        delay = LOOK_INTERVAL
        for grant in list(self._grants.values()):
            expires = grant.permissions.expires
            if expires is not None and grant.inUse:
                delay = min(delay, max(expires - now, _SOONEST))
        self._looking = self._clock.callLater(delay, self._look)

    def _look(self) -> None:
        self._looking = None
        self.follow()
        for grant in list(self._grants.values()):
            grant.expire()
        self._watched()


@implementer(ICheckerFactory, IPlugin)
class TokenCheckerFactory:
    """The C{tokens} type of C{--auth}."""

    authType = "tokens"
    argStringFormat = "Path of a file made by: tristunnel token create"
    authHelp = """
Admits whoever has a token of a file, and limits each to what its token
permits: ports, protocols, tunnels, visitors, bytes per second, a time.

    tristunnel token create --name laptop --ports 9000-9010 --expires 30d
    tristunnel token list
    tristunnel token revoke laptop

Without a path, the file is the one of those commands, in the state directory.

A token is sent as {"token": TOKEN} in a client's handshake, as
Authorization: Bearer TOKEN over HTTP, or as the password of any name.

The file may change while the server runs. A revoked token ends the sessions
and tunnels that live on it within a second.
"""
    credentialInterfaces = (ITunnelCredentials,)

    def generateChecker(self, argstring: str) -> TokenFile:
        try:
            return TokenFile(argstring.strip() or defaultTokenFile())
        except TunnelError as error:
            raise InvalidAuthArgumentString(error.message) from None
