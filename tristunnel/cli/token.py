"""C{tristunnel token}: create, list, show and revoke tokens."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from time import time as now
from typing import Any, TypeVar

from tristunnel.auth.files import readAtOnce, reasonOf
from tristunnel.auth.public_keys import parseKey
from tristunnel.auth.token_store import TokenStore
from tristunnel.auth.tokens import defaultTokenFile
from tristunnel.auth.tokens_format import (
    Token,
    TokenList,
    endOf,
    formatTime,
    formatToken,
    parseToken,
    permitted,
    stateOf,
    tokenNameProblem,
)
from tristunnel.dialects.conch.hostkey import FILE_NAME, HostKey
from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.model.names import parseNames
from tristunnel.model.permissions import RIGHTS, Permissions
from tristunnel.model.policy import VisitorPolicy, parseCountries, parseNetworks
from tristunnel.model.ports import parsePorts
from tristunnel.util.quantities import parseDuration, parseRate
from tristunnel.util.words import nearest

__all__ = [
    "addPermissions",
    "addTokenCommands",
    "asType",
    "checkedName",
    "permissionsOf",
]

_T = TypeVar("_T")


def asType(read: Callable[[str], _T]) -> Callable[[str], _T]:
    def argument(text: str) -> _T:
        try:
            return read(text)
        except TunnelError as error:
            raise ArgumentTypeError(error.message) from None

    return argument


def checkedName(text: str) -> str:
    """
    Read the name of a token.

    @raise TunnelError: C{bad-option}.
    """
    if problem := tokenNameProblem(text):
        raise badOption(problem)
    return text


def _count(text: str) -> int:
    if not (text.isascii() and text.isdecimal()) or int(text) > 10**9:
        raise badOption(f"{text[:40]!r} is not a whole number")
    return int(text)


def _words(text: str) -> list[str]:
    words = [word.strip() for word in text.split(",")]
    if not all(words):
        raise badOption(f"{text[:40]!r}: a word is missing")
    return words


def _key(text: str) -> bytes:
    """Read the file of a public key; vtunnel's key files can be given as they are."""
    if text.startswith("vt-pub-"):
        return parseKey(text)
    try:
        data = readAtOnce(text)[1]
    except (OSError, ValueError) as error:
        raise badOption(f"cannot read {text!r}: {reasonOf(error)}") from None
    return parseKey(data.decode("utf-8", "replace"))


def _rights(text: str) -> list[str]:
    words = _words(text)
    for word in words:
        if word not in RIGHTS:
            raise badOption(
                f"{word[:40]!r} is not a right; choose from {', '.join(RIGHTS)}"
            )
    return words


def _networks(text: str) -> tuple[Any, ...]:
    return parseNetworks(_words(text))


def _countries(text: str) -> tuple[str, ...]:
    return parseCountries([text])


def _seconds(text: str) -> float:
    """Read a duration; a number alone is seconds, as for the server's options."""
    if text.isascii() and text.isdecimal():
        text += "s"
    seconds = parseDuration(text)
    if not 1 <= seconds <= 1e9:
        raise badOption(f"{text[:40]!r} must be at least 1 second")
    return seconds


def _end(text: str) -> float:
    """Read when a token expires, in seconds since the epoch."""
    return endOf(text, now())


_Row = tuple[str, Callable[[str], object], str, str]

_PERMISSIONS: tuple[_Row, ...] = (
    (
        "ports",
        parsePorts,
        "RANGE",
        "visitors' ports, such as 9000-9010,9100 (default: all of the server's)",
    ),
    (
        "names",
        lambda text: parseNames(text.split(",")),
        "LIST",
        "hosts that visitors ask for, such as blog,*.example.org, which are nobody"
        " else's (default: all free ones below the server's domains)",
    ),
    (
        "protocols",
        _words,
        "LIST",
        "kinds of listener, such as tcp,udp,ws (default: all)",
    ),
    ("max-tunnels", _count, "N", "tunnels at once"),
    ("max-visitors", _count, "N", "visitors at once"),
    ("rate", parseRate, "RATE", "bytes per second each way, such as 10MB/s"),
    (
        "expires",
        _end,
        "WHEN",
        "after a while, such as 30d, or on a date, such as 2030-12-31 (default: never)",
    ),
    (
        "may",
        _rights,
        "LIST",
        "open (tunnels), access (others' services), dial (what the server can reach),"
        " share (ports with others), admin (see and end everything) (default: open)",
    ),
    (
        "services",
        _words,
        "LIST",
        "with --may access: which services, such as ssh,db-* (default: all)",
    ),
)

_POLICY: dict[str, _Row] = {
    "allow": (
        "allow",
        _networks,
        "LIST",
        "networks they may come from, such as 192.0.2.0/24,2001:db8::/32",
    ),
    "deny": ("deny", _networks, "LIST", "networks they may not come from"),
    "countries": (
        "countries",
        _countries,
        "LIST",
        "countries they may come from, such as DE,AT",
    ),
    "maxVisitors": (
        "visitors-per-tunnel",
        _count,
        "N",
        "visitors of one tunnel at once",
    ),
    "visitorsPerAddress": (
        "visitors-per-address",
        _count,
        "N",
        "visitors of one tunnel at once, from one address",
    ),
    "visitorRate": (
        "visitor-rate",
        _count,
        "N",
        "visitors of one tunnel per minute, from one address",
    ),
    "rate": (
        "rate-per-tunnel",
        parseRate,
        "RATE",
        "bytes per second each way of one tunnel, such as 1MB/s",
    ),
    "idle": (
        "idle-timeout",
        _seconds,
        "TIME",
        "disconnect visitors after so long without traffic, such as 10m",
    ),
    "maxAge": (
        "max-stream-age",
        _seconds,
        "TIME",
        "disconnect visitors at this age, such as 12h",
    ),
}
"""The options about visitors of a token's tunnels, by their names in policies."""


