"""
C{python -m tristunnel.rpc}: calling a server's methods over HTTP from the command line.
"""

from __future__ import annotations

import json
import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NoReturn
from urllib.parse import urlsplit

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import (
    ConnectError,
    ConnectionLost,
    ConnectionRefusedError,
    DNSLookupError,
)
from twisted.internet.interfaces import IReactorTime, IStreamClientEndpoint
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IResponse

from tristunnel.connect.route import connectOptionsBy
from tristunnel.dataplane.asking import Body, TooLong, firstCause, sendRequest
from tristunnel.errors import TunnelError, printable
from tristunnel.jsonrpc.calls import Params
from tristunnel.jsonrpc.pending import PendingCalls, RemoteError
from tristunnel.jsonrpc.strictjson import BadJSON, decode, encode
from tristunnel.tls.certificates import parseFingerprint
from tristunnel.tls.client_context import ServerVerification
from tristunnel.tls.explanation import explainTLSFailure
from tristunnel.util.command_line import Parser
from tristunnel.util.hosts import (
    basicLogin,
    hostAndPort,
    hostHeader,
    hostName,
    portNumber,
    quoteURL,
)
from tristunnel.version import VERSION

__all__ = [
    "TLS_ONLY",
    "CallFailed",
    "CallRequest",
    "Target",
    "addTLSOptions",
    "ask",
    "exchange",
    "givesTLS",
    "main",
    "paramsFrom",
    "parseCommand",
    "parseTarget",
    "valueFrom",
]


_DESCRIPTION = """\
Call a method of a tunnel server and print its result.

  python -m tristunnel.rpc http://server:9000 openTunnel
  python -m tristunnel.rpc http://server:9000 openTunnel via=w3p name=shop ttl=60
  python -m tristunnel.rpc http://server:9000 getTunnelAddress tcp://server:8010
  python -m tristunnel.rpc unix:/run/tunnel.sock listTunnels
"""

_EPILOG = """\
A parameter that is JSON is taken as JSON (5, true, null, [1, 2]), everything
else as a string; '"5"' is the string 5. key=value gives a parameter by name;
parameters by name and by position cannot be mixed.

A result that is a string is printed as it is, everything else as JSON. The exit
status is 0 for a result, 1 for an error, which is one line on the standard
error output, and 2 for a command line that is wrong.
"""

TLS_ONLY = "--ca, --pin and --insecure are for https:// only"

_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_DEFAULT_PATH = "/rpc"


@dataclass(frozen=True)
class Target:
    """
    The server to call.

    @ivar scheme: C{http}, C{https} or C{unix}.
    @ivar host: The host, or C{localhost} for C{unix}.
    @ivar port: The port; 0 for C{unix}.
    @ivar socketPath: The path of the socket; empty for all but C{unix}.
    @ivar url: What to request, always C{http:} or C{https:}.
    @ivar authority: The host and the port in it, as C{Host} says them.
    """

    scheme: str
    host: str
    port: int
    socketPath: str
    url: str
    authority: str = "localhost"


@dataclass(frozen=True)
class CallRequest:
    """
    A whole command line.

    @ivar target: Whom to ask.
    @ivar method: What to call.
    @ivar params: With what.
    @ivar authorization: The header of that name, or C{None}.
    @ivar authorities: A PEM file with the only certificates to trust, or C{None} for
        the platform's.
    @ivar pins: Digests, one of which the server's certificate must have.
    @ivar insecure: Whether the server's certificate is not verified.
    @ivar timeout: Seconds to wait for the answer.
    @ivar proxy: The proxy's URL; C{none} for no proxy; empty for what the
        environment says.
    @ivar verbatim: As for L{PendingCalls}.
    """

    target: Target
    method: str
    params: Params = ()
    authorization: str | None = None
    authorities: str | None = None
    pins: tuple[bytes, ...] = ()
    insecure: bool = False
    timeout: float = 30.0
    proxy: str = ""
    verbatim: bool = False


