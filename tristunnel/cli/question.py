"""Asking running servers and clients for their state."""

from __future__ import annotations

import os
from argparse import Namespace
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tristunnel.auth.files import reasonOf
from tristunnel.cli.call import (
    TLS_ONLY,
    CallFailed,
    CallRequest,
    Target,
    addTLSOptions,
    ask,
    givesTLS,
    parseTarget,
)
from tristunnel.connect.credentials import TOKEN_VARIABLE, givenToken
from tristunnel.connect.route import NONE
from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.jsonrpc.pending import RemoteError
from tristunnel.tls.certificates import parseFingerprint
from tristunnel.util.endpoints import clearStaleSocket
from tristunnel.util.files import defaultStateDirectory
from tristunnel.util.words import printableIn

if TYPE_CHECKING:
    from tristunnel.screen.model import Page

__all__ = [
    "DEFAULT_SERVER",
    "Question",
    "addServerOptions",
    "askServer",
    "liveSockets",
    "lookAt",
    "notAnswered",
    "pageOf",
]

DEFAULT_SERVER = "http://localhost:9000"
"""The server that is asked if none is named and no client runs."""

_TIMEOUT = 10.0
_UNKNOWN_METHOD = -32601


class Question:
    """
    Whom to ask; searched for each time if none was named.

    @ivar isNamed: Whether one was named.
    @ivar isKnown: Whether the one that answers is known to be the right one.
    """

    def __init__(self, options: Namespace) -> None:
        """
        @raise TunnelError: C{bad-option}.
        @raise ValueError: If C{where} is not a URL.
        """
        self.isNamed = bool(options.where)
        here, pins = ("", ()) if self.isNamed else _serverHere(options)
        self.isKnown = self.isNamed or bool(pins)
        self._where: str = options.where or here or DEFAULT_SERVER
        self._directory = Path(options.state_dir or defaultStateDirectory()).absolute()
        if options.token_file and not self.isKnown:
            raise badOption("--token-file is for a server: name it, as http://...")
        target = parseTarget(self._where)
        if self.isNamed and target.scheme != "https" and givesTLS(options):
            raise badOption(TLS_ONLY)
        # Nobody knows who listens at the default address, so it gets no token; and it
        # is on this machine, so no proxy leads there.
        token = givenToken(options.token_file) if self.isKnown else ""
        self._call = CallRequest(
            target,
            "",
            authorization=f"Bearer {token}" if token else None,
            authorities=options.ca,
            pins=pins or tuple(parseFingerprint(pin) for pin in options.pin),
            insecure=options.insecure,
            timeout=_TIMEOUT,
            proxy=options.proxy if self.isNamed else NONE,
        )

    @property
    def server(self) -> tuple[str, Target]:
        """The server's display name, and how it is reached."""
        return self._where, self._call.target

    def places(self) -> list[tuple[str, Target]]:
        """
        Find out where to ask.

        @return: The display name of each, and how it is reached.
        @raise TunnelError: If there is nobody.
        """
        named = self.server
        if self.isNamed:
            _checkSocket(self._call.target.socketPath)
            return [named]
        from tristunnel.client.control import clientSockets

        paths = liveSockets(clientSockets(self._directory))
        found = [(f"unix:{path}", parseTarget(f"unix:{path}")) for path in paths]
        return found or [named]

    def request(self, target: Target, method: str) -> CallRequest:
        """
        Make one call of it.

        @param target: One of the L{places}.
        @param method: What to call, without parameters.
        """
        return replace(self._call, target=target, method=method)


def _serverHere(options: Namespace) -> tuple[str, tuple[bytes, ...]]:
    """
    Find this user's own server on this machine by the file that it writes for
    C{tristunnel invite}.

    @return: Its address, and the certificate to verify it by; nothing if there is no
        certificate.
    """
    from tristunnel.cli.invite import serverDirectory
    from tristunnel.service.invitations import ServerPlace

    try:
        place = ServerPlace.read(serverDirectory(options.state_dir))
        pin = place.invitation("0" * 16).pin
    except TunnelError:
        return "", ()
    return f"https://localhost:{place.port}", (pin,)


def liveSockets(directory: Path) -> list[Path]:
    """
    Find the sockets of running programs; those left behind by killed ones are removed.
    """
    paths = sorted(directory.glob("*.sock"))
    for path in paths:
        clearStaleSocket(str(path))
    return [path for path in paths if path.exists()]


def _checkSocket(path: str) -> None:
    if not path:
        return
    try:
        os.stat(path)
    except OSError as error:
        raise TunnelError(
            "session-lost",
            f"{path}: {reasonOf(error)}; is the program running, and with this --rpc?",
        ) from None
    if not os.access(path, os.W_OK):
        raise TunnelError(
            "not-permitted",
            f"{path} belongs to another user: run this as that user, or as root",
        )


async def lookAt(reactor: Any, question: Question) -> list[dict[str, Any]]:
    """
    Ask all of them.

    @return: What each of them says, with C{where}.
    @raise TunnelError: If none of them answers, with one line that says why.
    """
    answers: list[dict[str, Any]] = []
    problem: TunnelError | None = None
    for where, target in question.places():
        try:
            answers.append(await _ask(reactor, question, where, target))
        except TunnelError as error:
            problem = error
    if not answers and problem is not None:
        raise problem
    return answers


