"""
Forwards that a client offers because its server asks for them, if its user agrees.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from twisted.internet.task import deferLater
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.dialects.framed.client import TunnelClientProtocol
from tristunnel.errors import TunnelError
from tristunnel.forwards.consent import MOST, Consent
from tristunnel.forwards.forward import Forward
from tristunnel.jsonrpc.pending import RemoteError
from tristunnel.util.deferreds import Coalesced

__all__ = ["AskedForwards"]

ASK_AGAIN = 0.2
"""Seconds from the news that the server asks for something else until it is asked for
what."""


class AskedForwards:
    """
    What the server asks one client for.

    @param reactor: Tells time.
    @param current: Finds the session that is up now, if there is one.
    @param offer: Offers what L{forwards} has now, beside the user's own, in a
        session; says what has changed, in words.

    @ivar consent: What the server may ask for, or C{None} for nothing.
    @ivar forwards: What it asks for, without what the user does not agree to.
    """

    _log = Logger()

    def __init__(
        self,
        reactor: Any,
        current: Callable[[], TunnelClientProtocol | None],
        offer: Callable[[TunnelClientProtocol], Coroutine[Any, Any, list[str]]],
    ) -> None:
        self.consent: Consent | None = None
        self.forwards: Sequence[Forward] = ()
        self._reactor = reactor
        self._current = current
        self._offer = offer
        self._answer: object = None
        self._warned: dict[str, str] = {}
        self._asking = Coalesced(self._askLater, self._notAsked)

    def consentTo(self, consent: Consent | None) -> None:
        """
        Change what the user agrees to. Forwards outside of that are removed with the
        next change of the user's own forwards; what else the server asks for is opened
        later.

        @param consent: What the server may ask for, or C{None} for nothing.
        """
        before, self.consent = self.consent, consent
        if consent is None:
            self.forwards = ()
        elif before is None or before.patterns != consent.patterns:
            self.forwards = self._judged(consent, self._answer)[0]
            self.askAgain()

    def askAgain(self) -> None:
        """
        Ask soon what the server asks for now; it may send this news many times a
        second.
        """
        if self._current() is not None and self.consent is not None:
            self._asking.ask()

    async def _askLater(self) -> None:
        await deferLater(self._reactor, ASK_AGAIN)
        session = self._current()
        if session is not None:
            await self.ask(session)

    def _notAsked(self, failure: Failure) -> None:
        self._log.failure("Managed tunnels were not read", failure)

    async def ask(self, session: TunnelClientProtocol) -> None:
        """Learn what the server asks for, and offer what the user agrees to."""
        consent = self.consent
        if consent is None:
            return
        patterns = list(consent.patterns)
        try:
            self._answer = await session.call("managedForwards", consent=patterns)
            found, refused = self._judged(consent, self._answer)
            if refused:
                # So that the operator can see why.
                await session.call("managedForwards", consent=patterns, refused=refused)
        except (TunnelError, RemoteError) as error:
            if session.lost is None:
                self._log.warn("This client is not managed: {reason}", reason=error)
            return
        if self.consent is not consent:
            # The user has changed it meanwhile.
            await self.ask(session)
            return
        self.forwards = found
        for change in await self._offer(session):
            self._log.info("The server's operator: {change}", change=change)

    def _judged(
        self, consent: Consent, answer: object
    ) -> tuple[list[Forward], dict[str, str]]:
        """Sort out what the user agrees to, and why not the rest."""
        found: dict[str, Forward] = {}
        refused: dict[str, str] = {}
        asked = answer if isinstance(answer, list) else []
        for each in asked[:MOST]:
            try:
                forward = consent.forward(self._reactor, each)
            except TunnelError as refusal:
                identifier = each.get("id") if isinstance(each, dict) else None
                refused[str(identifier)[:32]] = refusal.message
            else:
                found[forward.spec] = forward
        for identifier, why in refused.items():
            if self._warned.get(identifier) != why:
                self._log.warn("The server's operator: {why}", why=why)
        self._warned = refused
        return list(found.values()), refused
