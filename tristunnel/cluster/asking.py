"""
Asking an engine that may be away, and telling it, sooner or later, what it must know.
"""

from __future__ import annotations

from typing import Any

from tristunnel.cluster.engine import Engine, engineAway
from tristunnel.errors import TunnelError, printable
from tristunnel.model.memory_book import limitReached, taken
from tristunnel.util.deferreds import returnsDeferred

__all__ = ["VERSION", "Asking", "unlikeBook"]

VERSION = 2
"""The version of the book's contents; members with different ones cannot share a
book."""


def unlikeBook(version: str) -> TunnelError:
    """
    Say that an engine has a book of another version.

    @param version: Which.
    @return: C{protocol-error}, to be raised.
    """
    return TunnelError(
        "protocol-error",
        f"the cluster's book is of version {printable(version, 9)}, and this server's"
        f" of {VERSION}: give all servers the same version of tristunnel",
    )


class Asking:
    """
    Runs scripts in an engine.

    @param engine: Where.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # What the engine could not be told, by what it is about.
        self._owed: dict[str, tuple[str, *tuple[object, ...]]] = {}

    @returnsDeferred
    async def _ask(self, script: str, *args: object) -> list[Any]:
        """
        Run a script.

        @return: What it answers, if that is no refusal.
        @raise TunnelError: The refusal, or C{cluster-away}.
        """
        answer = await self._engine.run(script, *args)
        if not answer or answer[0] != "refused":
            return answer
        _, code, what, most = answer
        if code == "limit-reached":
            raise limitReached(what, int(most))
        if code == "version":
            raise unlikeBook(what)
        if code == "taken":
            raise taken(what)
        if code == "cluster-away":
            raise engineAway()
        raise TunnelError(code)

    async def _say(self, about: str, script: str, *said: object) -> None:
        """
        Tell the engine something that it must know: if not now, then as soon as it can
        be asked again.

        @param about: What it is about; what is said of the same later replaces it.
        @param said: The script's arguments.
        """
        self._owed[about] = (script, *said)
        try:
            await self._ask(script, *said)
        except TunnelError as error:
            if error.code.name != "cluster-away":
                self._owed.pop(about, None)
                raise
        else:
            self._owed.pop(about, None)

    async def sayOwed(self) -> None:
        """
        Tell the engine what it could not be told before.

        @raise TunnelError: C{cluster-away}.
        """
        for about, said in list(self._owed.items()):
            await self._say(about, *said)
