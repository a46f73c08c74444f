"""Where events go: C{--on-event [KIND,...=]URL} or C{exec:COMMAND}."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol
from urllib.parse import urlsplit, urlunsplit

from twisted.internet import error
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure
from twisted.web._newclient import ParseError as HTTPClientParseError

from tristunnel.dataplane.asking import Enough, firstCause, sendRequest, wayTo
from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.hooks.event import KINDS, HookEvent, kindsNamed, signature
from tristunnel.util.command_line import programWords
from tristunnel.util.process import environmentOfOthers
from tristunnel.util.repeating import stopTimer

__all__ = [
    "NotTaken",
    "Post",
    "Receiver",
    "Target",
    "checkSecret",
    "parseTarget",
    "webHook",
]

_EXAMPLE = (
    " or a command; write https://HOST/PATH, exec:COMMAND, or KIND,KIND=one of these"
)


class NotTaken(Exception):
    """
    An event was not delivered. The message says why.

    @ivar retryAfter: Seconds that the receiver asks for, or C{None}.
    """

    def __init__(self, why: str, retryAfter: float | None = None) -> None:
        super().__init__(why)
        self.retryAfter = retryAfter


class Receiver(Protocol):
    """Takes events."""

    def deliver(self, event: HookEvent, now: float) -> Deferred[None]:
        """
        Hand an event over.

        @param now: The time of day.
        @return: Fires when it was taken; fails with L{NotTaken}.
        """


@dataclass(frozen=True)
class Target:
    """
    Where some events go.

    @ivar shown: Its name in messages, without what may be secret.
    @ivar kinds: Which events.
    @ivar makeReceiver: Makes what takes them, of a reactor and a secret.
    """

    shown: str
    kinds: frozenset[str]
    makeReceiver: Callable[[Any, bytes], Receiver]


def parseTarget(text: str) -> Target:
    """
    Read C{--on-event}.

    @raise TunnelError: C{bad-option}, with the cause and an example.
    """
    kinds, where = frozenset(KINDS), text.strip()
    head, equals, rest = where.partition("=")
    if equals and re.fullmatch(r"[a-z*,\s-]+", head):
        kinds, where = kindsNamed(head), rest.strip()
    scheme, colon, command = where.partition(":")
    if scheme == "exec" and colon:
        words = programWords("--on-event exec", command)
        return Target(f"exec:{words[0]}", kinds, lambda r, s: _Command(r, words))
    shape, plus, plain = where.partition("+")
    if not plus or shape not in _SHAPES:
        shape, plain = "", where
    url, shown = webHook("--on-event", plain)
    return Target(shown, kinds, lambda r, s: _Receiving(Post(r, url, s, shape)))


def webHook(option: str, text: str) -> tuple[str, str]:
    """
    Check a URL that is to be told or asked something.

    @param option: Which option has it.
    @return: The URL, and its name in messages: the paths of such URLs are secrets.
    @raise TunnelError: C{bad-option}.
    """
    try:
        parts = urlsplit(text)
        host, port = parts.hostname, parts.port
    except ValueError:
        parts, host, port = urlsplit(""), None, None
    if parts.scheme not in ("http", "https") or not host or not text.isascii():
        also = _EXAMPLE if option == "--on-event" else ": https://HOST/PATH"
        raise badOption(f"{option} takes a URL{also}")
    if parts.username is not None:
        raise badOption(
            f"{option}: a receiver knows us by the signature, not by a password in its"
            " URL; give --event-secret-file"
        )
    number = f":{port}" if port else ""
    url = urlunsplit(parts._replace(fragment="", path=parts.path or "/"))
    return url, f"{parts.scheme}://{host}{number}/"


# Over HTTP

Shape = Callable[[HookEvent], tuple[str, bytes, dict[str, str]]]
"""Makes a content type, a body, and headers."""


def _json(event: HookEvent) -> tuple[str, bytes, dict[str, str]]:
    return "application/json", event.json(), {}


def _slack(event: HookEvent) -> tuple[str, bytes, dict[str, str]]:
    return "application/json", json.dumps({"text": event.text}).encode(), {}


def _ntfy(event: HookEvent) -> tuple[str, bytes, dict[str, str]]:
    return "text/plain; charset=utf-8", event.text.encode(), {"Title": event.kind}


_SHAPES: dict[str, Shape] = {"slack": _slack, "ntfy": _ntfy}


def _plainly(failure: Failure) -> Failure:
    """Find what went wrong, beneath what C{twisted.web} wraps around it."""
    cause = firstCause(failure)
    if cause.check(HTTPClientParseError):
        return Failure(ValueError("its answer is not HTTP"))
    return cause


class Post:
    """
    Posts events to a URL, one connection each.

    @param url: What L{webHook} has checked.
    @param secret: What signs them, or empty.
    @param shape: C{slack}, C{ntfy}, or empty for JSON.
    """

    def __init__(self, reactor: Any, url: str, secret: bytes, shape: str = "") -> None:
        self._reactor = reactor
        self._url = url
        self._shape = _SHAPES.get(shape, _json)
        self._secret = secret

    def send(self, event: HookEvent, now: float) -> Deferred[Any]:
        """
        Post an event.

        @param now: The time of day.
        @return: The response, once its head is there.
        """
        kind, body, extra = self._shape(event)
        fields = {
            "Content-Type": kind,
            "Tristunnel-Event": event.kind,
            "Tristunnel-Delivery": event.id,
            **extra,
        }
        if self._secret:
            fields["Tristunnel-Signature"] = signature(self._secret, int(now), body)
        way = partial(wayTo, self._reactor)
        asking = sendRequest(self._reactor, way, b"POST", self._url, fields, body)
        return asking.addErrback(_plainly)


class _Receiving:
    """A receiver at a URL."""

    def __init__(self, post: Post) -> None:
        self._post = post

    def deliver(self, event: HookEvent, now: float) -> Deferred[None]:
        return self._post.send(event, now).addCallbacks(self._answered, self._failed)

    def _answered(self, response: Any) -> None:
        response.deliverBody(Enough())
        if 200 <= response.code < 300:
            return
        hint = response.headers.getRawHeaders("Retry-After", [""])[0]
        retryAfter = float(hint) if hint.isdecimal() and len(hint) < 9 else None
        raise NotTaken(f"it answered {response.code}", retryAfter)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError):
            failure.raiseException()
        raise NotTaken(printable(failure.getErrorMessage()))


# To a program

LAST_WORDS = 0.5
"""Seconds for which a program's output is read after its end."""


