"""C{tristunnel status}: the state of running servers and clients."""

from __future__ import annotations

import json
import os
import sys
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from twisted.internet.abstract import isIPv6Address

from tristunnel.cli.call import addTLSOptions, parseTarget
from tristunnel.cli.question import DEFAULT_SERVER, Question, lookAt, pageOf
from tristunnel.cli.token import asType
from tristunnel.connect.address import USUAL_PORT
from tristunnel.connect.credentials import TOKEN_VARIABLE
from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.util.hosts import hostAndPort, hostName, parsePlace, webAddress

__all__ = ["addStatusCommand", "tunnelNamed"]

EVENTS = 8
"""The number of events shown for each client, unless all are asked for."""

INTERVAL = 1.0
"""Seconds between two polls of C{--watch}."""


def addStatusCommand(commands: Any) -> None:
    """
    Add C{status} to the commands of a parser.

    @param commands: What C{add_subparsers} returned.
    """
    status = commands.add_parser(
        "status",
        help="show what a running server or client does",
        description="Show what a running server or client does. Without WHERE: this"
        " user's clients on this machine, or else its server.",
    )
    add = status.add_argument
    add(
        "where",
        metavar="WHERE",
        nargs="?",
        default="",
        type=asType(_place),
        help="HOST, HOST:PORT, http://HOST:PORT or unix:/PATH; without a scheme it is"
        " HTTPS, at port 9000 unless told",
    )
    add("--watch", action="store_true", help="refresh every second, until q or Ctrl-C")
    add(
        "--all-events",
        action="store_true",
        help=f"all events, not only the last {EVENTS}",
    )
    add("--json", action="store_true", help="print one JSON object per line")
    add(
        "--qr",
        metavar="TUNNEL",
        help="print the QR code of a tunnel's address: its name, port or address",
    )
    add(
        "--token-file",
        metavar="FILE",
        default="",
        help="file with the token to log in with; - prompts for it (default: the"
        f" variable {TOKEN_VARIABLE})",
    )
    addTLSOptions(status)
    add(
        "--state-dir",
        metavar="DIRECTORY",
        default="",
        help="the clients' state directory",
    )
    status.set_defaults(run=_run)


def _place(text: str) -> str:
    if "#" in text:
        raise badOption(
            "name a server; accept an invitation by: tristunnel join INVITATION"
        )
    try:
        whole = _whole(text.strip())
        parseTarget(whole or DEFAULT_SERVER)
    except ValueError as error:
        reason = str(error).replace("--user or --token", "--token-file")
        # Without the password in it.
        shown = printable(text.rpartition("@")[2], 60)
        raise badOption(f"{shown!r}: {reason}") from None
    return whole


def _whole(text: str) -> str:
    """Read a server's address as the commands that connect do: C{HOST} means TLS."""
    if text.startswith("/"):
        return f"unix:{text}"
    if not text or "://" in text or text.startswith("unix:"):
        return text
    if text.isdecimal():
        raise ValueError("write the server's HOST or HOST:PORT")
    alone = ":" not in text.rpartition("]")[2] or isIPv6Address(text)
    host, port = (hostName(text), USUAL_PORT) if alone else parsePlace(text)
    return f"https://{hostAndPort(host, port)}"


def _lines(
    pen: Any,
    found: Sequence[Mapping[str, Any]],
    width: int,
    height: int | None = None,
    hints: Sequence[str] = (),
    events: int | None = None,
) -> list[str]:
    from tristunnel.screen.draw import drawPage, natural
    from tristunnel.screen.model import lately

    lines: list[str] = []
    for index, status in enumerate(found):
        page = pageOf(status, () if lines else hints)
        if events is not None and page.events is not None:
            page = replace(page, events=lately(page.events, events))
        if lines:
            lines.append("")
        left = None
        if height is not None:
            left = max(0, (height - len(lines)) // (len(found) - index))
        lines += drawPage(pen, page, width or max(80, natural(page)), left)
    return lines


def tunnelNamed(found: Sequence[Mapping[str, Any]], name: str) -> str:
    """
    Find the address of a tunnel, for a QR code.

    @param name: The tunnel's name, its port, its address, or its service.
    @return: What a phone should open.
    @raise TunnelError: If there is none, or several.
    """
    addresses: dict[str, set[str]] = {}
    for status in found:
        for tunnel in status["tunnels"]:
            address = str(tunnel["address"])
            web = webAddress(address, str(tunnel.get("speaks") or "http"))
            if web:
                wanted = str(tunnel.get("forward", "")).partition("=")[0]
                addresses.setdefault(web, set()).update(
                    (
                        address,
                        web,
                        web.rstrip("/"),
                        address.rpartition(":")[2],
                        str(tunnel.get("target", "")),
                        str(tunnel.get("name", "")),
                        wanted,
                    )
                )
    matches = [web for web, names in addresses.items() if name and name in names]
    if len(matches) == 1:
        return matches[0]
    if not addresses:
        raise TunnelError("unknown-tunnel", "no tunnel has an address for a QR code")
    raise TunnelError(
        "unknown-tunnel",
        f"{'several tunnels are' if matches else 'no tunnel is'} called {name[:64]!r};"
        f" there is {', '.join(addresses)}",
    )


async def _run(reactor: Any, options: Namespace) -> None:
    question = Question(options)
    if options.watch:
        await _watch(reactor, question, options)
    else:
        _show(await lookAt(reactor, question), options)


def _show(found: Sequence[Mapping[str, Any]], options: Namespace) -> None:
    from tristunnel.screen.draw import Pen

    out = sys.stdout
    pen = Pen(out.encoding or "utf-8", out.isatty())
    if options.qr is not None:
        from tristunnel.util.qr import qrLines

        address = tunnelNamed(found, options.qr)
        lines = [address, *qrLines(address, pen.unicode, pen.coloured)]
    elif options.json:
        lines = [json.dumps(status) for status in found]
    else:
        width = 0
        if out.isatty():
            width = os.get_terminal_size(out.fileno()).columns or 80
        events = None if options.all_events else EVENTS
        lines = _lines(pen, found, width, events=events)
    encoding = out.encoding or "utf-8"
    text = "".join(f"{line}\n" for line in lines)
    out.write(text.encode(encoding, "backslashreplace").decode(encoding))
    out.flush()


async def _watch(reactor: Any, question: Question, options: Namespace) -> None:
    from twisted.internet.task import deferLater

    from tristunnel.screen.draw import Pen
    from tristunnel.screen.service import Screen
    from tristunnel.screen.terminal import Terminal

    found = await lookAt(reactor, question)
    problem = ""
    terminal = None
    if not options.json and options.qr is None:
        terminal = Terminal.behind(sys.stdout)
    if terminal is None:
        while True:
            _show(found, options)
            await deferLater(reactor, INTERVAL)
            found = await lookAt(reactor, question)
    pen = Pen(terminal.encoding)

    def draw(width: int, height: int) -> list[str]:
        hints = ("q ends",)
        lines = _lines(pen, found, width, height - bool(problem), hints)
        return [problem[:width], *lines] if problem else lines

    screen = Screen(reactor, terminal, pen, draw)
    reactor.addSystemEventTrigger("before", "shutdown", screen.stopService)
    screen.startService()
    while True:
        await deferLater(reactor, INTERVAL)
        try:
            found, problem = await lookAt(reactor, question), ""
        except TunnelError as error:
            # The server may come back.
            problem = error.message
        screen.changed()
