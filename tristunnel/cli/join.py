"""C{tristunnel join}: take up an invitation, and remember the server."""

from __future__ import annotations

import errno
import json
import secrets
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.python.failure import Failure

from tristunnel.cli.call import Target, exchange
from tristunnel.cli.token import asType
from tristunnel.config.servers import KnownServer, ServerStore
from tristunnel.dataplane.asking import firstCause
from tristunnel.errors import TunnelError, printable
from tristunnel.tls.client_context import ServerVerification
from tristunnel.tls.explanation import explainTLSFailure
from tristunnel.util.command_line import hideArguments
from tristunnel.util.hosts import hostAndPort, hostHeader
from tristunnel.util.quantities import parseDuration
from tristunnel.wire.invitation import USUAL_PORT, Invitation

__all__ = ["addJoinCommand", "takeUp"]

_TRIES = 3
"""The number of attempts if answers are lost on the way."""


def addJoinCommand(commands: Any) -> None:
    """
    Add C{join} to the commands of a parser.

    @param commands: What C{add_subparsers} returned.
    """
    join = commands.add_parser(
        "join",
        help="accept an invitation to a server",
        description="Accept an invitation, which a server prints when it first starts"
        " and 'tristunnel invite' prints later. Saves the server's address and a token"
        " for this machine.",
    )
    add = join.add_argument
    add(
        "invitation",
        type=asType(lambda text: (text, Invitation.parse(text))),
        metavar="INVITATION",
        help="for example t.example.com#k7f3-...",
    )
    add(
        "--name",
        default="",
        metavar="NAME",
        help="what to call the server here, for --server NAME (default: its host)",
    )
    add(
        "--proxy",
        default="",
        metavar="URL",
        help="HTTP proxy to use, or none (default: the variables HTTPS_PROXY,"
        " ALL_PROXY and NO_PROXY)",
    )
    add(
        "--certificate",
        metavar="FILE",
        help="PEM file with a certificate, if the server requires one (--client-ca)",
    )
    add("--private-key", metavar="FILE", help="PEM file with the certificate's key")
    add(
        "--timeout",
        type=asType(parseDuration),
        default=20.0,
        metavar="TIME",
        help="how long to wait for the server (default: 20s)",
    )
    join.set_defaults(run=_run)


async def _run(reactor: Any, options: Namespace) -> None:
    text, invitation = options.invitation
    # Until the invitation is used, whoever sees it can have the token.
    hideArguments([text])
    host, port = invitation.host, invitation.port
    name = options.name or _nameOf(host, port)
    store = ServerStore()
    # A token that cannot be kept must not be fetched.
    store.check(name)
    answer, pins = await takeUp(
        reactor,
        invitation,
        options.proxy,
        options.timeout,
        options.certificate,
        options.private_key,
    )
    token, mine = answer.get("token"), answer.get("name")
    if not (isinstance(token, str) and token.isascii() and token.isprintable()):
        raise TunnelError(
            "protocol-error", f"{host} did not send a token: is it tristunnel?"
        )
    where = host if port == USUAL_PORT else hostAndPort(host, port)
    store.keep(KnownServer(name, f"tls:{hostAndPort(host, port)}", pins, token))
    default = store.read().default
    more = "" if default == name else f" --server {name}"
    called = printable(mine, 64) if isinstance(mine, str) else "a client"
    print(
        f"Joined {where} as {called}. Now share a port of this machine: tristunnel"
        f" http 3000{more}"
    )


def _nameOf(host: str, port: int) -> str:
    plain = host.replace(":", "-").replace("%", "-").strip("-")
    return plain[:64] if port == USUAL_PORT else f"{plain[:58]}-{port}"


