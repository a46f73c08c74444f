"""C{tristunnel access}: list what C{twistd tunnel-access} has open, and end it."""

from __future__ import annotations

import json
import socket
from argparse import Namespace
from collections.abc import Iterator
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

from tristunnel.client.control import accessSockets
from tristunnel.errors import TunnelError
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
    access = commands.add_parser("access", help="list and end on-demand access")
    actions = access.add_subparsers(metavar="ACTION", required=True)
    list_ = actions.add_parser("list", help="what is open, and who is there")
    list_.add_argument("--json", action="store_true", help="an object on each line")
    list_.set_defaults(run=_list)
    end = actions.add_parser("end", help="end an access, or one visitor of it")
    end.add_argument("id", metavar="ID", help="as the list has it")
    end.set_defaults(run=_end)
    for each in (list_, end):
        each.add_argument(
            "--state-dir", metavar="DIRECTORY", default="", help="of tunnel-access"
        )


class _ToSocket(HTTPConnection):
    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=_PATIENCE)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(_PATIENCE)
        self.sock.connect(str(self._path))


def _call(path: Path, method: str, **parameters: str) -> Any:
    call = {"jsonrpc": "2.0", "id": 1, "method": method, "params": parameters}
    connection = _ToSocket(path)
    try:
        connection.request(
            "POST", "/rpc", json.dumps(call), {"Content-Type": "application/json"}
        )
        answer = json.loads(connection.getresponse().read())
        if "error" in answer:
            error = answer["error"]
            raise TunnelError(error["data"]["code"], error["message"])
        return printableIn(answer["result"])
    except (OSError, HTTPException, ValueError, LookupError, TypeError) as error:
        raise TunnelError(
            "session-lost", f"{path} does not answer: {error or type(error).__name__}"
        ) from None
    finally:
        connection.close()


def _sockets(options: Namespace) -> Iterator[Path]:
    """Find the programs that run. What one left behind that was killed, goes."""
    directory = accessSockets(Path(options.state_dir or defaultStateDirectory()))
    for path in sorted(directory.glob("*.sock")):
        with socket.socket(socket.AF_UNIX) as probe:
            probe.settimeout(_PATIENCE)
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                with suppress(OSError):
                    path.unlink()
                continue
            except OSError:
                continue
        yield path


def _list(options: Namespace) -> None:
    for path in _sockets(options):
        for entry in _call(path, "listSessions"):
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


def _end(options: Namespace) -> None:
    own = options.id.partition(".")[0]
    for path in _sockets(options):
        if path.stem == own:
            _call(path, "closeSession", id=options.id)
            return
    raise TunnelError("unknown-session", f"there is no access {options.id[:64]!r}")
