"""C{--auth tokens:PATH}: a file of tokens and what each of them permits."""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterable
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
from tristunnel.auth.files import FollowedFile
from tristunnel.auth.token_store import TokenStore
from tristunnel.auth.tokens_format import Token, TokenList, formatTime
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Grant, GrantedName, RefusedWithReason
from tristunnel.util.files import defaultStateDirectory
from tristunnel.util.words import plural

__all__ = ["LOOK_INTERVAL", "TokenCheckerFactory", "TokenFile", "defaultTokenFile"]

LOOK_INTERVAL = 1.0
"""Seconds between two checks of the file while its tokens are in use."""

_SOONEST = 0.001


def defaultTokenFile() -> str:
    """The default file of tokens."""
    return str(defaultStateDirectory() / "tokens")


def _tokenOf(credentials: ITunnelCredentials) -> bytes:
    """The token that a client sent: alone, or as the password of any id."""
    sent = credentials.fields.get("token")
    if isinstance(sent, str):
        return sent.encode("utf-8", "surrogatepass")
    return TunnelCredentials(credentials.fields, credentials.peer).password


def _over(code: str, what: str, when: float) -> RefusedWithReason:
    """The refusal for a token that is no longer valid."""
    at = formatTime(when).replace("T", " ")[:-4]
    return RefusedWithReason(TunnelError(code, f"the token {what} at {at} UTC"))


@implementer(ICredentialsChecker)
class TokenFile:
    """
    Admits whoever has a token of a file, and follows the changes of that
    file: at each login and each use, and every second while one of its tokens
    is in use.

    A token that the file calls revoked is over at once. One whose line is gone
    or broken is over when the file has been the same for a second, so that an
    editor that writes in two steps ends nobody's session.

    @ivar loads: The number of times the file was read.

    @see: L{tristunnel.auth.tokens_format} for the content of the file.
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
        @param clock: Times the checks; the reactor by default.
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
        self.loads = 0
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
        @return: fires with a L{GrantedName}; fails with C{UnauthorizedLogin}, or with
            L{RefusedWithReason} for a token that has ended.
        """
        self.follow()
        token = self._tokens.byKey.get(credentials.key)
        if token is None and credentials.proves is not None:
            token = self._tokens.proved(credentials.proves)
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

    takesProofs = True

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
        Take up an invitation, as L{TokenStore.join}. An unknown code costs no look at
        the file.
        """
        self.invited(code)
        joined = self.store.join(code, nonce)
        self.follow()
        return joined

    def invited(self, code: str) -> Token:
        """
        Find the token that an invitation is for.

        @raise TunnelError: C{invitation-unknown}.
        """
        self.follow()
        found = self._tokens.invited(code.encode())
        if found is None:
            raise TunnelError("invitation-unknown")
        return found

    # For operators

    def tokens(self) -> list[Token]:
        """The file's entries for tokens, in its order."""
        return list(self._tokens.byName.values())

    def holdersOf(self, patterns: Iterable[str]) -> set[str]:
        """
        Find the tokens that reserve hosts.

        @param patterns: Of the hosts, as
            L{patternsFor<tristunnel.model.names.patternsFor>} returns them.
        @return: The names of those that are valid.
        """
        now = self._now()
        return {
            token.name
            for pattern in patterns
            for token in self._tokens.byHost.get(pattern, ())
            if (token.permissions.expires or now + 1) > now
        }

    @property
    def isWhole(self) -> bool:
        """
        Whether a missing line was removed on purpose: nobody is writing the file, and
        no other line is broken.
        """
        isQuiet = abs(self._now() - self._changed) >= LOOK_INTERVAL
        return isQuiet and not self._tokens.problemCount

    @property
    def path(self) -> str:
        """The file."""
        return str(self._path)

    @property
    def store(self) -> TokenStore:
        """The same file, for changes, which L{follow} puts in force."""
        return TokenStore(self._path, self._now)

    def revoke(self, name: str) -> None:
        """
        Revoke a token in the file, and end everything that depends on it at once.

        @raise TunnelError: C{bad-option}, if there is none of that name, or if
            the file cannot be written.
        """
        self.store.revoke(name)
        self.follow()

    # Following the file

    def follow(self) -> None:
        """
        Read the file again if it has changed. If it cannot be read, the last good
        content stays in force, and this is logged once.
        """
        self._file.follow()
        # Also if the clock was set back in the meantime.
        if self._missing and abs(self._now() - self._changed) >= LOOK_INTERVAL:
            self._endMissing()

    def _load(self, status: os.stat_result, data: bytes) -> None:
        self.loads += 1
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
        """Check again in a while, or when the next token in use expires."""
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
