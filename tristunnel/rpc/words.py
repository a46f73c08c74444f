"""
What is written on the command line of C{python -m tristunnel.rpc}, and what it
means.
"""

from __future__ import annotations

import os
import re
from argparse import Namespace, RawDescriptionHelpFormatter
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from tristunnel import __version__
from tristunnel.errors import TunnelError
from tristunnel.rpc.calls import Params
from tristunnel.rpc.strictjson import BadJSON, decode
from tristunnel.tls.certificates import parseFingerprint
from tristunnel.util.command_line import Parser
from tristunnel.util.hosts import hostHeader, hostName, portNumber, quoteURL

__all__ = [
    "PROXY_HELP",
    "CallRequest",
    "Target",
    "paramsFrom",
    "parseErrand",
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

PROXY_HELP = (
    "HTTP proxy to go through, http://USER:PASSWORD@HOST:PORT; none for no proxy;"
    " without it, what HTTPS_PROXY, http_proxy, ALL_PROXY and NO_PROXY say"
)

_NAMED = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)=(.*)", re.DOTALL)
_DEFAULT_PATH = "/rpc"


@dataclass(frozen=True)
class Target:
    """
    Where a server is to be asked.

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
    @ivar authorities: A PEM file with the only certificates to trust, or
        C{None} for those that the platform trusts.
    @ivar pins: Digests of which the server's certificate must have one.
    @ivar insecure: Whether any server is believed.
    @ivar timeout: Seconds to wait for the answer.
    @ivar proxy: The proxy's URL; C{none} for no proxy; empty for what the
        environment says.
    """

    target: Target
    method: str
    params: Params
    authorization: str | None
    authorities: str | None
    pins: tuple[bytes, ...]
    insecure: bool
    timeout: float
    proxy: str = ""


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
    What a parameter on the command line stands for.

    @return: The value, if the word is JSON; otherwise the word.
    """
    try:
        return decode(word)
    except BadJSON:
        return word


def paramsFrom(words: Sequence[str]) -> Params:
    """
    Read the parameters of a call.

    @raise ValueError: If some go by name and others by position.
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


def _parser() -> Parser:
    parser = Parser(
        prog="python -m tristunnel.rpc",
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("url", metavar="URL", help="http://, https:// or unix:/path")
    add("method", metavar="METHOD", help="the name of the method, as openTunnel")
    add("params", metavar="PARAMETER", nargs="*", help="key=value, or a value")
    add(
        "--token",
        metavar="TOKEN",
        help="the token to call with; without it, what the environment variable"
        " TRISTUNNEL_TOKEN holds, which other users of this machine cannot see",
    )
    add("--user", metavar="ID:SECRET", help="the name and password to call with")
    add("--ca", metavar="FILE", help="PEM file with the only authorities to trust")
    add(
        "--pin",
        metavar="SHA256",
        action="append",
        default=[],
        help="fingerprint of the server's certificate; may be given again",
    )
    add("--insecure", action="store_true", help="believe any server")
    add(
        "--timeout",
        metavar="SECONDS",
        type=float,
        default=30.0,
        help="how long to wait for the answer (default: 30)",
    )
    add("--proxy", metavar="URL", default="", help=PROXY_HELP)
    add("--version", action="version", version=f"tristunnel {__version__}")
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
        return "Basic " + b64encode(options.user.encode("utf-8")).decode("ascii")
    token: str = options.token or environment.get("TRISTUNNEL_TOKEN", "").strip()
    if not token:
        return None
    if not token.isascii() or not token.isprintable():
        raise ValueError("a token has printable ASCII characters only")
    return f"Bearer {token}"


def parseErrand(
    arguments: Sequence[str], environment: Mapping[str, str] = os.environ
) -> CallRequest:
    """
    Read a command line.

    @param arguments: Without the name of the program.
    @param environment: The environment variables.
    @raise SystemExit: With 2 if something is wrong, which is then on the
        standard error output; with 0 after C{--help}.
    """
    parser = _parser()
    options = parser.parse_intermixed_args(list(arguments))
    try:
        target = parseTarget(options.url)
        if target.scheme != "https" and (options.ca or options.pin or options.insecure):
            raise ValueError("--ca, --pin and --insecure are for https:// only")
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
