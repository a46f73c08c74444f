"""
Leading visitors from the machine that they have connected to, the entry, to the one
that has their tunnel's client, the owner: a connection that begins with three lines,
and carries a visitor's bytes from then on.

The owner sends its version and a random word; the entry asks for a tunnel, and proves
by that word that it knows the cluster's secret; the owner answers C{ok} when the
visitor is served, or why it is not.
"""

from __future__ import annotations

import hmac
import json
import secrets
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import (
    IAddress,
    IDelayedCall,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.cluster.arrival import PATIENCE as SERVED
from tristunnel.cluster.arrival import Finds, RelayedArriving, arrive
from tristunnel.dataplane.peek import Peeking
from tristunnel.dataplane.transport_end import Arriving
from tristunnel.errors import TunnelError, printable
from tristunnel.jsonrpc.strictjson import BadJSON, decode
from tristunnel.model.record import TunnelRecord
from tristunnel.util.hosts import addressText
from tristunnel.util.repeating import stopTimer

__all__ = [
    "VERSION",
    "RelayFactory",
    "RelayWays",
    "askForLink",
    "askForTunnel",
    "unlikeLinks",
]

VERSION = 1
"""The version of what members say to each other; those with different ones do not."""

PATIENCE = 3.0
"""Seconds for the lines before a visitor's bytes."""

STRANGERS = 256
"""Connections that have not proved who they are; more are closed at once."""

_LONGEST = 2000
_GREETING = "tristunnel-cluster"


_ASKED = ("tunnel", "visitor", "host")
_LINK = "link"


def _proof(secret: bytes, word: str, asked: Mapping[str, object]) -> str:
    said = [str(asked.get(key, "")) for key in _ASKED]
    if _LINK in asked:
        # No tunnel is called like that.
        said = [_LINK, str(asked[_LINK])]
    text = "\n".join((_GREETING, word, *said))
    # JSON can contain text that cannot be encoded.
    return hmac.new(secret, text.encode("utf-8", "replace"), sha256).hexdigest()


class _Lines(Peeking):
    """
    Reads a line, and then perhaps another one.

    @param reactor: Tells time.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        self._timer: IDelayedCall | None = None

    def connectionMade(self) -> None:
        self.within(PATIENCE)
        super().connectionMade()

    def within(self, seconds: float) -> None:
        self.forgetTime()
        self._timer = self._reactor.callLater(seconds, self.late)

    def late(self) -> None:
        self.transport.abortConnection()

    @abstractmethod
    def lineCame(self, line: str) -> None:
        pass

    def seen(self, data: bytes) -> int:
        line, newline, _ = data.partition(b"\n")
        if newline:
            self.skip(len(line) + 1)
            self.lineCame(line.decode("utf-8", "replace"))
            return 1
        if len(line) > _LONGEST:
            self.late()
        return len(data) + 1

    def say(self, line: str) -> None:
        self.transport.write(line.encode() + b"\n")

    def become(self, protocol: Any) -> None:
        self.forgetTime()
        self.handOver(protocol)

    def forgetTime(self) -> None:
        stopTimer(self._timer)
        self._timer = None

    def left(self, reason: Failure) -> None:
        self.forgetTime()


class _Owner(_Lines):
    """The side that has the tunnel's client."""

    _word = ""

    def __init__(self, factory: RelayFactory, reactor: Any) -> None:
        super().__init__(reactor)
        self._parent = factory

    def connectionMade(self) -> None:
        self._word = secrets.token_hex(16)
        self._parent.strangers.add(self)
        self.say(f"{_GREETING} {VERSION} {self._word}")
        super().connectionMade()

    def lineCame(self, line: str) -> None:
        try:
            asked = decode(line.encode())
        except BadJSON:
            asked = None
        if not isinstance(asked, dict):
            asked = {}
        proof = str(asked.get("proof", ""))
        right = _proof(self._parent.secret, self._word, asked)
        if not hmac.compare_digest(proof.encode("utf-8", "replace"), right.encode()):
            self._parent.refused(addressText(self.transport.getPeer()))
            self.transport.abortConnection()
            return
        self._parent.strangers.discard(self)
        if _LINK in asked:
            self.say("ok")
            self.become(self._parent.linked(str(asked[_LINK])))
            return
        tunnel, visitor, host = (str(asked.get(key, "")) for key in _ASKED)
        try:
            found = self._parent.find(tunnel)
        except TunnelError as refusal:
            self.say(json.dumps(refusal.asDict()))
            self.transport.loseConnection()
            return

        def came(end: Any) -> None:
            def told(reason: TunnelError | None) -> None:
                word = "ok" if reason is None else json.dumps(reason.asDict())
                end.say(word.encode() + b"\n")

            arrive(found, end, visitor, host, told)

        self.become(RelayedArriving(self._reactor, came))

    def forgetTime(self) -> None:
        super().forgetTime()
        self._parent.strangers.discard(self)


class RelayFactory(Factory[_Owner]):
    """
    Takes visitors from the other machines.

    @param reactor: Tells time.
    @param secret: What all members of the cluster know.
    @param find: Finds who takes a tunnel's visitors.

    @ivar strangers: Who has not proved to be a member yet.
    @ivar linked: Makes the protocol of a link, of the name of the member that has
        connected.
    """

    noisy = False
    _log = Logger(namespace="tristunnel.server")

    def __init__(self, reactor: IReactorTime, secret: bytes, find: Finds) -> None:
        self.secret = secret
        self.find = find
        self.linked: Callable[[str], Any] = lambda member: Protocol()
        self.strangers: set[_Owner] = set()
        self._reactor = reactor

    def buildProtocol(self, addr: IAddress | None) -> _Owner | None:
        if len(self.strangers) >= STRANGERS:
            return None
        return _Owner(self, self._reactor)

    def refused(self, peer: str) -> None:
        """Log that somebody does not know the secret."""
        self._log.warn(
            "{peer} is not a member of this cluster: give all servers the same"
            " --cluster-token-file",
            peer=peer,
        )


class _Entry(_Lines):
    """The side where the visitor came in."""

    def __init__(
        self,
        reactor: Any,
        secret: bytes,
        asked: Mapping[str, str],
        answered: Deferred[Any],
        begin: Callable[[_Lines, Deferred[Any]], None],
    ) -> None:
        super().__init__(reactor)
        self._secret = secret
        self._asked = asked
        self._answered = answered
        self._begin = begin
        self._greeted = False

    def lineCame(self, line: str) -> None:
        if not self._greeted:
            self._greet(line.split())
        elif line == "ok":
            self._begin(self, self._answered)
        else:
            self._fail(_refusalIn(line))

    def _greet(self, words: list[str]) -> None:
        if len(words) != 3 or words[0] != _GREETING:
            self._fail(
                TunnelError("protocol-error", "that is not a member of a cluster")
            )
        elif words[1] != str(VERSION):
            self._fail(unlikeLinks(words[1]))
        else:
            self._greeted = True
            proof = _proof(self._secret, words[2], self._asked)
            self.say(json.dumps({**self._asked, "proof": proof}))
            self.within(SERVED)

    def late(self) -> None:
        self._fail(TunnelError("client-away", "the tunnel's server does not answer"))

    def left(self, reason: Failure = connectionDone) -> None:
        super().left(reason)
        self._fail(TunnelError("client-away", "the tunnel's server has left"))

    def _fail(self, reason: TunnelError) -> None:
        if not self._answered.called:
            self._answered.errback(Failure(reason))
        if self.transport is not None:
            self.transport.abortConnection()


def unlikeLinks(version: str) -> TunnelError:
    """
    Say that a member speaks another version.

    @param version: Which.
    @return: C{protocol-error}, to be raised.
    """
    return TunnelError(
        "protocol-error",
        f"the other member speaks version {printable(version, 9)}, and this one"
        f" {VERSION}, so no visitor gets from one to the other: give both the same"
        " version of tristunnel",
    )


def _refusalIn(line: str) -> TunnelError:
    try:
        said = decode(line.encode())
    except BadJSON:
        said = None
    return TunnelError.fromDict(said if isinstance(said, dict) else {}, "client-away")


class _EntryFactory(Factory[_Entry]):
    noisy = False

    def __init__(self, make: Callable[[], _Entry]) -> None:
        self._make = make

    def buildProtocol(self, addr: IAddress | None) -> _Entry:
        return self._make()


async def askForTunnel(
    reactor: Any,
    endpoint: IStreamClientEndpoint,
    secret: bytes,
    tunnel: str,
    visitor: str,
    host: str = "",
) -> Any:
    """
    Lead a visitor to another machine.

    @param endpoint: The way there.
    @param secret: What all members of the cluster know.
    @param tunnel: The tunnel's id.
    @param visitor: Where the visitor comes from.
    @param host: Where it came to; empty if that is not known.
    @return: The L{End<tristunnel.interfaces.End>} of the way.
    @raise TunnelError: Why it cannot go there.
    """
    asked = dict(zip(_ASKED, (tunnel, visitor, host), strict=True))

    def begin(lines: _Lines, answered: Deferred[Any]) -> None:
        lines.become(Arriving(reactor, answered.callback))

    return await _ask(reactor, endpoint, secret, asked, begin)


async def askForLink(
    reactor: Any,
    endpoint: IStreamClientEndpoint,
    secret: bytes,
    member: str,
    protocol: Any,
) -> None:
    """
    Make a connection to another machine that is not a visitor's.

    @param endpoint: The way there.
    @param secret: What all members of the cluster know.
    @param member: The name of this member.
    @param protocol: What has the connection then.
    @raise TunnelError: Why it cannot be had.
    """

    def begin(lines: _Lines, answered: Deferred[Any]) -> None:
        lines.become(protocol)
        answered.callback(None)

    await _ask(reactor, endpoint, secret, {_LINK: member}, begin)


async def _ask(
    reactor: Any,
    endpoint: IStreamClientEndpoint,
    secret: bytes,
    asked: Mapping[str, str],
    begin: Callable[[_Lines, Deferred[Any]], None],
) -> Any:
    """
    Connect to another machine, and say what the connection is for.

    @param begin: Called when the answer is yes, with what gets the result.
    @return: The same.
    @raise TunnelError: Why the answer is no, or there is none.
    """
    answered: Deferred[Any] = Deferred()
    factory = _EntryFactory(lambda: _Entry(reactor, secret, asked, answered, begin))
    connecting = endpoint.connect(factory).addTimeout(PATIENCE, reactor)
    try:
        protocol: Any = await connecting
    except CancelledError:
        raise
    except Exception as error:
        raise TunnelError(
            "client-away", f"the tunnel's server cannot be reached: {error}"
        ) from None
    try:
        return await answered
    except CancelledError:
        # The visitor has left.
        protocol.transport.abortConnection()
        raise


@dataclass(eq=False, repr=False)
class RelayWays:
    """
    The L{Ways<tristunnel.cluster.leading.Ways>} to other machines.

    @ivar reactor: Connects.
    @ivar about: Says what a member tells of itself, by its name.
    @ivar secret: What all members of the cluster know.
    @ivar endpoint: Makes the way to a member of what it advertises.
    """

    reactor: Any
    about: Callable[[str], Awaitable[Mapping[str, object]]]
    secret: bytes
    endpoint: Callable[[str], IStreamClientEndpoint]

    async def wayTo(self, record: TunnelRecord, visitor: str, host: str) -> Any:
        """
        Connect to the machine that has a tunnel's client.

        @raise TunnelError: Why that cannot be.
        """
        about = await self.about(record.place.member)
        endpoint = self.endpoint(str(about.get("address", "")))
        return await askForTunnel(
            self.reactor, endpoint, self.secret, record.id, visitor, host
        )
