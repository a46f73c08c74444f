"""C{tristunnel cluster}: the members of a cluster, and draining one of them."""

from __future__ import annotations

import json
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from twisted.internet.task import deferLater

from tristunnel.cli.question import DEFAULT_SERVER, addServerOptions, askServer
from tristunnel.cli.token import asType
from tristunnel.errors import TunnelError
from tristunnel.util.quantities import formatDuration, parseDuration
from tristunnel.util.words import plural

__all__ = ["addClusterCommands"]

INTERVAL = 1.0
"""Seconds between two polls of C{--wait}."""

_HEADINGS = (
    *("MEMBER", "STATE", "VERSION", "CLIENTS AT", "MEMBERS AT", "CLIENTS"),
    *("TUNNELS", "STREAMS", "LOAD", "ENGINE", "UP"),
)


def addClusterCommands(commands: Any) -> None:
    """
    Add C{cluster} to the commands of a parser.

    @param commands: What C{add_subparsers} returned.
    """
    cluster = commands.add_parser(
        "cluster",
        help="show a cluster's members, and drain one before it is stopped",
        description="Show the members of a server's cluster, or drain one of them: its"
        " clients move to other members, and its visitors stay until they finish.",
    )
    actions = cluster.add_subparsers(metavar="ACTION", required=True)
    status = actions.add_parser("status", help="show all members")
    status.add_argument(
        "--json", action="store_true", help="print one JSON object per line"
    )
    status.set_defaults(run=_status)
    drain = actions.add_parser("drain", help="send a member's clients elsewhere")
    drain.add_argument("member", metavar="MEMBER", help=_MEMBER)
    drain.add_argument(
        "--wait",
        metavar="TIME",
        nargs="?",
        const=86400.0,
        type=asType(parseDuration),
        help="wait until it has no clients and streams, for at most this long,"
        " such as 10m"
        " (default: a day)",
    )
    drain.set_defaults(run=_drain)
    undrain = actions.add_parser("undrain", help="let a member have clients again")
    undrain.add_argument("member", metavar="MEMBER", help=_MEMBER)
    undrain.set_defaults(run=_undrain)
    for each in (status, drain, undrain):
        addServerOptions(
            each,
            "any member: http://HOST:PORT, https://HOST or unix:/PATH (default: this"
            f" user's server on this machine, or {DEFAULT_SERVER})",
            "a token that may admin",
        )


_MEMBER = (
    "its name in the list, or its address or host; self for the member that is asked"
)


async def _status(reactor: Any, options: Namespace) -> None:
    members = await askServer(reactor, options, "listMembers")
    if options.json:
        for each in members:
            print(json.dumps(each))
        return
    rows = [_HEADINGS, *map(_row, members)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = (f"{cell:{width}}" for cell, width in zip(row, widths, strict=True))
        print("  ".join(cells).rstrip())
    for each in members:
        if why := each.get("why"):
            print(f"member {each['member']} cannot be asked: {why}")


def _row(member: Mapping[str, Any]) -> tuple[str, ...]:
    up = member.get("seconds")
    keys = (
        *("member", "state", "version", "clientAddress", "address", "clients"),
        *("tunnels", "streams", "load", "engine"),
    )
    found = [str(member.get(key, "")) or "-" for key in keys]
    return (*found, "-" if up is None else formatDuration(up))


async def _drain(reactor: Any, options: Namespace) -> None:
    members = await askServer(reactor, options, "drainMember", member=options.member)
    names = {each["member"] for each in members}
    for each in members:
        print(_told(each))
    if options.wait is None:
        return
    until = reactor.seconds() + options.wait
    while left := [each for each in members if each["state"] != "drained"]:
        if reactor.seconds() >= until:
            told = "; ".join(map(_told, left))
            raise TunnelError("limit-reached", f"not drained in time: {told}")
        await deferLater(reactor, INTERVAL)
        listed = await askServer(reactor, options, "listMembers")
        members = [each for each in listed if each["member"] in names]
    print("drained: the server can be stopped")


async def _undrain(reactor: Any, options: Namespace) -> None:
    for each in await askServer(
        reactor, options, "undrainMember", member=options.member
    ):
        print(_told(each))


def _told(member: Mapping[str, Any]) -> str:
    text = f"member {member['member']} is {member['state']}"
    if member["state"] == "draining":
        clients = plural(int(member["clients"]), "client")
        text += f": {clients} and {plural(int(member['streams']), 'stream')} left"
    return text
