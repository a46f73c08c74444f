"""
An OpenID provider: its metadata, its keys, and for whom it vouches.

See OpenID Connect Discovery 1.0, and OpenID Connect Core 1.0, sections 3.1.2 and 3.1.3.
"""

from __future__ import annotations

import base64
import hmac
import re
from collections import OrderedDict
from collections.abc import Callable, Collection, Mapping
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

import jwt
from twisted.internet.defer import DeferredLock

from tristunnel.errors import printable
from tristunnel.gate.fetch import Fetcher, Unreachable
from tristunnel.model.gate import ProviderRules

__all__ = ["NotVouched", "Provider", "Providers"]

ALGORITHMS = frozenset(
    ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA")
)
"""Signatures that are accepted: those by keys that only the provider has."""

FRESH = 3600.0
"""Seconds for which a provider's metadata is kept."""

AGAIN = 10.0
"""Seconds after which one that did not answer is asked again."""

LOOKS = 1.0
"""Seconds between two looks at a provider's keys, when one was not among them."""

LEEWAY = 60
"""Seconds by which clocks may differ."""

MOST_KEYS = 50
"""Keys of a provider that are looked at."""

MOST_PROVIDERS = 200
"""Providers that are remembered."""

MOST_WAITING = 50
"""Visitors that may wait for one at the same time."""

_NEEDED = ("authorization_endpoint", "token_endpoint", "jwks_uri")


class NotVouched(Exception):
    """What the provider has said is not good. The message says why."""