class _Running(ProcessProtocol):
    """
    A program that takes an event on its standard input. Its children may keep its
    output open for longer, and are not waited for.
    """

    def __init__(self, reactor: Any, body: bytes) -> None:
        self.ended: Deferred[None] = Deferred(self._cancelled)
        self._reactor = reactor
        self._waiting: IDelayedCall | None = None
        self._body = body
        self._said = b""

    def connectionMade(self) -> None:
        transport: Any = self.transport
        transport.write(self._body)
        transport.closeStdin()

    def outReceived(self, data: bytes) -> None:
        """Ignored."""

    def errReceived(self, data: bytes) -> None:
        self._said = (self._said + data)[:500]

    def _cancelled(self, ended: Deferred[None]) -> None:
        transport: Any = self.transport
        with suppress(error.ProcessExitedAlready):
            transport.signalProcess("KILL")
        transport.loseConnection()

    def processExited(self, reason: Failure) -> None:
        # What it has written last may still be in the pipe.
        self._waiting = self._reactor.callLater(LAST_WORDS, self._finish, reason)

    def processEnded(self, reason: Failure) -> None:
        stopTimer(self._waiting)
        self._finish(reason)

    def _finish(self, reason: Failure) -> None:
        transport: Any = self.transport
        transport.loseConnection()
        if self.ended.called:
            return
        if reason.check(error.ProcessDone):
            self.ended.callback(None)
            return
        how: Any = reason.value
        what = f"status {how.exitCode}" if how.exitCode else f"signal {how.signal}"
        said = printable(self._said.decode("utf-8", "replace").strip())
        self.ended.errback(NotTaken(f"it ended with {what}: {said}".removesuffix(": ")))


class _Command:
    """A receiver that is a program, started for each event."""

    def __init__(self, reactor: Any, words: Sequence[str]) -> None:
        self._reactor = reactor
        self._words = words

    def deliver(self, event: HookEvent, now: float) -> Deferred[None]:
        running = _Running(self._reactor, event.json())
        path = shutil.which(self._words[0]) or self._words[0]
        environment = {**environmentOfOthers(), **event.environment()}
        try:
            self._reactor.spawnProcess(running, path, self._words, environment)
        except OSError as problem:
            raise NotTaken(str(problem)) from None
        return running.ended


def checkSecret(text: bytes) -> bytes:
    """
    Read what events are signed with.

    @raise TunnelError: C{bad-option}, if anybody could guess it.
    """
    secret = text.strip()
    if len(secret) < 16:
        raise TunnelError(
            "bad-option",
            "--event-secret-file needs at least 16 characters; make some with:"
            " openssl rand -hex 32",
        )
    return secret