def addTokenCommands(commands: Any) -> None:
    """
    Add C{token} to the commands of a parser.

    @param commands: What C{add_subparsers} returned.
    """
    token = commands.add_parser("token", help="create, list, show and revoke tokens")
    actions = token.add_subparsers(metavar="ACTION", required=True)
    create = actions.add_parser(
        "create",
        help="create a token",
        description="Create a token. It is the last word of the output, and is not"
        " stored: the token file has only its SHA-256.",
    )
    create.add_argument(
        "--name",
        required=True,
        type=asType(checkedName),
        metavar="NAME",
        help="who it is for",
    )
    create.add_argument(
        "--key",
        action="append",
        default=[],
        type=asType(_key),
        metavar="FILE",
        help="file with a public key, as ssh-keygen makes, that is as good as the"
        " token for SSH clients; can be repeated",
    )
    addPermissions(create)
    listing = actions.add_parser("list", help="list all tokens")
    listing.add_argument("--json", action="store_true", help="print JSON lines")
    show = actions.add_parser("show", help="show what a token permits")
    revoke = actions.add_parser("revoke", help="revoke a token, and end its sessions")
    for action in (show, revoke):
        action.add_argument("name", metavar="NAME")
    for action, run in (
        (create, _create),
        (listing, _list),
        (show, _show),
        (revoke, _revoke),
    ):
        action.set_defaults(run=run)
        action.add_argument(
            "--file",
            metavar="FILE",
            help="the token file (default: tokens in the state directory)",
        )


def addPermissions(parser: Any, expires: str = "expires") -> None:
    """
    Add the options that say what a new token permits.

    @param expires: The name of the option about its end.
    """
    visitors = parser.add_argument_group(
        "Limits on visitors",
        "For each tunnel, in addition to the limits of the server and the client;"
        " the strictest applies.",
    )
    for group, rows in ((parser, _PERMISSIONS), (visitors, _POLICY.values())):
        for name, read, metavar, text in rows:
            option = expires if name == "expires" else name
            reader = asType(read)
            group.add_argument(f"--{option}", type=reader, metavar=metavar, help=text)


def permissionsOf(options: Namespace, expires: str = "expires") -> Permissions:
    """
    Read the options that L{addPermissions} has added.

    @raise TunnelError: C{bad-option}.
    """
    protocols = options.protocols
    permissions = Permissions(
        ports=options.ports,
        names=options.names,
        protocols=None if protocols is None else frozenset(protocols),
        maxTunnels=options.max_tunnels,
        maxVisitors=options.max_visitors,
        rate=options.rate,
        policy=_policyOf(options),
        expires=getattr(options, expires.replace("-", "_")),
        may=frozenset(options.may or ("open",)),
        services=None if options.services is None else tuple(options.services),
    )
    try:
        # We must be able to read what we write.
        parseToken(formatToken(Token("name", bytes(32), permissions)))
    except ValueError as error:
        raise badOption(str(error)) from None
    return permissions


def _policyOf(options: Namespace) -> VisitorPolicy:
    given = {
        field: getattr(options, name.replace("-", "_"))
        for field, (name, *_) in _POLICY.items()
    }
    return VisitorPolicy(**{k: v for k, v in given.items() if v is not None})


def _store(options: Namespace) -> TokenStore:
    return TokenStore(options.file or defaultTokenFile())


def _create(options: Namespace) -> None:
    permissions = permissionsOf(options)
    token = _store(options).create(options.name, permissions, tuple(options.key))
    directory = Path(options.file or defaultTokenFile()).parent
    if options.key and (directory / FILE_NAME).exists():
        # The token is the last word.
        shown = HostKey.inDirectory(directory).fingerprint
        print(f"The SSH host key of the server is {shown} (ED25519)")
    print(f"The token of {options.name}, which is shown only now: {token}")


def _problems(tokens: TokenList) -> None:
    for problem in tokens.problems:
        print(f"line {problem.line}: {problem.reason}", file=sys.stderr)


def _list(options: Namespace) -> None:
    tokens = _store(options).read()
    _problems(tokens)
    if options.json:
        for token in tokens.byName.values():
            print(formatToken(token))
        return
    rows = [
        (each.name, stateOf(each, now()), permitted(each.permissions))
        for each in tokens.byName.values()
    ]
    widths = [max((len(row[column]) for row in rows), default=0) for column in (0, 1)]
    for name, state, may in rows:
        print(f"{name:{widths[0]}}  {state:{widths[1]}}  {may}")


def _show(options: Namespace) -> None:
    tokens = _store(options).read()
    _problems(tokens)
    token = tokens.byName.get(options.name)
    if token is None:
        near = nearest(options.name, tokens.byName, lists=False)
        cure = near or "; 'tristunnel token list' shows all"
        raise badOption(f"there is no token {printable(options.name, 60)!r}{cure}")
    print(f"state: {stateOf(token, now())}")
    for key, value in json.loads(formatToken(token)).items():
        text = ", ".join(value) if isinstance(value, list) else str(value)
        print(f"{key}: {text}")


def _revoke(options: Namespace) -> None:
    token = _store(options).revoke(options.name)
    assert token.revoked is not None
    print(f"The token of {token.name} was revoked on {formatTime(token.revoked)}")