async def _ask(
    reactor: Any, question: Question, where: str, target: Target
) -> dict[str, Any]:
    try:
        try:
            found = await ask(reactor, question.request(target, "status"))
        except RemoteError as error:
            if error.number != _UNKNOWN_METHOD:
                raise
            found = await ask(reactor, question.request(target, "listSessions"))
            status = _server(where, found)
        else:
            if not isinstance(found, dict) or found.get("program") != "client":
                raise TypeError
            status = {"where": where, **found}
        # A program that answers something else is found out here.
        pageOf(status, ())
        return status
    except CallFailed as error:
        raise notAnswered(question, where, error.status, str(error)) from None
    except RemoteError as error:
        raise TunnelError("session-lost", f"{where}: {error}") from None
    except (TypeError, LookupError, AttributeError, ValueError):
        raise TunnelError(
            "session-lost", f"{where} answers, but it is not a tunnel server or client"
        ) from None


def addServerOptions(parser: Any, server: str, token: str) -> None:
    """
    Add the options of L{askServer}.

    @param server: What is said of C{--server}.
    @param token: What the token must be that C{--token-file} names.
    """
    add = parser.add_argument
    add("--server", metavar="URL", default="", dest="where", help=server)
    add(
        "--token-file",
        metavar="FILE",
        default="",
        help=f"file with {token}; - prompts for it (default: the variable"
        f" {TOKEN_VARIABLE})",
    )
    addTLSOptions(parser)
    add(
        "--state-dir",
        metavar="DIRECTORY",
        default="",
        help="the server's state directory",
    )


async def askServer(
    reactor: Any,
    options: Namespace,
    method: str,
    otherwise: str = "",
    **parameters: object,
) -> Any:
    """
    Call a method of a server.

    @param options: Those of L{addServerOptions}.
    @param otherwise: The token, if the options and the environment name none.
    @return: The answer, whose texts can be shown.
    @raise TunnelError: If there is none, with one line that says why.
    """
    try:
        question = Question(options)
    except ValueError as error:
        shown = printable(options.where, 60)
        raise badOption(f"--server {shown!r}: {error}") from None
    where, target = question.server
    request = replace(question.request(target, method), params=parameters)
    if otherwise and request.authorization is None:
        request = replace(request, authorization=f"Bearer {otherwise}")
    try:
        return printableIn(await ask(reactor, request))
    except CallFailed as error:
        if not (question.isKnown or error.status):
            raise TunnelError(
                "session-lost",
                f"no server answers at {where}; name one with --server URL",
            ) from None
        raise notAnswered(question, where, error.status, str(error)) from None
    except RemoteError as error:
        raise TunnelError("session-lost", f"{where}: {error}") from None


def notAnswered(
    question: Question, where: str, status: int, message: str
) -> TunnelError:
    """
    Explain why a program could not be asked.

    @param where: What it is called.
    @param status: The HTTP status of its answer, or 0.
    @param message: The reason as far as it is known.
    """
    if status == 401:
        cure = "give --token-file FILE"
        if question.isKnown and not question.isNamed:
            cure = (
                "give a token with --token-file FILE, or make one: tristunnel token"
                " create --name me --may admin"
            )
        elif not question.isNamed:
            cure = f"name it: tristunnel status {where} --token-file FILE"
        return TunnelError(
            "auth-refused", f"the server at {where} requires a login; {cure}"
        )
    if question.isNamed:
        cure = "; is that a tunnel server or client?" if status else ""
        message = f"{where}: {message.rstrip('.')}{cure}"
        return TunnelError("session-lost", message)
    return TunnelError(
        "session-lost",
        "no client of this user runs here, and no server answers at"
        f" {where}; start one, or name it: tristunnel status http://HOST:PORT",
    )


def _server(where: str, sessions: Any) -> dict[str, Any]:
    """
    Summarize the answer to a server's C{listSessions}.

    @raise TypeError: If it is something else; C{LookupError}, C{ValueError} or
        C{AttributeError} likewise.
    """
    if not isinstance(sessions, list):
        raise TypeError
    kinds: dict[str, list[dict[str, Any]]] = {"tunnel": [], "client": []}
    for entry in sessions:
        if entry["kind"] in kinds:
            kinds[entry["kind"]].append(entry)
    tunnels = kinds["tunnel"]
    keys = ("visitors", "visitorsTotal", "bytesIn", "bytesOut", "rateIn", "rateOut")
    return {
        "where": where,
        "program": "server",
        "clients": kinds["client"],
        "tunnels": tunnels,
        **{key: sum(int(tunnel[key]) for tunnel in tunnels) for key in keys},
    }


def pageOf(status: Mapping[str, Any], hints: Sequence[str]) -> Page:
    """Make the page that is shown for a program."""
    from tristunnel.screen.model import clientPage, serverPage

    if status["program"] == "client":
        return clientPage(status, hints)
    return serverPage(status, hints)
