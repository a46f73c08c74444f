"""The specification of C{--node}."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from twisted.internet.interfaces import IStreamServerEndpoint

from tristunnel.client.local import localEndpoint
from tristunnel.config.keys import Key
from tristunnel.connect.address import ServerAddress, Trust, parseConnect
from tristunnel.connect.credentials import givenCredentials, givenToken
from tristunnel.connect.route import connectOptionsBy
from tristunnel.errors import TunnelError, badOption
from tristunnel.forwards.forward import Forward, parseForward
from tristunnel.tls.certificates import parseFingerprint
from tristunnel.util.words import isName
from tristunnel.webhooks.endpoint import verified

__all__ = ["NODE_FIELDS", "NodeSpec", "nodeText", "parseNode"]

NODE_FIELDS: Mapping[str, Key] = {
    **{name: Key(name) for name in ("name", "connect")},
    **{name: Key(name) for name in ("forward", "listen", "service")},
    **{name: Key(name) for name in ("token-file", "credentials-file", "ca", "proxy")},
    "pin": Key("pin", many=True),
}
"""The keys of a table in a configuration file."""

_SINGLE = tuple(name for name in NODE_FIELDS if name not in ("name", "connect", "pin"))


@dataclass(frozen=True)
class NodeSpec:
    """
    A tunnel between this server and another.

    @ivar name: Its name here.
    @ivar server: The other server.
    @ivar credentials: What tells the other one who we are.
    @ivar forward: A service of this side for a port of the other one, or
        C{None}.
    @ivar listen: A port of this side, as the user wrote it, or empty.
    @ivar endpoint: The same, as an endpoint.
    @ivar service: The named service of the other one that the port is for.
    """

    name: str
    server: ServerAddress
    credentials: dict[str, object]
    forward: Forward | None = None
    listen: str = ""
    endpoint: IStreamServerEndpoint | None = None
    service: str = ""


def _wrong(spec: str, why: str) -> TunnelError:
    return badOption(
        f"--node {spec}: {why}; write NAME=ENDPOINT,forward=PORT=TARGET or"
        " NAME=ENDPOINT,listen=ENDPOINT,service=NAME, then what you need of"
        " token-file=FILE, credentials-file=FILE, pin=SHA256, ca=FILE, proxy=URL"
    )


def _settings(name: str, words: list[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not value or key not in (*_SINGLE, "pin"):
            raise _wrong(name, f"{key[:40]!r} is not a setting")
        if key in found and key in _SINGLE:
            raise _wrong(name, f"{key} is given twice")
        found.setdefault(key, []).append(value)
    return found


def nodeText(table: Mapping[str, Any]) -> str:
    """
    Write a table of a configuration file, C{[[node]]}, as C{--node}.

    @raise TunnelError: C{bad-option}.
    """
    name, connect = table.get("name", ""), table.get("connect", "")
    if not (name and connect):
        raise badOption('a node has name = "NAME" and connect = "ENDPOINT"')
    words = [connect]
    for key, value in table.items():
        if key not in ("name", "connect"):
            values = value if isinstance(value, list) else [value]
            words += [f"{key}={each}" for each in values]
    return f"{name}={','.join(word.replace(',', chr(92) + ',') for word in words)}"


def parseNode(reactor: Any, text: str) -> NodeSpec:
    """
    Read C{--node}. A comma within a value is written C{\\,}.

    @raise TunnelError: C{bad-option}, with the cause and the cure.
    """
    name, _, rest = text.partition("=")
    if not (name and isName(name)):
        raise _wrong(name[:64] or "?", "it begins with a name")
    connect, *words = (word.replace("\\,", ",") for word in re.split(r"(?<!\\),", rest))
    found = _settings(name, words)

    def setting(key: str) -> str:
        return found.get(key, [""])[0]

    if not connect or ("forward" in found) == ("listen" in found):
        raise _wrong(name, "it has a server, and either forward or listen")
    if ("listen" in found) != ("service" in found):
        raise _wrong(name, "listen and service go together")
    try:
        trust = Trust(tuple(map(parseFingerprint, found.get("pin", ()))), setting("ca"))
        server = parseConnect(
            reactor, connect, trust, connectOptionsBy(reactor, setting("proxy"))
        )
        credentials = givenCredentials(setting("credentials-file"), {})
        if "token-file" in found:
            credentials["token"] = givenToken(setting("token-file"), {})
        if "forward" in found:
            forward = parseForward(reactor, setting("forward"))
            if forward.inner is not None and forward.inner.gateway is not None:
                raise badOption("a proxy into this network is a client's: leave it out")
            if forward.options.start or forward.options.wake:
                raise badOption("a client starts services: leave out start and wake")
            return NodeSpec(name, server, credentials, verified(reactor, forward))
        return NodeSpec(
            name,
            server,
            credentials,
            listen=setting("listen"),
            endpoint=localEndpoint(reactor, setting("listen")),
            service=setting("service"),
        )
    except TunnelError as error:
        raise badOption(f"--node {name}: {error.message}") from None
