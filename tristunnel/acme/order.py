"""
One certificate: an order, its authorizations, and the result (RFC 8555, section 7.4).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, TypeVar

from acme import challenges, crypto_util, messages
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
)
from josepy.jwk import JWK
from twisted.internet.task import deferLater
from twisted.logger import Logger

from tristunnel.acme.account import Account
from tristunnel.acme.challenges import TLSALPN01, Answers
from tristunnel.acme.dns import Records
from tristunnel.acme.problems import AuthorityProblem, refusalOf
from tristunnel.acme.threads import inThread

__all__ = ["Issued", "Orders"]

POLL = 1.0
"""The first pause between two polls whether a proof was checked, in seconds; it doubles
each time, up to L{_SLOWEST_POLL}."""

_SLOWEST_POLL = 10.0

PATIENCE = 180.0
"""Seconds in which all proofs must have been checked."""

_FINALIZING = 90.0

_T = TypeVar("_T")
_Undo = Callable[[], object]


@dataclass(frozen=True)
class Issued:
    """
    A certificate with its key.

    @ivar fullchain: The certificate and those of its authorities, as PEM.
    @ivar privateKey: Its key, as PEM.
    """

    fullchain: bytes
    privateKey: bytes


class Orders:
    """
    Gets certificates.

    @param reactor: Tells time, and gets the results of threads.
    @param account: Asks for them.
    @param answers: Answers by HTTP and TLS.
    @param records: Changes the domain, or C{None} if nobody can.
    @param wait: Seconds until a changed record is visible everywhere.
    @param domains: The domains that C{records} can change; other names are proved by
        DNS only if nothing else has worked.
    @param ways: The challenges by which the authority can reach this server:
        C{"http-01"} and C{"tls-alpn-01"}, the best first.
    """

    _log = Logger(namespace="tristunnel.acme")

    def __init__(
        self,
        reactor: Any,
        account: Account,
        answers: Answers,
        records: Records | None = None,
        wait: float = 0.0,
        ways: Sequence[str] = ("http-01", "tls-alpn-01"),
        domains: Collection[str] = (),
    ) -> None:
        self._domains = tuple(domains)
        self._reactor = reactor
        self._account = account
        self._answers = answers
        self._records = records
        self._wait = wait
        self._ways = tuple(ways)

    @property
    def provesDomains(self) -> bool:
        """Whether wildcard certificates can be had."""
        return self._records is not None

    async def obtain(self, names: Sequence[str], turn: int = 0) -> Issued:
        """
        Get a certificate.

        @param names: What it is for; C{*.example.com} needs DNS.
        @param turn: The number of attempts before: each one begins with another way to
            prove a name, if there are several.
        @raise AuthorityProblem: If it cannot be had now.
        """
        key = ec.generate_private_key(ec.SECP256R1()).private_bytes(
            Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
        )
        request = crypto_util.make_csr(key, list(names))
        order = await self._ask(lambda client: client.new_order(request))
        undo: list[_Undo] = []
        try:
            await self._prove(order.authorizations, turn, undo)
            until = datetime.now() + timedelta(seconds=_FINALIZING)
            order = await self._ask(lambda client: client.finalize_order(order, until))
        finally:
            for each in undo:
                await self._undone(each)
        return Issued(order.fullchain_pem.encode("ascii"), key)

    def _ask(self, request: Callable[[Any], _T]) -> Awaitable[_T]:
        return inThread(self._reactor, lambda: self._account.call(request))

    async def _undone(self, undo: _Undo) -> None:
        try:
            await inThread(self._reactor, undo)
        except Exception as problem:
            self._log.warn(
                "What an authority needs no more remains: {problem}",
                problem=str(problem),
            )

    async def _prove(
        self,
        authorizations: Sequence[messages.AuthorizationResource],
        turn: int,
        undo: list[_Undo],
    ) -> None:
        pending = [
            each for each in authorizations if each.body.status != messages.STATUS_VALID
        ]
        chosen = [(each, self._choose(each.body, turn)) for each in pending]
        for each, challenge in chosen:
            ready = self._ready(each.body.identifier.value, challenge.chall, undo)
            await inThread(self._reactor, ready)
        if self._wait and any(
            isinstance(challenge.chall, challenges.DNS01) for _, challenge in chosen
        ):
            await deferLater(self._reactor, self._wait)
        key = self._account.key
        for _, challenge in chosen:
            await self._ask(_answering(challenge, key))
        deadline = self._reactor.seconds() + PATIENCE
        for each, _ in chosen:
            await self._poll(each, deadline)

    def _choose(
        self, authorization: messages.Authorization, turn: int
    ) -> messages.ChallengeBody:
        name = authorization.identifier.value
        offered = {each.chall.typ: each for each in authorization.challenges}
        dns = ("dns-01",) if self._records is not None else ()
        direct = () if authorization.wildcard else self._ways
        ours = any(f".{name}".endswith(f".{each}") for each in self._domains)
        ways = dns + direct if ours else direct + dns
        possible = [offered[way] for way in ways if way in offered]
        if not possible:
            raise AuthorityProblem(
                f"nothing that the authority takes as a proof for {name}"
                f" ({', '.join(sorted(offered))}) is possible here: let it reach port"
                " 80 (--http) or 443 (--https), or give --acme-dns-hook"
            )
        return possible[turn % len(possible)]

    def _ready(
        self, name: str, challenge: challenges.Challenge, undo: list[_Undo]
    ) -> _Undo:
        """Prepare the answer to a challenge; it blocks."""
        key, answers, records = self._account.key, self._answers, self._records
        if isinstance(challenge, challenges.HTTP01):
            token = challenge.encode("token")
            undo.append(lambda: answers.remove(token))
            text = challenge.validation(key).encode("ascii")
            return lambda: answers.put(token, text)
        if isinstance(challenge, TLSALPN01):
            extension = challenge.validation(key)
            undo.append(lambda: answers.removeCertificate(name))
            return lambda: answers.putCertificate(name, extension)
        assert isinstance(challenge, challenges.DNS01)
        assert records is not None
        owner, value = challenge.validation_domain_name(name), challenge.validation(key)
        undo.append(lambda: records.remove(owner, value))
        return lambda: records.add(owner, value)

    async def _poll(
        self, authorization: messages.AuthorizationResource, deadline: float
    ) -> None:
        pause = POLL
        while True:
            found, response = await self._ask(lambda client: client.poll(authorization))
            if found.body.status == messages.STATUS_VALID:
                return
            if found.body.status != messages.STATUS_PENDING:
                raise AuthorityProblem(_whyInvalid(found.body))
            hint = response.headers.get("Retry-After", "")
            wait = max(pause, float(hint) if hint.isdecimal() else 0.0)
            if self._reactor.seconds() + wait > deadline:
                raise AuthorityProblem(
                    "the authority has not looked at the proof for"
                    f" {found.body.identifier.value} in {PATIENCE:g} s"
                )
            await deferLater(self._reactor, wait)
            pause = min(2 * pause, _SLOWEST_POLL)


def _answering(
    challenge: messages.ChallengeBody, key: JWK
) -> Callable[[Any], messages.ChallengeResource]:
    response = challenge.chall.response(key)
    return lambda client: client.answer_challenge(challenge, response)


def _whyInvalid(authorization: messages.Authorization) -> str:
    name = authorization.identifier.value
    for each in authorization.challenges:
        if each.error is not None:
            return f"{name} is not proved: {refusalOf(each.error)}"
    return f"the authority's proof of {name} is {authorization.status}"
