"""An embedder's own function as a credentials checker."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from twisted.cred.checkers import ANONYMOUS, ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, maybeDeferred
from zope.interface import implementer

from tristunnel.auth.credentials import ITunnelCredentials

__all__ = ["ConnectionFilter", "ConnectionFilterChecker", "checkingCallable"]

ConnectionFilter = Callable[[Mapping[str, object]], "bool | Deferred[bool]"]
"""
A function that gets the fields of the credentials and says yes or no. A
coroutine function is fine too.
"""


@implementer(ICredentialsChecker)
class ConnectionFilterChecker:
    """
    Admits the clients that a function says yes to.

    The function vouches for the whole object, so the C{id} in it becomes the
    client's name; a client that it admits without an C{id} stays anonymous.
    """

    credentialInterfaces = (ITunnelCredentials,)

    def __init__(self, connectionFilter: ConnectionFilter) -> None:
        self._connectionFilter = connectionFilter

    def requestAvatarId(
        self, credentials: ITunnelCredentials
    ) -> Deferred[bytes | tuple[()]]:
        """
        Ask the function.

        @return: fires with the C{id} or C{ANONYMOUS}; fails with
            C{UnauthorizedLogin} for a no, with what the function raised, or
            with C{TypeError} when its answer is neither yes nor no.
        """
        return Deferred.fromCoroutine(self._ask(credentials))

    async def _ask(self, credentials: ITunnelCredentials) -> bytes | tuple[()]:
        answer = await maybeDeferred(self._connectionFilter, credentials.fields)
        if answer is True:
            # Every ITunnelCredentials of ours is a username as well.
            name: bytes = getattr(credentials, "username", b"")
            return name or ANONYMOUS
        if answer is False or answer is None:
            raise UnauthorizedLogin()
        # Whatever else is true by accident (an un-awaited future, say) must
        # not open the door.
        raise TypeError(
            f"a connection filter returns True or False, not {type(answer).__name__}"
        )


def checkingCallable(connectionFilter: ConnectionFilter) -> ICredentialsChecker:
    """
    Make a checker of a function, for example
    C{lambda fields: fields.get("id") == "allowed-client"}.

    @param connectionFilter: See L{ConnectionFilter}.
    """
    return ConnectionFilterChecker(connectionFilter)
