"""C{tristunnel requests}: the requests of visitors to this user's web services."""

from __future__ import annotations

import json
import sys
from argparse import SUPPRESS, Namespace
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from tristunnel.cli.call import CallFailed, CallRequest, Target, ask, parseTarget
from tristunnel.cli.question import liveSockets
from tristunnel.client.control import clientSockets
from tristunnel.connect.route import NONE
from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.jsonrpc.pending import RemoteError
from tristunnel.util.files import defaultStateDirectory
from tristunnel.util.words import amount

__all__ = ["addRequestsCommands"]

INTERVAL = 1.0
"""Seconds between two polls of C{--follow}."""

_PATIENCE = 90.0
_UNKNOWN_METHOD = -32601

_SILENT = object()

_NOBODY = (
    "no client of this user keeps requests here; start one with --inspect,"
    " for example tristunnel http 3000 --inspect"
)


def addRequestsCommands(commands: Any) -> None:
    """
    Add C{requests} to the commands of a parser.

    @param commands: What C{add_subparsers} returned.
    """
    requests = commands.add_parser(
        "requests",
        help="show what visitors asked of your web services, and send it again",
        description="Show the latest requests of visitors to a client that runs with"
        " --inspect; or do something with one of them.",
    )
    _addOptions(requests, "filter", "follow", "json", "reveal", *_WHERE)
    requests.set_defaults(run=_list)
    actions = requests.add_subparsers(metavar="ACTION")

    def action(name: str, run: Callable[..., Any], text: str, *takes: str) -> None:
        told = f"{text[0].upper()}{text[1:]}."
        made = actions.add_parser(name, help=text, description=told)
        if "id" in takes:
            made.add_argument("id", metavar="ID", type=int, help="its ID in the list")
        # Options in front of the action apply, too.
        _addOptions(made, *takes, *_WHERE, default=SUPPRESS)
        made.set_defaults(run=run)

    action("show", _show, "show all that is known of a request", "id", "json", "reveal")
    action(
        "replay",
        _replay,
        "send a request again to its service",
        *("id", "method", "path", "header", "body-file", "json"),
    )
    action("curl", _curl, "print a request as a command for curl", "id", "reveal")
    action("har", _har, "print requests as an HTTP Archive", "filter", "reveal")
    action("page", _page, "print the address of the page, with its token")
    action("clear", _clear, "forget all requests")


_WHERE = ("rpc", "state-dir")

_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "filter": {
        "metavar": "WORDS",
        "default": "",
        "help": "only some: method:POST status:5xx path:/api host:NAME, or words that"
        " are in them",
    },
    "follow": {"action": "store_true", "help": "keep showing new ones"},
    "json": {"action": "store_true", "help": "print one JSON object per line"},
    "reveal": {"action": "store_true", "help": "show secrets, too"},
    "method": {"metavar": "METHOD", "help": "with another method"},
    "path": {"metavar": "PATH", "help": "for another path and query"},
    "header": {
        "metavar": "NAME:VALUE",
        "action": "append",
        "default": [],
        "help": "with this header in place of its own of that name; can be repeated",
    },
    "body-file": {
        "metavar": "FILE",
        "default": "",
        "help": "with the contents of this file as its body",
    },
    "rpc": {
        "metavar": "WHERE",
        "default": "",
        "help": "the client's --rpc (default: this user's clients)",
    },
    "state-dir": {
        "metavar": "DIRECTORY",
        "default": "",
        "help": "the clients' state directory",
    },
}
_OF_ALL = frozenset(("filter", "follow", "json", "reveal", *_WHERE))


def _addOptions(parser: Any, *names: str, default: object = None) -> None:
    for name in names:
        if name in _OPTIONS:
            keywords = dict(_OPTIONS[name])
            if default is not None and name in _OF_ALL:
                keywords["default"] = default
            parser.add_argument(f"--{name}", **keywords)


def _places(options: Namespace) -> list[tuple[str, Target]]:
    """Find out where to ask: the display name of each client, and how it is reached."""
    if options.rpc:
        try:
            return [(options.rpc, parseTarget(options.rpc))]
        except ValueError as error:
            raise badOption(f"--rpc {printable(options.rpc, 60)}: {error}") from None
    directory = Path(options.state_dir or defaultStateDirectory()).absolute()
    names = [f"unix:{path}" for path in liveSockets(clientSockets(directory))]
    return [(name, parseTarget(name)) for name in names]


async def _answerOf(
    reactor: Any, target: Target, call: str, parameters: Mapping[str, object]
) -> Any:
    """
    Call a method of a client.

    @return: The answer, or L{_SILENT} from one that keeps no requests, or ends now.
    @raise TunnelError: If it refuses.
    """
    request = CallRequest(
        target, call, parameters, timeout=_PATIENCE, proxy=NONE, verbatim=True
    )
    try:
        return await ask(reactor, request)
    except RemoteError as error:
        if error.number != _UNKNOWN_METHOD:
            raise TunnelError("bad-option", printable(str(error), 300)) from None
    except CallFailed:
        pass
    return _SILENT


async def _call(
    reactor: Any, options: Namespace, call: str, /, **parameters: object
) -> Any:
    """
    Ask the client that keeps requests.

    @raise TunnelError: If there is none, or more than one, or it refuses.
    """
    places = _places(options)
    if len(places) > 1:
        places = [
            (name, target)
            for name, target in places
            if await _answerOf(reactor, target, "requestsPage", {}) is not _SILENT
        ]
    if len(places) > 1:
        names = " or ".join(f"--rpc {name}" for name, _ in places)
        raise badOption(f"several clients keep requests: choose one by {names}")
    for _, target in places:
        answer = await _answerOf(reactor, target, call, parameters)
        if answer is not _SILENT:
            return answer
    raise TunnelError("session-lost", _NOBODY)


