"""C{tristunnel invite}: make, list and revoke invitations."""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from time import time as now
from typing import Any

from tristunnel.auth.token_store import INVITATION_TIME, TokenStore
from tristunnel.auth.tokens_format import formatTime, permitted, stateOf
from tristunnel.cli.token import addPermissions, asType, checkedName, permissionsOf
from tristunnel.errors import badOption
from tristunnel.service.invitations import ServerPlace
from tristunnel.util.files import defaultStateDirectory
from tristunnel.util.hosts import hostName, portNumber
from tristunnel.util.quantities import formatDuration, parseDuration
from tristunnel.wire.invitation import PLACEHOLDER

__all__ = ["addInviteCommand", "serverDirectory"]


def addInviteCommand(commands: Any) -> None:
    """
    Add C{invite} to the commands of a parser.

    @param commands: What C{add_subparsers} returned.
    """
    invite = commands.add_parser(
        "invite",
        help="let another machine use this server: print an invitation",
        description="Print an invitation: a line to paste on another machine, which"
        " gives it a token of its own, once. The invitation is not stored.",
    )
    add = invite.add_argument
    add(
        "--name",
        default="",
        type=asType(lambda text: text and checkedName(text)),
        metavar="NAME",
        help="who it is for (default: client)",
    )
    add(
        "--expires",
        type=asType(parseDuration),
        default=INVITATION_TIME,
        metavar="TIME",
        help="how long it can be used, for example 2h (default: 24h)",
    )
    add("--list", action="store_true", help="list unused invitations")
    add("--revoke", metavar="NAME", help="revoke one")
    add(
        "--hostname",
        type=asType(_host),
        metavar="HOST",
        help="where clients reach the server (default: its --hostname, or this"
        " machine's global address)",
    )
    add(
        "--port",
        type=asType(_port),
        metavar="PORT",
        help="the port that they reach it at (default: the server's)",
    )
    add("--state-dir", metavar="DIR", help="the state directory of the server")
    add("--file", metavar="FILE", help="the token file (default: the server's)")
    addPermissions(invite, expires="token-expires")
    invite.set_defaults(run=_run)


def _host(text: str) -> str:
    try:
        return hostName(text)
    except ValueError as error:
        raise badOption(str(error)) from None


def _port(text: str) -> int:
    try:
        return portNumber(text)
    except ValueError as error:
        raise badOption(str(error)) from None


def serverDirectory(told: str | None) -> Path:
    """
    Find the state directory of this machine's server.

    @param told: C{--state-dir}; empty for this user's, or as root for that of the
        service that C{tristunnel install server} has made.
    """
    if told:
        return Path(told)
    mine, service = defaultStateDirectory(), Path("/var/lib/tristunnel")
    isService = (
        getattr(os, "geteuid", lambda: 1)() == 0 and not (mine / "server.json").exists()
    )
    return service if isService and (service / "server.json").exists() else mine


def _checkOwner(directory: Path, tokens: str) -> None:
    """
    As root, write to no file that the server could not write: it is the server that
    names the file of its tokens.
    """
    server = os.stat(directory / "server.json").st_uid
    real = os.path.realpath(tokens)
    if os.geteuid() == 0 and os.path.exists(real) and os.stat(real).st_uid != server:
        raise badOption(f"{real!r} is not the server's: if it is right, give --file")


def _run(options: Namespace) -> None:
    directory = serverDirectory(options.state_dir)
    place = ServerPlace.read(directory)
    if not options.file:
        _checkOwner(directory, place.tokens)
    store = TokenStore(options.file or place.tokens)
    if options.revoke:
        store.revoke(options.revoke)
        print(f"The invitation of {options.revoke} is revoked")
        return
    if options.list:
        _list(store)
        return
    place = replace(
        place, host=options.hostname or place.host, port=options.port or place.port
    )
    # Check for a certificate before a code is made.
    place.invitation("0" * 16)
    permissions = permissionsOf(options, "token-expires")
    code = store.invite(options.name, permissions, options.expires)
    print(f"tristunnel join {place.invitation(code)}")
    note = f"It can be used once, within {formatDuration(options.expires)}"
    if not place.host:
        note += (
            f"; put the server's name or address in place of {PLACEHOLDER}, or give"
            " --hostname"
        )
    # A pipe gets the line alone.
    print(note, file=sys.stderr)


def _list(store: TokenStore) -> None:
    for token in store.read().byName.values():
        if not token.digest and token.revoked is None:
            assert token.until is not None
            print(
                f"{token.name}  {stateOf(token, now())}  until"
                f" {formatTime(token.until)}  {permitted(token.permissions)}"
            )
