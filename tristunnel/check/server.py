"""
C{twistd tunnel --check}: can a server with these options do its work here?

What can only be seen from outside (firewalls, NAT, what a proxy lets through) is found
by C{twistd tunnel-client --check}.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.x509 import Certificate
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.error import DNSLookupError
from twisted.internet.protocol import Factory, Protocol

from tristunnel.check.report import (
    Finding,
    Inquiry,
    Look,
    certificateFinding,
    fail,
    inTime,
    ok,
    skip,
    warn,
)
from tristunnel.dataplane.lookups import resolveWith
from tristunnel.errors import badOption
from tristunnel.model.options import TunnelOptions
from tristunnel.server.ports import ServerPort
from tristunnel.service.caller import Listeners
from tristunnel.tls.pem import alternativeNames, certificateNames
from tristunnel.util.descriptor_limit import descriptorLimit
from tristunnel.util.endpoints import checkWritable
from tristunnel.util.hosts import addressText

__all__ = ["ServerCheck"]

Resolve = Callable[[str], Deferred[list[str]]]
"""Looks a name up."""

FEW = 4096
"""With fewer descriptors, a server is soon full: a visitor needs two."""

_BUILT = 1_760_000_000
"""A time, in seconds since the epoch, that has passed on every correct clock."""


@dataclass(eq=False, repr=False)
class ServerCheck(Inquiry):
    """
    Checks everything that a server needs.

    @ivar reactor: Listens.
    @ivar ports: Where clients connect.
    @ivar listeners: What opens visitors' ports.
    @ivar certificates: What is shown, by the option that names it.
    @ivar hostname: The name that addresses say, or empty.
    @ivar stateDirectory: The server's state directory.
    @ivar checkers: How many C{--auth} there are; C{--client-ca} counts as one, too.
    @ivar memory: Bytes that may be held for slow readers; 0 for any number.
    @ivar names: Checks names, given how to look one up and how to tell our addresses;
        C{None} if there are none.
    @ivar cluster: Checks other machines; C{None} without any.
    @ivar resolve: Looks names up.
    @ivar now: The time of day.
    @ivar clientCheck: The command that tests the same from a client.
    """

    reactor: Any
    ports: Sequence[ServerPort]
    listeners: Listeners | None
    certificates: Sequence[tuple[str, Certificate]] = ()
    hostname: str = ""
    stateDirectory: Path | None = None
    checkers: int = 1
    memory: int = 0
    names: Callable[[Resolve, Callable[[str], bool]], Look] | None = None
    cluster: Look | None = None
    resolve: Resolve | None = None
    now: Callable[[], float] = time.time
    clientCheck: str = "tristunnel check"

    def __post_init__(self) -> None:
        self._resolve = self.resolve or resolveWith(self.reactor)
        super().__init__(
            [
                ("port", self._clientPorts),
                ("visitors", self._visitors),
                ("certificate", self._certificates),
                ("name", self._name),
                *self._names(),
                *([] if self.cluster is None else [("cluster", self.cluster)]),
                ("auth", self._auth),
                ("state", self._state),
                ("descriptors", self._descriptors),
                ("memory", self._memory),
                ("clock", self._clock),
                ("outside", self._outside),
            ]
        )

    def _names(self) -> list[tuple[str, Look]]:
        if self.names is None:
            return []
        return [("names", self.names(self._resolve, _isOurs))]

    async def _clientPorts(self) -> Iterable[Finding]:
        return [await self._port(port) for port in self.ports]

    async def _port(self, port: ServerPort) -> Finding:
        what = f"{port.option} {port.description}"
        factory = Factory.forProtocol(Protocol)
        factory.noisy = False
        try:
            listening = await maybeDeferred(port.endpoint.listen, factory)
        except Exception as error:
            cause = getattr(error, "socketError", error)
            why = getattr(cause, "strerror", None) or str(cause)
            return fail(
                f"{what} cannot be listened on ({why}): stop the program that uses it,"
                " perhaps"
                " this server itself, or choose another"
            )
        where = addressText(listening.getHost())
        await maybeDeferred(listening.stopListening)
        return ok(f"{what} is free ({where})")

    async def _visitors(self) -> Finding:
        if self.listeners is None:
            return skip("there are none")
        listener = await self.listeners.open(
            TunnelOptions(), lambda end, address: None, lambda kind, port: succeed(None)
        )
        number = listener.address[2]
        await listener.close()
        return ok(f"a port can be opened ({number} was)")

    async def _certificates(self) -> Iterable[Finding] | Finding:
        if not self.certificates:
            return warn(
                "no TLS: the traffic of clients and visitors can be read on the"
                " network path; give"
                " --certificate, or --port ssl:9000 and have clients pin it"
            )
        found = []
        for option, certificate in self.certificates:
            what = f"that of {option}"
            found.append(certificateFinding(certificate, what, now=self.now))
            names = certificateNames(certificate)
            if names and not alternativeNames(certificate):
                found.append(
                    warn(
                        f"{what} has a name only in its common name ({names[0]}), which"
                        " clients ignore: issue it again with"
                        f" subjectAltName=DNS:{self.hostname or names[0]}"
                    )
                )
            elif self.hostname and self.hostname not in names:
                found.append(
                    warn(
                        f"{what} is for {', '.join(names[:5]) or 'no name'},"
                        f" not for --hostname {self.hostname}"
                    )
                )
        return found

    async def _name(self) -> Finding:
        if not self.hostname:
            return skip(
                "without --hostname, addresses use the name by which each client"
                " reached the server"
            )
        try:
            addresses = await inTime(
                self.reactor, self._resolve(self.hostname), "no name server answered"
            )
        except DNSLookupError as error:
            raise badOption(
                f"{error}: make a DNS entry, or correct --hostname"
            ) from None
        told = f"{self.hostname} is {', '.join(addresses[:8])}"
        if any(_isOurs(address) for address in addresses):
            return ok(told)
        return warn(
            f"{told}, not an address of this machine: correct behind NAT or a load"
            " balancer that forwards the ports, wrong otherwise"
        )

    async def _auth(self) -> Finding:
        if self.checkers:
            return ok("clients must log in")
        return warn("anybody may open tunnels: use --auth tokens:FILE or clients:FILE")

    async def _state(self) -> Finding:
        directory = self.stateDirectory
        if directory is None:
            return skip("there is nothing to save")
        checkWritable(directory)
        return ok(f"{directory} can be written to")

    async def _descriptors(self) -> Finding:
        limit = descriptorLimit()
        if not limit or limit >= FEW:
            return ok(f"{limit or 'any number'} may be open")
        return warn(
            f"{limit} is not many: raise the limit (ulimit -n, or LimitNOFILE= in"
            " systemd)"
        )

    async def _memory(self) -> Finding:
        if self.memory:
            return ok(f"{self.memory >> 20} MiB may be held for slow readers")
        return warn("slow readers may use all of it: remove --max-memory 0")

    async def _clock(self) -> Finding:
        now = self.now()
        told = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime(now))
        if now < _BUILT:
            raise badOption(f"this machine's clock says {told}: set it")
        return ok(f"it is {told}")

    async def _outside(self) -> Finding:
        return skip(
            f"whether clients can connect is tested at a client: {self.clientCheck}"
        )


def _isOurs(address: str) -> bool:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True