def parseTarget(text: str) -> Target:
    """
    Read the URL of a server. Without a path, it is C{/rpc}.

    @raise ValueError: With one line that says what is wrong.
    """
    if text.startswith("unix:"):
        path = text.removeprefix("unix:")
        if not path.startswith("/"):
            raise ValueError("write unix: and the full path of the socket")
        return Target("unix", "localhost", 0, path, f"http://localhost{_DEFAULT_PATH}")
    text = text.strip()
    scheme, _, rest = text.partition("://")
    if scheme.lower() not in ("http", "https"):
        place = rest.rpartition("@")[2] or text.rpartition("@")[2].lstrip("/")
        raise ValueError(
            "the URL must begin with http://, https:// or unix:/; write for example"
            f" http://{place}"
        )
    if not text.isprintable() or " " in text:
        raise ValueError("there is a space in the URL; write %20")
    try:
        url = urlsplit(text)
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from None
    if "@" in url.netloc:
        raise ValueError("credentials do not belong in the URL; use --user or --token")
    if not url.hostname:
        raise ValueError("there is no host in the URL")
    usual = 443 if url.scheme == "https" else 80
    number = url.netloc.rpartition("]")[2].partition(":")[2]
    host, port = hostName(url.hostname), portNumber(number) if number else usual
    path = quoteURL(url.path if url.path not in ("", "/") else _DEFAULT_PATH)
    query = f"?{quoteURL(url.query)}" if url.query else ""
    authority = hostHeader(host, port, usual)
    whole = f"{url.scheme}://{authority}{path}{query}"
    return Target(url.scheme, host, port, "", whole, authority)


def valueFrom(word: str) -> object:
    """
    Read the value of a parameter on the command line.

    @return: The value, if the word is JSON; otherwise the word.
    """
    try:
        return decode(word)
    except BadJSON:
        return word


def paramsFrom(words: Sequence[str]) -> Params:
    """
    Read the parameters of a call.

    @raise ValueError: If some are given by name and others by position.
    """
    matches = [_NAMED.fullmatch(word) for word in words]
    named = [match for match in matches if match is not None]
    if not named:
        return [valueFrom(word) for word in words]
    if len(named) < len(words):
        raise ValueError(
            "either all parameters are key=value or none is; a string with = in it"
            " is written with quotes: '\"a=b\"'"
        )
    params: dict[str, object] = {}
    for match in named:
        key, value = match.groups()
        if key in params:
            raise ValueError(f"the parameter {key} is given twice")
        params[key] = valueFrom(value)
    return params


def addTLSOptions(parser: ArgumentParser) -> None:
    """Add the options that say how a server is verified and reached."""
    add = parser.add_argument
    add("--ca", metavar="FILE", help="PEM file with the only authorities to trust")
    add(
        "--pin",
        metavar="SHA256",
        action="append",
        default=[],
        help="fingerprint of the server's certificate; can be repeated",
    )
    add("--insecure", action="store_true", help="accept any certificate")
    add(
        "--proxy",
        metavar="URL",
        default="",
        help="HTTP proxy to use, http://USER:PASSWORD@HOST:PORT; none for no proxy"
        " (default: the variables HTTPS_PROXY, http_proxy, ALL_PROXY and NO_PROXY)",
    )


def givesTLS(options: Namespace) -> bool:
    """Whether any of the options that need C{https:}, L{TLS_ONLY}, is given."""
    return bool(options.ca or options.pin or options.insecure)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m tristunnel.rpc", description=_DESCRIPTION, epilog=_EPILOG
    )
    add = parser.add_argument
    add("url", metavar="URL", help="http://, https:// or unix:/path")
    add("method", metavar="METHOD", help="the name of the method, such as openTunnel")
    add("params", metavar="PARAMETER", nargs="*", help="key=value, or a value")
    add(
        "--token",
        metavar="TOKEN",
        help="the token to call with; without it, what the environment variable"
        " TRISTUNNEL_TOKEN holds, which other users of this machine cannot see",
    )
    add("--user", metavar="ID:SECRET", help="the name and password to call with")
    add(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=30.0,
        help="how long to wait for the answer (default: 30)",
    )
    addTLSOptions(parser)
    add("--version", action="version", version=f"tristunnel {VERSION}")
    return parser


