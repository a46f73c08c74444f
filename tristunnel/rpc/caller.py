"""
Calling a server's methods over HTTP, and the command that does so.
"""

from __future__ import annotations

import json
import sys
from io import BytesIO
from typing import NoReturn

from OpenSSL import SSL
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, wrapClientTLS
from twisted.internet.error import ConnectError, ConnectionLost, DNSLookupError
from twisted.internet.interfaces import (
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web.client import (
    URI,
    Agent,
    FileBodyProducer,
    ResponseDone,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgentEndpointFactory, IResponse
from zope.interface import implementer

from tristunnel.connect.route import ConnectOptions, connectOptionsBy
from tristunnel.errors import TunnelError
from tristunnel.rpc.pending import PendingCalls, RemoteError
from tristunnel.rpc.strictjson import BadJSON, decode, encode
from tristunnel.rpc.words import CallRequest, Target, parseErrand
from tristunnel.tls.client_context import ServerVerification, clientConnectionCreator
from tristunnel.tls.explanation import explainTLSFailure
from tristunnel.util.words import printable

__all__ = ["CallFailed", "ask", "main"]

_MAX_ANSWER = 64 * 2**20
"""Bytes of the longest answer that is read."""


class CallFailed(Exception):
    """
    A call did not come to a result.

    The message is one line that names the cause and, where there is one, the
    cure.

    @ivar status: The HTTP status of a refusal; 0 if it is something else.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        self.status = status
        super().__init__(message)


@implementer(IAgentEndpointFactory)
class _ToTarget:
    """
    Connects to one target, whatever the URL says.
    """

    def __init__(
        self,
        reactor: IReactorTime,
        target: Target,
        tls: ServerVerification | None,
        way: ConnectOptions,
    ) -> None:
        self._reactor = reactor
        self._way = way
        self._target = target
        self._tls = tls

    def endpointForURI(self, uri: URI) -> IStreamClientEndpoint:
        target = self._target
        if target.socketPath:
            return UNIXClientEndpoint(self._reactor, target.socketPath)
        plain = self._way.reach(self._reactor, target.host, target.port)
        return plain if self._tls is None else wrapClientTLS(self._tls, plain)


class _Body(Protocol):
    """
    Collects the body of an answer, up to a limit.
    """

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self._size = 0
        self.complete: Deferred[bytes] = Deferred(self._abort)

    def dataReceived(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= _MAX_ANSWER:
            self._pieces.append(data)
        elif not self.complete.called:
            self.complete.errback(
                CallFailed(f"The answer is longer than {_MAX_ANSWER} bytes.")
            )
            self._abort()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        if self.complete.called:
            return
        # A body without a length ends with the connection.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.complete.callback(b"".join(self._pieces))
        else:
            self.complete.errback(reason)

    def _abort(self, _: object = None) -> None:
        if self.transport is not None:
            self.transport.loseConnection()


def _firstCause(error: BaseException) -> Failure:
    # The request and the response have wrappers with this attribute each.
    while reasons := getattr(error, "reasons", None):
        error = reasons[0].value
    return Failure(error)


def _explain(
    errand: CallRequest, error: Exception, tls: ServerVerification | None
) -> str:
    target = errand.target
    where = target.socketPath or f"{target.host} port {target.port}"
    cause = _firstCause(error)
    if tls is not None:
        explanation = explainTLSFailure(cause, target.host, tls)
        if explanation is not None:
            return explanation
    value = cause.value
    if isinstance(value, TunnelError):
        return value.message
    if isinstance(value, (ConnectError, DNSLookupError)):
        return f"Could not connect to {where}: {value}"
    if isinstance(value, (ConnectionLost, SSL.Error)):
        return f"The connection to {where} was lost before the answer came."
    return f"There was no answer that could be understood from {where}: {value}"


async def ask(reactor: IReactorTime, errand: CallRequest) -> object:
    """
    Make a call.

    @param reactor: Connects, and keeps the time.
    @param errand: The call.
    @return: The result.
    @raise TunnelError: If the server refused, for one of our reasons.
    @raise RemoteError: If it answered with another error.
    @raise CallFailed: If it did not answer the call.
    """
    tls = None
    if errand.target.scheme == "https":
        tls = clientConnectionCreator(
            errand.target.host,
            trustRoots=errand.authorities,
            pins=errand.pins,
            insecure=errand.insecure,
        )
    target, way = errand.target, connectOptionsBy(reactor, errand.proxy)
    if not target.socketPath:
        way = way.towards(reactor, target.scheme, target.host, target.port)
    agent = Agent.usingEndpointFactory(reactor, _ToTarget(reactor, target, tls, way))
    headers = Headers(
        {"Content-Type": ["application/json"], "Host": [target.authority]}
    )
    if errand.authorization is not None:
        headers.addRawHeader("Authorization", errand.authorization)
    pending = PendingCalls()
    request, result = pending.call(errand.method, errand.params)

    async def exchange() -> tuple[IResponse, bytes]:
        response = await agent.request(
            b"POST",
            errand.target.url.encode("ascii"),
            headers,
            FileBodyProducer(BytesIO(encode(request).encode("ascii"))),
        )
        body = _Body()
        response.deliverBody(body)
        return response, await body.complete

    def late(_: object, seconds: float) -> NoReturn:
        # Whatever the cancelled exchange made of it.
        raise CallFailed(f"No answer within {seconds:g} seconds.")

    exchanging = Deferred.fromCoroutine(exchange())
    try:
        response, body = await exchanging.addTimeout(errand.timeout, reactor, late)
    except CallFailed:
        raise
    except Exception as error:
        raise CallFailed(_explain(errand, error, tls)) from error
    if response.code != 200:
        raise CallFailed(_explainStatus(response, body, errand), response.code)
    try:
        understood = pending.answered(decode(body))
    except BadJSON:
        understood = False
    if not understood:
        raise CallFailed("The answer is not JSON-RPC 2.0. Is the URL right?")
    return await result


def _explainStatus(response: IResponse, body: bytes, errand: CallRequest) -> str:
    text = f"HTTP status {response.code}"
    kind = (response.headers.getRawHeaders("Content-Type") or [""])[0]
    if kind.startswith("text/plain"):
        lines = body[:500].decode("utf-8", "replace").splitlines()
        if lines:
            text = f"{lines[0]} [{text}]"
    if response.code == 401 and errand.authorization is None:
        text += " Give --token or --user."
    elif response.code == 404:
        text += " The path of the calls is mostly /rpc."
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
    errand = parseErrand(arguments)
    try:
        result = await ask(reactor, errand)
    except RemoteError as error:
        problem = f"{errand.method}: {error}"
    except (TunnelError, CallFailed) as error:
        problem = str(error)
    else:
        _report(result)
        return
    print(printable(problem, len(problem)), file=sys.stderr)
    raise SystemExit(1)
