"""The part of the book of several machines that has access and tokens."""

from __future__ import annotations

import json
import time
from dataclasses import replace

from twisted.internet.defer import Deferred

from tristunnel.cluster.asking import Asking
from tristunnel.cluster.engine import Engine
from tristunnel.errors import TunnelError
from tristunnel.model.record import AccessRecord, TokenRecord
from tristunnel.util.deferreds import returnsDeferred

__all__ = ["GrantedInRedis"]


class GrantedInRedis(Asking):
    """
    That part of a book.

    @param engine: For questions.
    @param member: The name of this member.
    @param grace: Seconds in which an engine that has come up anew is told everything.

    @ivar now: The time of day.
    """

    def __init__(self, engine: Engine, member: str, grace: float) -> None:
        super().__init__(engine)
        self.member = member
        self.now = time.time
        self._grace = int(grace * 1000)
        # All access that this member has heard of, and what was spent of it.
        self._granted: dict[str, AccessRecord] = {}

    async def sayGranted(self) -> None:
        """
        Tell the engine again what access there is, how often it was used, and what was
        revoked.

        @raise TunnelError: C{cluster-away}.
        """
        for access in list(self._granted.values()):
            if access.until > self.now():
                await self.putAccess(access, 0)
            else:
                del self._granted[access.id]

    # Access

    @returnsDeferred
    async def putAccess(self, record: AccessRecord, most: int) -> AccessRecord:
        answer = await self._ask(
            "access",
            "put",
            record.id,
            self.member,
            json.dumps(record.asDict()),
            record.countedAs,
            record.uses,
            record.used,
            int(record.dropped),
            int(record.until * 1000),
            most,
        )
        return self._heard(record, *answer[1:3])

    def _heard(self, record: AccessRecord, used: str, dropped: str) -> AccessRecord:
        """Remember what the engine may lose."""
        known = self._granted.get(record.id, record)
        heard = replace(
            record,
            used=max(int(used), known.used),
            dropped=dropped != "0" or known.dropped,
        )
        self._granted[record.id] = heard
        return heard

    @returnsDeferred
    async def spend(self, access: str) -> AccessRecord:
        spent = await self._access("spend", access, self._grace)
        if spent is None:
            raise TunnelError("expired")
        return spent

    def findAccess(self, access: str) -> Deferred[AccessRecord | None]:
        return self._access("find", access)

    @returnsDeferred
    async def dropAccess(self, access: str) -> None:
        if access in self._granted:
            self._heard(self._granted[access], "0", "1")
        await self._say(f"access {access}", "access", "drop", access, self.member)

    @returnsDeferred
    async def _access(
        self, mode: str, access: str, *more: object
    ) -> AccessRecord | None:
        answer = await self._ask("access", mode, access, self.member, *more)
        if answer[0] != "done":
            return None
        _, used, dropped, text = answer
        return self._heard(AccessRecord.fromDict(json.loads(text)), used, dropped)

    @returnsDeferred
    async def listAccess(self) -> list[AccessRecord]:
        return [
            self._heard(
                AccessRecord.fromDict(json.loads(entry["record"])),
                str(entry["used"]),
                str(entry["dropped"]),
            )
            for entry in map(json.loads, await self._values("access"))
        ]

    def _values(self, key: str) -> Deferred[list[str]]:
        return self._engine.command("HVALS", self._engine.key(key))

    # Tokens

    @returnsDeferred
    async def putToken(self, record: TokenRecord) -> TokenRecord:
        answer = await self._ask(
            "token", "put", record.name, record.version, record.line, self.member
        )
        return TokenRecord(record.name, int(answer[1]), answer[2])

    @returnsDeferred
    async def findToken(self, name: str) -> TokenRecord | None:
        answer = await self._ask("token", "find", name)
        if answer[0] != "done":
            return None
        return TokenRecord(name, int(answer[1]), answer[2])

    @returnsDeferred
    async def tokens(self) -> list[TokenRecord]:
        words = await self._engine.command("HGETALL", self._engine.key("tokens"))
        return [
            TokenRecord(name, entry["version"], entry["line"])
            for name, entry in zip(
                words[::2], map(json.loads, words[1::2]), strict=True
            )
        ]
