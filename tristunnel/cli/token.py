"""
C{tristunnel token}: make, list, show and revoke tokens.
"""

from __future__ import annotations

import json
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from time import time as now
from typing import Any, TypeVar

from tristunnel.auth.permissions import RIGHTS, Permissions
from tristunnel.auth.tokens import defaultTokenFile
from tristunnel.auth.tokens_format import (
    Token,
    TokenList,
    formatTime,
    formatToken,
    parseTime,
    parseToken,
)
from tristunnel.auth.tokens_store import TokenStore
from tristunnel.errors import TunnelError
from tristunnel.listeners.ports import parsePorts
from tristunnel.text.quantities import (
    formatDuration,
    formatRate,
    parseDuration,
    parseRate,
)

__all__ = ["addTokenCommands"]

_T = TypeVar("_T")


def _asType(read: Callable[[str], _T]) -> Callable[[str], _T]:
    """
    Make a reader of ours one of C{argparse}'s.
    """

    def argument(text: str) -> _T:
        try:
            return read(text)
        except TunnelError as error:
            raise ArgumentTypeError(error.message) from None

    return argument


def _count(text: str) -> int:
    """
    Read a number of things.
    """
    if not (text.isascii() and text.isdecimal()) or int(text) > 10**9:
        raise TunnelError("bad-option", f"{text[:40]!r} is no whole number from 0 up")
    return int(text)


def _words(text: str) -> list[str]:
    """
    Read words with commas between.
    """
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise TunnelError("bad-option", f"{text[:40]!r}: a word is missing")
    return words


def _rights(text: str) -> list[str]:
    """
    Read what may be done.
    """
    words = _words(text)
    for word in words:
        if word not in RIGHTS:
            raise TunnelError(
                "bad-option",
                f"{word[:40]!r} is nothing to be permitted; there is"
                f" {', '.join(RIGHTS)}",
            )
    return words


def _end(text: str) -> float:
    """
    Read when a token expires: after a while, or at a time.

    @return: Seconds since the epoch.
    """
    try:
        moment = parseTime(text)
    except ValueError:
        moment = now() + parseDuration(text)
    if moment <= now():
        raise TunnelError("bad-option", f"{text[:40]!r} is in the past")
    return moment


def addTokenCommands(commands: Any) -> None:
    """
    Add C{token} to the commands of a parser.

    @param commands: What C{add_subparsers} returned.
    """
    token = commands.add_parser("token", help="make, list, show and revoke tokens")
    actions = token.add_subparsers(metavar="ACTION", required=True)

    create = actions.add_parser(
        "create",
        help="make a token",
        description="Make a token. It is the last word of the output, and kept"
        " nowhere: the file has its SHA-256 only.",
    )
    add = create.add_argument
    add("--name", required=True, metavar="NAME", help="who it is for")
    add(
        "--ports",
        type=_asType(parsePorts),
        metavar="RANGE",
        help="visitors' ports, as 9000-9010,9100 (default: all of the server's)",
    )
    add(
        "--protocols",
        type=_asType(_words),
        metavar="LIST",
        help="kinds of listener, as tcp,udp,ws (default: all)",
    )
    add("--max-tunnels", type=_asType(_count), metavar="N", help="tunnels at once")
    add("--max-visitors", type=_asType(_count), metavar="N", help="visitors at once")
    add(
        "--rate",
        type=_asType(parseRate),
        metavar="RATE",
        help="bytes per second each way, as 10MB/s",
    )
    add(
        "--expires",
        type=_asType(_end),
        metavar="WHEN",
        help="after a while, as 30d, or at a time, as 2030-12-31 (default: never)",
    )
    add(
        "--may",
        type=_asType(_rights),
        default=["open"],
        metavar="LIST",
        help="open tunnels, access others' services, admin: see and end everything"
        " (default: open)",
    )
    add(
        "--services",
        type=_asType(_words),
        metavar="LIST",
        help="with --may access: which services, as ssh,db-* (default: all)",
    )
    _addFile(create)
    create.set_defaults(run=_create)

    listing = actions.add_parser("list", help="list all tokens")
    listing.add_argument("--json", action="store_true", help="print JSON lines")
    _addFile(listing)
    listing.set_defaults(run=_list)

    show = actions.add_parser("show", help="show what a token permits")
    show.add_argument("name", metavar="NAME")
    _addFile(show)
    show.set_defaults(run=_show)

    revoke = actions.add_parser(
        "revoke", help="revoke a token, and end what lives on it"
    )
    revoke.add_argument("name", metavar="NAME")
    _addFile(revoke)
    revoke.set_defaults(run=_revoke)


