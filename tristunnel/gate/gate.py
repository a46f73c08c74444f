"""
The gate of a server's HTTP names: visitors with a cookie that this server has signed
come in, and others are asked to sign in.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from tristunnel.errors import TunnelError
from tristunnel.gate.accounts import Accounts
from tristunnel.gate.attempts import Attempts
from tristunnel.gate.links import Links
from tristunnel.gate.pages import GatePages, form
from tristunnel.gate.provider import Providers
from tristunnel.gate.seal import Seal, cookieLine, cookieName, cookiesNamed
from tristunnel.gate.staying import Staying
from tristunnel.gate.visit import Account, GateVisit, fieldsOf
from tristunnel.http.browsers import OriginRule
from tristunnel.names.exchange import Exchange
from tristunnel.names.gate import Answer, Asked, Form
from tristunnel.names.heads import Guest
from tristunnel.names.public import PublicNames
from tristunnel.service.access import AccessGrants

__all__ = ["VisitorGate"]

MOST_FORM = 8 * 1024
"""Bytes of a form."""

SESSION = "visitor"
"""The use of the cookie that says who a visitor is."""

_WITHOUT = frozenset((b"authorization",))

Fields = dict[str, str]


class VisitorGate:
    """
    A L{Gate<tristunnel.names.gate.Gate>}.

    @param reactor: Tells time.
    @param seal: Signs cookies.
    @param attempts: Checks passwords.
    @param names: Has the operator's own pages.
    @param providers: Asked for the accounts of visitors.
    @param access: Who was given a link.
    """

    def __init__(
        self,
        reactor: Any,
        seal: Seal,
        attempts: Attempts,
        names: PublicNames,
        providers: Providers,
        access: AccessGrants,
    ) -> None:
        self.staying = Staying(reactor, lambda visit: self._found(visit) is not None)
        self.seal = seal
        self.attempts = attempts
        self.pages = GatePages(names)
        accounts = Accounts(seal, attempts, self.pages, providers, self.signedIn)
        self._accounts = accounts
        self._links = Links(access, attempts, self.pages)
        self._own: dict[str, Callable[[GateVisit], Asked | Deferred[Answer]]] = {
            "sign-in": lambda visit: self._form(visit, self._signIn),
            "sign-out": lambda visit: self._form(visit, self._signOut),
            "begin": accounts.begin,
            "oidc": accounts.back,
            "link": lambda visit: self._form(visit, self._byLink),
        }

    def ask(self, exchange: Exchange) -> Asked | Deferred[Answer]:
        visit = GateVisit(exchange)
        if visit.own is not None:
            page = self._own.get(visit.own)
            if page is None:
                return self.pages.page(visit, 404, "There is nothing at this address.")
            return page(visit)
        found = self._found(visit)
        if found is not None:
            account, cookie = found
            if visit.head.upgrade and exchange.connection is not None:
                assert exchange.route is not None
                self.staying.add(exchange.connection, visit, exchange.route, cookie)
            return Guest(account.lines)
        header = visit.head.get(b"authorization")
        if header[:6].lower() == b"basic " and (visit.rules.pin or visit.rules.login):
            return self._byHeader(visit, header)
        if visit.rules.ways == ("oidc",) and visit.wantsPage:
            return self._accounts.begin(visit, visit.target)
        return self.pages.asks(visit)

    # Who it is

    def _found(self, visit: GateVisit) -> tuple[Account, bytes] | None:
        """Who has signed in, and the cookie that says so."""
        name = cookieName(SESSION, visit.path, visit.secure)
        for value in cookiesNamed(name, visit.head.all(b"cookie")):
            claims = self.seal.read(SESSION, visit.place, value)
            account = None if claims is None else Account.of(claims, visit.rules)
            if account is None:
                continue
            if account.way != "link" or self._links.isGood(visit, account):
                return account, value
        return None

    def signedIn(
        self, visit: GateVisit, account: Account, where: str, most: float = 0.0
    ) -> Answer:
        """
        Let somebody in from now on.

        @param where: Where to send the visitor.
        @param most: Seconds after which this ends in any case; 0 for no limit.
        """
        stay = visit.rules.stayFor(account.way)
        stay = min(stay, most) if most else stay
        claims = account.claims(visit.rules)
        value = self.seal.made(SESSION, visit.place, stay, claims)
        name = cookieName(SESSION, visit.path, visit.secure)
        line = cookieLine(name, value, stay, visit.secure)
        return self.pages.redirect(visit.next(where), line)

    # Forms

    def _form(
        self,
        visit: GateVisit,
        then: Callable[[GateVisit, Fields], Answer | Deferred[Answer]],
    ) -> Asked:
        if visit.head.method != b"POST":
            if visit.own == "sign-out":
                button = form(visit, "sign-out", "", "Sign out")
                title = f"Sign out of {visit.place}"
                text = "Sign out with a POST to this address."
                return self.pages.page(visit, 200, text, [button], title=title)
            if visit.own == "link" and visit.rules.link:
                return self._links.page(visit)
            return self.pages.asks(visit)
        objection = OriginRule([visit.host]).objectionTo(
            visit.values, lambda: visit.secure
        )
        if objection is not None:
            return self.pages.page(visit, 403, objection)
        long = self.pages.page(visit, 413, "The form is too long, or did not arrive.")

        def read(body: bytes) -> Answer | Deferred[Answer]:
            return then(visit, fieldsOf(body.decode("utf-8", "replace")))

        return Form(MOST_FORM, long, read)

    def _signIn(self, visit: GateVisit, fields: Fields) -> Answer | Deferred[Answer]:
        rules, user = visit.rules, fields.get("user", "")
        if "pin" in fields and rules.pin:
            account, given, kept = Account("pin"), fields["pin"], rules.pin
        elif user and rules.login:
            account, kept = Account("login", user), rules.hashOf(user)
            given = fields.get("password", "")
        else:
            return self.pages.asks(visit)

        def tried(isRight: bool) -> Answer:
            if isRight:
                return self.signedIn(visit, account, fields.get("next", ""))
            wrong = "That is not the PIN." if account.way == "pin" else _WRONG
            return self.pages.asks(visit, 401, wrong)

        try:
            trying = self.attempts.isRight(
                visit.address, visit.place, given.encode(), kept, rules.decoy
            )
        except TunnelError as refusal:
            return self.pages.refused(visit, refusal)
        return trying.addCallback(tried)

    def _byLink(self, visit: GateVisit, fields: Fields) -> Answer | Deferred[Answer]:
        if not visit.rules.link:
            return self.pages.asks(visit)

        def decided(said: tuple[Account, float] | Answer) -> Answer:
            if isinstance(said, Answer):
                return said
            account, left = said
            return self.signedIn(visit, account, "", left)

        return self._links.enter(visit, fields).addCallback(decided)

    def _signOut(self, visit: GateVisit, fields: Fields) -> Answer:
        name = cookieName(SESSION, visit.path, visit.secure)
        for value in cookiesNamed(name, visit.head.all(b"cookie")):
            self.staying.signedOut(value)
        line = cookieLine(name, "", 0, visit.secure)
        text = "You have signed out."
        title = f"Signed out of {visit.place}"
        return self.pages.page(visit, 200, text, headers=line, title=title)

    # Programs

    def _byHeader(self, visit: GateVisit, header: bytes) -> Asked:
        """Take what C{Authorization} says, as programs send it with each request."""
        rules = visit.rules
        try:
            login = base64.b64decode(header[6:], validate=True)
        except binascii.Error:
            return self.pages.asks(visit)
        name, _, password = login.partition(b":")
        user = name.decode("utf-8", "replace")
        kept = rules.hashOf(user)
        account = Account("login", user)
        if not kept and rules.pin:
            account, kept = Account("pin"), rules.pin
        said = (visit.place, kept, login)
        guest = Guest(account.lines, _WITHOUT)
        if self.attempts.isKnown(*said):
            return guest

        def tried(isRight: bool) -> Guest | Answer:
            if isRight:
                self.attempts.remember(*said)
                return guest
            return self.pages.asks(visit, 401, _WRONG)

        try:
            trying = self.attempts.isRight(
                visit.address, visit.place, password, kept, rules.decoy
            )
        except TunnelError as refusal:
            return self.pages.refused(visit, refusal)
        return trying.addCallback(tried)


_WRONG = "The name or the password is wrong."
