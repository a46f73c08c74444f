"""
L{MemoryBook} and L{RedisBook} against one model: whatever members do in whatever order,
both answer what it says.
"""

from __future__ import annotations

import socket
from dataclasses import dataclass, field, replace
from typing import Any
from uuid import uuid4

import hiredis
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred, succeed
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.support.redis import RedisServer
from tristunnel.cluster.engine import Engine, scriptNamed
from tristunnel.cluster.redis_book import RedisBook, Times
from tristunnel.errors import TunnelError
from tristunnel.model.memory_book import MemoryBook
from tristunnel.model.record import (
    AccessRecord,
    Place,
    TokenRecord,
    TunnelLimits,
    TunnelRecord,
)

MEMBERS = st.sampled_from(("one", "other", "third"))
LEASES = st.sampled_from(("l1", "l2", "l3"))
TUNNELS = st.sampled_from(("t1", "t2", "t3", "t4"))
RESERVED = st.sampled_from(("tcp:1", "tcp:2", "name:x"))
SECRETS = st.sampled_from(("s1", "s2"))
ACCESS = st.sampled_from(("a1", "a2"))
NAMES = st.sampled_from(("laptop", "phone"))
MOST = 2
UNTIL = 4e9


class EngineAtOnce(Engine):
    """
    An engine that is waited for, so that each answer is there at once.

    @param path: The server's socket.
    """

    def __init__(self, path: str, name: str) -> None:
        super().__init__(None, name)  # type: ignore[arg-type]  # it goes no way
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(path)
        self._reader = hiredis.Reader(encoding="utf-8")

    def command(self, *words: object) -> Deferred[Any]:
        packed: Any = tuple(map(str, words))
        self._socket.sendall(hiredis.pack_command(packed))
        while (answer := self._reader.gets()) is False:
            self._reader.feed(self._socket.recv(65536))
        if isinstance(answer, Exception):
            raise answer
        return succeed(answer)

    def run(self, script: str, *args: object) -> Deferred[list[Any]]:
        keys = self._keys
        return self.command("EVAL", scriptNamed(script), len(keys), *keys, *args)

    def stop(self) -> Deferred[None]:
        self._socket.close()
        return succeed(None)


@dataclass
class Lease:
    """What is true of a lease."""

    secret: str
    place: Place
    away: bool = False
    tunnels: list[str] = field(default_factory=list)


@dataclass
class Model:
    """What is true of everything, in the simplest words."""

    leases: dict[str, Lease] = field(default_factory=dict)
    tunnels: dict[str, TunnelRecord] = field(default_factory=dict)
    access: dict[str, AccessRecord] = field(default_factory=dict)
    tokens: dict[str, TokenRecord] = field(default_factory=dict)

    def placeOf(self, record: TunnelRecord) -> Place:
        lease = self.leases.get(record.lease)
        return record.place if lease is None else lease.place

    def holder(self, reserved: str) -> TunnelRecord | None:
        for record in self.tunnels.values():
            if reserved in record.reserved:
                return replace(record, place=self.placeOf(record))
        return None

    def claim(self, member: str, lease: str, secret: str, shown: int) -> object:
        known = self.leases.get(lease)
        if known is None or known.secret != secret:
            return None
        fence = max(known.place.fence, shown) + 1
        known.place, known.away = Place(member, fence), False
        return known.place, list(known.tunnels)

    def open(self, record: TunnelRecord) -> None:
        lease = self.leases.get(record.lease)
        if record.lease and (lease is None or lease.place != record.place):
            raise TunnelError("displaced")
        known = self.tunnels.get(record.id)
        if known is not None:
            if self.placeOf(known) != record.place:
                raise TunnelError("displaced")
            return
        counted = [each.countedAs for each in self.tunnels.values()]
        if counted.count(record.countedAs) >= MOST:
            raise TunnelError("limit-reached")
        self.reserve(record)
        self.tunnels[record.id] = record
        if lease is not None:
            lease.tunnels.append(record.id)

    def reserve(self, record: TunnelRecord) -> None:
        """Make sure that nobody else has what a tunnel wants."""
        for each in record.reserved:
            holder = self.holder(each)
            if holder is not None and holder.id != record.id:
                isName = each.startswith("name:")
                raise TunnelError("name-taken" if isName else "port-taken")

    def change(self, tunnel: str, place: Place, reserved: tuple[str, ...]) -> None:
        known = self.tunnels.get(tunnel)
        if known is None:
            raise TunnelError("unknown-tunnel")
        if self.placeOf(known) != place:
            raise TunnelError("displaced")
        changed = replace(known, reserved=reserved)
        self.reserve(changed)
        self.tunnels[tunnel] = changed

    def close(self, tunnel: str, place: Place) -> None:
        known = self.tunnels.get(tunnel)
        if known is None or self.placeOf(known) != place:
            return
        del self.tunnels[tunnel]
        lease = self.leases.get(known.lease)
        if lease is not None:
            lease.tunnels.remove(tunnel)
            if lease.away and not lease.tunnels:
                del self.leases[known.lease]

    def left(self, lease: str, place: Place, expires: bool) -> None:
        known = self.leases.get(lease)
        if known is None or known.place != place or known.away:
            return
        known.away = True
        if expires or not known.tunnels:
            for tunnel in self.leases.pop(lease).tunnels:
                del self.tunnels[tunnel]


