"""
What a forward asks its visitors for, read from the files that it names, since secrets
do not belong on a command line.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tristunnel.auth.files import readSecret
from tristunnel.auth.passwords import UserList, hashed, isHash, secretProblem
from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.model.gate import ProviderRules
from tristunnel.util.quantities import parseDuration
from tristunnel.util.words import nearest

__all__ = ["GateFiles", "readGate", "readSecrets"]

SHORTEST = 4
"""Characters that a PIN has at least."""

_PLAIN = 50
"""Passwords that are hashed here, which takes a while for each."""

_KEYS = {
    "issuer": "issuer",
    "client-id": "clientID",
    "client-secret": "clientSecret",
    "scopes": "scopes",
    "emails": "emails",
    "domains": "domains",
    "groups": "groups",
    "groups-claim": "groupsClaim",
}
"""The keys of a file about a provider, and what C{openTunnel} calls them."""


@dataclass(frozen=True)
class GateFiles:
    """
    The contents of the files.

    @ivar pin: The PIN or its hash; empty for none.
    @ivar login: The password of each user, or its hash.
    @ivar oidc: The provider, as C{openTunnel} takes it; empty for none.
    @ivar link: Whether links let in.
    @ivar stay: Seconds after which visitors are asked again; 0 for the default.
    @ivar knock: Seconds for which an address is let in that has knocked; 0 where nobody
        needs to.
    """

    pin: bytes = field(default=b"", repr=False)
    login: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    oidc: Mapping[str, Any] = field(default_factory=dict, repr=False)
    link: bool = False
    stay: float = 0.0
    knock: float = 0.0

    def __bool__(self) -> bool:
        return bool(self.pin or self.login or self.oidc or self.link or self.knock)

    def asked(self, salt: bytes, whose: str) -> dict[str, object]:
        """
        Make what C{openTunnel} is told, with hashes in place of passwords.

        @param salt: As for L{hashed<tristunnel.auth.passwords.hashed>}.
        @param whose: What visitors connect to.
        """

        def made(secret: bytes, user: str) -> str:
            if isHash(secret):
                return secret.decode("ascii")
            return hashed(secret, salt, f"{whose} {user}")

        told: dict[str, object] = {
            "pin": self.pin and made(self.pin, ""),
            "login": [f"{user}:{made(it, user)}" for user, it in self.login.items()],
            "oidc": dict(self.oidc),
            "link": self.link,
            "stay": self.stay,
            "knock": self.knock,
        }
        return {name: value for name, value in told.items() if value}


def readGate(options: Mapping[str, Any]) -> GateFiles:
    """
    Read the files that a forward's options name.

    @param options: C{pin}, C{login} and C{oidc}, which name files; C{link},
        C{stay} and C{knock}.
    @raise TunnelError: C{bad-option}, with the cause and no secret.
    """
    stay, knock = _duration("stay", options), _duration("knock", options)
    made = GateFiles(
        _pin(options["pin"]) if options["pin"] else b"",
        _users(options["login"]) if options["login"] else {},
        _provider(options["oidc"]) if options["oidc"] else {},
        options["link"],
        stay,
        knock,
    )
    if stay and (knock or not made):
        raise badOption("stay= goes with pin=, login=, oidc= or link, without knock")
    if knock and (made.oidc or made.link):
        raise badOption("knock goes with pin= and login=, and not with oidc= or link")
    return made


def _duration(name: str, options: Mapping[str, Any]) -> float:
    text = options[name]
    if not text:
        return 0.0
    try:
        found = parseDuration(text)
    except TunnelError as error:
        raise badOption(f"{name}={text[:60]}: {error.message}") from None
    if not 60 <= found <= 90 * 86400:
        raise badOption(f"{name}={text[:60]}: write a time from 1m up to 90d")
    return found


def readSecrets(option: str, path: str) -> bytes:
    """
    Read a file that an option names, without waiting for a terminal or a pipe.

    @param option: The option, for messages.
    @raise TunnelError: C{bad-option}.
    """
    path = os.path.expanduser(path)
    return readSecret(f"{option}={printable(path, 100)}", path, "secrets")


def _pin(path: str) -> bytes:
    secret = readSecrets("pin", path).strip()
    problem = secretProblem(secret)
    if problem is None and b"\n" in secret:
        problem = "a PIN is one line"
    if problem is None and len(secret) < SHORTEST:
        problem = f"a PIN has at least {SHORTEST} characters"
    if problem is not None:
        raise badOption(f"pin={printable(path, 100)}: {problem}")
    return secret


def _users(path: str) -> dict[str, bytes]:
    users = UserList.parse(readSecrets("login", path))
    for problem in users.problems:
        place = f"login={printable(path, 100)}, line {problem.line}"
        raise badOption(f"{place}: {problem.reason}")
    if not users.secrets:
        raise badOption(
            f"login={printable(path, 100)} has no users; write NAME:PASSWORD on a line,"
            " or use htpasswd -B"
        )
    if sum(not isHash(each) for each in users.secrets.values()) > _PLAIN:
        raise badOption(
            f"login={printable(path, 100)} has more than {_PLAIN} passwords that are"
            " not hashed; use htpasswd -B"
        )
    return users.secrets


def _provider(path: str) -> dict[str, Any]:
    shown = printable(path, 100)
    try:
        said = tomllib.loads(readSecrets("oidc", path).decode("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise badOption(f"oidc={shown} is not TOML: {error}") from None
    for key in said:
        if key not in _KEYS:
            near = nearest(key, list(_KEYS))
            raise badOption(f"oidc={shown} has no key {printable(key, 60)!r}{near}")
    told = {_KEYS[key]: value for key, value in said.items()}
    try:
        ProviderRules.of(told)
    except TunnelError as error:
        raise badOption(f"oidc={shown}: {error.message}") from None
    return told
