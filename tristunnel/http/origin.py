"""
Which requests a web browser sends for a page from elsewhere: those are
refused, or any page that somebody looks at could drive a server that the
browser can reach and the page's author cannot.

Two attacks are meant. I{Cross-site posts}: the page posts a form to us; the
browser then names the page in C{Origin}, C{Sec-Fetch-Site} or C{Referer}.
I{DNS rebinding}: the page's own host name is made to resolve to our address,
so that the browser takes us for the page's origin; then C{Host} is a name that
is not ours. Programs that are no browsers send none of the first three.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import ip_address

from twisted.web.server import Request

from tristunnel.util.hosts import hostName

__all__ = ["OriginRule"]

_AUTHORITY = re.compile(r"(\[[0-9A-Fa-f:.%]+\]|[A-Za-z0-9._-]+)(?::([0-9]{1,5}))?\Z")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://([^/?#]*)")
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True)
class _Authority:
    """
    A host and a port, as in a C{Host} header.

    @ivar host: As L{hostName} writes it, without a last dot.
    @ivar port: C{None} if it was left out.
    """

    host: str
    port: int | None

    @classmethod
    def parse(cls, text: str) -> _Authority | None:
        """
        @return: C{None} if C{text} is no host with an optional port.
        """
        match = _AUTHORITY.match(text)
        if match is None:
            return None
        host, port = match.groups()
        return cls(_canonical(host.strip("[]")), None if port is None else int(port))

    def isLiteral(self) -> bool:
        """
        Whether the host is an IP address or C{localhost}, which nobody's name
        server can point elsewhere.
        """
        if self.host == "localhost":
            return True
        try:
            ip_address(self.host)
        except ValueError:
            return False
        return True


def _canonical(host: str) -> str:
    try:
        return hostName(host).removesuffix(".")
    except ValueError:
        # Which is what nobody can be called; a name of this machine may be.
        return host.lower()


def _header(request: Request, name: str) -> list[str]:
    """
    All values of a header.
    """
    values = request.requestHeaders.getRawHeaders(name.encode("ascii"), [])
    return [value.decode("latin-1").strip() for value in values]


class OriginRule:
    """
    Tells requests of browsers' pages from elsewhere from all others.
    """

    def __init__(self, hostnames: Collection[str] | None = None) -> None:
        """
        @param hostnames: The names under which this server is known. If it is
            C{None}, programs may use any name, but browsers only IP addresses
            and C{localhost}.
        """
        self._hostnames = (
            None if hostnames is None else frozenset(map(_canonical, hostnames))
        )

    def objection(self, request: Request) -> str | None:
        """
        Say what is wrong with a request.

        @return: One line, or C{None} if nothing is.
        """
        for site in _header(request, "Sec-Fetch-Site"):
            if site not in ("same-origin", "none"):
                return "A page from another site may not call this server."
        hosts = _header(request, "Host")
        if len(hosts) > 1:
            return "More than one Host header."
        host = None
        if hosts and hosts[0]:
            host = _Authority.parse(hosts[0])
            if host is None:
                return "The Host header is not a host name with an optional port."
        # Old browsers post forms without Origin, but with Referer.
        pages = _header(request, "Origin") or _header(request, "Referer")
        if host is not None and (pages or self._hostnames is not None):
            known = host.isLiteral() or host.host in (self._hostnames or ())
            if not known:
                return (
                    f"This server is not known as {host.host}: use its address, or"
                    " one of the names it was configured with."
                )
        for page in pages:
            if host is None or not self._sameOrigin(page, host):
                return "A page from another site may not call this server."
        return None

    @staticmethod
    def _sameOrigin(page: str, host: _Authority) -> bool:
        match = _URL.match(page)
        if match is None:
            return False  # Among others "null".
        scheme, text = match.group(1).lower(), match.group(2)
        origin = _Authority.parse(text)
        if origin is None or scheme not in _DEFAULT_PORTS:
            return False
        default = _DEFAULT_PORTS[scheme]
        return origin.host == host.host and (
            (default if origin.port is None else origin.port)
            == (default if host.port is None else host.port)
        )
