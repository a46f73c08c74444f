"""What visitors see of names: the ports and schemes by which they are reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tristunnel.names.pages import Pages
from tristunnel.names.table import NameTable
from tristunnel.util.hosts import hostAndPort

__all__ = ["CHALLENGES", "CertificateState", "PublicNames"]

CHALLENGES = b"/.well-known/acme-challenge/"
"""The path below which an authority looks for proof that a name is ours (RFC 8555,
section 8.3)."""

_USUAL = {"http": 80, "https": 443, "tls": 443, "minecraft": 25565, "postgresql": 5432}


@dataclass(frozen=True)
class CertificateState:
    """
    The state of a name's certificate. Times are seconds since the epoch; 0 is never.

    @ivar names: The names that it is for.
    @ivar since: Since when it is valid; 0 if there is none yet.
    @ivar until: Until when.
    @ivar next: When the next attempt is due.
    @ivar error: Why the last attempt failed; empty if it did not.
    """

    names: tuple[str, ...]
    since: float
    until: float
    next: float
    error: str


@dataclass
class PublicNames:
    """
    The names of a server and the ports that they share.

    @ivar table: The routes.
    @ivar ports: The number of the port that visitors of each scheme come to:
        C{http}, C{https}, C{tls}. Those that are missing do not listen.
    @ivar isCovered: Whether there is a certificate for a host that browsers trust.
    @ivar offered: The schemes that are going to be among these.
    @ivar held: Told of each host that a tunnel has, whose TLS ends here.
    @ivar left: Told when a tunnel no longer has a host.
    @ivar liesBelow: Told below which domains there are names from now on.
    @ivar challenge: Answers an authority that looks, by the path of its request; gives
        C{None} if no answer is prepared. It is asked before any tunnel.
    @ivar redirects: Whether requests in clear text are sent on to TLS where a host is
        covered.
    @ivar pages: The answers where no service answers.
    @ivar isLeaving: Whether the server stops, so that visitors should reconnect.
    """

    table: NameTable = field(default_factory=NameTable)
    ports: dict[str, int] = field(default_factory=dict)
    isCovered: Callable[[str], bool] = lambda host: False
    redirects: bool = True
    pages: Pages = field(default_factory=Pages)
    isLeaving: bool = False
    offered: frozenset[str] = frozenset()
    held: Callable[[str], object] = lambda host: None
    left: Callable[[str], object] = lambda host: None
    liesBelow: Callable[[Sequence[str]], object] = lambda domains: None
    challenge: Callable[[bytes], bytes | None] = lambda path: None

    def opened(self, scheme: str, number: int) -> None:
        """Note that a port listens; addresses have the first port of a scheme."""
        self.ports.setdefault(scheme, number)

    def schemeFor(self, host: str) -> str:
        """
        Choose what an HTTP host's address begins with: C{https} if its certificate will
        be trusted, or if there is nothing else.
        """
        if "https" in self.ports and ("http" not in self.ports or self.isCovered(host)):
            return "https"
        return "http"

    def address(self, scheme: str, host: str, path: str = "") -> str:
        """Write an address as visitors open it, without the scheme's usual port."""
        port = self.ports.get(scheme, _USUAL[scheme])
        usual = port == _USUAL[scheme] and scheme != "tls"
        return f"{scheme}://{host if usual else hostAndPort(host, port)}{path}"
