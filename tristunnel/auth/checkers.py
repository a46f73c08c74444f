"""
Credentials checkers: joining several into one, and making one from an embedder's
function.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from twisted.cred.checkers import (
    ANONYMOUS,
    FilePasswordDB,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginFailed, Unauthorized, UnauthorizedLogin
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.reflect import qual
from zope.interface import implementer

from tristunnel.auth.credentials import ITunnelCredentials
from tristunnel.auth.files import readAtOnce
from tristunnel.errors import badOption
from tristunnel.model.permissions import RefusedWithReason
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.files import warnIfOpen
from tristunnel.util.log_limiter import LogRateLimiter

__all__ = [
    "SUPPORTED_INTERFACES",
    "CheckerChain",
    "ConnectionFilter",
    "ConnectionFilterChecker",
    "KeepsKeys",
    "checkingCallable",
]

SUPPORTED_INTERFACES = (ITunnelCredentials, IUsernamePassword)
"""The interfaces of credentials that a checker may take; also right for
C{AuthOptionMixin.supportedInterfaces}."""

FAILURES = 5
"""The most tracebacks in a minute of a broken checker."""


class KeepsKeys(Protocol):
    """
    A checker that may identify clients by public keys.

    @ivar takesKeys: Whether it has any.
    """

    @property
    def takesKeys(self) -> bool: ...

    def knowsKey(self, user: str, key: bytes) -> bool:
        """
        Whether a login with a key could succeed.

        @param user: The id beside it.
        @param key: The key in SSH's wire format; nobody has proved to have it yet.
        """

    def keysOf(self, user: str) -> list[bytes]:
        """
        Find the keys by which clients may be identified.

        @param user: Whose; empty for everybody's.
        """


_MARK = b"\xef\xbb\xbf"


class _PasswordFile(FilePasswordDB):
    """A file of names and passwords that may begin with a byte order mark."""

    def getUser(self, username: bytes) -> tuple[bytes, bytes]:
        try:
            return super().getUser(username)
        except KeyError:
            name, password = super().getUser(_MARK + username)
            return name.removeprefix(_MARK), password


def _mended(checker: ICredentialsChecker) -> ICredentialsChecker:
    """
    Mend two checkers of Twisted: C{memory:NAME:PASSWORD}, whose plugin stores names as
    text although usernames are bytes, so that it finds nobody; and C{file:PATH}, which
    takes a byte order mark for a part of the first name.

    @raise TunnelError: C{bad-option} for a file that admits nobody.
    """
    if type(checker) is FilePasswordDB:
        path = checker.filename
        try:
            status, _ = readAtOnce(path)
        except OSError:
            pass  # The plugin has said so, and it may come later.
        except ValueError as error:
            raise badOption(f"--auth file:{path} cannot be used: {error}") from error
        else:
            warnIfOpen(path, status.st_mode, "secrets")
        file = _PasswordFile(path)
        vars(file).update(vars(checker))
        return file
    if type(checker) is not InMemoryUsernamePasswordDatabaseDontUse:
        return checker
    # Declared as bytes, but the plugin does not keep to that.
    users: Mapping[Any, Any] = checker.users
    if not any(isinstance(name, str) for name in users):
        return checker
    mended = InMemoryUsernamePasswordDatabaseDontUse()
    for name, password in users.items():
        mended.addUser(
            name.encode("utf-8") if isinstance(name, str) else name,
            password.encode("utf-8") if isinstance(password, str) else password,
        )
    return mended


@implementer(ICredentialsChecker)
class CheckerChain:
    """
    Asks checkers in turn; the first that accepts decides the name.

    A C{Portal} alone keeps one checker for each interface and asks only one
    of them, so that a second C{--auth} would replace or be hidden by the
    first.
    """

    credentialInterfaces = (ITunnelCredentials,)
    _log = Logger()

    def __init__(self, checkers: Iterable[ICredentialsChecker]) -> None:
        """
        @param checkers: Checkers of L{SUPPORTED_INTERFACES}. With none, nobody
            is admitted.
        @raise TunnelError: C{bad-option} when a checker could never be asked.
        """
        self._failures = LogRateLimiter(time.monotonic)
        self._checkers = [_mended(checker) for checker in checkers]
        for checker in self._checkers:
            if not set(SUPPORTED_INTERFACES) & set(checker.credentialInterfaces):
                raise badOption(
                    f"the checker {qual(type(checker))} cannot check clients of a"
                    " tunnel; use one for names and passwords, such as clients:"
                    " or file:"
                )

    @returnsDeferred
    async def requestAvatarId(
        self, credentials: ITunnelCredentials
    ) -> bytes | tuple[()]:
        """
        Ask the checkers, one after the other.

        @return: fires with the first accepted avatar id; fails with
            C{UnauthorizedLogin} when there is none, or with the L{RefusedWithReason} of
            a checker that knows the secret. A checker that fails is logged and counts
            as a refusal.
        """
        known: RefusedWithReason | None = None
        for checker in self._checkers:
            wanted = checker.credentialInterfaces
            if not any(interface.providedBy(credentials) for interface in wanted):
                continue
            try:
                return await maybeDeferred(checker.requestAvatarId, credentials)
            except CancelledError:
                # The client has gone: the next checker has no one to answer.
                raise
            except RefusedWithReason as refusal:
                known = refusal
            except (LoginFailed, Unauthorized):
                continue
            except Exception:
                self._failed(qual(type(checker)), credentials)
        raise known or UnauthorizedLogin()

    # Public keys

    def _keepers(self) -> list[KeepsKeys]:
        found: list[Any] = list(self._checkers)
        return [each for each in found if getattr(each, "takesKeys", False)]

    @property
    def takesKeys(self) -> bool:
        """Whether one of them takes public keys."""
        return bool(self._keepers())

    def knowsKey(self, user: str, key: bytes) -> bool:
        """Whether one of them could accept this key."""
        return any(each.knowsKey(user, key) for each in self._keepers())

    def keysOf(self, user: str) -> list[bytes]:
        """The keys that they accept."""
        return [key for each in self._keepers() for key in each.keysOf(user)]

    @property
    def takesProofs(self) -> bool:
        """Whether one of them takes proofs of a secret."""
        found: list[Any] = list(self._checkers)
        return any(getattr(each, "takesProofs", False) for each in found)

    def _failed(self, checker: str, credentials: ITunnelCredentials) -> None:
        """
        Log that a checker is broken, at a limited rate, since anybody can cause it.
        """
        self._failures.log(
            (checker,),
            lambda: self._log.failure(
                "The checker {checker} failed for {credentials!r}; that counts"
                " as a refusal",
                checker=checker,
                credentials=credentials,
            ),
            lambda count, seconds: self._log.error(
                "The checker {checker} failed {count} times more in {seconds:.0f} s",
                checker=checker,
                count=count,
                seconds=seconds,
            ),
            FAILURES,
        )


ConnectionFilter = Callable[[Mapping[str, object]], "bool | Deferred[bool]"]
"""A function that gets the fields of the credentials and returns whether to admit the
client. A coroutine function is fine too."""


@implementer(ICredentialsChecker)
class ConnectionFilterChecker:
    """
    Admits the clients that a function accepts.

    The function vouches for the whole object, so the C{id} in it becomes the
    client's name; a client that it admits without an C{id} stays anonymous.
    """

    credentialInterfaces = (ITunnelCredentials,)

    def __init__(self, connectionFilter: ConnectionFilter) -> None:
        self._connectionFilter = connectionFilter

    @returnsDeferred
    async def requestAvatarId(
        self, credentials: ITunnelCredentials
    ) -> bytes | tuple[()]:
        """
        Ask the function.

        @return: fires with the C{id} or C{ANONYMOUS}; fails with
            C{UnauthorizedLogin} for a no, with what the function raised, or
            with C{TypeError} when its answer is neither yes nor no.
        """
        answer = await maybeDeferred(self._connectionFilter, credentials.fields)
        if answer is True:
            # Every ITunnelCredentials of ours is a username as well.
            name: bytes = getattr(credentials, "username", b"")
            return name or ANONYMOUS
        if answer is False or answer is None:
            raise UnauthorizedLogin()
        # Other values that happen to be true (an un-awaited future, say) must not admit
        # anybody.
        raise TypeError(
            f"a connection filter returns True or False, not {type(answer).__name__}"
        )


def checkingCallable(connectionFilter: ConnectionFilter) -> ICredentialsChecker:
    """
    Make a checker from a function, for example C{lambda fields: fields.get("id") ==
    "allowed-client"}.

    @param connectionFilter: See L{ConnectionFilter}.
    """
    return ConnectionFilterChecker(connectionFilter)