def _addFile(parser: Any) -> None:
    """
    Add the option that all actions have.
    """
    parser.add_argument(
        "--file",
        metavar="FILE",
        help="the token file (default: tokens in the state directory)",
    )


def _store(options: Namespace) -> TokenStore:
    """
    The file that is meant.
    """
    return TokenStore(options.file or defaultTokenFile())


def _create(options: Namespace) -> None:
    """
    Make a token.
    """
    protocols = options.protocols
    permissions = Permissions(
        ports=options.ports,
        protocols=None if protocols is None else frozenset(protocols),
        maxTunnels=options.max_tunnels,
        maxVisitors=options.max_visitors,
        rate=options.rate,
        expires=options.expires,
        may=frozenset(options.may),
        services=None if options.services is None else tuple(options.services),
    )
    try:
        # What we write, we must be able to read.
        parseToken(formatToken(Token("name", bytes(32), permissions)))
    except ValueError as error:
        raise TunnelError("bad-option", str(error)) from None
    token = _store(options).create(options.name, permissions)
    print(f"The token of {options.name}, which is shown only now: {token}")


def _problems(tokens: TokenList) -> None:
    """
    Say which lines are broken.
    """
    for problem in tokens.problems:
        print(f"line {problem.line}: {problem.reason}", file=sys.stderr)


def _state(token: Token) -> str:
    """
    Whether a token is good, in a word or two.
    """
    expires = token.permissions.expires
    if token.revoked is not None:
        return "revoked"
    if expires is None:
        return "valid"
    left = expires - now()
    return f"valid for {formatDuration(left)}" if left > 0 else "expired"


def _may(token: Token) -> str:
    """
    What a token permits, in a few words.
    """
    permissions = token.permissions
    words = [right for right in RIGHTS if right in permissions.may] or ["nothing"]
    if permissions.ports is not None:
        words.append(f"ports {permissions.ports}")
    if permissions.protocols is not None:
        words.append("/".join(sorted(permissions.protocols)) or "no protocol")
    if permissions.maxTunnels is not None:
        words.append(f"{permissions.maxTunnels} tunnels")
    if permissions.maxVisitors is not None:
        words.append(f"{permissions.maxVisitors} visitors")
    if permissions.rate is not None:
        words.append(formatRate(permissions.rate))
    if permissions.services is not None:
        words.append(f"services {' '.join(permissions.services)}")
    return ", ".join(words)


def _list(options: Namespace) -> None:
    """
    Print a line for each token.
    """
    tokens = _store(options).read()
    _problems(tokens)
    if options.json:
        for token in tokens.byName.values():
            print(formatToken(token))
        return
    rows = [(each.name, _state(each), _may(each)) for each in tokens.byName.values()]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for name, state, may in rows:
        print(f"{name:{widths[0]}}  {state:{widths[1]}}  {may}")


def _show(options: Namespace) -> None:
    """
    Print all that is known of a token.
    """
    tokens = _store(options).read()
    _problems(tokens)
    token = tokens.byName.get(options.name)
    if token is None:
        raise TunnelError("bad-option", f"there is no token {options.name!r}")
    print(f"state: {_state(token)}")
    for key, value in json.loads(formatToken(token)).items():
        text = ", ".join(value) if isinstance(value, list) else str(value)
        print(f"{key}: {text}")


def _revoke(options: Namespace) -> None:
    """
    Revoke a token.
    """
    token = _store(options).revoke(options.name)
    assert token.revoked is not None
    print(f"The token of {token.name} is revoked since {formatTime(token.revoked)}")