async def takeUp(
    reactor: Any,
    invitation: Invitation,
    proxy: str = "",
    timeout: float = 20.0,
    certificate: str | None = None,
    privateKey: str | None = None,
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """
    Exchange an invitation's code for a token, at the server that it names and nowhere
    else.

    @param proxy: As C{--proxy}.
    @param timeout: Seconds that each attempt may take.
    @param certificate: A PEM file to show to the server.
    @param privateKey: A PEM file with its key, if that is not in the same.
    @return: What the server answered, and the fingerprint by which it is to be known;
        none if an authority vouches for it, so that it can renew its certificate.
    @raise TunnelError: Why not, in one line.
    """
    headers = {
        "Authorization": f"Invitation {invitation.code}",
        # The same for each attempt, so that a lost answer is repeated.
        "Idempotency-Key": secrets.token_urlsafe(24),
    }
    for last in range(_TRIES, 0, -1):
        tls = ServerVerification(
            invitation.host,
            pins=(invitation.pin,),
            asksAuthorities=True,
            certificate=certificate,
            privateKey=privateKey,
        )
        try:
            status, body = await _ask(reactor, invitation, tls, proxy, timeout, headers)
            break
        except Exception as error:
            if last == 1 or tls.refusal is not None or not tls.seen:
                raise _notReached(invitation, firstCause(Failure(error)), tls) from None
    assert tls.seen is not None
    answer = _read(status, body, invitation)
    return answer, () if tls.isVouchedFor else (tls.seen,)


async def _ask(
    reactor: Any,
    invitation: Invitation,
    tls: ServerVerification,
    proxy: str,
    timeout: float,
    headers: Mapping[str, str],
) -> tuple[int, bytes]:
    """
    Ask for a token.

    @return: The HTTP status, and the body of the answer.
    """
    host, port = invitation.host, invitation.port
    authority = hostHeader(host, port, 443)
    url = f"https://{authority}/join"
    target = Target("https", host, port, "", url, authority)
    asking = exchange(reactor, target, tls, proxy, headers, b"POST")
    exchanging = Deferred.fromCoroutine(asking).addTimeout(timeout, reactor)
    response, body = await exchanging
    return int(response.code), body


def _notReached(
    invitation: Invitation, failure: Failure, tls: ServerVerification
) -> TunnelError:
    error = failure.value
    host, port = invitation.host, invitation.port
    where = f"{host} port {port}"
    if tls.refusal is not None:
        if tls.refusal.kind != "pin":
            return TunnelError("bad-pin", tls.refusal.message)
        return TunnelError(
            "bad-pin",
            f"{where} is not the server of this invitation, or has a new certificate"
            " since: nothing was sent; ask for a new invitation",
        )
    if isinstance(error, TunnelError):
        return error
    if isinstance(error, DNSLookupError):
        return TunnelError(
            "session-lost", f"the host {host} was not found: check the spelling"
        )
    refused = isinstance(error, ConnectError) and "refused" in str(error).lower()
    if refused:
        return TunnelError(
            "session-lost",
            f"nothing answers at {where}: start the server there, and open TCP port"
            f" {port} in its firewall",
        )
    if not tls.seen:
        return _notGreeted(where, port, error)
    explained = explainTLSFailure(failure, host, tls, port)
    return TunnelError(
        "session-lost",
        explained
        or f"the connection to {where} was lost before the answer came; try again"
        " within a minute",
    )


def _notGreeted(where: str, port: int, error: BaseException | None) -> TunnelError:
    """Explain why a server has shown no certificate."""
    isReset = isinstance(error, ConnectError) and error.osError == errno.ECONNRESET
    if isReset or isinstance(error, ConnectionClosed):
        text = (
            f"{where} closed the connection at once, as a server does for a while when"
            " too many logins from an address have failed: try again in some minutes,"
            " or check the port"
        )
    elif isinstance(error, SSL.Error):
        text = (
            f"what answers at {where} does not use TLS: check the port, and that"
            " 'tristunnel server' runs there"
        )
    else:
        text = (
            f"{where} does not answer: open TCP port {port} in the server's firewall"
            " and in its provider's, and check the address"
        )
    return TunnelError("session-lost", text)


def _read(status: int, body: bytes, invitation: Invitation) -> dict[str, Any]:
    """
    Read an answer.

    @raise TunnelError: Why the server refused.
    """
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        answer = None
    if not isinstance(answer, dict):
        raise TunnelError(
            "protocol-error",
            f"{invitation.host} does not accept invitations: is it a tristunnel server"
            " of this version?",
        )
    if status != 200:
        raise TunnelError.fromDict(answer, "internal")
    return answer
