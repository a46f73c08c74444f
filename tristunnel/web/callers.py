"""
Who sent an HTTP request.
"""

from __future__ import annotations

import base64
import binascii

from twisted.internet.defer import Deferred
from twisted.web.server import Request

from tristunnel.auth.realm import Authenticator, Identity
from tristunnel.errors import TunnelError
from tristunnel.service import Caller

__all__ = ["HTTPCallers", "hostOf"]


def hostOf(request: Request) -> str:
    """
    The name by which the sender of a request knows this server.
    """
    header = request.getHeader(b"host") or b""
    text = header.decode("ascii", "replace")
    if text.startswith("["):
        host = text[1:].partition("]")[0]
    else:
        host = text.rpartition(":")[0] if ":" in text else text
    if host and len(host) < 256 and all(c.isalnum() or c in "-_.:" for c in host):
        return host
    return str(getattr(request.getHost(), "host", "localhost"))


class HTTPCallers:
    """
    Finds out who calls.

    @param authenticator: Checks what the C{Authorization} header says.
    """

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def __call__(self, request: Request) -> Deferred[Caller]:
        """
        @return: The caller.
        @raise TunnelError: C{auth-refused}, by the Deferred.
        """
        return Deferred.fromCoroutine(self._callerOf(request))

    async def _callerOf(self, request: Request) -> Caller:
        """
        Check the credentials of a request.
        """
        identity = await self._identify(request)
        return Caller(
            identity, hostOf(request), int(getattr(request.getHost(), "port", 0) or 0)
        )

    def _identify(self, request: Request) -> Deferred[Identity]:
        """
        Read the C{Authorization} header.
        """
        header = (request.getHeader(b"authorization") or b"").strip()
        scheme, _, rest = header.partition(b" ")
        peer = request.getClientAddress()
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
        return self._authenticator.authenticate({}, peer)
