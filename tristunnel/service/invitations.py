"""
Tokens and invitations of a server that runs, for its operators.

A new token must be sent to its user; an invitation is one line that is good for one
token, once and for a limited time.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tristunnel.auth.files import onlyWriter, readAtOnce, replaceFile
from tristunnel.auth.token_store import INVITATION_TIME
from tristunnel.auth.tokens import TokenFile
from tristunnel.auth.tokens_format import Token, formatToken, permissionsFrom, stateOf
from tristunnel.errors import TunnelError, badOption
from tristunnel.model.permissions import Permissions
from tristunnel.service.caller import Caller
from tristunnel.service.rights import isAdmin
from tristunnel.tls.certificates import fingerprintOfFile
from tristunnel.tls.directory import CertificateDirectory
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.quantities import parseDuration
from tristunnel.wire.invitation import PIN_BYTES, PLACEHOLDER, Invitation

__all__ = ["Invitations", "ServerPlace", "globalAddress"]

_log = Logger()

_FILE = "server.json"
_LOOPBACK = ("", "localhost", "127.0.0.1", "::1")


def globalAddress() -> str:
    """
    The address of this machine that the whole internet can reach, if it has one;
    else nothing. No packet is sent to find out.
    """
    # Addresses of well-known name servers: which of ours would be used?
    for family, there in (
        (socket.AF_INET, "1.1.1.1"),
        (socket.AF_INET6, "2606:4700:4700::1111"),
    ):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((there, 53))
                here: str = probe.getsockname()[0]
        except OSError:
            continue
        if ip_address(here).is_global:
            return here
    return ""


def addressFor(listening: Iterable[Any], number: int) -> str:
    """
    Find the address at which others reach a port: its own, or one of this machine.

    @param listening: The ports that are open.
    @param number: The number of this one.
    """
    places = [each.getHost() for each in listening]
    hosts = [place.host for place in places if getattr(place, "port", 0) == number]
    everywhere = not hosts or hosts[0] in ("", "0.0.0.0", "::")
    return globalAddress() if everywhere else str(hosts[0])


@dataclass(frozen=True)
class ServerPlace:
    """
    Where clients reach a server, and how they recognize it, for invitations. The server
    keeps it in its state directory for C{tristunnel invite}.

    @ivar host: Its name or address; empty if it is not known.
    @ivar port: The number of its port.
    @ivar certificate: The PEM file, or the directory of them, that the port shows.
    @ivar tokens: The file of its tokens; empty if it asks for none.
    @ivar better: The PEM file that is shown in the place of C{certificate} once it
        exists; or empty.
    """

    host: str
    port: int
    certificate: str
    tokens: str = ""
    better: str = ""

    def invitation(self, code: str) -> Invitation:
        """
        Make an invitation.

        @raise TunnelError: C{bad-option}, if the certificate cannot be read.
        """
        if not self.certificate:
            raise badOption(
                "an invitation needs a server with TLS: start it as 'tristunnel"
                " server', or with --port ssl:9000"
            )
        if self.better and os.path.exists(self.better):
            pin = fingerprintOfFile(self.better)
        elif os.path.isdir(self.certificate):
            known = CertificateDirectory(self.certificate)
            pin = known.fingerprintFor(self.host)
        else:
            pin = fingerprintOfFile(self.certificate)
        host = self.host or PLACEHOLDER
        return Invitation(host, self.port, bytes.fromhex(pin)[:PIN_BYTES], code)

    def write(self, stateDirectory: Path) -> None:
        """@raise TunnelError: C{bad-option}, if it cannot be written."""
        path = os.path.realpath(stateDirectory / _FILE)
        with onlyWriter(path, make=True):
            replaceFile(path, json.dumps(asdict(self)).encode() + b"\n")

    @classmethod
    def read(cls, stateDirectory: Path) -> ServerPlace:
        """@raise TunnelError: C{bad-option}, if no server has written it."""
        path = stateDirectory / _FILE
        try:
            return cls(**json.loads(readAtOnce(str(path))[1]))
        except FileNotFoundError:
            raise badOption(
                "no server with tokens has run with the state directory"
                f" {str(stateDirectory)!r}: start 'tristunnel server' first, or give"
                " --state-dir"
            ) from None
        except (OSError, ValueError, TypeError) as error:
            raise badOption(
                f"cannot read {str(path)!r} ({getattr(error, 'strerror', error)});"
                " restart the server to have it written again"
            ) from None


class _Shared(Protocol):
    """Several servers that share their tokens."""

    async def meet(self, *names: str) -> None:
        """Have all of them agree about some tokens."""

    def look(self) -> None:
        """Look whether somebody has changed the file."""

    def whenMet(self) -> Deferred[None]:
        """Wait until the tokens of all servers are known here."""


class Invitations:
    """
    What an operator may do with the tokens of a server.

    @param files: Its token files; new tokens are put in the first.
    @param now: The time of day.

    @ivar place: Where clients reach the server, once it listens.
    @ivar shared: Makes several servers agree about the first file.
    """

    def __init__(
        self, files: list[TokenFile], now: Callable[[], float] = time.time
    ) -> None:
        self.place: ServerPlace | None = None
        self.shared: _Shared | None = None
        self._files = files
        self._now = now

    # For clients

    @returnsDeferred
    async def join(self, code: str, nonce: str) -> tuple[Token, str]:
        """
        Take up an invitation, as
        L{TokenStore.join<tristunnel.auth.token_store.TokenStore.join>}: once, over all
        servers.

        @raise TunnelError: C{cluster-away}, too.
        """
        for file in self._files:
            try:
                name = file.invited(code).name
            except TunnelError:
                continue
            shared = self.shared if file is self._files[0] else None
            if shared is not None:
                await shared.meet(name)
            made, token = file.join(code, nonce)
            if shared is not None:
                await shared.meet(name)
                if file.invited(code).digest != made.digest:
                    raise TunnelError("invitation-used")
            return made, token
        raise TunnelError("invitation-unknown")

    # For operators

    def first(self) -> Invitation | None:
        """
        Invite the first client, while there is no token yet. An earlier invitation of
        this kind that was not used becomes void; of several servers, only one invites.

        @return: C{None}, if there is a token.
        """
        file = self._file()
        file.follow()
        now = self._now()
        if self.place is None or any(
            each.isGiven(now) and (each.digest or self.shared is not None)
            for each in file.tokens()
        ):
            return None
        permissions = Permissions()
        # Before a code is made: what if there is no certificate?
        self.place.invitation("0" * 16)
        code = file.store.invite("client", permissions, replaces=True)
        file.follow()
        return self.place.invitation(code)

    def createInvitation(
        self,
        caller: Caller,
        name: str = "",
        lifetime: object = INVITATION_TIME,
        **permissions: object,
    ) -> dict[str, object]:
        """
        Invite somebody, as an admin.

        @param name: The token's; empty for C{client} or the like.
        @param lifetime: Seconds for which it is good, or text as C{"24h"}.
        @param permissions: What the token permits, as in a token file.
        @return: Its C{name}, C{invitation} (the word for C{tristunnel join}),
            C{until} and what L{listInvitations} says more.
        """
        _check(caller)
        file, place = self._file(), self.place
        if place is None:
            raise badOption("the server has no port with TLS yet for invitations")
        if not place.host and caller.host not in _LOOPBACK:
            place = ServerPlace(caller.host, place.port, place.certificate)
        place.invitation("0" * 16)
        asked = permissionsFrom(permissions, self._now())
        code = file.store.invite(name, asked, _seconds(lifetime))
        self._follow(file)
        made = file.invited(code)
        _tell(caller, f"has invited {made.name}")
        return {**_row(made, self._now()), "invitation": str(place.invitation(code))}

    def createToken(
        self, caller: Caller, name: str, **permissions: object
    ) -> dict[str, object]:
        """
        Make a token, as an admin.

        @param permissions: What it permits, as in a token file.
        @return: Its C{name} and C{token}, which is shown only now.
        """
        _check(caller)
        file = self._file()
        asked = permissionsFrom(permissions, self._now())
        token = file.store.create(name, asked)
        self._follow(file)
        _tell(caller, f"has made a token for {name}")
        return {"name": name, "token": token}

    def listTokens(self, caller: Caller) -> list[dict[str, object]]:
        """
        List the tokens, for an admin.

        @return: Each as in the file, without digests, and with its C{state}.
        """
        return self._rows(caller, invitations=False)

    def listInvitations(self, caller: Caller) -> list[dict[str, object]]:
        """List the invitations that were not used, for an admin, in the same way."""
        return self._rows(caller, invitations=True)

    def _rows(self, caller: Caller, invitations: bool) -> list[dict[str, object]]:
        _check(caller)
        for file in self._files:
            file.follow()
        return [
            _row(token, self._now())
            for file in self._files
            for token in file.tokens()
            if bool(token.digest) != invitations
        ]

    def revoke(self, caller: Caller, name: str) -> None:
        """
        Revoke a token, or an invitation, as an admin.

        @raise TunnelError: C{bad-option}, if there is none of that name.
        """
        _check(caller)
        for file in self._files:
            file.follow()
            if any(token.name == name for token in file.tokens()):
                file.revoke(name)
                self._follow(file)
                _tell(caller, f"has revoked the token of {name}")
                return
        raise badOption(f"there is no token {name!r}")

    def _follow(self, file: TokenFile) -> None:
        file.follow()
        if self.shared is not None:
            self.shared.look()

    def _file(self) -> TokenFile:
        if not self._files:
            raise badOption(
                "the server has no file of tokens: start it with --auth tokens:"
            )
        return self._files[0]


def _check(caller: Caller) -> None:
    if caller.identity.grant is not None:
        caller.identity.grant.check()
    if not isAdmin(caller.identity):
        raise TunnelError(
            "not-permitted", "tokens are given out by those whose token may admin"
        )


def _tell(caller: Caller, what: str) -> None:
    _log.info("{who} {what}", who=caller.identity.name, what=what)


def _seconds(value: object) -> float:
    if isinstance(value, str):
        return parseDuration(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise badOption("lifetime takes seconds, or text such as 24h")
    return float(value)


def _row(token: Token, now: float) -> dict[str, Any]:
    values: Mapping[str, Any] = json.loads(formatToken(token))
    hidden = {"sha256", "invitation", "salt", "version"}
    shown = {key: value for key, value in values.items() if key not in hidden}
    return {**shown, "state": stateOf(token, now)}
