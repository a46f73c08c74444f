"""
Sending a request again, as it was or edited: to the service of its own forward, and
nowhere else.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IHandshakeListener, INegotiated
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.forwards.service_connector import CONNECT_TIMEOUT
from tristunnel.inspect.exchange import Exchange
from tristunnel.inspect.masks import MASK, maskedTarget, unmasked
from tristunnel.inspect.record import Record
from tristunnel.inspect.tap import Tap
from tristunnel.wire.http import MOST_HEAD_BYTES, MOST_HEADERS

__all__ = ["ANSWER_TIMEOUT", "AT_ONCE", "Edits", "Replays", "requestOf"]

ANSWER_TIMEOUT = 60.0
"""Seconds in which the answer to a request that was sent again must be complete."""

AT_ONCE = 20
"""Requests that are sent again at once."""

_METHOD = re.compile(r"[A-Z][A-Z-]{0,19}")
_TARGET = re.compile(r"(/[\x21-\x7e]*|\*)")
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = frozenset(("content-length", "transfer-encoding", "expect", "trailer"))


@dataclass(frozen=True)
class Edits:
    """
    Changes to a request that is sent again; C{None} leaves a part as it was.

    @ivar method: The method.
    @ivar path: The path and the query.
    @ivar headers: All headers, but for those that say how long the body is.
    @ivar body: The body.
    """

    method: str | None = None
    path: str | None = None
    headers: Sequence[tuple[str, str]] | None = None
    body: str | None = None

    @classmethod
    def of(cls, method: Any, path: Any, headers: Any, body: Any) -> Edits:
        """
        Read what a caller has said.

        @raise TunnelError: C{bad-option}.
        """
        for name, value in (("method", method), ("path", path), ("body", body)):
            if not (value is None or isinstance(value, str)):
                raise badOption(f"{name} takes text")
        if headers is None:
            return cls(method, path, None, body)
        isPairs = isinstance(headers, list) and all(
            isinstance(each, list)
            and len(each) == 2
            and all(isinstance(text, str) for text in each)
            for each in headers
        )
        if not isPairs:
            raise badOption("headers takes a list of [name, value]")
        return cls(method, path, [(name, value) for name, value in headers], body)


def requestOf(exchange: Exchange, edits: Edits) -> bytes:
    """
    Write the request that is to be sent.

    @raise TunnelError: C{bad-option}, if it would not be a valid request, or if not all
        of its body was kept.
    """
    asked, part = exchange.asked, exchange.request
    original = asked.target.decode("utf-8", "replace")
    method = edits.method or asked.method.decode("ascii")
    target = original if edits.path is None else edits.path
    if MASK in target and target == maskedTarget(original):
        target = original
    headers = [
        (name.decode("latin-1"), value.decode("utf-8", "surrogateescape"))
        for _, name, value in asked.headers
    ]
    if edits.headers is not None:
        headers = unmasked(edits.headers, headers)
    if edits.body is not None:
        body = edits.body.encode("utf-8", "surrogateescape")
    elif not part.isWhole:
        raise badOption(
            f"only {len(part.kept)} of {part.size} bytes of the request's body were"
            " kept: raise --inspect-body, or give a body"
        )
    else:
        body = bytes(part.kept)
    _check(method, target, headers)
    lines = [f"{method} {target} HTTP/1.1"]
    lines += [
        f"{name}: {value}"
        for name, value in headers
        if name.lower() not in (*_FRAMING, "connection")
    ]
    if asked.upgrade and not body:
        lines.append("Connection: upgrade")
    else:
        lines.append("Connection: close")
    if body or asked.hasBody:
        lines.append(f"Content-Length: {len(body)}")
    text = "\r\n".join([*lines, "", ""])
    return text.encode("utf-8", "surrogateescape") + body


def _check(method: str, target: str, headers: Sequence[tuple[str, str]]) -> None:
    if not _METHOD.fullmatch(method):
        raise badOption(
            f"{printable(method, 30)!r} is not a method; write for example GET"
        )
    if not _TARGET.fullmatch(target):
        raise badOption(
            "a path begins with /, and has only ASCII characters and no spaces;"
            " write %20 for a space"
        )
    if MASK in target or any(MASK in value for _, value in headers):
        raise badOption(f"replace {MASK}, which hides a secret, or show secrets first")
    if (
        len(headers) > MOST_HEADERS
        or len(target) + sum(len(name) + len(value) for name, value in headers)
        > MOST_HEAD_BYTES
    ):
        raise badOption("there is too much in the head")
    for name, value in headers:
        if not _NAME.fullmatch(name):
            raise badOption(f"{printable(name, 40)!r} is not a header name")
        if re.search(r"[\r\n\0]", value):
            raise badOption(f"the value of header {name} has a line break")
    if sum(name.lower() == "host" for name, _ in headers) != 1:
        raise badOption("a request has one Host header")


@implementer(IHandshakeListener)
class _Asking(Protocol):
    """Sends one request, and shows it and its answer to a tap."""

    transport: Any

    def __init__(self, tap: Tap, request: bytes, over: Callable[[str], None]) -> None:
        self._tap = tap
        self._request = request
        self._over = over

    def connectionMade(self) -> None:
        if not INegotiated.providedBy(self.transport):
            self.handshakeCompleted()

    def handshakeCompleted(self) -> None:
        request, self._request = self._request, b""
        if request:
            self._tap.asked(request)
            self.transport.write(request)

    def dataReceived(self, data: bytes) -> None:
        self._tap.answered(data)
        if self._tap.isUpgraded:
            # What the client would say then is not part of the request.
            self.transport.loseConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._tap.answeringEnded()
        self._over(reason.getErrorMessage())


class Replays:
    """
    Sends requests again.

    @param reactor: Tells time.
    @param record: Where they are kept, with their answers.
    """

    def __init__(self, reactor: Any, record: Record) -> None:
        self._reactor = reactor
        self._record = record
        self._running: set[Deferred[Exchange]] = set()

    def send(self, exchange: Exchange, edits: Edits) -> Deferred[Exchange]:
        """
        Send a request again.

        @return: Fires with the new exchange once it is over; fails with
            L{TunnelError}.
        """
        if len(self._running) >= AT_ONCE:
            raise TunnelError("limit-reached", "too many requests are being sent again")
        request = requestOf(exchange, edits)
        sending = Deferred.fromCoroutine(self._send(exchange, request))
        sending.addTimeout(ANSWER_TIMEOUT + CONNECT_TIMEOUT, self._reactor, _late)
        self._running.add(sending)

        def done(result: Any) -> Any:
            self._running.discard(sending)
            return result

        return sending.addBoth(done)

    def stop(self) -> None:
        """Stop waiting for answers."""
        for each in list(self._running):
            each.cancel()

    async def _send(self, exchange: Exchange, request: bytes) -> Exchange:
        forward = exchange.forward
        over: Deferred[Exchange] = Deferred()

        def finished(made: Exchange) -> None:
            if not over.called:
                over.callback(made)

        def lost(why: str) -> None:
            if not over.called:
                over.errback(
                    TunnelError("service-unreachable", f"{forward.target}: {why}")
                )

        number = exchange.number
        tap = Tap(self._record, forward, exchange.info, replayOf=number, over=finished)
        # What the owner sends, and may have edited, needs no signature.
        endpoint: Any = getattr(forward.endpoint, "forOwner", forward.endpoint)
        forVisitor = getattr(endpoint, "forVisitor", None)
        if forVisitor is not None:
            endpoint = forVisitor(exchange.info)
        factory = Factory.forProtocol(lambda: _Asking(tap, request, lost))
        factory.noisy = False
        try:
            protocol = cast(_Asking, await endpoint.connect(factory))
        except (ConnectError, CancelledError, OSError) as error:
            raise TunnelError(
                "service-unreachable", f"{forward.target} was not reached: {error}"
            ) from None
        try:
            return await over
        finally:
            tap.broken(TunnelError("closed", "nobody waits for the answer any more"))
            protocol.transport.abortConnection()


def _late(result: Any, timeout: float) -> Any:
    raise TunnelError("service-timeout", "the answer did not come in time")
