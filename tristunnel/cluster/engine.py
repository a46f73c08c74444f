"""Connections to Redis or Valkey, by txredisapi."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NoReturn

from twisted.internet.defer import CancelledError, Deferred, fail, succeed
from twisted.internet.interfaces import (
    IAddress,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
)
from twisted.python.failure import Failure
from txredisapi import RedisError, RedisFactory, ResponseError
from zope.interface import implementer

from tristunnel.cluster.troubles import IS_REPLICA, explained, notReached
from tristunnel.errors import TunnelError

__all__ = ["ANSWER", "Engine", "engineAway", "scriptNamed"]

ANSWER = 1.0
"""Seconds in which the engine must answer; then the connection is given up, since
nobody knows what has been done."""

_FIRST, _LONGEST = 0.1, 2.0

_LOST = "Lost connection"
"""What txredisapi answers for an engine that cannot answer any more."""

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


@implementer(IStreamClientEndpoint)
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
    @ivar trouble: What is wrong with it, in a line; empty if nothing is known.
    @ivar whenTroubled: Called with that, when it is something else than before.
    @ivar said: How it has refused something, the last time; empty if it has not.
    @ivar isReplica: Whether it has said that it only copies another one.
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
        self.whenTroubled: Callable[[str], object] = lambda why: None
        self.trouble = self.said = ""
        self._name = name
        self.isReplica = False
        self._keys = [self.key(each) for each in KEYS]
        self.stream = self.key("changes")
        self._endpoint = endpoint
        self._factory = _Factory(
            "tristunnel",
            database or None,
            1,
            password=password or None,
            username=username or None,
            replyTimeout=patience,
            convertNumbers=False,
        )
        self._factory.up = self._up
        self._factory.refused = self._hasTrouble
        self._factory.silent = lambda reason: self.troubled(notReached(reason))

    def __repr__(self) -> str:
        return f"<engine of the book {self._name}>"

    def key(self, name: str) -> str:
        """The name of one of L{KEYS} in the engine."""
        return f"tt:{{{self._name}}}:{name}"

    def start(self) -> None:
        """Begin to connect."""
        self._factory.startConnecting(self)

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        connecting = self._endpoint.connect(protocolFactory)

        def failed(failure: Failure) -> Failure:
            if not failure.check(CancelledError):
                self.troubled(notReached(failure))
            return failure

        return connecting.addErrback(failed)

    def drop(self) -> None:
        """Reconnect: another engine may be the primary one by now."""
        for connection in list(self._factory.pool):
            connection.transport.loseConnection()

    def _hasTrouble(self, said: str) -> None:
        self.said, self.isReplica = said, IS_REPLICA in said
        self.troubled(explained(said))

    def troubled(self, trouble: str) -> None:
        """
        Tell L{whenTroubled}, unless that has been told last.

        @param trouble: What is wrong, in a line.
        """
        if trouble != self.trouble:
            self.trouble = trouble
            self.whenTroubled(trouble)

    def isWell(self) -> None:
        """It does what it should; if that ends, it is told again."""
        self.trouble, self.isReplica = "", False

    def stop(self) -> Deferred[None]:
        """Disconnect for good."""
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
        Send a command. It is refused while there is no connection: otherwise it would
        be executed some time later, when nobody wants that any more.
        """
        if not self._factory.pool:
            return fail(engineAway())
        asked: Deferred[Any] = getattr(self._factory.pool[0], method)(*args)
        return asked.addErrback(self._unanswered)

    def command(self, *words: object) -> Deferred[Any]:
        """
        Send a plain command.

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
        return self._ask("eval", scriptNamed(script), self._keys, words)

    def _unanswered(self, failure: Failure) -> NoReturn:
        failure.trap(RedisError)
        if failure.check(ResponseError):
            self._hasTrouble(failure.getErrorMessage())
        raise engineAway() from failure.value


@cache
def scriptNamed(name: str) -> str:
    directory = files(__package__) / "scripts"
    parts: Sequence[str] = ("common", name)
    return "\n".join((directory / f"{part}.lua").read_text("utf-8") for part in parts)


class _Factory(RedisFactory):  # type: ignore[misc]  # it has no types
    """Tells when a connection may be used."""

    initialDelay, maxDelay = _FIRST, _LONGEST
    up: Callable[[], object]
    refused: Callable[[str], object]
    silent: Callable[[Failure], object]

    def buildProtocol(self, addr: IAddress | None) -> Any:
        protocol = super().buildProtocol(addr)
        received, lost = protocol.dataReceived, protocol.connectionLost
        heard = False

        def dataReceived(data: bytes) -> None:
            nonlocal heard
            heard, protocol.dataReceived = True, received
            received(data)

        def connectionLost(reason: Failure) -> None:
            if not (heard or self.stopped):
                self.silent(reason)
            lost(reason)

        protocol.dataReceived = dataReceived
        protocol.connectionLost = connectionLost
        return protocol

    def connectionError(self, why: str) -> None:
        """The engine refuses the login or the database."""
        # If the connection is gone, the engine has not said anything.
        if _LOST not in why:
            self.refused(why)

    def stopTrying(self) -> Deferred[None]:
        """
        Keep trying: an engine that is starting, or whose password is being changed,
        refuses us.
        """
        return succeed(None)

    def addConnection(self, connection: Any) -> None:
        super().addConnection(connection)
        if self.pool:
            self.up()
