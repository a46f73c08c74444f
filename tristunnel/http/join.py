"""
C{POST /join}: an invitation's code for a token of one's own.

The code comes in a header, so that no body is read from unauthenticated senders; and
everything wrong counts as a failed login.
"""

from __future__ import annotations

import json
import re
from typing import Any

from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import Request

from tristunnel.errors import TunnelError
from tristunnel.http.callers import HTTPCallers
from tristunnel.http.forwarded import Forwarded
from tristunnel.http.plain import errorText, refusalOf
from tristunnel.http.resource import answerWith
from tristunnel.http.site import requestKnown
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.wire.invitation import readCode

__all__ = ["SCHEME", "JoinPage"]

SCHEME = "Invitation"
"""The scheme of C{Authorization}, before the code."""

_NONCE = re.compile(r"[A-Za-z0-9_-]{22,64}\Z")
_TOLD = frozenset(
    (
        "cluster-away",
        "invitation-expired",
        "invitation-unknown",
        "invitation-used",
        "limit-reached",
        "not-permitted",
        "token-revoked",
    )
)
_log = Logger()


class JoinPage(Resource):
    """
    Gives tokens for invitations.

    @param service: Its invitations.
    @param callers: Slows down those who guess.
    @param forwarded: The proxies that may have spoken TLS for us.
    """

    isLeaf = True

    def __init__(
        self, service: TunnelService, callers: HTTPCallers, forwarded: Forwarded
    ) -> None:
        super().__init__()
        self._service, self._callers = service, callers
        self._forwarded = forwarded

    def render(self, request: Request) -> bytes | int:
        if request.method != b"POST":
            request.setHeader("Allow", "POST")
            return errorText(request, 405, "Invitations are taken up by POST.")
        return answerWith(request, self._answer(request), "POST /join failed")

    async def _answer(self, request: Request) -> bytes:
        peer: Any = self._forwarded.peer(request)
        try:
            self._callers.check(peer)
            answer = await self._join(request)
        except TunnelError as refusal:
            self._service.observer.authenticationFailed(peer, refusal)
            if refusal.code.name.startswith(("invitation-", "token-")):
                self._callers.loginFailed(peer)
            status, headers = refusalOf(refusal, (SCHEME,))
            for name, value in headers:
                request.setHeader(name, value)
            request.setResponseCode(status)
            answer = refusal.asDict()
        request.setHeader("Content-Type", "application/json")
        request.setHeader("Cache-Control", "no-store")
        request.setHeader("X-Content-Type-Options", "nosniff")
        return json.dumps(answer).encode() + b"\n"

    async def _join(self, request: Request) -> dict[str, object]:
        if not self._forwarded.isSecure(request):
            raise TunnelError(
                "not-permitted", "invitations are taken up over TLS, nothing else"
            )
        scheme, _, code = _header(request, b"authorization").partition(" ")
        nonce = _header(request, b"idempotency-key")
        code = readCode(code.strip()) if scheme.lower() == SCHEME.lower() else ""
        if not code or not _NONCE.match(nonce):
            raise TunnelError(
                "invitation-unknown",
                f"the request needs Authorization: {SCHEME} CODE, and an"
                " Idempotency-Key of 22 to 64 letters, digits, - and _",
            )
        try:
            made, token = await self._service.invitations.join(code, nonce)
        except TunnelError as refusal:
            if refusal.code.name in _TOLD:
                raise
            _log.error("An invitation could not be taken up: {why}", why=refusal)
            raise TunnelError("internal") from None
        requestKnown(request)
        _log.info("{name} has taken up its invitation", name=made.name)
        answer: dict[str, object] = {"name": made.name, "token": token}
        if made.permissions.ports is not None:
            answer["ports"] = str(made.permissions.ports)
        return answer


def _header(request: Request, name: bytes) -> str:
    # Bytes: asked for text, Twisted would fail for what is no UTF-8.
    return (request.getHeader(name) or b"").decode("latin-1").strip()
