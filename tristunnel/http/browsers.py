"""
What web browsers may do here.

A browser sends a password along with whatever a page of another site has it post; and
any page that somebody looks at could use a server that the browser can reach and the
page's author cannot. There are two attacks. I{Cross-site posts}: the page posts a form
to us; the browser then names the page in C{Origin}, C{Sec-Fetch-Site} or C{Referer}.
I{DNS rebinding}: the page's own host name is made to resolve to our address, so that
the browser takes us for the page's origin; then C{Host} is a name that is not ours.
Programs other than browsers send none of the first three.

A form of ours also needs a token that only our own page can know, made from a cookie
that browsers do not send for pages of other sites. Tunnels' names may lie below the
server's own, which makes their pages pages of the same site: over TLS the cookie has a
C{__Host-} name, so that they cannot set it either (RFC 6265bis, section 4.1.3.2).
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import Callable, Collection
from functools import partial
from hashlib import sha256
from ipaddress import ip_address
from typing import TYPE_CHECKING

from twisted.web.server import Request

from tristunnel.http.callers import hostOf
from tristunnel.util.hosts import hostName

if TYPE_CHECKING:
    from tristunnel.service.caller import Caller

__all__ = ["COOKIE", "Guard", "OriginRule"]

COOKIE = b"tristunnel_form"
"""The name of the cookie; over TLS C{__Host-} is put before it."""

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?\Z")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def _parseAuthority(text: str) -> tuple[str, int | None] | None:
    match = _AUTHORITY.match(text)
    if match is None:
        return None
    host, port = match.groups()
    return _canonical(host.strip("[]")), None if port is None else int(port)


def _canonical(host: str) -> str:
    try:
        return hostName(host).removesuffix(".")
    except ValueError:
        # Nobody can have this name, while a name of this machine may be used.
        return host.lower()


def _isLiteral(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return True


def _values(request: Request, name: str) -> list[str]:
    values = request.requestHeaders.getRawHeaders(name.encode("ascii"), [])
    return [value.decode("latin-1").strip() for value in values]


class OriginRule:
    """
    Tells requests that come from other sites' pages from all others.

    @param hostnames: The names under which this server is known. If it is C{None},
        programs may use any name, but browsers only IP addresses and C{localhost}.
    """

    def __init__(self, hostnames: Collection[str] | None = None) -> None:
        self._hostnames = (
            None if hostnames is None else frozenset(map(_canonical, hostnames))
        )

    def objection(self, request: Request) -> str | None:
        """
        Say what is wrong with a request.

        @return: One line, or C{None} if nothing is.
        """
        # Only for requests that say where they come from, it matters whether they came
        # over TLS.
        return self.objectionTo(
            partial(_values, request), lambda: bool(request.isSecure())
        )

    def objectionTo(
        self, values: Callable[[str], list[str]], isSecure: Callable[[], bool]
    ) -> str | None:
        """
        The same for a request of any kind.

        @param values: Finds the values of its headers of a name.
        @param isSecure: Whether it came over TLS.
        """
        for site in values("Sec-Fetch-Site"):
            if site not in ("same-origin", "none"):
                return "A page from another site may not call this server."
        hosts = values("Host")
        if len(hosts) > 1:
            return "More than one Host header."
        ours = None
        if hosts and hosts[0]:
            ours = _parseAuthority(hosts[0])
            if ours is None:
                return "The Host header is not a host name with an optional port."
        # Old browsers post forms without Origin, but with a Referer.
        pages = values("Origin") or values("Referer")
        if ours is not None and (pages or self._hostnames is not None):
            host = ours[0]
            if not (_isLiteral(host) or host in (self._hostnames or ())):
                return (
                    f"This server is not known as {host}: use its address, or"
                    " one of the names it was configured with."
                )
        for page in pages:
            if ours is None or not self._sameOrigin(page, *ours, isSecure()):
                return "A page from another site may not call this server."
        return None

    @staticmethod
    def _sameOrigin(page: str, host: str, port: int | None, secure: bool) -> bool:
        match = _URL.match(page)
        if match is None:
            return False  # Among others "null".
        origin = _parseAuthority(match[2])
        scheme = match[1].lower()
        default = _DEFAULT_PORTS.get(scheme)
        if origin is None or default is None:
            return False
        if secure and scheme != "https":
            # Such a page may have been changed by anybody on its way. The opposite does
            # no harm: something in front of us may have removed the TLS without saying
            # so.
            return False
        theirs = default if origin[1] is None else origin[1]
        return (origin[0], theirs) == (host, default if port is None else port)


def _cookieName(caller: Caller) -> bytes:
    return b"__Host-" + COOKIE if caller.secure else COOKIE


class Guard:
    """
    Judges who may look at our pages with a browser, and whose forms are accepted.

    @param asked: Whether callers are asked who they are. If not, whoever reaches the
        server may do everything, and so might a page whose own name was made to lead
        to this server; then only addresses and C{names} are good names for it.
    @param names: The names of this server, or C{None} if they are not known.
    @param key: Signs forms; the same in all processes of the server. Empty for one of
        its own.
    """

    def __init__(
        self, asked: bool, names: Collection[str] | None = None, key: bytes = b""
    ) -> None:
        self._asked = asked
        self._names = list(names or ())
        self._key = key or secrets.token_bytes(32)

    def objectionToReading(self, request: Request) -> str | None:
        """
        Say what is wrong with a request for a page.

        @return: One line, or C{None}.
        """
        host = hostOf(request)
        bare = host.lower().removesuffix(".")
        if self._asked or _isLiteral(bare) or bare in map(str.lower, self._names):
            return None
        return (
            f"This server has no login, and is not known as {host}: use"
            " its address, or start it with --hostname or with --auth."
        )

    def objectionToActing(self, request: Request) -> str | None:
        """
        Say what is wrong with the headers of a posted form, or of a request that only
        our own page makes.

        @return: One line, or C{None}.
        """
        # With a password, another site's name does not help an attacker.
        names = [hostOf(request)] if self._asked else self._names
        return OriginRule(names).objection(request)

    def formToken(self, request: Request, caller: Caller) -> str:
        """Make the token of a form, and the cookie that belongs to it."""
        cookie = self._cookie(request, caller)
        if not cookie:
            cookie = secrets.token_urlsafe(24).encode("ascii")
            request.addCookie(
                _cookieName(caller),
                cookie,
                path=b"/",
                httpOnly=True,
                secure=caller.secure,
                sameSite="strict",
            )
        return self._sign(cookie, caller)

    def isGoodToken(self, request: Request, caller: Caller, token: str) -> bool:
        """Whether a posted form is one that we made for this caller."""
        cookie = self._cookie(request, caller)
        good = self._sign(cookie, caller).encode("ascii")
        return bool(cookie) and hmac.compare_digest(good, token.encode("utf-8"))

    def _cookie(self, request: Request, caller: Caller) -> bytes:
        cookie: bytes = request.getCookie(_cookieName(caller)) or b""
        return cookie if 16 <= len(cookie) <= 64 else b""

    def _sign(self, cookie: bytes, caller: Caller) -> str:
        who = f"{caller.identity.anonymous}:{caller.identity.name}"
        text = cookie + b"|" + who.encode("utf-8", "replace")
        return hmac.new(self._key, text, sha256).hexdigest()