class Books(RuleBasedStateMachine):
    """Members that use both kinds of books in the same way."""

    server: RedisServer

    def __init__(self) -> None:
        super().__init__()
        self.model = Model()
        self.clock = Clock()
        memory = MemoryBook(self.clock)
        name = uuid4().hex
        self.books: dict[str, tuple[Any, RedisBook]] = {}
        for member in ("one", "other", "third"):
            engine = EngineAtOnce(str(self.server.path), name)
            unread: Any = Engine(None, name)  # type: ignore[arg-type]  # as above
            times = Times(grace=0.0, memberTTL=9e5)
            book = RedisBook(self.clock, engine, unread, member, times=times)
            self.books[member] = memory.ofMember(member), book
            self.result(Deferred.fromCoroutine(book._sayAll()))

    def teardown(self) -> None:
        for _, book in self.books.values():
            book._engine.stop()

    def result(self, asked: Any) -> Any:
        """What was answered: a value, or the code of a refusal."""
        found: list[Any] = []
        asked.addBoth(found.append)
        (answer,) = found
        if isinstance(answer, Failure):
            answer.trap(TunnelError)
            error: Any = answer.value
            return error.code.name
        return answer

    def both(self, member: str, method: str, *args: Any) -> Any:
        one, other = (
            self.result(getattr(book, method)(*args)) for book in self.books[member]
        )
        assert one == other, (method, args, one, other)
        return one

    def expect(self, method: Any, *args: Any) -> Any:
        try:
            return method(*args)
        except TunnelError as refusal:
            return refusal.code.name

    def place(self, member: str, lease: str) -> Place:
        known = self.model.leases.get(lease)
        if known is not None and known.place.member == member:
            return known.place
        return Place(member, 1)

    @rule(member=MEMBERS, lease=LEASES, secret=SECRETS)
    def grant(self, member: str, lease: str, secret: str) -> None:
        """A new lease; ids are never given twice."""
        if lease not in self.model.leases:
            place = self.both(member, "grant", lease, secret, "ann")
            self.model.leases[lease] = Lease(secret, place)

    @rule(member=MEMBERS, lease=LEASES, secret=SECRETS, shown=st.integers(0, 20))
    def claim(self, member: str, lease: str, secret: str, shown: int) -> None:
        told = self.both(member, "claim", lease, secret, "ann", shown)
        found = told and (told.place, [each.id for each in told.records])
        assert found == self.model.claim(member, lease, secret, shown)

    @rule(member=MEMBERS, lease=LEASES, expires=st.booleans())
    def leave(self, member: str, lease: str, expires: bool) -> None:
        """A client is gone, and does not come back in time, or may."""
        place = self.place(member, lease)
        self.both(member, "away", lease, place, 0.0 if expires else 9e5)
        self.clock.advance(0)
        self.result(Deferred.fromCoroutine(self.books[member][1]._beatNow()))
        self.model.left(lease, place, expires)
        # What expires is heard of, which here nobody reads.
        if lease not in self.model.leases:
            for _, book in self.books.values():
                book._forgetLease(lease)

    @rule(
        member=MEMBERS,
        tunnel=TUNNELS,
        lease=LEASES | st.just(""),
        reserved=st.sets(RESERVED, max_size=2),
    )
    def open(self, member: str, tunnel: str, lease: str, reserved: set[str]) -> None:
        known = self.model.tunnels.get(tunnel)
        if known is not None and known.lease != lease:
            return
        place = self.place(member, lease)
        record = TunnelRecord(
            tunnel, place, lease, reserved=tuple(sorted(reserved)), countedAs=lease
        )
        told = self.both(member, "open", record, TunnelLimits(perCaller=MOST))
        assert told == self.expect(self.model.open, record)

    @rule(member=MEMBERS, tunnel=TUNNELS, reserved=st.sets(RESERVED, max_size=2))
    def change(self, member: str, tunnel: str, reserved: set[str]) -> None:
        place = self.placeFor(member, tunnel)
        fields = {"reserved": tuple(sorted(reserved))}
        told = self.both(member, "change", tunnel, place, fields)
        wanted = self.expect(self.model.change, tunnel, place, fields["reserved"])
        assert (told if isinstance(told, str) else None) == wanted

    @rule(member=MEMBERS, tunnel=TUNNELS)
    def close(self, member: str, tunnel: str) -> None:
        place = self.placeFor(member, tunnel)
        self.both(member, "close", tunnel, place)
        self.model.close(tunnel, place)

    def placeFor(self, member: str, tunnel: str) -> Place:
        record = self.model.tunnels.get(tunnel)
        return self.place(member, "" if record is None else record.lease)

    @rule(member=MEMBERS, access=ACCESS, used=st.integers(0, 2), dropped=st.booleans())
    def putAccess(self, member: str, access: str, used: int, dropped: bool) -> None:
        """Access is granted, or said again by who may have missed something."""
        record = AccessRecord(access, uses=2, used=used, until=UNTIL, dropped=dropped)
        known = self.model.access.get(access, record)
        wanted = replace(
            record, used=max(used, known.used), dropped=dropped or known.dropped
        )
        assert self.both(member, "putAccess", record, 9) == wanted
        self.model.access[access] = wanted

    @rule(member=MEMBERS, access=ACCESS)
    def spend(self, member: str, access: str) -> None:
        """A session begins with access: as often as was granted."""
        known = self.model.access.get(access)
        told = self.both(member, "spend", access)
        if known is None or known.dropped or known.used >= known.uses:
            assert told == "expired"
        else:
            wanted = self.model.access[access] = replace(known, used=known.used + 1)
            assert told == wanted

    @rule(member=MEMBERS, access=ACCESS)
    def drop(self, member: str, access: str) -> None:
        self.both(member, "dropAccess", access)
        if access in self.model.access:
            known = self.model.access[access]
            self.model.access[access] = replace(known, dropped=True)

    @rule(member=MEMBERS, name=NAMES, version=st.integers(1, 4), line=SECRETS)
    def putToken(self, member: str, name: str, version: int, line: str) -> None:
        record = TokenRecord(name, version, line)
        known = self.model.tokens.get(name)
        if known is None or known.version < version:
            self.model.tokens[name] = record
        assert self.both(member, "putToken", record) == self.model.tokens[name]

    @precondition(lambda self: not any(x.away for x in self.model.leases.values()))
    @rule()
    def forget(self) -> None:
        """The engine forgets all, and every member says what it has."""
        books = [book for _, book in self.books.values()]
        self.result(books[0]._engine.command("DEL", *books[0]._engine._keys))
        for book in books:
            self.result(book.listAccess())
        for record in self.model.access.values():
            self.result(books[0].putAccess(record, 0))
        for token in self.model.tokens.values():
            self.result(books[0].putToken(token))
        for book in books:
            self.result(Deferred.fromCoroutine(book._sayAll()))

    @invariant()
    def found(self) -> None:
        """Everybody finds the same, and nothing is two tunnels'."""
        for member, reserved in (("one", "tcp:1"), ("other", "name:x")):
            told = self.both(member, "holder", reserved)
            assert told == self.model.holder(reserved)
        for tunnel in ("t1", "t2"):
            known = self.model.tunnels.get(tunnel)
            told = self.both("third", "find", tunnel)
            if known is None:
                assert told == "unknown-tunnel"
            else:
                assert told == replace(known, place=self.model.placeOf(known))
        assert sorted(self.both("one", "tokens"), key=str) == sorted(
            self.model.tokens.values(), key=str
        )


class BookModelTests(SynchronousTestCase):
    """Both, on a real server."""

    if not RedisServer.isThere():
        skip = "redis-server is not installed"

    def test_books(self) -> None:
        """They do what the model does."""
        Books.server = RedisServer.shared()
        run_state_machine_as_test(
            Books,
            settings=settings(max_examples=15, stateful_step_count=25, deadline=None),
        )
