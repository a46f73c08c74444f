"""
C{twistd tunnel --check}, about names: do they lead here, can visitors come, and what
about their certificates?
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import DNSLookupError

from tristunnel.acme.settings import AuthoritySettings
from tristunnel.acme.threads import inThread
from tristunnel.check.report import (
    Finding,
    certificateFinding,
    fail,
    inTime,
    ok,
    skip,
    warn,
)
from tristunnel.errors import TunnelError
from tristunnel.server.ports import ServerPort
from tristunnel.tls.named import NamedCertificates
from tristunnel.util.words import age

__all__ = ["NamesCheck"]

_MOST = 50
"""Names that are checked, each with a line of its own."""

_LOOKED_AT = {"--http": 80, "--https": 443}
"""The ports that visitors and authorities connect to."""


@dataclass
class NamesCheck:
    """
    Checks names.

    @ivar reactor: Tells time.
    @ivar domains: The domains below which names are given out.
    @ivar ports: All ports.
    @ivar own: The operator's certificates by name, or C{None}.
    @ivar authority: The authority that issues others, or C{None}.
    @ivar stateDirectory: Where those are.
    @ivar resolve: Looks a name up.
    @ivar isOurs: Whether an address is one of this machine's.
    """

    reactor: Any
    domains: Sequence[str]
    ports: Sequence[ServerPort]
    own: NamedCertificates | None
    authority: AuthoritySettings | None
    stateDirectory: Path
    resolve: Callable[[str], Deferred[list[str]]]
    isOurs: Callable[[str], bool]

    async def look(self) -> Iterable[Finding] | Finding:
        """Check everything."""
        served = {option for option in _LOOKED_AT if self._serving(option)}
        if not served:
            return skip("tunnels have ports, and no names (--http, --https)")
        found = [await self._leads(domain) for domain in self.domains]
        if not self.domains:
            found.append(
                warn(
                    "without --domain only holders of tokens with --names have names:"
                    " give --domain t.example.com"
                )
            )
        found += [self._port(option) for option in sorted(served)]
        found += self._owned()
        if self.authority is not None:
            found += await self._automatic(self.authority)
        return found

    def _serving(self, option: str) -> list[ServerPort]:
        return [port for port in self.ports if port.serving(option)]

    async def _leads(self, domain: str) -> Finding:
        # Any name below it will do.
        name = f"check-{secrets.token_hex(3)}.{domain}"
        cure = f"make a DNS entry *.{domain} that leads to this server"
        try:
            addresses = await inTime(
                self.reactor, self.resolve(name), "no name server answered"
            )
        except DNSLookupError:
            return fail(f"names below {domain} are not in the DNS: {cure}")
        told = f"names below {domain} lead to {', '.join(addresses[:4])}"
        if any(map(self.isOurs, addresses)):
            return ok(told)
        return warn(
            f"{told}, not an address of this machine: correct behind NAT or a load"
            f" balancer that forwards the ports; else {cure}"
        )

    def _port(self, option: str) -> Finding:
        usual = _LOOKED_AT[option]
        numbers = {each.place for each in self._serving(option)}
        if any(isinstance(place, tuple) and str(usual) in place for place in numbers):
            return ok(f"{option} is at port {usual}, where everybody looks")
        return warn(
            f"{option} is not at port {usual}: visitors must write the port, unless"
            f" something forwards {usual}; authorities look at {usual} only"
        )

    def _owned(self) -> list[Finding]:
        if self.own is None:
            return []
        found = []
        for name in list(self.own.names())[:_MOST]:
            certificate = self.own.newest(name)
            if certificate is None:
                found.append(fail(self.own.broken(name)))
            elif "." in name and (problem := self.own.misnamed(name, certificate)):
                found.append(warn(f"that of {name} is never used: {problem}"))
            else:
                found.append(certificateFinding(certificate, f"that of {name}"))
        found += map(warn, islice(self.own.unused(), _MOST))
        return found or [warn(f"{self.own.directory} has no certificate in it")]

    async def _automatic(self, authority: AuthoritySettings) -> list[Finding]:
        # The library is loaded only where it is used.
        from tristunnel.acme.account import reach
        from tristunnel.acme.store import Store

        found = []
        try:
            await inTime(
                self.reactor,
                inThread(self.reactor, lambda: reach(authority)),
                f"{authority.directory} does not answer",
            )
            found.append(ok(f"{authority.directory} answers"))
        except TunnelError as problem:
            found.append(fail(f"no certificates: {problem.message}"))
        store = Store(self.stateDirectory)
        live = NamedCertificates(store.live)
        names = {*live.names(), *store.tried()}
        for name in sorted(names)[:_MOST]:
            renewal, certificate = store.renewal(name), live.newest(name)
            if certificate is not None:
                found.append(certificateFinding(certificate, f"that of {name}"))
            if renewal.error:
                wait = max(0.0, renewal.next - time.time())
                found.append(
                    (fail if certificate is None else warn)(
                        f"none for {name} at the last attempt: {renewal.error} (next in"
                        f" {age(wait)})"
                    )
                )
        return found
