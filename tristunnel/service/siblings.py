"""
Asking the other processes of a server: what each of them knows is a part of the answer.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial, wraps
from typing import Any

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from tristunnel.errors import TunnelError
from tristunnel.model.permissions import Grant, Identity, Permissions
from tristunnel.processes.link import Asker, Link
from tristunnel.processes.membership import Membership
from tristunnel.service.caller import Caller
from tristunnel.util.deferreds import returnsDeferred

__all__ = [
    "GATHERED",
    "OWNERS",
    "PATIENCE",
    "Siblings",
    "callerAsDict",
    "callerFrom",
    "everywhere",
]

PATIENCE = 2.0
"""Seconds that a list waits for the others' parts of it."""

GATHERED = ("listNodeTunnels", "listSessions", "listTunnels")
"""Methods whose answer is everybody's lists."""

OWNERS = ("closeSession", "closeTunnel", "getTunnelAddress", "kick", "setPolicy")
"""Methods that the process answers which has what they name."""

_NOT_MINE = ("client-away", "unknown-session", "unknown-tunnel")
"""How a process refuses what it does not have."""


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
    Make the caller whom another process of this server vouches for: it has checked who
    that is just now, so what it grants is not looked up again.

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


class Siblings:
    """
    The other processes of a server.

    @param membership: The ways to them.

    @ivar passed: How many connections were passed to them, by what they are.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(self, membership: Membership) -> None:
        self._membership = membership
        self.passed: Counter[str] = Counter()
        self._published: dict[str, Callable[..., object]] = {}
        membership.answers["ask"] = self._asked
        membership.answers["told"] = self._told

    @property
    def name(self) -> str:
        """How this process is called among them."""
        return self._membership.name

    @property
    def key(self) -> bytes:
        """A secret that all of them share."""
        return self._membership.key.encode("ascii")

    @property
    def names(self) -> set[str]:
        """How those are called that are there, without this one."""
        return {str(index) for index in self._membership.siblings}

    def publish(self, name: str, function: Callable[..., object]) -> None:
        """
        Let the others call something.

        @param function: Takes a caller, or C{None}, and what else is asked; what it
            returns has a JSON form.
        """
        self._published[name] = function

    @returnsDeferred
    async def _asked(
        self, asker: Asker, name: str, caller: Any, params: Any, named: Any
    ) -> object:
        who = None if caller is None else callerFrom(caller)
        return await maybeDeferred(self._published[name], who, *params, **named)

    def _told(self, asker: Asker, name: str, params: Any) -> None:
        self._published[name](*params)

    # Asking

    def _ask(
        self,
        link: Link,
        name: str,
        caller: Caller | None,
        params: Sequence[object],
        named: Mapping[str, object],
    ) -> Deferred[Any]:
        who = None if caller is None else callerAsDict(caller)
        asked = [name, who, list(params), dict(named)]
        return link.call("ask", asked, patience=PATIENCE)

    @returnsDeferred
    async def gather(
        self, name: str, caller: Caller | None, *params: object, **named: object
    ) -> list[tuple[str, Any]]:
        """
        Ask all others the same.

        @return: Who has answered, and what; whoever does not answer in time is
            missing, and the log says so.
        """
        links = list(self._membership.siblings.values())
        asking = []
        for link in links:
            asked = self._ask(link, name, caller, params, named)
            asking.append(asked.addErrback(partial(self._missing, link)))
        answers = await gatherResults(asking)
        return [
            (str(link.index), answer)
            for link, answer in zip(links, answers, strict=True)
            if answer is not None
        ]

    def _missing(self, link: Link, failure: Failure) -> None:
        self._log.warn(
            "Process {process} of this server is missing in an answer: {why}",
            process=link.index,
            why=failure.getErrorMessage(),
        )

    async def first(
        self,
        refusal: TunnelError,
        name: str,
        caller: Caller | None,
        *params: object,
        **named: object,
    ) -> Any:
        """
        Ask all others for what this process does not have.

        @param refusal: Why not.
        @return: The answer of the one that has it.
        @raise TunnelError: What that one says; C{refusal} if nobody has it.
        """
        refusals: list[TunnelError] = []
        nothing = object()

        def refused(failure: Failure) -> object:
            refusals.append(
                failure.value
                if isinstance(failure.value, TunnelError)
                else TunnelError("internal")
            )
            return nothing

        asking = [
            self._ask(link, name, caller, params, named).addErrback(refused)
            for link in self._membership.siblings.values()
        ]
        for answer in await gatherResults(asking):
            if answer is not nothing:
                return answer
        others = [each for each in refusals if each.code.name not in _NOT_MINE]
        raise others[0] if others else refusal

    def tell(self, name: str, *params: object) -> None:
        """Say something to all others."""
        for link in list(self._membership.siblings.values()):
            try:
                link.tell("told", [name, list(params)])
            except TunnelError as refusal:
                self._log.warn(
                    "Process {process} of this server was not told: {refusal}",
                    process=link.index,
                    refusal=refusal,
                )


def everywhere(
    methods: Mapping[str, Callable[..., object]], siblings: Siblings
) -> dict[str, Callable[..., object]]:
    """
    Have methods answer for all processes of a server.

    @param methods: Those of this process, by name; published to the others as they are.
    """

    def gathered(name: str) -> Callable[..., object]:
        # With its signature, by which calls are checked.
        @wraps(methods[name])
        @returnsDeferred
        async def everybodys(caller: Caller) -> list[object]:
            own: Any = await maybeDeferred(methods[name], caller)
            answers = [(siblings.name, own), *await siblings.gather(name, caller)]
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
