"""Tests for L{tristunnel.auth.realm} and L{tristunnel.auth.checkers}."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from twisted.cred.checkers import (
    ANONYMOUS,
    AllowAnonymousAccess,
    FilePasswordDB,
    ICredentialsChecker,
    InMemoryUsernamePasswordDatabaseDontUse,
)
from twisted.cred.credentials import IUsernamePassword
from twisted.cred.error import LoginDenied, UnauthorizedLogin
from twisted.cred.portal import IRealm, Portal
from twisted.cred.strcred import makeChecker
from twisted.internet.address import IPv4Address
from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import ILogObserver, LogEvent, formatEvent, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import Interface, implementer
from zope.interface.verify import verifyObject

from tristunnel.auth.checkers import FAILURES, CheckerChain, checkingCallable
from tristunnel.auth.clients_file import ClientsFile
from tristunnel.auth.credentials import ITunnelCredentials, TunnelCredentials
from tristunnel.auth.realm import REFUSALS, Authenticator, TunnelRealm, portalFor
from tristunnel.errors import TunnelError
from tristunnel.model.permissions import ANONYMOUS_IDENTITY, Identity, IIdentity

PEER = IPv4Address("TCP", "192.0.2.1", 4711)


@implementer(ICredentialsChecker)
class FixedChecker:
    """
    A checker with one answer for everybody.

    @ivar asked: How often it was asked.
    """

    credentialInterfaces = (ITunnelCredentials,)

    def __init__(self, answer: object) -> None:
        self.answer = answer
        self.asked = 0

    def requestAvatarId(self, credentials: ITunnelCredentials) -> Any:
        self.asked += 1
        if isinstance(self.answer, Exception):
            # Not itself: an exception's traceback grows with each time.
            raise type(self.answer)(*self.answer.args)
        return self.answer


class TunnelRealmTests(SynchronousTestCase):
    def test_interfaces(self) -> None:
        """It is a realm of identities."""
        verifyObject(IRealm, TunnelRealm())
        verifyObject(IIdentity, Identity("a"))

    def test_named(self) -> None:
        """An avatar id becomes a name, and logging out is harmless."""
        for avatarId in (b"caf\xc3\xa9", "caf\u00e9"):
            interface, avatar, logout = TunnelRealm().requestAvatar(
                avatarId,  # type: ignore[arg-type] # of checkers that err
                None,
                IIdentity,
            )
            self.assertIs(interface, IIdentity)
            self.assertEqual(avatar, Identity("caf\u00e9", anonymous=False))
            logout()

    def test_anonymous(self) -> None:
        """C{ANONYMOUS} becomes the anonymous identity."""
        _, avatar, _ = TunnelRealm().requestAvatar(ANONYMOUS, None, IIdentity)
        self.assertEqual(avatar, Identity("anonymous", anonymous=True))

    def test_badNames(self) -> None:
        """What cannot be shown, or is empty or endless, is no name."""
        for avatarId in (b"", b"\xff", b"a\nb", b"\x1b[2J", b"x" * 257):
            with self.assertRaises(LoginDenied):
                TunnelRealm().requestAvatar(avatarId, None, IIdentity)

    def test_noName(self) -> None:
        """A checker that answers L{None} admits nobody."""
        with self.assertRaises(TypeError):
            TunnelRealm().requestAvatar(None, None, IIdentity)  # type: ignore[arg-type] # of checkers that err

    def test_otherInterface(self) -> None:
        """The realm has no other avatars."""
        with self.assertRaises(NotImplementedError):
            TunnelRealm().requestAvatar(b"a", None, Interface)


class AuthenticatorTests(SynchronousTestCase):
    """Tests for L{Authenticator} and L{portalFor}."""

    def setUp(self) -> None:
        self.lines: list[str] = []

        @implementer(ILogObserver)
        def observe(event: LogEvent) -> None:
            if event.get("log_namespace", "").startswith("tristunnel.auth"):
                self.lines.append(formatEvent(event))

        globalLogPublisher.addObserver(observe)
        self.addCleanup(globalLogPublisher.removeObserver, observe)

    def assertRefused(self, answer: Deferred[Identity]) -> None:
        error = self.failureResultOf(answer, TunnelError).value
        assert isinstance(error, TunnelError)
        self.assertEqual(error.code.name, "auth-refused")
        self.assertEqual(error.message, "the server did not accept these credentials")

    def assertAdmitted(self, answer: Deferred[Identity], name: str) -> None:
        self.assertEqual(self.successResultOf(answer), Identity(name, anonymous=False))

    def test_noPortal(self) -> None:
        """Without a portal everybody is anonymous, whatever they claim."""
        authenticator = Authenticator(None)
        for answer in (
            authenticator.authenticate({}, PEER),
            authenticator.authenticate({"id": "root"}, PEER),
            authenticator.authenticateBasic(b"root", b"x", PEER),
            authenticator.authenticateBearer("t", PEER),
        ):
            identity = self.successResultOf(answer)
            self.assertEqual(identity, ANONYMOUS_IDENTITY)
            self.assertEqual(identity, Identity("anonymous", anonymous=True))

    def test_filePasswordDB(self) -> None:
        """Twisted's own password file works."""
        path = Path(self.mktemp())
        path.write_text("a:one\nb:\n:\n:tok\n")
        authenticator = Authenticator(portalFor([FilePasswordDB(str(path))]))
        fields = {"id": "a", "secret": "one"}
        self.assertAdmitted(authenticator.authenticate(fields, PEER), "a")
        self.assertAdmitted(authenticator.authenticateBasic(b"a", b"one", PEER), "a")
        for bad in (
            {"id": "a", "secret": "two"},
            {"id": "a"},
            {"id": "b"},
            {"id": "c", "secret": "one"},
            {},
            # A line without a name must not open the door.
            {"token": "tok"},
        ):
            self.assertRefused(authenticator.authenticate(bad, PEER))

    def test_markedPasswordDB(self) -> None:
        """It may begin with a byte order mark; UTF-16 would admit nobody."""
        path = Path(self.mktemp())
        for text, name in (("a:one\nb:two\n", "a"), (":one\n\n\na:x\n", "")):
            path.write_bytes(text.encode("utf-8-sig"))
            authenticator = Authenticator(portalFor([FilePasswordDB(str(path))]))
            attempt = authenticator.authenticate({"id": name, "secret": "one"}, PEER)
            if name:
                self.assertAdmitted(attempt, name)
                other = {"id": "b", "secret": "two"}
                self.assertAdmitted(authenticator.authenticate(other, PEER), "b")
            else:
                self.assertRefused(attempt)
        path.write_bytes(text.encode("utf-16"))
        self.assertRaises(TunnelError, portalFor, [FilePasswordDB(str(path))])

    def test_memory(self) -> None:
        """Twisted's own database in memory works."""
        database = InMemoryUsernamePasswordDatabaseDontUse(a=b"one")
        authenticator = Authenticator(portalFor([database]))
        fields = {"id": "a", "password": "one"}
        self.assertAdmitted(authenticator.authenticate(fields, PEER), "a")
        fields["password"] = "two"
        self.assertRefused(authenticator.authenticate(fields, PEER))

    def test_plainPortal(self) -> None:
        """A portal with one of Twisted's checkers and our realm works, too."""
        database = InMemoryUsernamePasswordDatabaseDontUse(a=b"one")
        authenticator = Authenticator(Portal(TunnelRealm(), [database]))
        fields = {"id": "a", "password": "one"}
        self.assertAdmitted(authenticator.authenticate(fields, PEER), "a")

    def test_memoryOption(self) -> None:
        """C{--auth memory:...} works, although its plugin stores text."""
        authenticator = Authenticator(portalFor([makeChecker("memory:a:one:b:two")]))
        fields = {"id": "b", "secret": "two"}
        self.assertAdmitted(authenticator.authenticate(fields, PEER), "b")
        fields["secret"] = "one"
        self.assertRefused(authenticator.authenticate(fields, PEER))

    def test_clientsFile(self) -> None:
        """A clients file works for handshakes and both HTTP schemes."""
        path = Path(self.mktemp())
        path.write_text("a:one\n\u00e9:\u00e9\n", "utf-8")
        authenticator = Authenticator(portalFor([ClientsFile(path)]))
        fields = {"id": "a", "secret": "one", "tristunnel": {"versions": [1]}}
        self.assertAdmitted(authenticator.authenticate(fields, PEER), "a")
        self.assertAdmitted(authenticator.authenticateBasic(b"a", b"one", PEER), "a")
        self.assertAdmitted(authenticator.authenticateBearer("a:one", PEER), "a")
        for charset in ("utf-8", "latin-1"):
            word = "\u00e9".encode(charset)
            answer = authenticator.authenticateBasic(word, word, PEER)
            self.assertAdmitted(answer, "\u00e9")
        self.assertRefused(authenticator.authenticateBasic(b"a", b"two", PEER))
        self.assertRefused(authenticator.authenticateBearer("a:two", PEER))
        self.assertRefused(authenticator.authenticateBearer("", PEER))

    def test_connectionFilter(self) -> None:
        """An embedder's function works; who it admits without an id is anonymous."""
        checker = checkingCallable(lambda fields: fields["token"] == "t")
        authenticator = Authenticator(portalFor([checker]))
        fields = {"token": "t", "id": "a"}
        self.assertAdmitted(authenticator.authenticate(fields, PEER), "a")
        answer = authenticator.authenticateBearer("t", PEER)
        self.assertEqual(self.successResultOf(answer), ANONYMOUS_IDENTITY)
        self.assertRefused(authenticator.authenticateBearer("u", PEER))
        self.assertRefused(authenticator.authenticate({}, PEER))
        self.assertEqual(len(self.flushLoggedErrors(KeyError)), 1)

    def test_refusalIsLogged(self) -> None:
        """The log has the id and the peer of a refusal, and no secret."""
        authenticator = Authenticator(portalFor([FixedChecker(UnauthorizedLogin())]))
        fields = {"id": "a", "secret": "s3cr3t"}
        self.assertRefused(authenticator.authenticate(fields, PEER))
        self.assertEqual(len(self.lines), 1)
        self.assertIn("id='a'", self.lines[0])
        self.assertIn("192.0.2.1", self.lines[0])
        self.assertNotIn("s3cr3t", self.lines[0])

    def test_brokenChecker(self) -> None:
        """Whatever a checker raises is logged and refused."""
        portals = [
            portalFor([FixedChecker(ZeroDivisionError())]),
            Portal(TunnelRealm(), [FixedChecker(ZeroDivisionError())]),
        ]
        for portal in portals:
            self.assertRefused(Authenticator(portal).authenticate({}, PEER))
            self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_flood(self) -> None:
        """However many are refused, and however often a checker fails for them, the log
        has a few lines of it."""
        for answer in (UnauthorizedLogin(), ZeroDivisionError()):
            for portal in (
                portalFor([FixedChecker(answer)]),
                Portal(TunnelRealm(), [FixedChecker(answer)]),
            ):
                self.lines.clear()
                authenticator = Authenticator(portal)
                for _ in range(500):
                    self.assertRefused(authenticator.authenticate({"id": "a"}, PEER))
                self.assertIn(len(self.lines), range(1, REFUSALS + FAILURES + 1))
                self.flushLoggedErrors(ZeroDivisionError)

    def test_oddAvatarId(self) -> None:
        """A checker that answers with something else admits nobody."""
        for odd in (None, True, 7, [b"a"]):
            authenticator = Authenticator(portalFor([FixedChecker(odd)]))
            self.assertRefused(authenticator.authenticate({}, PEER))
            self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_notAnObject(self) -> None:
        """Credentials that are no JSON object are refused."""
        authenticator = Authenticator(portalFor([FixedChecker(b"a")]))
        odds: list[object] = [[], "a", None]
        for sent in odds:
            answer = authenticator.authenticate(sent, PEER)  # type: ignore[arg-type] # of checkers that err
            self.assertRefused(answer)
            self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_unhandledCredentials(self) -> None:
        """A portal that cannot check clients refuses, and the log says so."""
        authenticator = Authenticator(Portal(TunnelRealm(), [AllowAnonymousAccess()]))
        self.assertRefused(authenticator.authenticate({"id": "a"}, PEER))
        self.assertIn("no checker of the portal", self.lines[0])

    def test_foreignRealm(self) -> None:
        """A realm whose avatars are no identities admits nobody."""

        @implementer(IRealm)
        class OtherRealm:
            def requestAvatar(
                self, avatarId: object, mind: object, *interfaces: type[Interface]
            ) -> Any:
                return interfaces[0], "avatar", lambda: None

        authenticator = Authenticator(Portal(OtherRealm(), [FixedChecker(b"a")]))
        self.assertRefused(authenticator.authenticate({}, PEER))
        self.assertEqual(len(self.flushLoggedErrors(TypeError)), 1)

    def test_firstYesWins(self) -> None:
        """Checkers are asked in turn, broken ones skipped, until one accepts."""
        last = FixedChecker(b"last")
        database = InMemoryUsernamePasswordDatabaseDontUse(a=b"one")
        broken = FixedChecker(ZeroDivisionError())
        authenticator = Authenticator(portalFor([broken, database, last]))
        fields = {"id": "a", "secret": "one"}
        self.assertAdmitted(authenticator.authenticate(fields, PEER), "a")
        self.assertEqual(last.asked, 0)
        fields["secret"] = "two"
        self.assertAdmitted(authenticator.authenticate(fields, PEER), "last")
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)

    def test_noCheckers(self) -> None:
        """A portal for no checkers admits nobody."""
        self.assertRefused(Authenticator(portalFor([])).authenticate({}, PEER))

    def test_uselessChecker(self) -> None:
        """A checker that could never be asked is C{bad-option}."""
        error = self.assertRaises(TunnelError, portalFor, [AllowAnonymousAccess()])
        self.assertEqual(error.code.name, "bad-option")
        self.assertIn("AllowAnonymousAccess", error.message)

    def test_onlyFittingCheckers(self) -> None:
        """The chain asks a checker only for credentials it knows."""
        chain = CheckerChain([InMemoryUsernamePasswordDatabaseDontUse(a=b"one")])

        @implementer(ITunnelCredentials)
        class Bare:
            certificate = None
            key: bytes = b""
            proves = None
            fields: dict[str, object] = {"id": "a"}  # noqa: RUF012
            peer = None

        self.assertFalse(IUsernamePassword.providedBy(Bare()))
        self.failureResultOf(chain.requestAvatarId(Bare()), UnauthorizedLogin)
        self.successResultOf(
            chain.requestAvatarId(TunnelCredentials({"id": "a", "token": "one"}))
        )

    def test_later(self) -> None:
        """A checker may take its time."""
        pending: Deferred[bytes] = Deferred()
        authenticator = Authenticator(portalFor([FixedChecker(pending)]))
        answer = authenticator.authenticate({}, PEER)
        self.assertNoResult(answer)
        pending.callback(b"a")
        self.assertAdmitted(answer, "a")

    def test_cancel(self) -> None:
        """Cancelling reaches the checker, asks no other one, and is no refusal, so that
        a time limit can be told from it."""
        pending: Deferred[bytes] = Deferred()
        last = FixedChecker(b"last")
        authenticator = Authenticator(portalFor([FixedChecker(pending), last]))
        answer = authenticator.authenticate({}, PEER)
        answer.cancel()
        self.failureResultOf(answer, CancelledError)
        self.assertEqual(last.asked, 0)
        self.assertEqual(self.lines, [])
