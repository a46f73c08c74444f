"""
One list of tokens for several machines.

Each member has its own file of tokens, which is used while the book cannot be asked,
and from which the book gets back what it has lost. A token has a version, which grows
with each change; the highest one counts, and what is revoked stays revoked.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from tristunnel.auth.tokens import TokenFile
from tristunnel.auth.tokens_format import Token, formatToken, parseToken
from tristunnel.errors import TunnelError
from tristunnel.model.book import IBook
from tristunnel.model.record import Change, TokenRecord

__all__ = ["Agreed", "SharedTokens", "agree"]


@dataclass(frozen=True)
class Agreed:
    """
    What is to be done about a token.

    @ivar token: The version of it that counts.
    @ivar isNews: Whether the book has to be told.
    """

    token: Token
    isNews: bool


def agree(
    here: Token | None, known: Token | None, there: Token | None, now: float
) -> Agreed | None:
    """
    Find out which version of a token counts.

    @param here: What the file says.
    @param known: What the book said last, as far as this member has heard.
    @param there: What the book says.
    @param now: Seconds since the epoch.
    @return: C{None}, if nothing is left of it.
    """
    version = 0 if there is None else there.version or 0
    if here is None:
        return _withoutLine(known, there, version, now)
    if there is None:
        if here.isForgotten(now):
            return None
        return Agreed(replace(here, version=max(here.version or 0, 1)), True)
    if _isSame(here, there):
        return Agreed(there, False)
    if here.revoked is not None and there.revoked is None and _isOne(here, there):
        # Whoever changed what somebody else had revoked had not heard of that.
        version = max(version, here.version or 0) + 1
        return Agreed(replace(there, revoked=here.revoked, version=version), True)
    if known is None:
        isChanged = here.version == version
    else:
        isChanged = known.version == version and not _isSame(here, known)
    if isChanged and not (there.revoked is not None and _isOne(here, there)):
        return Agreed(replace(here, version=version + 1), True)
    if (here.version or 0) > version and not isChanged:
        # The book has lost it.
        return Agreed(here, True)
    return Agreed(there, False)


def _withoutLine(
    known: Token | None, there: Token | None, version: int, now: float
) -> Agreed | None:
    token = there or known
    if token is None or token.isForgotten(now):
        return None
    if known is None or token.revoked is not None:
        return Agreed(token, there is None)
    # Its line was here, and is gone: others would put it back.
    version = max(version, known.version or 0) + 1
    return Agreed(replace(token, revoked=float(round(now)), version=version), True)


def _isSame(one: Token, other: Token) -> bool:
    return replace(one, version=None) == replace(other, version=None)


def _isOne(one: Token, other: Token) -> bool:
    """Whether both are good for the same secret, or were made of one invitation."""
    digest = bool(one.digest) and one.digest == other.digest
    return digest or (bool(one.invitation) and one.invitation == other.invitation)


class SharedTokens:
    """
    Keeps the first file of tokens as the book has it, and the book as the file.

    @param book: The book.
    @param files: The server's files of tokens.
    @param now: The time of day.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(
        self,
        book: IBook,
        files: Sequence[TokenFile],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._book = book
        self._now = now
        self._files = files
        self._known: dict[str, Token] = {}
        self._seen: tuple[TokenFile, int] | None = None
        self._lock = DeferredLock()
        self._isMet = False
        self._waiting: list[Deferred[None]] = []
        self._trouble = ""

    def changed(self, change: Change) -> None:
        """Take a change in the book."""
        if change.kind == "token":
            self._do(change.id)

    def whenMet(self) -> Deferred[None]:
        """Wait until the tokens of all servers are known here."""
        met: Deferred[None] = Deferred()
        if self._isMet:
            met.callback(None)
        else:
            self._waiting.append(met)
        return met

    def look(self) -> None:
        """Look whether somebody has changed the file."""
        if not self._files:
            return
        self._files[0].follow()
        if self._seen != (self._files[0], self._files[0].loads):
            self._do()

    def _do(self, *names: str) -> None:
        doing = Deferred.fromCoroutine(self.meet(*names))
        # What the book cannot be told now, it is told later.
        doing.addErrback(lambda failure: failure.trap(TunnelError))
        doing.addErrback(
            lambda failure: self._log.failure("Tokens are not shared", failure)
        )

    async def meet(self, *names: str) -> None:
        """
        Make file and book agree.

        @param names: About which tokens; about all of them, if none are named.
        @raise TunnelError: C{cluster-away}.
        """
        if self._files:
            await self._lock.run(lambda: Deferred.fromCoroutine(self._meet(names)))
        if not names:
            self._isMet = True
            waiting, self._waiting = self._waiting, []
            for each in waiting:
                each.callback(None)

    async def _meet(self, names: Sequence[str]) -> None:
        file = self._files[0]
        file.follow()
        seen, isWhole = (file, file.loads), file.isWhole
        here = {token.name: token for token in file.tokens()}
        if names:
            records = [await self._book.findToken(name) for name in names]
        else:
            records = list(await self._book.tokens())
            # What is missing now counts only if it still is in a while.
            self._seen = seen if isWhole else None
        there = {each.name: each for each in records if each is not None}
        changes: list[tuple[Token | None, Token]] = []
        for name in names or {**here, **there, **self._known}:
            if name in self._known and name not in here and not isWhole:
                continue
            right = await self._settle(name, here.get(name), there.get(name))
            if right is not None and right != here.get(name):
                changes.append((here.get(name), right))
        if changes:
            try:
                file.store.take(changes)
                self._trouble = ""
            except TunnelError as error:
                self._complain(error.message)
            file.follow()

    async def _settle(
        self, name: str, here: Token | None, record: TokenRecord | None
    ) -> Token | None:
        """
        Find out which version counts, and tell the book if that has another one.

        @return: C{None}, if there is nothing to be written.
        """
        while True:
            there = None if record is None else _read(record)
            if record is not None and there is None:
                # It was written by a later version of this program.
                return None
            agreed = agree(here, self._known.get(name), there, self._now())
            if agreed is None:
                self._known.pop(name, None)
                return None
            right = agreed.token
            if agreed.isNews:
                said = TokenRecord(name, right.version or 1, formatToken(right))
                record = await self._book.putToken(said)
                if record != said:
                    # Somebody else was faster.
                    continue
            elif here is not None and not _isSame(here, right):
                self._log.info("The token {name} was changed elsewhere", name=name)
            self._known[name] = right
            return right

    def _complain(self, trouble: str) -> None:
        if trouble != self._trouble:
            self._trouble = trouble
            self._log.error(
                "Tokens that were made or revoked at other servers are not known here:"
                " {trouble}",
                trouble=trouble,
            )


def _read(record: TokenRecord) -> Token | None:
    try:
        return replace(parseToken(record.line), version=record.version)
    except ValueError:
        return None
