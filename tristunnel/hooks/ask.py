"""A hook that decides: C{--ask}."""

from __future__ import annotations

import time
import uuid
from collections import Counter
from typing import Any

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import IAddress
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dataplane.asking import Body
from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.hooks.event import HookEvent
from tristunnel.hooks.target import Post, webHook
from tristunnel.model.options import TunnelOptions
from tristunnel.model.permissions import Identity
from tristunnel.model.tunnel import Stream
from tristunnel.util.hosts import addressText
from tristunnel.util.log_limiter import LogRateLimiter
from tristunnel.util.words import nearest

__all__ = ["QUESTIONS", "DecidingHook", "parseAsk"]

QUESTIONS = ("login", "open", "visitor")

MOST = 256
"""Questions of one kind under way; beyond these, the default decides at once. So a
crowd of visitors does not get in the way of clients."""

_REASON = 1000
"""Bytes of an answer that are read."""


def parseAsk(text: str) -> tuple[frozenset[str], str, str]:
    """
    Read C{--ask [QUESTION,...=]URL}.

    @return: The questions, the URL, and how messages name it.
    @raise TunnelError: C{bad-option}.
    """
    questions, where = frozenset(QUESTIONS), text.strip()
    head, equals, rest = where.partition("=")
    if equals and "/" not in head and ":" not in head:
        named = [each.strip() for each in head.split(",")]
        for each in named:
            if each not in QUESTIONS:
                raise badOption(
                    f"--ask: unknown question {each!r}{nearest(each, QUESTIONS)}"
                )
        questions, where = frozenset(named), rest.strip()
    url, shown = webHook("--ask", where)
    return questions, url, shown


class DecidingHook:
    """
    Asks a web server what may happen. An answer of the 200s allows it, one of the 400s
    refuses it, with the first line of its body as the reason; for anything else, and if
    there is no answer in time, the default applies.

    @param reactor: Connects, and tells time.
    @param ask: What L{parseAsk} has read.
    @param secret: What questions are signed with, or empty.
    @param timeout: Seconds to wait.
    @param allows: Whether what was not decided is allowed.
    """

    _log = Logger(namespace="tristunnel.hooks")

    def __init__(
        self,
        reactor: Any,
        ask: tuple[frozenset[str], str, str],
        secret: bytes,
        timeout: float,
        allows: bool,
    ) -> None:
        self._reactor = reactor
        self._questions, url, self._shown = ask
        self._post = Post(reactor, url, secret)
        self._timeout = timeout
        self._allows = allows
        self._asking: Counter[str] = Counter()
        self._problems = LogRateLimiter(reactor.seconds, reactor.callLater)

    # Decisions

    def login(self, identity: Identity, peer: IAddress | None) -> Deferred[None]:
        where = addressText(peer) if peer is not None else ""
        text = f"May {identity.name} at {where} log in?"
        return self._ask("login", text, client=identity.name, address=where)

    def tunnel(self, identity: Identity, wanted: TunnelOptions) -> Deferred[None]:
        what = wanted.name or (f"port {wanted.port}" if wanted.port else "any port")
        return self._ask(
            "open",
            f"May {identity.name} open a tunnel at {what}?",
            client=identity.name,
            port=wanted.port,
            name=wanted.name,
            listener=wanted.listener,
            private=wanted.private,
        )

    def visitor(self, stream: Stream) -> Deferred[None]:
        tunnel, visitor = stream.tunnel, stream.visitorAddress
        return self._ask(
            "visitor",
            f"May {visitor} come to {tunnel.address or tunnel.name}?",
            visitor=visitor,
            client=tunnel.owner.name,
            tunnel=tunnel.id,
            name=tunnel.name,
            tunnel_address=tunnel.address,
        )

    def _ask(self, question: str, text: str, **fields: object) -> Deferred[None]:
        if question not in self._questions:
            return succeed(None)
        if self._asking[question] >= MOST:
            return self._default("too many questions are waiting for it")
        self._asking[question] += 1
        now = time.time()
        made = HookEvent(str(uuid.uuid4()), question, now, text, "server", fields)
        asking: Deferred[Any] = self._post.send(made, now)
        asking.addCallback(self._answered)
        # It is cancelled when the visitor has left.
        asking.addTimeout(self._timeout, self._reactor, self._late)
        asking.addBoth(self._over, question)
        return asking

    def _over(self, result: Any, question: str) -> Any:
        self._asking[question] -= 1
        if not isinstance(result, Failure) or result.check(TunnelError, CancelledError):
            return result
        return self._default(printable(result.getErrorMessage()))

    def _late(self, result: Any, timeout: float) -> Any:
        if isinstance(result, Failure) and result.check(CancelledError):
            raise TimeoutError(f"no answer within {timeout:g} s")
        return result

    def _answered(self, response: Any) -> Any:
        body = Body(_REASON, isCut=True)
        response.deliverBody(body)
        if 200 <= response.code < 300:
            return None
        if not 400 <= response.code < 500:
            raise ValueError(f"it answered {response.code}")
        return body.complete.addCallback(self._refuse)

    def _refuse(self, said: bytes) -> None:
        lines = said.decode("utf-8", "replace").strip().splitlines()
        reason = printable(lines[0], 200) if lines else "the server's hook refused it"
        raise TunnelError("not-permitted", reason)

    def _default(self, why: str) -> Deferred[None]:
        outcome = "allowed" if self._allows else "refused"
        self._problems.log(
            ("ask",),
            lambda: self._log.warn(
                "{hook} did not decide: {why}; until it does, requests are {outcome}",
                hook=self._shown,
                why=why,
                outcome=outcome,
            ),
            lambda count, seconds: self._log.warn(
                "{hook} did not decide {count} more times in {seconds:.0f} s: {why}",
                hook=self._shown,
                count=count,
                seconds=seconds,
                why=why,
            ),
            3,
        )
        if self._allows:
            return succeed(None)
        return fail(
            TunnelError(
                "limit-reached", "the service that decides this does not answer"
            )
        )
