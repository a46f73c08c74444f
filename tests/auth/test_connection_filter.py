"""Tests for L{ConnectionFilterChecker}."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.cred.checkers import ANONYMOUS, ICredentialsChecker
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred, succeed
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from tristunnel.auth.checkers import checkingCallable
from tristunnel.auth.credentials import TunnelCredentials


class CheckingCallableTests(SynchronousTestCase):
    def ask(
        self, connectionFilter: Callable[..., Any], **fields: object
    ) -> Deferred[bytes | tuple[()]]:
        checker = checkingCallable(connectionFilter)
        verifyObject(ICredentialsChecker, checker)
        return checker.requestAvatarId(TunnelCredentials(fields))

    def test_yes(self) -> None:
        """The function gets the fields, and its yes makes the id the avatar id."""
        seen: list[Mapping[str, object]] = []

        def connectionFilter(fields: Mapping[str, object]) -> bool:
            seen.append(fields)
            return True

        answer = self.ask(connectionFilter, id="a", tenant=3)
        self.assertEqual(self.successResultOf(answer), b"a")
        self.assertEqual([dict(fields) for fields in seen], [{"id": "a", "tenant": 3}])

    def test_yesWithoutId(self) -> None:
        """Who is admitted without an id stays anonymous."""
        answer = self.ask(lambda fields: True, token="t")
        self.assertEqual(self.successResultOf(answer), ANONYMOUS)

    def test_no(self) -> None:
        """A no is L{UnauthorizedLogin}."""
        answer = self.ask(lambda fields: fields.get("id") == "b", id="a")
        self.failureResultOf(answer, UnauthorizedLogin)

    def test_forgottenReturn(self) -> None:
        """A function that returns nothing admits nobody."""
        answer = self.ask(lambda fields: None, id="a")
        self.failureResultOf(answer, UnauthorizedLogin)

    def test_later(self) -> None:
        """The answer may be a L{Deferred} or a coroutine."""
        answer = self.ask(lambda fields: succeed(True), id="a")
        self.assertEqual(self.successResultOf(answer), b"a")

        async def connectionFilter(fields: Mapping[str, object]) -> bool:
            return fields["id"] == "b"

        answer = self.ask(connectionFilter, id="a")
        self.failureResultOf(answer, UnauthorizedLogin)

    def test_raises(self) -> None:
        """What the function raises is the failure."""
        self.failureResultOf(self.ask(lambda fields: bool(fields["id"])), KeyError)

    def test_neitherYesNorNo(self) -> None:
        """An answer that is only true by accident admits nobody."""
        for odd in ("no", object(), 1, []):
            answer = self.ask(lambda fields, odd=odd: odd, id="a")
            self.failureResultOf(answer, TypeError)
