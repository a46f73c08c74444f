"""
Visitors who sign in at an OpenID provider: the authorization code flow with PKCE
(OpenID Connect Core 1.0, section 3.1; RFC 7636).

Nothing is kept here of a sign-in that is under way: the visitor's cookie has a random
number, and what the provider must repeat is derived from that and this server's key.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from secrets import token_urlsafe
from typing import Any
from urllib.parse import urlencode

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from tristunnel.errors import TunnelError, printable
from tristunnel.gate.attempts import Attempts
from tristunnel.gate.fetch import Unreachable
from tristunnel.gate.pages import GatePages, issuerOf
from tristunnel.gate.provider import NotVouched, Providers
from tristunnel.gate.seal import Seal, cookieLine, cookieName, cookiesNamed
from tristunnel.gate.visit import Account, GateVisit
from tristunnel.model.gate import ProviderRules
from tristunnel.names.gate import Answer

__all__ = ["Accounts"]

FLOW = "flow"
"""The use of the cookie of a sign-in that is under way."""

FLOW_TIME = 600.0
"""Seconds that a sign-in may take."""


@dataclass(eq=False)
class Accounts:
    """
    Sends visitors to their provider, and lets them in when they come back.

    @ivar seal: Signs cookies.
    @ivar attempts: Slows down those who try often.
    @ivar pages: Writes answers.
    @ivar providers: Asked whom they vouch for.
    @ivar signedIn: Lets somebody in; takes the visit, the account, and where to go on.
    """

    _log = Logger(namespace="tristunnel.server")

    seal: Seal
    attempts: Attempts
    pages: GatePages
    providers: Providers
    signedIn: Callable[[GateVisit, Account, str], Answer]

    def begin(self, visit: GateVisit, where: str | None = None) -> Deferred[Answer]:
        """
        Send a visitor to the provider.

        @param where: Where to go on after that; C{None} for what the request says.
        """
        if where is None:
            where = visit.said.get("next", "")
        return Deferred.fromCoroutine(self._begin(visit, visit.next(where)))

    async def _begin(self, visit: GateVisit, where: str) -> Answer:
        rules = visit.rules.oidc
        if rules is None:
            return self.pages.asks(visit)
        try:
            about = await self.providers.find(rules.issuer).about()
        except Unreachable as problem:
            return self._broken(visit, problem)
        flow = token_urlsafe(16)
        challenge = sha256(self._made("verifier", flow).encode()).digest()
        asked = {
            "response_type": "code",
            "client_id": rules.clientID,
            "redirect_uri": _backAt(visit),
            "scope": " ".join(rules.scopes),
            "state": self._made("state", flow),
            "nonce": self._made("nonce", flow),
            "code_challenge": _text(challenge),
            "code_challenge_method": "S256",
        }
        claims = {"flow": flow, "next": where}
        value = self.seal.made(FLOW, visit.place, FLOW_TIME, claims)
        name = cookieName(FLOW, visit.path, visit.secure)
        url: str = about["authorization_endpoint"]
        mark = "&" if "?" in url else "?"
        return self.pages.redirect(
            f"{url}{mark}{urlencode(asked)}",
            cookieLine(name, value, FLOW_TIME, visit.secure),
        )

    def _made(self, what: str, flow: str) -> str:
        return _text(self.seal.derived(f"{what} {flow}"))

    def back(self, visit: GateVisit) -> Deferred[Answer]:
        """Take a visitor who comes back from the provider."""
        return Deferred.fromCoroutine(self._back(visit))

    async def _back(self, visit: GateVisit) -> Answer:
        said = visit.said
        claims = self._claims(visit, said.get("state", ""))
        rules = visit.rules.oidc
        if claims is None or rules is None:
            return self.pages.asks(
                visit,
                400,
                "This sign-in was not started in this browser, or took too long;"
                " try again.",
            )
        if said.get("iss", rules.issuer) != rules.issuer:
            # RFC 9207.
            return self._broken(visit, NotVouched("another provider has answered"))
        if "code" not in said:
            why = printable(said.get("error", "no reason given"), 100)
            return self.pages.asks(
                visit, 403, f"{issuerOf(visit)} did not sign you in: {why}."
            )
        try:
            self.attempts.check(visit.address, visit.place)
            told = await self.providers.find(rules.issuer).exchange(
                rules,
                said["code"],
                self._made("verifier", claims["flow"]),
                _backAt(visit),
                self._made("nonce", claims["flow"]),
            )
        except TunnelError as refusal:
            return self.pages.refused(visit, refusal)
        except Unreachable as problem:
            if problem.isRefusal:
                self.attempts.wrong(visit.address, visit.place)
            return self._broken(visit, problem)
        except NotVouched as problem:
            self.attempts.wrong(visit.address, visit.place)
            return self._broken(visit, problem)
        account = _accountOf(told, rules)
        if not rules.admits(account.email, account.groups):
            text = f"{account.user} may not visit {visit.place}."
            return self.pages.asks(visit, 403, text)
        return self.signedIn(visit, account, claims["next"])

    def _claims(self, visit: GateVisit, state: str) -> dict[str, Any] | None:
        """Find out from which sign-in somebody comes back."""
        name = cookieName(FLOW, visit.path, visit.secure)
        for value in cookiesNamed(name, visit.head.all(b"cookie")):
            claims = self.seal.read(FLOW, visit.place, value)
            if claims is not None and hmac.compare_digest(
                self._made("state", claims["flow"]).encode(), state.encode()
            ):
                return claims
        return None

    def _broken(self, visit: GateVisit, problem: Exception) -> Answer:
        """The provider is not one that works; its owner can read why in a log."""
        self._log.warn(
            "The OpenID provider of {place} cannot be used: {problem}",
            place=visit.place,
            problem=str(problem),
        )
        text = f"{issuerOf(visit)} cannot sign you in now; try again later."
        return self.pages.asks(visit, 502, text)


def _backAt(visit: GateVisit) -> str:
    """
    The URL to which the provider sends visitors back; it has to be registered there.
    """
    scheme = "https" if visit.secure else "http"
    return f"{scheme}://{visit.head.host.decode('ascii')}{visit.base}/oidc"


def _text(digest: bytes) -> str:
    return base64.urlsafe_b64encode(digest).decode("ascii").rstrip("=")


def _accountOf(told: dict[str, Any], rules: ProviderRules) -> Account:
    """
    Read for whom a provider vouches. An e-mail address counts only if the provider has
    verified it, and a name that people choose does not count.
    """
    email = told.get("email")
    verified = told.get("email_verified") in (True, "true")
    address = email if isinstance(email, str) and verified else ""
    groups = told.get(rules.groupsClaim)
    groups = [groups] if isinstance(groups, str) else groups
    names = groups if isinstance(groups, list) else []
    kept = tuple(each for each in names if isinstance(each, str))
    return Account("oidc", address or str(told["sub"])[:256], address[:256], kept)
