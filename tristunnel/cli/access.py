"""
C{tristunnel access}: list what C{twistd tunnel-access} has open, and end it; and grant
access to services.
"""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from tristunnel.cli.call import CallFailed, CallRequest, ask, parseTarget
from tristunnel.cli.grants import addGrantCommands
from tristunnel.cli.question import liveSockets
from tristunnel.client.control import accessSockets
from tristunnel.connect.route import NONE
from tristunnel.errors import TunnelError
from tristunnel.jsonrpc.pending import RemoteError
from tristunnel.util.files import defaultStateDirectory
from tristunnel.util.quantities import formatDuration
from tristunnel.util.words import printableIn

__all__ = ["addAccessCommands"]

_PATIENCE = 5.0


def addAccessCommands(commands: Any) -> None:
    """
    Add C{access} to the commands of a parser.

    @param commands: What C{add_subparsers} returned.
    """
    access = commands.add_parser("access", help="grant, list and end on-demand access")
    actions = access.add_subparsers(metavar="ACTION", required=True)
    list_ = actions.add_parser("list", help="show what is open, and who is connected")
    list_.add_argument(
        "--json", action="store_true", help="print one JSON object per line"
    )
    list_.set_defaults(run=_list)
    end = actions.add_parser("end", help="end an access, or one visitor of it")
    end.add_argument("id", metavar="ID", help="its ID in the list")
    end.set_defaults(run=_end)
    for each in (list_, end):
        each.add_argument(
            "--state-dir",
            metavar="DIRECTORY",
            default="",
            help="tunnel-access's state directory",
        )
    addGrantCommands(actions)


async def _call(reactor: Any, path: Path, method: str, **parameters: str) -> Any:
    target = parseTarget(f"unix:{path}")
    request = CallRequest(target, method, parameters, timeout=_PATIENCE, proxy=NONE)
    try:
        return printableIn(await ask(reactor, request))
    except (CallFailed, RemoteError) as error:
        raise TunnelError("session-lost", f"{path} does not answer: {error}") from None


def _sockets(options: Namespace) -> list[Path]:
    return liveSockets(
        accessSockets(Path(options.state_dir or defaultStateDirectory()))
    )


async def _list(reactor: Any, options: Namespace) -> None:
    for path in _sockets(options):
        for entry in await _call(reactor, path, "listSessions"):
            if options.json:
                print(json.dumps(entry))
                continue
            counts = f"{entry['bytesIn']} bytes in, {entry['bytesOut']} out"
            if entry["kind"] == "visitor":
                print(f"  {entry['id']}  from {entry['from']}, {counts}")
                continue
            left = formatDuration(entry["timeLeft"] or 0)
            state = "" if entry["connected"] else ", not connected"
            print(
                f"{entry['id']}  {entry['listen']} to {entry['service']} at"
                f" {entry['server']}, {left} left, {entry['visitors']} visitors,"
                f" {counts}{state}"
            )


async def _end(reactor: Any, options: Namespace) -> None:
    own = options.id.partition(".")[0]
    for path in _sockets(options):
        if path.stem == own:
            await _call(reactor, path, "closeSession", id=options.id)
            return
    raise TunnelError("unknown-session", f"there is no access {options.id[:64]!r}")
