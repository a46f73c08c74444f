"""Connections to Redis or Valkey, by txredisapi."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NoReturn

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.python.failure import Failure
from txredisapi import RedisError, RedisFactory

from tristunnel.errors import TunnelError

__all__ = ["ANSWER", "Engine", "engineAway"]

ANSWER = 1.0
"""Seconds in which the engine must answer; then the connection is given up, since
nobody knows what has been done."""

_FIRST, _LONGEST = 0.1, 2.0

KEYS = (
    "members",
    "beats",
    "epoch",
    "leases",
    "tunnels",
    "reserved",
    "uris",
    "counts",
    "access",
    "tokens",
    "due",
    "held",
    "changes",
)
"""All keys of a book, in the order in which C{common.lua} takes them."""


def engineAway() -> TunnelError:
    """Say that Redis cannot be asked now."""
    return TunnelError(
        "cluster-away",
        "the cluster's book cannot be asked now; what is open goes on; try again",
        ANSWER,
    )


class Engine:
    """
    One connection to the engine, which is made anew when it is lost.

    @param endpoint: Where it is.
    @param name: The cluster's name there: several may share an engine.
    @param database: The number of the database.
    @param username: As whom to log in; empty for the default user.
    @param password: Likewise; empty for no login.
    @param patience: Seconds in which an answer must come; C{None} for any time.

    @ivar whenUp: Called each time when it is connected.
    @ivar stream: The name of the stream of changes.
    """

    def __init__(
        self,
        endpoint: IStreamClientEndpoint,
        name: str,
        database: int = 0,
        username: str = "",
        password: str = "",
        patience: float | None = ANSWER,
    ) -> None:
        self.whenUp: Callable[[], object] = lambda: None
        self._name = name
        self._keys = [self.key(each) for each in KEYS]
        self.stream = self.key("changes")
        self._endpoint = endpoint
        self._factory = _Factory(
            "tristunnel",
            database or None,
            1,
            isLazy=True,
            password=password or None,
            username=username or None,
            replyTimeout=patience,
            convertNumbers=False,
        )
        self._factory.up = self._up
        # Its log says why a connection cannot be used; nobody waits for the first one.
        self._factory.deferred.addErrback(lambda failure: None)

    def key(self, name: str) -> str:
        """The name of one of L{KEYS} in the engine."""
        return f"tt:{{{self._name}}}:{name}"

    def start(self) -> None:
        """Begin to connect."""
        self._factory.startConnecting(self._endpoint)

    def stop(self) -> Deferred[None]:
        """Connect no more."""
        stopping: Deferred[None] = self._factory.disconnect()
        return stopping

    def _up(self) -> None:
        self.whenUp()

    @property
    def isUp(self) -> bool:
        """Whether it is connected."""
        return bool(self._factory.pool)

    def _ask(self, method: str, *args: object) -> Deferred[Any]:
        """
        Give a command. It is refused while there is no connection: it would be
        obeyed some time later, when nobody wants that any more.
        """
        if not self._factory.pool:
            return fail(engineAway())
        asked: Deferred[Any] = getattr(self._factory.pool[0], method)(*args)
        return asked.addErrback(_unanswered)

    def command(self, *words: object) -> Deferred[Any]:
        """
        Give a plain command.

        @raise TunnelError: By the Deferred, C{cluster-away}.
        """
        return self._ask("execute_command", *words)

    def run(self, script: str, *args: object) -> Deferred[list[Any]]:
        """
        Run one of our scripts.

        @param script: Its name.
        @return: What it answers, beginning with a word.
        @raise TunnelError: By the Deferred, C{cluster-away}.
        """
        words = [str(each) for each in args]
        return self._ask("eval", _scriptNamed(script), self._keys, words)


def _unanswered(failure: Failure) -> NoReturn:
    failure.trap(RedisError)
    raise engineAway() from failure.value


@cache
def _scriptNamed(name: str) -> str:
    directory = files(__package__) / "scripts"
    parts: Sequence[str] = ("common", name)
    return "\n".join((directory / f"{part}.lua").read_text("utf-8") for part in parts)


class _Factory(RedisFactory):  # type: ignore[misc]  # it has no types
    """Tells when a connection may be used."""

    initialDelay, maxDelay = _FIRST, _LONGEST
    up: Callable[[], object]

    def stopTrying(self) -> Deferred[None]:
        """Go on: an engine that is starting, or gets another password, refuses us."""
        return succeed(None)

    def addConnection(self, connection: Any) -> None:
        super().addConnection(connection)
        if self.pool:
            self.up()