class Provider:
    """
    One provider.

    @param issuer: Its URL.
    @param fetcher: Asks it.
    @param seconds: The clock.
    """

    def __init__(
        self, issuer: str, fetcher: Fetcher, seconds: Callable[[], float]
    ) -> None:
        self._issuer = issuer
        self._fetcher = fetcher
        self._seconds = seconds
        self._lock = DeferredLock()
        self._about: Mapping[str, Any] = {}
        self._readAt = self._keysAt = float("-inf")
        self._trouble = ""
        self._keys: list[dict[str, Any]] = []

    async def about(self) -> Mapping[str, Any]:
        """
        Get the provider's metadata.

        @raise Unreachable: If it does not.
        """
        if len(self._lock.waiting) >= MOST_WAITING:
            raise Unreachable("too many visitors wait for it")
        await self._lock.acquire()
        try:
            age = self._seconds() - self._readAt
            if self._trouble and age < AGAIN:
                raise Unreachable(self._trouble)
            if self._trouble or age >= FRESH:
                try:
                    about, self._trouble = await self._discover(), ""
                except Unreachable as problem:
                    self._readAt, self._trouble = self._seconds(), str(problem)
                    raise
                self._readAt, self._about = self._seconds(), about
            return self._about
        finally:
            self._lock.release()

    async def _discover(self) -> Mapping[str, Any]:
        where = self._issuer.rstrip("/") + "/.well-known/openid-configuration"
        said = await self._fetcher.get(where)
        if said.get("issuer") != self._issuer:
            raise Unreachable("it names a different issuer")
        for name in _NEEDED:
            url = said.get(name)
            if not isinstance(url, str) or not _isURL(url):
                raise Unreachable(f"it does not state its {name}")
        return said

    async def exchange(
        self, rules: ProviderRules, code: str, verifier: str, where: str, nonce: str
    ) -> dict[str, Any]:
        """
        Exchange a code for the claims about a visitor.

        @param verifier: What the code's challenge was made from (RFC 7636).
        @param where: Where the visitor came back to.
        @param nonce: What the claims must have in them.
        @return: The claims, whose signature is good.
        @raise Unreachable: If there is no answer.
        @raise NotVouched: If the claims are not signed, or not for us, or not now.
        """
        about = await self.about()
        form = {
            "grant_type": "authorization_code",
            "code": code,
            "redirect_uri": where,
            "client_id": rules.clientID,
            "code_verifier": verifier,
        }
        headers = {}
        ways = about.get("token_endpoint_auth_methods_supported")
        byForm = isinstance(ways, list) and "client_secret_basic" not in ways
        if rules.clientSecret and byForm:
            form["client_secret"] = rules.clientSecret
        elif rules.clientSecret:
            login = f"{quote(rules.clientID, '')}:{quote(rules.clientSecret, '')}"
            said = base64.b64encode(login.encode()).decode("ascii")
            headers["Authorization"] = f"Basic {said}"
        answer = await self._fetcher.post(
            about["token_endpoint"], urlencode(form).encode(), headers
        )
        token = answer.get("id_token")
        if not isinstance(token, str):
            raise Unreachable("it sent no id_token")
        return await self._verified(token, rules, nonce)

    async def _verified(
        self, token: str, rules: ProviderRules, nonce: str
    ) -> dict[str, Any]:
        try:
            head = jwt.get_unverified_header(token)
        except (jwt.PyJWTError, RecursionError, ValueError) as error:
            raise NotVouched(str(error)) from None
        algorithm = head.get("alg")
        if algorithm not in ALGORITHMS:
            raise NotVouched(f"it is signed by {printable(str(algorithm), 20)}")
        claims, problem = None, "none of the provider's keys has signed it"
        for key in await self._keysFor(head.get("kid"), algorithm):
            try:
                claims = jwt.decode(
                    token,
                    key,
                    [algorithm],
                    audience=rules.clientID,
                    issuer=self._issuer,
                    leeway=LEEWAY,
                    options={"require": ["exp", "iat", "sub", "aud", "iss"]},
                )
                break
            except jwt.InvalidSignatureError:
                continue
            except (jwt.PyJWTError, RecursionError, TypeError, ValueError) as error:
                problem = str(error)
        if claims is None:
            raise NotVouched(problem)
        said = claims.get("nonce")
        if not isinstance(said, str) or not hmac.compare_digest(
            said.encode(), nonce.encode()
        ):
            raise NotVouched("it is not the answer to this sign-in")
        if claims.get("azp", rules.clientID) != rules.clientID:
            raise NotVouched("it is for another program")
        return claims

    async def _keysFor(self, name: object, algorithm: str) -> list[Any]:
        found = self._named(name, algorithm)
        if not found and self._seconds() - self._keysAt >= LOOKS:
            self._keysAt = self._seconds()
            about = await self.about()
            said = (await self._fetcher.get(about["jwks_uri"])).get("keys")
            keys = said if isinstance(said, list) else []
            self._keys = [each for each in keys if isinstance(each, dict)][:MOST_KEYS]
            found = self._named(name, algorithm)
        return found

    def _named(self, name: object, algorithm: str) -> list[Any]:
        found = []
        for each in self._keys:
            if name is not None and each.get("kid") != name:
                continue
            if (
                each.get("use", "sig") != "sig"
                or each.get("alg", algorithm) != algorithm
            ):
                continue
            try:
                found.append(jwt.PyJWK(each, algorithm).key)
            except (jwt.PyJWTError, TypeError, ValueError, KeyError):
                # One of another kind, or broken.
                continue
        return found


def _isURL(text: str) -> bool:
    # It goes into a header as it is.
    if not re.fullmatch("[!-~]{1,2000}", text):
        return False
    try:
        url = urlsplit(text)
    except ValueError:
        return False
    return url.scheme in ("http", "https") and bool(url.netloc)


class Providers:
    """
    The providers that tunnels have named.

    @param reactor: Connects, and tells time.
    @param trusted: The issuers that the operator has named.
    """

    def __init__(self, reactor: Any, trusted: Collection[str] = ()) -> None:
        self._reactor = reactor
        self._trusted = frozenset(trusted)
        self._known: OrderedDict[str, Provider] = OrderedDict()

    def find(self, issuer: str) -> Provider:
        """Find a provider, which need not be reachable."""
        made = self._known.pop(issuer, None)
        if made is None:
            fetcher = Fetcher(self._reactor, issuer in self._trusted)
            made = Provider(issuer, fetcher, self._reactor.seconds)
        self._known[issuer] = made
        if len(self._known) > MOST_PROVIDERS:
            self._known.popitem(last=False)
        return made