def _authorization(options: Namespace, environment: Mapping[str, str]) -> str | None:
    """
    The C{Authorization} header.

    @raise ValueError: If the credentials cannot be sent.
    """
    if options.user is not None:
        if options.token is not None:
            raise ValueError("--token and --user exclude each other")
        if ":" not in options.user:
            raise ValueError("--user takes ID:SECRET")
        return basicLogin(options.user)
    token: str = options.token or environment.get("TRISTUNNEL_TOKEN", "").strip()
    if not token:
        return None
    if not token.isascii() or not token.isprintable():
        raise ValueError("a token has printable ASCII characters only")
    return f"Bearer {token}"


def parseCommand(
    arguments: Sequence[str], environment: Mapping[str, str] = os.environ
) -> CallRequest:
    """
    Read a command line.

    @param arguments: Without the name of the program.
    @param environment: The environment variables.
    @raise SystemExit: With 2 after a mistake, which is then described on the standard
        error output; with 0 after C{--help}.
    """
    parser = _parser()
    options = parser.parse_intermixed_args(list(arguments))
    try:
        target = parseTarget(options.url)
        if target.scheme != "https" and givesTLS(options):
            raise ValueError(TLS_ONLY)
        if not 0 < options.timeout <= 86400:
            raise ValueError("--timeout must be more than 0 and at most 86400 seconds")
        return CallRequest(
            target=target,
            method=options.method,
            params=paramsFrom(options.params),
            authorization=_authorization(options, environment),
            authorities=options.ca,
            pins=tuple(parseFingerprint(pin) for pin in options.pin),
            insecure=options.insecure,
            timeout=options.timeout,
            proxy=options.proxy,
        )
    except ValueError as error:
        parser.error(str(error))
    except TunnelError as error:
        parser.error(error.message)


_MAX_ANSWER = 64 * 2**20
"""Bytes of the longest answer that is read."""


