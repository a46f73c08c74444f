"""
The members of a cluster: who they are, how they are, and which of them are drained.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Mapping

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from tristunnel.cluster.links import MemberLinks
from tristunnel.cluster.redis_book import RedisBook
from tristunnel.cluster.relay import VERSION as _SPOKEN
from tristunnel.cluster.relay import unlikeLinks
from tristunnel.errors import MOST_PLACES, TunnelError, badOption, printable
from tristunnel.service.caller import Caller
from tristunnel.service.siblings import Siblings
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.log_limiter import BoundedLog
from tristunnel.version import VERSION

__all__ = ["Members"]


class Members:
    """
    The members of a cluster.

    @param reactor: Tells time.
    @param book: Says who is there.
    @param links: The ways to the others.
    @param about: What others are told of this one, beside what is known here.

    @ivar siblings: The others, to be asked.
    @ivar isDraining: Whether clients are to go elsewhere.
    @ivar drained: Called with whether they are, when that changes.
    @ivar numbers: Counts what is here: C{clients}, C{tunnels}, C{streams}.
    @ivar engineIsUp: Whether the book can be asked.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(
        self,
        reactor: IReactorTime,
        book: RedisBook,
        links: MemberLinks,
        about: Mapping[str, object],
    ) -> None:
        self.siblings = Siblings(links)
        self.isDraining = False
        self.drained: Callable[[bool], object] = lambda isDraining: None
        self.numbers: Callable[[], dict[str, int]] = dict
        self.engineIsUp = False
        self._reactor = reactor
        self._book = book
        self._links = links
        self._about: dict[str, object] = {**about, "release": VERSION}
        self._known: dict[str, Mapping[str, object]] = {}
        self._unlike: set[str] = set()
        self._told = BoundedLog(reactor.seconds)
        self._began = reactor.seconds()
        self._looking = LoopingCall(self._look)
        self._looking.clock = reactor
        self.siblings.publish("member", lambda caller: self.describeHere())
        self.siblings.publish("drain", lambda caller, on: self._drainHere(on))

    def start(self) -> None:
        """Begin to look who is there."""
        self._book.tellOf(self._about)
        self._looking.start(self._book.times.beat)

    def stop(self) -> None:
        """This member leaves."""
        if self._looking.running:
            self._looking.stop()
        self._links.close()

    def reachedAt(self, place: str) -> None:
        """
        Set where clients reach this member.

        @param place: C{HOST:PORT}; empty for nowhere.
        """
        self._tell(clients=place)

    def leaving(self) -> None:
        """
        Tell the others that this member is about to stop, and that they need not wait
        for its answers.
        """
        self._tell(left=True)

    def _tell(self, **fields: object) -> None:
        self._about.update(fields)
        self._book.tellOf(self._about)

    @returnsDeferred
    async def _look(self) -> None:
        """Find out who is there; without the book, nothing changes."""
        try:
            self._known = await self._book.members()
        except TunnelError:
            self.engineIsUp = False
            return
        self.engineIsUp = True
        self._compare()
        self._links.known(
            {
                name: str(about.get("address", ""))
                for name, about in self._known.items()
                if name != self._book.member and not about.get("left")
            }
        )

    def _compare(self) -> None:
        """Say of each member that speaks another version that it does, once."""
        unlike = {}
        for name, about in self._known.items():
            if why := self._why(about):
                unlike[name] = why
        for name in unlike.keys() - self._unlike:
            self._told(
                self._log.error,
                "No link with member {member} at {address}: {why}",
                member=name,
                address=self._known[name].get("address", ""),
                why=unlike[name],
            )
        self._unlike = set(unlike)

    def _why(self, about: Mapping[str, object]) -> str:
        """Say why a member and this one cannot ask each other; empty if they can."""
        version = about.get("version", _SPOKEN)
        return "" if version == _SPOKEN else unlikeLinks(str(version)).message

    @property
    def count(self) -> int:
        """How many there are, with this one."""
        return len(self._links.siblings) + 1

    def elsewhere(self) -> tuple[str, ...]:
        """
        Where clients may go instead, as C{HOST:PORT}: in random order, so that they do
        not all go to the same one.
        """
        places = [
            place
            for name, about in self._known.items()
            if name in self._links.siblings
            and not about.get("draining")
            and isinstance(place := about.get("clients"), str)
            and place
            # Other processes of this machine are about to stop with it.
            and machineOf(name) != machineOf(self._book.member)
        ]
        found = sorted(set(places))
        return tuple(random.sample(found, min(len(found), MOST_PLACES)))

    # For operators

    def describeHere(self) -> dict[str, object]:
        """Describe this member."""
        numbers = self.numbers()
        isBusy = any(numbers.get(each) for each in ("clients", "streams"))
        state = "serving"
        if self.isDraining:
            state = "draining" if isBusy else "drained"
        return {
            **self._described(self._book.member, self._about),
            "state": state,
            "engine": "up" if self.engineIsUp else "away",
            "load": round(os.getloadavg()[0], 2),
            "seconds": round(self._reactor.seconds() - self._began, 3),
            **numbers,
        }

    @staticmethod
    def _described(member: str, about: Mapping[str, object]) -> dict[str, object]:
        return {
            "member": member,
            "address": str(about.get("address", "")),
            "clientAddress": str(about.get("clients", "")),
            "version": str(about.get("release", "")),
        }

    @returnsDeferred
    async def describe(self, caller: Caller) -> list[dict[str, object]]:
        """
        Describe all members; one that does not answer in time is C{silent}, or
        C{unlike} if it speaks another version.
        """
        others = await self.siblings.gather("member", None)
        found = [self.describeHere(), *(answer for _, answer in others.answers)]
        for name, why in others.missing.items():
            about = self._known.get(name, {})
            state = "unlike" if self._why(about) else "silent"
            found.append({**self._described(name, about), "state": state, "why": why})
        return sorted(found, key=lambda each: (each["address"], each["member"]))

    @returnsDeferred
    async def drain(
        self, caller: Caller, member: str, on: bool
    ) -> list[dict[str, object]]:
        """
        Have a member drained, or all processes of a machine; or no longer.

        @param member: Its name; or its address or host, for others or for clients; or
            C{self} for this one.
        @return: Descriptions of all members, after that.
        @raise TunnelError: C{bad-option}, if there is no such member; or why one of
            them cannot be asked.
        """
        drained: list[dict[str, object]] = []
        for name in self._named(member):
            if name == self._book.member:
                drained.append(self._drainHere(on))
            else:
                drained.append(await self.siblings.ask(name, "drain", None, on))
        return drained

    def _named(self, text: str) -> list[str]:
        known = {self._book.member: self._about}
        for name in self._links.siblings:
            known[name] = dict(self._known.get(name, {}))
        if text == "self":
            return [self._book.member]
        found = [
            name
            for name, about in known.items()
            if text == name or text in _placesOf(about)
        ]
        if not found:
            raise badOption(
                f"no member is called {printable(text, 60)!r}; there is"
                f" {', '.join(sorted(known))}"
            )
        return found

    def _drainHere(self, on: bool) -> dict[str, object]:
        if on is not self.isDraining:
            if on and not self.elsewhere():
                self._log.warn(
                    "This member is drained, and there is no other one for its clients"
                )
            self.isDraining = on
            self._tell(draining=on)
            self.drained(on)
        return self.describeHere()


def machineOf(member: str) -> str:
    """Say on which machine a member is, of its name: C{MACHINE-PROCESS-...}."""
    return member.partition("-")[0]


def _placesOf(about: Mapping[str, object]) -> set[str]:
    """What people may call a member: its addresses, with the port or without."""
    places = set()
    for key in ("address", "clients"):
        place = str(about.get(key, ""))
        bare = place.partition(":")[2] if key == "address" else place
        places |= {place, bare, bare.rpartition(":")[0].strip("[]")}
    return places - {""}
