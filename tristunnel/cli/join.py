"""C{tristunnel join}: take up an invitation, and remember the server."""

from __future__ import annotations

import json
import secrets
from argparse import Namespace
from typing import Any

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import connectProtocol, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionClosed, DNSLookupError
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure

from tristunnel.config.servers import KnownServer, ServerStore
from tristunnel.connect.route import connectOptionsBy
from tristunnel.errors import TunnelError, printable
from tristunnel.tls.client_context import ServerVerification
from tristunnel.util.command_line import hideArguments
from tristunnel.util.hosts import hostAndPort
from tristunnel.wire.invitation import USUAL_PORT, Invitation

__all__ = ["addJoinCommand", "takeUp"]

_MOST = 64 * 1024
"""Bytes of the longest answer that is read."""

_TRIES = 3
"""How often an answer is asked for that was lost on the way."""


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
    add("invitation", metavar="INVITATION", help="as t.example.com#k7f3-...")
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
        help="HTTP proxy to use, or none; without it, what"
        " HTTPS_PROXY, ALL_PROXY and NO_PROXY say",
    )
    add(
        "--timeout",
        type=float,
        default=20.0,
        metavar="SECONDS",
        help="how long to wait for the server (default: 20)",
    )
    join.set_defaults(run=_run)


async def _run(reactor: Any, options: Namespace) -> None:
    invitation = Invitation.parse(options.invitation)
    # Until it is used, whoever sees it can have the token.
    hideArguments([options.invitation])
    host, port = invitation.host, invitation.port
    name = options.name or _nameOf(host, port)
    store = ServerStore()
    # What cannot be kept must not be fetched.
    store.check(name)
    answer, pins = await takeUp(reactor, invitation, options.proxy, options.timeout)
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
    reactor: Any, invitation: Invitation, proxy: str = "", timeout: float = 20.0
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """
    Exchange an invitation's code for a token, with the server that it names and no
    other.

    @param proxy: As C{--proxy}.
    @param timeout: Seconds that each attempt may take.
    @return: What the server answered, and the fingerprint by which it is to be known;
        none if an authority vouches for it, so that it can renew its certificate.
    @raise TunnelError: Why not, in one line.
    """
    request = (
        "POST /join HTTP/1.1\r\n"
        f"Host: {hostAndPort(invitation.host.partition('%')[0], invitation.port)}\r\n"
        f"Authorization: Invitation {invitation.code}\r\n"
        f"Idempotency-Key: {secrets.token_urlsafe(24)}\r\n"
        "Content-Length: 0\r\nConnection: close\r\n\r\n"
    )
    for last in range(_TRIES, 0, -1):
        tls = ServerVerification(invitation.host, pins=(invitation.pin,))
        try:
            answer = await _exchange(reactor, invitation, tls, request, proxy, timeout)
            break
        except _AnswerLost as lost:
            if last == 1:
                raise _notReached(invitation, lost.cause, tls) from None
    seen = tls.seen
    assert seen is not None
    read = _read(answer.data, invitation)
    if not answer.isSelfSigned:
        tls = ServerVerification(invitation.host)
        request = "GET /health HTTP/1.1\r\nHost: server\r\nConnection: close\r\n\r\n"
        try:
            await _exchange(reactor, invitation, tls, request, proxy, timeout)
        except (TunnelError, _AnswerLost):
            pass
        else:
            return read, ()
    return read, (seen,)


class _AnswerLost(Exception):
    """The connection was there, and is lost."""

    def __init__(self, cause: Failure) -> None:
        super().__init__()
        self.cause = cause


class _Answer(Protocol):
    """
    Sends a request once the server's certificate was found to be right, and collects
    what comes until the connection ends.

    @ivar data: That.
    @ivar isSelfSigned: Whether no authority can vouch for the server.
    """

    def __init__(self, request: str) -> None:
        self._request = request
        self.data = b""
        self.isSelfSigned = False
        self.complete: Deferred[_Answer] = Deferred(self._abort)

    def connectionMade(self) -> None:
        # Nothing of it leaves before the handshake is over.
        assert self.transport is not None
        self.transport.write(self._request.encode("ascii"))

    def dataReceived(self, data: bytes) -> None:
        if not self.data:
            transport: Any = self.transport
            shown = transport.getPeerCertificate()
            self.isSelfSigned = shown.get_issuer() == shown.get_subject()
        self.data += data
        if len(self.data) > _MOST:
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.complete.called:
            return
        head, end, body = self.data.partition(b"\r\n\r\n")
        if end and len(body) >= _lengthIn(head):
            self.complete.callback(self)
        else:
            self.complete.errback(reason)

    def _abort(self, _: object = None) -> None:
        transport: Any = self.transport
        transport.abortConnection()


def _lengthIn(head: bytes) -> int:
    for line in head.split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length" and len(value) < 10:
            with_ = value.strip()
            return int(with_) if with_.isdigit() else 0
    return 0


async def _exchange(
    reactor: Any,
    invitation: Invitation,
    tls: ServerVerification,
    request: str,
    proxy: str,
    timeout: float,
) -> _Answer:
    """
    @raise TunnelError: If the server is not reached, or is another one.
    @raise _AnswerLost: If the connection ended before the answer.
    """
    host, port = invitation.host, invitation.port
    route = connectOptionsBy(reactor, proxy).towards(reactor, "tls", host, port)
    endpoint = wrapClientTLS(tls, route.reach(reactor, host, port))
    answer = _Answer(request)
    connecting = connectProtocol(endpoint, answer)
    try:
        await connecting.addTimeout(timeout, reactor)
    except Exception:
        raise _notReached(invitation, Failure(), tls) from None
    try:
        return await answer.complete.addTimeout(timeout, reactor)
    except Exception:
        if tls.refusal is not None or not tls.seen:
            raise _notReached(invitation, Failure(), tls) from None
        raise _AnswerLost(Failure()) from None


def _notReached(
    invitation: Invitation, failure: Failure, tls: ServerVerification
) -> TunnelError:
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
    error = failure.value
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
    if not tls.seen and isinstance(error, SSL.Error | ConnectionClosed):
        return TunnelError(
            "session-lost",
            f"what answers at {where} does not use TLS: check the port, and that"
            " 'tristunnel server' runs there",
        )
    if tls.seen:
        return TunnelError(
            "session-lost",
            f"the connection to {where} was lost before the answer came; try again"
            " within a minute",
        )
    return TunnelError(
        "session-lost",
        f"{where} does not answer: open TCP port {port} in the server's firewall and"
        " in its provider's, and check the address",
    )


def _read(data: bytes, invitation: Invitation) -> dict[str, Any]:
    """
    Read an answer.

    @raise TunnelError: What it refuses.
    """
    head, _, body = data.partition(b"\r\n\r\n")
    status = head.split(b" ")[1:2]
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
    if status != [b"200"]:
        raise TunnelError.fromDict(answer, "internal")
    return answer
