"""
C{tristunnel access grant}: let somebody in to a service for a time, and no longer.
"""

from __future__ import annotations

import json
import re
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from tristunnel.cli.question import DEFAULT_SERVER, addServerOptions, askServer
from tristunnel.cli.token import asType
from tristunnel.config.servers import ServerStore
from tristunnel.errors import badOption
from tristunnel.util.quantities import formatDuration, parseDuration
from tristunnel.util.words import plural

__all__ = ["addGrantCommands"]

_TTL = 3600.0
_CONNECT = re.compile(r"(tls|tcp):(\[[^\[\]]+\]|[^:]+):(\d+)")
_SCHEMES = {"tls": "https", "tcp": "http"}


def addGrantCommands(actions: Any) -> None:
    """
    Add C{grant}, C{granted} and C{revoke} to a parser.

    @param actions: What C{add_subparsers} returned.
    """
    grant = actions.add_parser(
        "grant",
        help="let somebody in to a service of yours for a time",
        description="Print what lets somebody in to a service of yours for a time: a"
        " link, if its visitors come in by links; else a URI for --access.",
    )
    add = grant.add_argument
    add("service", metavar="SERVICE", help="its name")
    add(
        "--ttl",
        metavar="TIME",
        type=asType(parseDuration),
        default=_TTL,
        help="for how long, such as 30m or 7d (default: 1h)",
    )
    add(
        "--uses",
        metavar="NUMBER",
        type=asType(_uses),
        default=0,
        help="how often it can be used (default: as often as anybody likes)",
    )
    add(
        "--address",
        metavar="NETWORK",
        default="",
        help="from where it can be used, such as 192.0.2.0/24 (default: anywhere)",
    )
    grant.set_defaults(run=_grant)
    granted = actions.add_parser("granted", help="list what you have granted")
    granted.add_argument(
        "--json", action="store_true", help="print one JSON object per line"
    )
    granted.set_defaults(run=_granted)
    revoke = actions.add_parser("revoke", help="end what you have granted")
    revoke.add_argument("id", metavar="ID", help="its ID in the list")
    revoke.set_defaults(run=_revoke)
    for each in (grant, granted, revoke):
        addServerOptions(
            each,
            "http://HOST:PORT, https://HOST or unix:/PATH (default: the server that"
            " this user has joined first, or this user's on this machine, or"
            f" {DEFAULT_SERVER})",
            "a token of yours",
        )


def _uses(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text[:9]) < 1_000_000:
        raise badOption(f"{text[:20]!r} is not a number of uses, such as 1")
    return int(text)


async def _ask(
    reactor: Any, options: Namespace, method: str, **parameters: object
) -> Any:
    token = ""
    known = ServerStore().read()
    if not options.where and known.default:
        server = known.find()
        found = _CONNECT.fullmatch(server.connect)
        if found is None:
            raise badOption(
                f"the server {server.name!r} is reached by {server.connect}: name the"
                " URL of its port with --server"
            )
        options.where = f"{_SCHEMES[found[1]]}://{found[2]}:{found[3]}"
        if found[1] == "tls":
            options.pin = options.pin or list(server.pins)
        token = server.token
    return await askServer(reactor, options, method, token, **parameters)


async def _grant(reactor: Any, options: Namespace) -> None:
    print(
        await _ask(
            reactor,
            options,
            "grantAccess",
            service=options.service,
            ttl=options.ttl,
            uses=options.uses,
            address=options.address,
        )
    )


async def _granted(reactor: Any, options: Namespace) -> None:
    for each in await _ask(reactor, options, "listAccess"):
        print(json.dumps(each) if options.json else _line(each))


def _line(access: Mapping[str, Any]) -> str:
    told = [f"{access['id']}  {access['service']}"]
    if access.get("owner"):
        told.append(f"by {access['owner']}")
    if access.get("timeLeft") is not None:
        told.append(f"{formatDuration(access['timeLeft'])} left")
    if access.get("usesLeft") is not None:
        told.append(plural(int(access["usesLeft"]), "use") + " left")
    if access.get("address"):
        told.append(f"from {access['address']}")
    if access.get("token"):
        told.append(f"for {access['token']}")
    return ", ".join(told)


async def _revoke(reactor: Any, options: Namespace) -> None:
    await _ask(reactor, options, "revokeAccess", id=options.id)
