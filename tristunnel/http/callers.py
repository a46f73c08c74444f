"""
Who sent an HTTP request.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IAddress
from twisted.web.server import Request

from tristunnel.auth.certificate import certificateName
from tristunnel.auth.realm import Authenticator
from tristunnel.errors import TunnelError
from tristunnel.http.forwarded import Forwarded
from tristunnel.http.site import LimitedChannel, requestKnown
from tristunnel.model.permissions import Identity
from tristunnel.service.caller import Caller
from tristunnel.service.preauth import PendingConnection, PreauthLimiter, sourceOf
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.hosts import hostSaid

__all__ = ["HTTPCallers", "hostOf", "portOf", "uncounted"]


def hostOf(request: Request) -> str:
    """Find the name by which the sender of a request knows this server."""
    text = (request.getHeader(b"host") or b"").decode("utf-8", "replace")
    host = text if text.endswith("]") else text.rpartition(":")[0] or text
    return hostSaid(host) or str(getattr(request.getHost(), "host", "localhost"))


def portOf(request: Request, secure: bool) -> int:
    """
    Find the port by which the sender of a request reaches this server, which may be a
    proxy's.
    """
    header = (request.getHeader(b"host") or b"").decode("ascii", "replace")
    port = header.rpartition("]")[2].rpartition(":")[2] if ":" in header else ""
    if port.isdecimal() and 0 < int(port) < 65536:
        return int(port)
    if header:
        return 443 if secure else 80
    return int(getattr(request.getHost(), "port", 0) or 0)


def uncounted() -> PendingConnection:
    """Make a pending connection where unauthenticated connections are not counted."""
    return PendingConnection(PreauthLimiter(lambda: 0.0), "")


class HTTPCallers:
    """
    Finds out who calls.

    @param authenticator: Checks what the C{Authorization} header says.
    @param forwarded: Whom proxies speak for.
    @param limiter: Slows down those whose logins fail.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        forwarded: Forwarded | None = None,
        limiter: PreauthLimiter | None = None,
    ) -> None:
        self._limiter = limiter
        self._authenticator = authenticator
        self._forwarded = forwarded or Forwarded()

    @returnsDeferred
    async def __call__(self, request: Request, token: bytes = b"") -> Caller:
        """
        Find out who sent a request.

        @param token: What counts where it has no header; empty for nothing.
        @raise TunnelError: C{auth-refused}, by the Deferred.
        """
        caller = getattr(request, "sender", None)
        if not isinstance(caller, Caller):
            caller = await self._callerOf(request, token)
        requestKnown(request, not caller.identity.anonymous)
        return caller

    @returnsDeferred
    async def admit(self, request: Request) -> Caller:
        """The same for a request whose body has not come yet."""
        caller = await self._callerOf(request)
        if isinstance(request.channel, LimitedChannel):
            request.channel.isKnown = not caller.identity.anonymous
        return caller

    def withQuery(self, request: Request) -> Deferred[Caller]:
        """
        The same for programs that can send a URL but no header: without an
        C{Authorization} header, C{?token=} in the URL is a bearer's token.
        """
        return self(request, (request.args or {}).get(b"token", [b""])[-1])

    async def _callerOf(self, request: Request, token: bytes = b"") -> Caller:
        header = (request.getHeader(b"authorization") or b"").strip()
        if not header and token:
            header = b"Bearer " + token
        peer = self._forwarded.peer(request)
        self.check(peer)
        try:
            identity = await self.identify(
                header, peer, "" if header else self._certificateOf(request)
            )
        except TunnelError as refusal:
            wrong = bool(header) and refusal.code.name == "auth-refused"
            if wrong:
                self.loginFailed(peer)
            raise
        return self.describe(request, identity)

    def check(self, peer: IAddress | None) -> None:
        """@raise TunnelError: C{limit-reached}, if an address has to wait."""
        if self._limiter is not None:
            self._limiter.check(peer)

    def loginFailed(self, peer: IAddress | None) -> None:
        """Count a failed login from an address."""
        if self._limiter is not None:
            self._limiter.loginFailed(peer)

    def expect(self, awaited: Callable[[str], int]) -> None:
        """
        Let connections in that somebody who is known awaits.

        @param awaited: Tells how many may come at once from an address.
        """
        if self._limiter is not None:
            self._limiter.awaited.append(awaited)

    def newcomer(self, request: Request) -> PendingConnection:
        """
        Count somebody who will say who it is, or where it belongs, in messages instead
        of the request.

        @return: To be told when that is done, or when it was wrong.
        @raise TunnelError: C{limit-reached}, if there are too many, or if the
            address has to wait since its logins failed.
        """
        requestKnown(request, False)
        if self._limiter is None:
            return uncounted()
        return self._limiter.enter(self._forwarded.peer(request))

    def describe(self, request: Request, identity: Identity) -> Caller:
        """Describe the caller with an identity, and how it reached this server."""
        secure = self._forwarded.isSecure(request)
        return Caller(
            identity,
            hostOf(request),
            portOf(request, secure),
            address=sourceOf(self._forwarded.peer(request)),
            secure=secure,
            certificate=self._certificateOf(request),
        )

    def _certificateOf(self, request: Request) -> str:
        """
        Find the name in the certificate that the sender of a request has shown; a
        proxy's does not count.
        """
        if self._forwarded.isByProxy(request):
            return ""
        return certificateName(getattr(request.channel, "transport", None))

    def identify(
        self, header: bytes, peer: IAddress | None, certificate: str = ""
    ) -> Deferred[Identity]:
        """
        Find out who an C{Authorization} header is from.

        @param header: Its value; empty if there is none.
        @param certificate: The name in the certificate that was shown; empty for none.
        @return: The identity.
        @raise TunnelError: C{auth-refused}, also by the Deferred.
        """
        scheme, _, rest = header.partition(b" ")
        if scheme.lower() == b"bearer":
            token = rest.strip().decode("utf-8", "replace")
            return self._authenticator.authenticateBearer(token, peer)
        if scheme.lower() == b"basic":
            try:
                pair = base64.b64decode(rest.strip(), validate=True)
            except binascii.Error:
                raise TunnelError("auth-refused") from None
            user, _, password = pair.partition(b":")
            return self._authenticator.authenticateBasic(user, password, peer)
        return self._authenticator.authenticate({}, peer, certificate)
