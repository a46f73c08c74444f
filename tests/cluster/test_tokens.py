"""Tests for L{tristunnel.cluster.tokens}."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.cred.error import UnauthorizedLogin
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.auth.credentials import TunnelCredentials
from tristunnel.auth.tokens import TokenFile
from tristunnel.auth.tokens_format import Token, formatToken, parseToken
from tristunnel.cluster.tokens import SharedTokens
from tristunnel.errors import TunnelError
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.permissions import GrantedName, Permissions, RefusedWithReason
from tristunnel.model.record import TokenRecord
from tristunnel.service.invitations import Invitations, ServerPlace
from tristunnel.wire.invitation import Invitation

NOW = 1_900_000_000.0
NONCE = "n" * 22


class Place(ServerPlace):
    """Where clients reach a server."""

    def __init__(self) -> None:
        super().__init__("t.example", 9000, "")

    def invitation(self, code: str) -> Invitation:
        return Invitation("t.example", 9000, bytes(16), code)


class Member:
    """
    A server with a file of tokens.

    @ivar isThere: Whether it runs, and hears of others.
    """

    def __init__(self, path: Path, book: MemoryBook, clock: Clock) -> None:
        self.path, self.book = path, book
        self.now = lambda: NOW + clock.seconds()
        self.isThere = True
        path.touch()
        self.start()

    def start(self) -> None:
        self.file = TokenFile(self.path, Clock(), self.now)
        self.shared = SharedTokens(self.book, [self.file], self.now)
        self.invitations = Invitations([self.file], self.now)
        self.invitations.shared = self.shared
        self.end = result(self.book.watch(self.shared.changed))

    def stop(self) -> None:
        self.isThere = False
        self.end()

    def back(self, book: MemoryBook | None = None) -> None:
        """
        Start again.

        @param book: In place of the book there was: it knows nothing.
        """
        if self.isThere:
            self.stop()
        self.isThere = True
        self.book = book or self.book
        self.start()
        self.meet()

    def meet(self) -> None:
        result(Deferred.fromCoroutine(self.shared.meet()))

    def tokens(self) -> dict[str, Token]:
        self.file.follow()
        return {each.name: each for each in self.file.tokens()}

    def login(self, token: str) -> Any:
        return result(self.file.requestAvatarId(TunnelCredentials({"token": token})))


def result(deferred: Deferred[Any]) -> Any:
    """What a Deferred has; an error is raised."""
    found: list[Any] = []
    deferred.addBoth(found.append)
    if isinstance(found[0], BaseException) or hasattr(found[0], "raiseException"):
        found[0].raiseException()
    return found[0]


class SharedTokensTests(SynchronousTestCase):
    """Members of a cluster, and what each knows of tokens."""

    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir(parents=True)
        self.clock = Clock()
        self.begin(2)

    def begin(self, number: int) -> None:
        self.book = MemoryBook(self.clock)
        self.members = [
            Member(
                self.directory / str(index), self.book.ofMember(str(index)), self.clock
            )
            for index in range(number)
        ]
        self.one, self.other = self.members[:2]

    def empty(self) -> list[MemoryBook]:
        """A book that knows nothing, for each member."""
        book = MemoryBook(self.clock)
        return [book.ofMember(each.book.member) for each in self.members]

    def create(self, member: Member, name: str = "laptop") -> str:
        """Make a token somewhere, and let its server look."""
        token = member.file.store.create(name, Permissions())
        member.shared.look()
        return token

    def test_created(self) -> None:
        """A token that is made at one server is good at all."""
        token = self.create(self.one)
        self.assertEqual(self.other.login(token), b"laptop")
        # A server that comes later, too.
        late = Member(self.directory / "late", self.book.ofMember("late"), self.clock)
        late.meet()
        self.assertEqual(late.tokens(), self.one.tokens())
        self.assertEqual(late.tokens()["laptop"].version, 1)

    def test_revoked(self) -> None:
        """One that is revoked is over everywhere, with all that lives on it."""
        token = self.create(self.one)
        name: GrantedName = self.other.login(token)
        ended: list[TunnelError] = []
        name.grant.watch(ended.append)
        self.one.file.store.revoke("laptop")
        self.one.shared.look()
        self.assertEqual([each.code.name for each in ended], ["token-revoked"])
        with self.assertRaises(RefusedWithReason) as caught:
            self.other.login(token)
        self.assertIn("was revoked", str(caught.exception))

    def test_behind(self) -> None:
        """
        A server that was stopped meanwhile revives nothing, even if the book has
        forgotten all, and that server is the first to speak.
        """
        for isEmpty in (False, True):
            token = self.create(self.one, f"laptop-{isEmpty}")
            self.other.stop()
            self.one.file.store.revoke(f"laptop-{isEmpty}")
            self.one.shared.look()
            books = self.empty() if isEmpty else [self.one.book, self.other.book]
            self.other.back(books[1])
            if isEmpty:
                self.one.back(books[0])
            for member in self.members:
                with self.assertRaises(RefusedWithReason) as caught:
                    member.login(token)
                self.assertIn("was revoked", str(caught.exception))

    def test_again(self) -> None:
        """The name of a revoked token may be given again, at any server."""
        old = self.create(self.one)
        self.other.file.store.revoke("laptop")
        self.other.shared.look()
        new = self.create(self.other)
        self.assertEqual(self.one.login(new), b"laptop")
        self.assertRaises(UnauthorizedLogin, self.one.login, old)
        self.assertEqual(self.one.tokens(), self.other.tokens())

    def test_edited(self) -> None:
        """What somebody writes into a file counts; a line that is gone is revoked."""
        self.create(self.one)
        self.create(self.one, "phone")
        token = self.other.tokens()["laptop"]
        changed = Token("laptop", token.digest, Permissions(maxTunnels=3))
        self.other.path.write_text(formatToken(changed) + "\n")
        self.other.shared.look()
        # An editor may write in two steps, and somebody make a mistake.
        self.assertIsNone(self.one.tokens()["phone"].revoked)
        with self.other.path.open("a") as file:
            file.write("nonsense\n")
        self.other.shared.look()
        self.clock.advance(1)
        self.other.shared.look()
        self.assertIsNone(self.one.tokens()["phone"].revoked)
        self.other.path.write_text(formatToken(changed) + "\n")
        self.other.shared.look()
        self.clock.advance(1)
        self.other.shared.look()
        found = self.one.tokens()
        self.assertEqual(found["laptop"].permissions.maxTunnels, 3)
        self.assertEqual(found["laptop"].version, 2)
        self.assertEqual(found["phone"].revoked, NOW + 2)
        self.assertEqual(self.other.tokens(), found)
        # Nor does a line without it revoke the revocation.
        line = formatToken(found["phone"]).partition(', "revoked"')[0] + "}"
        self.other.path.write_text(f"{formatToken(found['laptop'])}\n{line}\n")
        self.other.shared.look()
        self.assertEqual(self.other.tokens()["phone"].revoked, NOW + 2)

    def test_whileStopped(self) -> None:
        """So does what was written while that server was stopped."""
        self.create(self.one)
        self.other.stop()
        self.other.file.store.revoke("laptop")
        self.other.back()
        self.assertIsNotNone(self.one.tokens()["laptop"].revoked)

    def test_joined(self) -> None:
        """An invitation is taken up once, at whichever server."""
        code = self.one.file.store.invite("laptop", Permissions())
        self.one.shared.look()
        made, token = result(self.other.invitations.join(code, NONCE))
        self.assertEqual(self.one.login(token), b"laptop")
        # Whose answer was lost asks another server.
        again = result(self.one.invitations.join(code, NONCE))[1]
        self.assertEqual((made.name, again), ("laptop", token))
        error = self.assertRaises(
            TunnelError, result, self.one.invitations.join(code, "m" * 22)
        )
        self.assertEqual(error.code.name, "invitation-used")

    def test_joinedTwice(self) -> None:
        """Of two who take it up at the same time, one has a token."""
        code = self.one.file.store.invite("laptop", Permissions())
        self.one.shared.look()
        find = self.other.book.findToken

        def findLate(name: str) -> Deferred[TokenRecord | None]:
            vars(self.other.book).pop("findToken")
            found = result(find(name))
            result(self.one.invitations.join(code, NONCE))
            answer: Deferred[TokenRecord | None] = Deferred()
            answer.callback(found)
            return answer

        self.patch(self.other.book, "findToken", findLate)
        self.other.end()
        error = self.assertRaises(
            TunnelError, result, self.other.invitations.join(code, "m" * 22)
        )
        self.assertEqual(error.code.name, "invitation-used")
        self.assertEqual(self.one.tokens(), self.other.tokens())

    def test_first(self) -> None:
        """Of servers without tokens one invites the first client, once all agree."""
        made: list[Any] = []
        for member in self.members:
            member.invitations.place = Place()
            met = member.shared.whenMet()
            self.assertNoResult(met)
            member.meet()
            self.successResultOf(met)
            self.successResultOf(member.shared.whenMet())
            made.append(member.invitations.first())
            member.shared.look()
        self.assertIsNotNone(made[0])
        self.assertIsNone(made[1])

    def test_unknown(self) -> None:
        """What a later version writes is left alone."""
        token = self.create(self.one)
        record = TokenRecord("laptop", 5, '{"name": "laptop", "news": 1}')
        result(self.book.putToken(record))
        for member in self.members:
            member.back()
            self.assertEqual(member.login(token), b"laptop")
        self.assertEqual(result(self.book.findToken("laptop")), record)

    def test_notWritten(self) -> None:
        """A file that cannot be written is told of once."""
        if not os.geteuid():
            self.patch(type(self.other.file.store), "take", refuse)
        else:
            self.other.path.chmod(0o400)
            self.directory.chmod(0o500)
        self.create(self.one)
        self.create(self.one, "phone")
        self.assertEqual(self.other.tokens(), {})

    def test_withoutFile(self) -> None:
        """A server without a file of tokens shares none."""
        shared = SharedTokens(self.book, [])
        shared.look()
        result(Deferred.fromCoroutine(shared.meet("laptop")))

    @settings(max_examples=25)
    @given(st.data())
    def test_anything(self, data: st.DataObject) -> None:
        """
        Whatever is made, revoked and edited where, and whoever is stopped meanwhile or
        loses the book: in the end all agree, and what was revoked is over.
        """
        self.directory = Path(self.mktemp())
        self.directory.mkdir(parents=True)
        self.begin(3)
        self.revoked: set[bytes] = set()
        for _ in range(data.draw(st.integers(1, 12))):
            self.something(
                data.draw(st.sampled_from(self.members)),
                data.draw(st.sampled_from("ab")),
                data.draw(st.sampled_from(("create", "revoke", "edit", "stop", "new"))),
            )
        for _ in range(2):
            for member in self.members:
                member.back()
        first, *others = [member.tokens() for member in self.members]
        for tokens in others:
            self.assertEqual(tokens, first)
        for token in first.values():
            self.assertEqual(parseToken(formatToken(token)), token)
            if token.digest in self.revoked:
                self.assertIsNotNone(token.revoked)

    def something(self, member: Member, name: str, kind: str) -> None:
        known = member.tokens().get(name)
        if kind == "create" and (known is None or known.revoked is not None):
            member.file.store.create(name, Permissions())
        elif kind == "revoke" and known is not None:
            member.file.store.revoke(name)
            if member.isThere:
                self.revoked.add(known.digest)
        elif kind == "edit" and known is not None:
            # What was revoked while the server was stopped, nobody knows then.
            member.path.write_text("# nothing\n")
        elif kind == "stop":
            member.stop() if member.isThere else member.back()
        elif kind == "new":
            for each, book in zip(self.members, self.empty(), strict=True):
                each.stop()
                each.book = book
            self.members[0].back()
        if member.isThere:
            member.shared.look()
            self.clock.advance(1)
            member.shared.look()


def refuse(*given: object) -> None:
    raise TunnelError("bad-option", "cannot write")