class CallFailed(Exception):
    """
    A call gave no result.

    The message is one line that names the cause and, where there is one, the
    cure.

    @ivar status: The HTTP status of a refusal; 0 if it is something else.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        self.status = status
        super().__init__(message)


def _explain(
    request: CallRequest, error: Exception, tls: ServerVerification | None
) -> str:
    target = request.target
    where = target.socketPath or f"{target.host} port {target.port}"
    cause = firstCause(Failure(error))
    if tls is not None:
        explanation = explainTLSFailure(cause, target.host, tls, target.port)
        if explanation is not None:
            # The explanation is written for servers that clients connect to.
            return explanation.replace("write tcp:", "write http://").replace(
                "instead of tls:", "instead of https://"
            )
    value = cause.value
    if isinstance(value, TunnelError):
        return value.message
    if isinstance(value, ConnectionRefusedError):
        return (
            f"Could not connect to {where}: the connection was refused;"
            " is the program running there?"
        )
    if isinstance(value, (ConnectError, DNSLookupError)):
        return f"Could not connect to {where}: {value}"
    if isinstance(value, (ConnectionLost, SSL.Error)):
        text = f"The connection to {where} was lost before the answer came"
        if tls is None and not target.socketPath:
            secure = f"https://{hostAndPort(target.host, target.port)}"
            text += f"; if the server uses TLS there, write {secure}"
        return f"{text}."
    return f"The answer from {where} could not be read: {value}"


async def exchange(
    reactor: Any,
    target: Target,
    tls: ServerVerification | None,
    proxy: str,
    headers: Mapping[str, str],
    method: bytes = b"POST",
    body: bytes = b"",
) -> tuple[IResponse, bytes]:
    """
    Make one request of a server.

    @param tls: Verifies it; C{None} for no TLS.
    @param proxy: As L{CallRequest} has it.
    @param headers: Beside C{Host}.
    @return: The response, and its body.
    @raise Exception: Whatever went wrong; L{firstCause} knows why.
    """
    route = connectOptionsBy(reactor, proxy)
    if not target.socketPath:
        route = route.towards(reactor, target.scheme, target.host, target.port)

    def way(uri: URI) -> IStreamClientEndpoint:
        # Whatever host the URL names.
        if target.socketPath:
            return UNIXClientEndpoint(reactor, target.socketPath)
        plain = route.reach(reactor, target.host, target.port)
        return plain if tls is None else wrapClientTLS(tls, plain)

    fields = {"Host": target.authority, **headers}
    response = await sendRequest(reactor, way, method, target.url, fields, body or None)
    answer = Body(_MAX_ANSWER)
    response.deliverBody(answer)
    try:
        return response, await answer.complete
    except TooLong:
        text = f"The answer is longer than {_MAX_ANSWER} bytes."
        raise CallFailed(text) from None


async def ask(reactor: IReactorTime, request: CallRequest) -> object:
    """
    Make a call.

    @param reactor: Connects, and keeps the time.
    @param request: The call.
    @return: The result.
    @raise TunnelError: If the server refused, for one of our reasons.
    @raise RemoteError: If it answered with another error.
    @raise CallFailed: If it did not answer the call.
    """
    tls = None
    if request.target.scheme == "https":
        tls = ServerVerification(
            request.target.host,
            trustRoots=request.authorities,
            pins=request.pins,
            insecure=request.insecure,
        )
    headers = {"Content-Type": "application/json"}
    if request.authorization is not None:
        headers["Authorization"] = request.authorization
    pending = PendingCalls(verbatim=request.verbatim)
    body, result = pending.call(request.method, request.params)

    def late(_: object, seconds: float) -> NoReturn:
        # Whatever error the cancelled exchange made of it.
        raise CallFailed(f"No answer within {seconds:g} seconds.")

    data = encode(body).encode("ascii")
    exchanging = Deferred.fromCoroutine(
        exchange(reactor, request.target, tls, request.proxy, headers, body=data)
    )
    try:
        response, text = await exchanging.addTimeout(request.timeout, reactor, late)
    except CallFailed:
        raise
    except Exception as error:
        raise CallFailed(_explain(request, error, tls)) from error
    if response.code != 200:
        raise CallFailed(_explainStatus(response, text, request), response.code)
    try:
        understood = pending.answered(decode(text))
    except BadJSON:
        understood = False
    if not understood:
        raise CallFailed("The answer is not JSON-RPC 2.0. Is the URL right?")
    return await result


def _explainStatus(response: IResponse, body: bytes, request: CallRequest) -> str:
    text = f"HTTP status {response.code}"
    # As bytes: when asked for text, Twisted fails for what is not UTF-8.
    kind = (response.headers.getRawHeaders(b"Content-Type") or [b""])[0]
    if kind.startswith(b"text/plain"):
        lines = body[:500].decode("utf-8", "replace").splitlines()
        if lines:
            text = f"{lines[0]} [{text}]"
    if response.code == 401 and request.authorization is None:
        text += " Give --token or --user."
    elif response.code == 404:
        text += " The usual path is /rpc."
    return text


def _report(result: object) -> None:
    if isinstance(result, str):
        text = result
    else:
        text = json.dumps(result, indent=2, ensure_ascii=False)
    sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
    sys.stdout.flush()


async def main(reactor: IReactorTime, *arguments: str) -> None:
    """
    Run the command.

    @param reactor: The reactor.
    @param arguments: The command line, without the name of the program.
    @raise SystemExit: With 1, if the call failed; with 2, if the command line
        is wrong.
    """
    request = parseCommand(arguments)
    try:
        result = await ask(reactor, request)
    except RemoteError as error:
        problem = f"{request.method}: {error}"
    except (TunnelError, CallFailed) as error:
        problem = str(error)
    else:
        _report(result)
        return
    print(printable(problem, len(problem)), file=sys.stderr)
    raise SystemExit(1)
