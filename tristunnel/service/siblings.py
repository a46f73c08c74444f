"""
Asking the other members of a server, processes or machines: each of them has a part of
the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial, wraps
from typing import Any, Protocol

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Grant, Identity, Permissions
from tristunnel.processes.link import Asker
from tristunnel.service.caller import Caller
from tristunnel.util.deferreds import returnsDeferred

__all__ = [
    "ASSURED",
    "GATHERED",
    "OWNERS",
    "PATIENCE",
    "Cluster",
    "Gathered",
    "Siblings",
    "Way",
    "Ways",
    "callerAsDict",
    "callerFrom",
    "everywhere",
]

PATIENCE = 2.0
"""Seconds that a list waits for the other members' parts."""

ASSURED = 2.0
"""Seconds that a member that leaves waits until its visitors are led elsewhere."""

GATHERED = ("listNodeTunnels", "listSessions", "listTunnels")
"""Methods whose answer is made of the lists of all members."""

OWNERS = (
    "closeSession",
    "closeTunnel",
    "getKnockLink",
    "getTunnelAddress",
    "kick",
    "setPolicy",
)
"""Methods that are answered by the member that has what they name."""

_NOT_MINE = ("client-away", "unknown-session", "unknown-tunnel")
"""How a member refuses what it does not have."""

_NOTHING = object()


def callerAsDict(caller: Caller) -> dict[str, Any]:
    """Describe a caller for L{callerFrom}."""
    identity = caller.identity
    grant = identity.grant
    permissions = None if grant is None else grant.permissions
    return {
        "name": identity.name,
        "anonymous": identity.anonymous,
        "issued": identity.issued,
        "claimed": identity.claimed,
        "may": permissions and sorted(permissions.may),
        "services": permissions and permissions.services,
        "servicesOf": permissions.servicesOf if permissions else "",
        "host": caller.host,
        "port": caller.port,
        "address": caller.address,
        "secure": caller.secure,
        "certificate": caller.certificate,
    }


def callerFrom(said: Mapping[str, Any]) -> Caller:
    """
    Make the caller for whom another member of this server vouches: it has just checked
    who that is, so the grant is not looked up again.

    @param said: As that process describes it.
    """
    grant = None
    if said["may"] is not None:
        services = said["services"]
        permissions = Permissions(
            may=frozenset(said["may"]),
            services=None if services is None else tuple(services),
            servicesOf=said["servicesOf"],
        )
        grant = Grant(permissions)
    identity = Identity(
        said["name"], said["anonymous"], grant, said["issued"], said["claimed"]
    )
    return Caller(
        identity,
        said["host"],
        said["port"],
        address=said["address"],
        secure=said["secure"],
        certificate=said["certificate"],
    )


class Way(Protocol):
    """The way to another member."""

    @property
    def name(self) -> str:
        """What it is called."""

    def call(
        self, method: str, params: Sequence[object] = ..., *, patience: float = ...
    ) -> Deferred[Any]:
        """Call a method; fails with L{TunnelError}."""

    def tell(self, method: str, params: Sequence[object] = ...) -> None:
        """
        Call a method that gives no answer.

        @raise TunnelError: If that cannot be said.
        """


class Ways(Protocol):
    """The ways to all other members, of one machine or of a cluster."""

    answers: dict[str, Callable[..., object]]

    @property
    def name(self) -> str:
        """What this member is called."""

    @property
    def key(self) -> str:
        """A secret that all of them share."""

    @property
    def siblings(self) -> Mapping[Any, Way]:
        """The others that are there now."""


class Cluster(Protocol):
    """
    The members of a cluster.

    @ivar isDraining: Whether the clients of this one are to go elsewhere.
    @ivar engineIsUp: Whether the book can be asked.
    """

    isDraining: bool
    engineIsUp: bool

    @property
    def count(self) -> int:
        """How many there are, with this one."""

    def elsewhere(self) -> tuple[str, ...]:
        """Where clients may go instead, as C{HOST:PORT}."""

    def describe(self, caller: Caller) -> Deferred[list[dict[str, object]]]:
        """Say how all members are."""

    def drain(
        self, caller: Caller, member: str, on: bool
    ) -> Deferred[list[dict[str, object]]]:
        """Have one of them drained, or all of a machine; or no longer."""


@dataclass(frozen=True)
class Gathered:
    """
    What others have answered.

    @ivar answers: Who, and what.
    @ivar missing: Who has not, in time, and why.
    """

    answers: list[tuple[str, Any]]
    missing: dict[str, str]


