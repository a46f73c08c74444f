"""
Who may look at our pages with a browser, and whose forms are taken.

A browser sends a password along with whatever a page of another site has it
post. So a form needs a token that only our own page can know, made from a
cookie that browsers do not send for pages of other sites.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING

from twisted.web.server import Request

from tristunnel.http.callers import hostOf
from tristunnel.http.origin import OriginRule

if TYPE_CHECKING:
    from tristunnel.service.tunnel_service import Caller

__all__ = ["COOKIE", "Guard"]

COOKIE = b"tristunnel_form"


class Guard:
    """
    Judges requests of browsers.

    @param asked: Whether callers are asked who they are. If not, whoever
        reaches the server may do everything, and so might a page whose own
        name was made to lead to this server; then only addresses and C{names}
        are good names for it.
    @param names: The names of this server, or C{None} if nobody said.
    """

    def __init__(self, asked: bool, names: Collection[str] | None = None) -> None:
        self._asked = asked
        self._names = list(names or ())
        self._key = secrets.token_bytes(32)

    def objectionToReading(self, request: Request) -> str | None:
        """
        What is wrong with a request for a page.

        @return: One line, or C{None}.
        """
        host = hostOf(request)
        if self._asked or self._isOurs(host):
            return None
        return (
            f"This server asks nobody who they are, and is not known as {host}: use"
            " its address, or start it with --hostname or with --auth."
        )

    def objectionToActing(self, request: Request) -> str | None:
        """
        What is wrong with the outside of a posted form, or of a request that
        only our own page makes.

        @return: One line, or C{None}.
        """
        # With a password, another site's name is of no use to anybody.
        names = [hostOf(request)] if self._asked else self._names
        return OriginRule(names).objection(request)

    def _isOurs(self, host: str) -> bool:
        host = host.lower().removesuffix(".")
        if host == "localhost" or host in map(str.lower, self._names):
            return True
        try:
            ip_address(host.partition("%")[0])
        except ValueError:
            return False
        return True

    def formToken(self, request: Request, caller: Caller) -> str:
        """
        Make a token for a form, and see to it that there is a cookie.
        """
        cookie = self._cookie(request)
        if not cookie:
            cookie = secrets.token_urlsafe(24).encode("ascii")
            request.addCookie(
                COOKIE,
                cookie,
                httpOnly=True,
                secure=caller.secure,
                sameSite="strict",
            )
        return self._sign(cookie, caller)

    def isGoodToken(self, request: Request, caller: Caller, token: str) -> bool:
        """
        Whether a form has the token that its page was given.
        """
        cookie = self._cookie(request)
        good = self._sign(cookie, caller).encode("ascii")
        return bool(cookie) and hmac.compare_digest(good, token.encode("utf-8"))

    def _cookie(self, request: Request) -> bytes:
        cookie: bytes = request.getCookie(COOKIE) or b""
        return cookie if 16 <= len(cookie) <= 64 else b""

    def _sign(self, cookie: bytes, caller: Caller) -> str:
        who = f"{caller.identity.anonymous}:{caller.identity.name}"
        text = cookie + b"|" + who.encode("utf-8", "replace")
        return hmac.new(self._key, text, sha256).hexdigest()