def _write(text: str) -> None:
    encoding = sys.stdout.encoding or "utf-8"
    sys.stdout.write(text.encode(encoding, "backslashreplace").decode(encoding) + "\n")
    sys.stdout.flush()


def _line(request: Mapping[str, Any]) -> str:
    clock = datetime.fromtimestamp(float(request["time"])).strftime("%H:%M:%S")
    status, seconds = request["status"], request["seconds"]
    shown = "none" if request["over"] else "..."
    took = "" if seconds is None else f"{seconds * 1000:,.0f} ms"
    told = [
        f"{request['id']:>5}  {clock}",
        f"{shown if status is None else status:>4}",
        f"{took:>9}  {amount(int(request['responseSize'])):>8}",
        printable(f"{request['method']} {request['path']}", 300),
    ]
    if request["messages"]:
        told.append(f"({request['messages']} messages)")
    if request["replayOf"]:
        told.append(f"(again {request['replayOf']})")
    if request["problem"]:
        told.append(f"({printable(request['problem'], 200)})")
    return "  ".join(told)


async def _list(reactor: Any, options: Namespace) -> None:
    from twisted.internet.task import deferLater

    since, told = 0, set()
    notes: set[tuple[str, str]] = set()
    while True:
        found = await _call(
            reactor,
            options,
            "listRequests",
            since=since,
            filter=options.filter,
            reveal=options.reveal,
        )
        for request in found["requests"]:
            # New requests are printed once each: when they are over.
            if request["id"] in told or (options.follow and not request["over"]):
                continue
            told.add(request["id"])
            _write(json.dumps(request) if options.json else _line(request))
        for note in found["notes"]:
            key = note["target"], note["reason"]
            if key not in notes:
                notes.add(key)
                text = f"not shown, of {note['target']}: {note['reason']}"
                print(printable(text, 300), file=sys.stderr)
        since = found["version"]
        told.intersection_update(found["ids"])
        if not options.follow:
            return
        await deferLater(reactor, INTERVAL)


def _lines(text: str) -> str:
    """Split foreign text into lines without control characters for the terminal."""
    return "\n".join(printable(line, len(line)) for line in text.split("\n"))


def _told(title: str, part: Mapping[str, Any] | None) -> Sequence[str]:
    if part is None:
        return ()
    body = part["body"]
    headers = [
        f"{name}: {value}" for name, value in (*part["headers"], *part["trailers"])
    ]
    size = f"{body['kept']} of {body['size']} bytes" if body["size"] else ""
    note = ", ".join(each for each in (size, body["note"]) if each)
    lines = ["", title, *headers]
    if note:
        lines.append(f"[{note}]")
    shown = body["pretty"] or body["text"]
    return [*lines, "", shown] if shown else lines


async def _show(reactor: Any, options: Namespace) -> None:
    one = await _call(
        reactor, options, "getRequest", id=options.id, reveal=options.reveal
    )
    if options.json:
        _write(json.dumps(one))
        return
    response = one["response"]
    answer = (
        f"HTTP/{response['version']} {one['status']} {one['reason']}"
        if response
        else ""
    )
    asked = f"{one['method']} {one['path']} HTTP/{one['request']['version']}"
    lines = [
        _line(one),
        f"from {one['visitor'] or 'somebody'} to {one['target']}",
        *_told(asked, one["request"]),
        *_told(answer, response),
    ]
    for frame in one["frames"]:
        who = "visitor" if frame["fromVisitor"] else "service"
        note = f", {frame['note']}" if frame["note"] else ""
        lines += ["", f"{who}: {frame['opcode']}, {frame['size']} bytes{note}"]
        lines += [frame["text"]] * bool(frame["text"])
    _write(_lines("\n".join(lines)))


async def _replay(reactor: Any, options: Namespace) -> None:
    edits: dict[str, object] = {}
    for name in ("method", "path"):
        if getattr(options, name) is not None:
            edits[name] = getattr(options, name)
    if options.header:
        edits["headers"] = await _headers(reactor, options)
    if options.body_file:
        try:
            data = Path(options.body_file).read_bytes()
        except OSError as error:
            raise badOption(
                f"--body-file {options.body_file}: {error.strerror}"
            ) from None
        edits["body"] = data.decode("utf-8", "surrogateescape")
    made = await _call(reactor, options, "replayRequest", id=options.id, **edits)
    _write(json.dumps(made) if options.json else _line(made))


async def _headers(reactor: Any, options: Namespace) -> list[list[str]]:
    given = []
    for each in options.header:
        name, colon, value = each.partition(":")
        if not colon or not name.strip():
            raise badOption(f"--header {printable(each, 60)!r}: write NAME:VALUE")
        given.append([name.strip(), value.strip()])
    one = await _call(reactor, options, "getRequest", id=options.id)
    replaced = {name.lower() for name, _ in given}
    kept = one["request"]["headers"]
    return [*(pair for pair in kept if pair[0].lower() not in replaced), *given]


async def _curl(reactor: Any, options: Namespace) -> None:
    one = await _call(
        reactor, options, "getRequest", id=options.id, reveal=options.reveal
    )
    _write(_lines(one["curl"]))


async def _har(reactor: Any, options: Namespace) -> None:
    har = await _call(
        reactor, options, "exportRequests", filter=options.filter, reveal=options.reveal
    )
    _write(json.dumps(har, indent=1))


async def _page(reactor: Any, options: Namespace) -> None:
    _write(printable(await _call(reactor, options, "requestsPage"), 300))


async def _clear(reactor: Any, options: Namespace) -> None:
    await _call(reactor, options, "clearRequests")
