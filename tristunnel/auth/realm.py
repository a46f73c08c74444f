"""The identities of clients whose credentials were checked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from twisted.cred.checkers import ANONYMOUS, ICredentialsChecker
from twisted.cred.error import (
    LoginDenied,
    LoginFailed,
    Unauthorized,
    UnhandledCredentials,
)
from twisted.cred.portal import IRealm, Portal
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from zope.interface import Interface, implementer

from tristunnel.auth.checkers import CheckerChain, KeepsKeys
from tristunnel.auth.credentials import TunnelCredentials, nameProblem
from tristunnel.errors import TunnelError
from tristunnel.model.decisions import Decisions
from tristunnel.model.permissions import (
    ANONYMOUS_IDENTITY,
    GrantedName,
    Identity,
    IIdentity,
    RefusedWithReason,
)
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.log_limiter import LogRateLimiter

__all__ = ["Authenticator", "TunnelRealm", "portalFor"]

REFUSALS = 20
"""The refused clients of each kind in a minute that get a line of their own in the
log."""


def _logout() -> None:
    pass


@implementer(IRealm)
class TunnelRealm:
    """Makes an L{Identity} from an avatar id."""

    def requestAvatar(
        self, avatarId: bytes | tuple[()], mind: object, *interfaces: type[Interface]
    ) -> tuple[type[Interface], object, Callable[[], None]]:
        """
        @param avatarId: What the checker answered; a L{GrantedName} limits
            what the identity may do. Text is taken as well, because C{unix}
            of C{twisted.cred} answers with text.
        @param mind: Not used.
        @param interfaces: Must have L{IIdentity}.
        @return: C{(IIdentity, Identity, logout)}.
        @raise NotImplementedError: when another interface is asked for.
        @raise LoginDenied: when the id cannot be a name.
        @raise TypeError: when the checker answered with something else, such
            as C{None}.
        """
        if IIdentity not in interfaces:
            raise NotImplementedError("the tunnel realm has only IIdentity")
        if avatarId == ANONYMOUS:
            return IIdentity, ANONYMOUS_IDENTITY, _logout
        grant = avatarId.grant if isinstance(avatarId, GrantedName) else None
        return IIdentity, Identity(self._nameOf(avatarId), grant=grant), _logout

    @staticmethod
    def _nameOf(avatarId: object) -> str:
        if isinstance(avatarId, bytes):
            try:
                name = avatarId.decode("utf-8")
            except UnicodeDecodeError:
                raise LoginDenied("the name is not UTF-8") from None
        elif isinstance(avatarId, str):
            name = avatarId
        else:
            raise TypeError(f"an avatar id is bytes, not {type(avatarId).__name__}")
        problem = nameProblem(name)
        if problem is not None:
            raise LoginDenied(problem)
        return name


def portalFor(checkers: Iterable[ICredentialsChecker]) -> Portal:
    """
    Make a portal that admits those whom one of the checkers admits.

    @param checkers: For example the C{credCheckers} of C{AuthOptionMixin}.
        With none the portal admits nobody; to admit everybody, give
        L{Authenticator} no portal.
    @raise TunnelError: C{bad-option} when a checker is of no use here.
    """
    return Portal(TunnelRealm(), [CheckerChain(checkers)])


def _text(data: bytes) -> str:
    """
    Read what a browser sent: UTF-8 as RFC 7617 asks for, or else Latin-1,
    which is what older programs send.
    """
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


class Authenticator:
    """
    The one question that every dialect and page asks: who is this?

    @ivar decisions: Others who decide, too, or C{None}.
    """

    _log = Logger()

    def __init__(self, portal: Portal | None = None) -> None:
        """
        @param portal: Where to ask, usually from L{portalFor}; its realm makes
            L{Identity} avatars. C{None} admits everybody as anonymous.
        """
        self.decisions: Decisions | None = None
        self._portal = portal
        self._refusals = LogRateLimiter(time.monotonic)

    def askAt(self, portal: Portal) -> None:
        """Ask another portal from the next login on."""
        self._portal = portal

    @property
    def admitsAnybody(self) -> bool:
        """Whether nobody has to log in."""
        return self._portal is None

    @property
    def takesKeys(self) -> bool:
        """Whether public keys are accepted."""
        return bool(self._keepers())

    def knowsKey(self, user: str, key: bytes) -> bool:
        """
        Whether a login with a public key could succeed.

        @param user: The id beside it.
        @param key: The key in SSH's wire format; nobody has proved to have it yet.
        """
        return any(each.knowsKey(user, key) for each in self._keepers())

    def keysOf(self, user: str = "") -> list[bytes]:
        """
        Find the public keys by which clients may be identified.

        @param user: The name; empty for everybody's.
        """
        return [key for each in self._keepers() for key in each.keysOf(user)]

    def _keepers(self) -> list[KeepsKeys]:
        return [each for each in self._checkers() if getattr(each, "takesKeys", False)]

    @property
    def takesProofs(self) -> bool:
        """Whether proofs of a secret are accepted."""
        return any(getattr(each, "takesProofs", False) for each in self._checkers())

    def _checkers(self) -> list[Any]:
        checkers = {} if self._portal is None else self._portal.checkers
        return list({id(each): each for each in checkers.values()}.values())

    @returnsDeferred
    async def authenticate(
        self,
        fields: Mapping[str, object],
        peer: IAddress | None = None,
        certificate: str = "",
        key: bytes = b"",
        proves: Callable[[bytes], bool] | None = None,
    ) -> Identity:
        """
        Check what a client sent in its handshake.

        @param fields: The JSON object, with or without the protocol's own key.
        @param peer: Where the client connects from.
        @param certificate: The name in the certificate that the client has
            shown, or empty.
        @param key: The public key that the client has proved to have, in SSH's wire
            format, or empty.
        @param proves: Tells whether the client has proved to have the secret of a
            SHA-256; C{None} if it has proved nothing.
        @return: fires with the L{Identity}; without a portal that is the
            certificate's, or L{ANONYMOUS_IDENTITY}, whatever id the client
            claims. Fails with
            L{TunnelError} C{auth-refused}, which does not tell why (the log
            does), or C{token-expired} or C{token-revoked} for whoever has the
            token; cancelling it fails with C{CancelledError}.
        """
        identity = await self._identify(fields, peer, certificate, key, proves)
        if self.decisions is not None:
            await self.decisions.login(identity, peer)
        return identity

    async def _identify(
        self,
        fields: Mapping[str, object],
        peer: IAddress | None,
        certificate: str,
        key: bytes,
        proves: Callable[[bytes], bool] | None,
    ) -> Identity:
        if self._portal is None:
            return Identity(certificate) if certificate else ANONYMOUS_IDENTITY
        credentials: TunnelCredentials | None = None
        try:
            credentials = TunnelCredentials(fields, peer, certificate, key, proves)
            _, avatar, _ = await self._portal.login(credentials, None, IIdentity)
            if isinstance(avatar, Identity):
                return avatar
            raise TypeError(f"the realm made a {type(avatar)}, not an Identity")
        except CancelledError:
            raise
        except UnhandledCredentials as error:
            self._refused(
                self._log.error,
                credentials,
                peer,
                f"no checker of the portal can check clients ({error})",
            )
        except (LoginFailed, Unauthorized) as error:
            if isinstance(error, RefusedWithReason):
                raise error.reason from None
            why = str(error) or "not accepted"
            self._refused(self._log.info, credentials, peer, why)
        except Exception:
            self._refused(self._log.failure, credentials, peer, "checking failed")
        raise TunnelError("auth-refused", "the server did not accept these credentials")

    def authenticateBasic(
        self, user: bytes, password: bytes, peer: IAddress | None = None
    ) -> Deferred[Identity]:
        """
        Check a name and a password of HTTP's Basic scheme.

        @param user: The part before the colon.
        @param password: The part after it.
        @return: See L{authenticate}.
        """
        fields = {"id": _text(user), "secret": _text(password)}
        return self.authenticate(fields, peer)

    def authenticateBearer(
        self, token: str, peer: IAddress | None = None
    ) -> Deferred[Identity]:
        """
        Check a token of HTTP's Bearer scheme.

        @param token: What follows the word C{Bearer}.
        @return: See L{authenticate}.
        """
        return self.authenticate({"token": token}, peer)

    def _refused(
        self, log: Callable[..., None], credentials: object, peer: object, why: str
    ) -> None:
        """
        Log why a client is refused, which it is not told itself; if there are many,
        only the first ones.
        """
        self._refusals.log(
            (log.__name__,),
            lambda: log(
                "Refused {credentials!r} from {peer}: {reason}",
                credentials=credentials,
                peer=peer,
                reason=why,
            ),
            lambda count, seconds: self._log.warn(
                "{count} more clients were refused in {seconds:.0f} s, the last one was"
                " {credentials!r} from {peer}: {reason}",
                count=count,
                seconds=seconds,
                credentials=credentials,
                peer=peer,
                reason=why,
            ),
            REFUSALS,
        )