class Siblings:
    """
    The other members of a server.

    @param membership: The ways to them.

    @ivar passed: How many connections were passed to them, by what they are.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(self, membership: Ways) -> None:
        self._membership = membership
        self.passed: Counter[str] = Counter()
        self._published: dict[str, Callable[..., object]] = {}
        membership.answers["ask"] = self._asked
        membership.answers["told"] = self._told

    @property
    def name(self) -> str:
        """The name of this member among them."""
        return self._membership.name

    @property
    def key(self) -> bytes:
        """A secret that all of them share."""
        return self._membership.key.encode("ascii")

    @property
    def names(self) -> set[str]:
        """The names of the members that are there, without this one."""
        return {way.name for way in self._membership.siblings.values()}

    def publish(self, name: str, function: Callable[..., object]) -> None:
        """
        Let the others call a function.

        @param function: Takes a caller, or C{None}, and what else is asked; what it
            returns has a JSON form.
        """
        self._published[name] = function

    @returnsDeferred
    async def _asked(
        self, asker: Asker, name: str, caller: Any, params: Any, named: Any
    ) -> object:
        who = None if caller is None else callerFrom(caller)
        if name not in self._published:
            raise TunnelError("internal", f"this member does not know of {name}")
        return await maybeDeferred(self._published[name], who, *params, **named)

    def _told(self, asker: Asker, name: str, params: Any) -> None:
        # A member of another version may send news that mean nothing here.
        if name in self._published:
            self._published[name](*params)

    # Asking

    def _ask(
        self,
        link: Way,
        name: str,
        caller: Caller | None,
        params: Sequence[object],
        named: Mapping[str, object],
        patience: float = PATIENCE,
    ) -> Deferred[Any]:
        who = None if caller is None else callerAsDict(caller)
        asked = [name, who, list(params), dict(named)]
        return link.call("ask", asked, patience=patience)

    @returnsDeferred
    async def gather(
        self,
        name: str,
        caller: Caller | None,
        *params: object,
        patience: float = PATIENCE,
        **named: object,
    ) -> Gathered:
        """
        Ask all others the same. Those that do not answer in time are listed as missing,
        and logged.

        @param patience: Seconds that they have.
        """
        links = list(self._membership.siblings.values())
        missing: dict[str, str] = {}
        asking = []
        for link in links:
            asked = self._ask(link, name, caller, params, named, patience)
            asking.append(asked.addErrback(partial(self._missing, missing, link)))
        answers = await gatherResults(asking)
        told = zip(links, answers, strict=True)
        return Gathered(
            [(link.name, answer) for link, answer in told if answer is not _NOTHING],
            missing,
        )

    def _missing(self, missing: dict[str, str], link: Way, failure: Failure) -> object:
        error = failure.value
        why = error.message if isinstance(error, TunnelError) else str(error)
        missing[link.name] = why
        self._log.warn(
            "Member {member} of this server is missing in an answer: {why}",
            member=link.name,
            why=why,
        )
        return _NOTHING

    async def ask(
        self, member: str, name: str, caller: Caller | None, *params: object
    ) -> Any:
        """
        Ask one other member.

        @param member: What it is called.
        @raise TunnelError: C{session-lost}, if it is not there; or what it says.
        """
        for link in list(self._membership.siblings.values()):
            if link.name == member:
                return await self._ask(link, name, caller, params, {})
        raise TunnelError("session-lost", f"member {member} of this server has ended")

    async def first(
        self,
        refusal: TunnelError,
        name: str,
        caller: Caller | None,
        *params: object,
        **named: object,
    ) -> Any:
        """
        Ask all others for something that this member does not have.

        @param refusal: Why this one does not have it.
        @return: The answer of the one that has it.
        @raise TunnelError: What that one says; C{refusal} if nobody has it.
        """
        refusals: list[TunnelError] = []

        def refused(failure: Failure) -> object:
            refusals.append(
                failure.value
                if isinstance(failure.value, TunnelError)
                else TunnelError("internal")
            )
            return _NOTHING

        asking = [
            self._ask(link, name, caller, params, named).addErrback(refused)
            for link in self._membership.siblings.values()
        ]
        for answer in await gatherResults(asking):
            if answer is not _NOTHING:
                return answer
        others = [each for each in refusals if each.code.name not in _NOT_MINE]
        raise others[0] if others else refusal

    async def heed(self, name: str, *params: object, patience: float) -> None:
        """
        Ask all others the same, and wait for their answers, whatever they are.

        @param patience: Seconds after which nobody is waited for any more.
        """
        asked: list[object] = [name, None, list(params), {}]
        await gatherResults(
            [
                link.call("ask", asked, patience=patience).addErrback(lambda _: None)
                for link in self._membership.siblings.values()
            ]
        )

    def tell(self, name: str, *params: object) -> None:
        """Tell all others something."""
        for link in list(self._membership.siblings.values()):
            try:
                link.tell("told", [name, list(params)])
            except TunnelError as refusal:
                self._log.warn(
                    "Member {member} of this server was not told: {refusal}",
                    member=link.name,
                    refusal=refusal,
                )


def everywhere(
    methods: Mapping[str, Callable[..., object]], siblings: Siblings
) -> dict[str, Callable[..., object]]:
    """
    Have methods answer for all members of a server.

    @param methods: Those of this member, by name; published to the others as they are.
    """

    def gathered(name: str) -> Callable[..., object]:
        # With its signature, by which calls are checked.
        @wraps(methods[name])
        @returnsDeferred
        async def everybodys(caller: Caller) -> list[object]:
            own: Any = await maybeDeferred(methods[name], caller)
            others = await siblings.gather(name, caller)
            answers = [(siblings.name, own), *others.answers]
            return [
                {**entry, "member": member}
                for member, entries in answers
                for entry in entries
            ]

        return everybodys

    def owners(name: str) -> Callable[..., object]:
        @wraps(methods[name])
        @returnsDeferred
        async def ofOwner(caller: Caller, *params: object, **named: object) -> object:
            try:
                return await maybeDeferred(methods[name], caller, *params, **named)
            except TunnelError as refusal:
                if refusal.code.name not in _NOT_MINE or caller.limitedTo is not None:
                    raise
                return await siblings.first(refusal, name, caller, *params, **named)

        return ofOwner

    for name in (*GATHERED, *OWNERS):
        siblings.publish(name, methods[name])
    return {
        **methods,
        **{name: gathered(name) for name in GATHERED},
        **{name: owners(name) for name in OWNERS},
    }
