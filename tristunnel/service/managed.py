"""
Tunnels that the server's operator gives to clients which agree to that, see
C{--managed} at the client. They are kept in a file, which may be edited by hand.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any
from weakref import WeakKeyDictionary

from twisted.logger import Logger

from tristunnel.auth.files import onlyWriter, replaceFile
from tristunnel.config.file import ConfigFile, readConfig
from tristunnel.config.keys import FLAG, WHOLE, Key, valuesIn
from tristunnel.config.settings import tomlText
from tristunnel.errors import TunnelError, badOption, printable
from tristunnel.model.names import HOSTS, nameWanted
from tristunnel.service.caller import Caller
from tristunnel.service.clients import ConnectedClients
from tristunnel.service.rights import isAdmin
from tristunnel.service.siblings import Siblings
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.hosts import parsePlace
from tristunnel.util.port_ranges import pairedPorts
from tristunnel.util.watch import signature
from tristunnel.util.words import isName

__all__ = ["ManagedForward", "ManagedForwards"]

MOST = 100
"""Tunnels that one client is given."""

ALL = 10_000
"""Tunnels that all clients are given."""

_PATTERNS = 50

_KEYS = {
    "client": Key("client"),
    "id": Key("id"),
    "to": Key("to"),
    "port": Key("port", WHOLE),
    "ports": Key("ports"),
    "name": Key("name"),
    "udp": Key("udp", FLAG),
}

_HEADER = """\
# Tunnels that this server asks managed clients for (tunnel-client --managed). It may be
# edited while the server runs; a tunnel without an id gets one.
"""


@dataclass(frozen=True)
class ManagedForward:
    """
    A tunnel that a client is to open.

    @ivar id: Short, and different for each.
    @ivar client: Whose: the name that the client logs in by.
    @ivar to: The service, C{HOST:PORT} as the client sees it; options may follow, as in
        C{--forward}, which the client judges.
    @ivar port: The visitors' port, or 0 for any.
    @ivar name: The tunnel's name, or empty; C{KIND/NAME[/PATH]} for one that visitors
        ask for.
    @ivar udp: Whether it is a UDP service.
    """

    id: str
    client: str
    to: str
    port: int = 0
    name: str = ""
    udp: bool = False

    def describe(self) -> dict[str, object]:
        """The same as plain data."""
        return {
            "id": self.id,
            "to": self.to,
            "port": self.port,
            "name": self.name,
            "udp": self.udp,
        }

    def check(self) -> ManagedForward:
        """
        @return: The same.
        @raise TunnelError: C{bad-option}.
        """
        try:
            parsePlace(self.to.partition(",")[0])
        except ValueError as problem:
            raise badOption(
                f"{printable(self.to, 100)!r} is not a valid target ({problem}); write"
                " HOST:PORT"
            ) from None
        if not self.client or len(self.client) > 200:
            raise badOption("client is the name that the client logs in by")
        if not 0 <= self.port < 65536:
            raise badOption(f"{self.port} is not a valid port")
        kind, slash, rest = self.name.partition("/")
        if kind in HOSTS and slash:
            name, _, path = rest.partition("/")
            nameWanted(kind, name, path)
            if self.port or self.udp:
                raise badOption(
                    f"{self.name} takes the place of a port; leave that out"
                )
        elif self.name and (not isName(self.name) or self.name.isdecimal()):
            kinds = ", ".join(f"{each}/" for each in HOSTS)
            raise badOption(
                "a name has letters, digits, '-', '_' and '.'; one that visitors ask"
                f" for begins with {kinds}"
            )
        return self


class ManagedForwards:
    """
    All of them.

    @param path: Where they are kept; empty for nowhere.
    @param clients: Who is connected, to be told of changes.

    @ivar machines: Whether the server is several machines, each of which has a file.
    """

    _log = Logger(namespace="tristunnel.server")

    def __init__(self, path: str, clients: ConnectedClients) -> None:
        self._path = path
        self._clients = clients
        self._siblings: Siblings | None = None
        self.machines = False
        self._signature = signature(path) if path else None
        self._known: dict[str, ManagedForward] = {}
        # What clients have agreed to, and what they have refused.
        self._said: WeakKeyDictionary[Any, tuple[list[str], dict[str, str]]]
        self._said = WeakKeyDictionary()
        # Why the file cannot be read; then it is not written either.
        self._broken: TunnelError | None = None
        self._reload()

    def _load(self) -> None:
        if not self._path or not os.path.exists(self._path):
            self._known = {}
            return
        file = readConfig(self._path, self._path, "")
        table = dict(file.table)
        tunnels = table.pop("tunnel", [])
        valuesIn(file, (), table, {})
        if not isinstance(tunnels, list):
            raise file.wrong(("tunnel",), "write [[tunnel]]")
        found = chain.from_iterable(
            _read(file, index, each) for index, each in enumerate(tunnels)
        )
        self._known = {each.id: each for each in found}

    def refresh(self) -> None:
        """Look whether somebody has edited the file, and tell clients."""
        if not self._path:
            return
        now = signature(self._path)
        if now == self._signature:
            return
        self._signature = now
        self._reload()

    def _reload(self) -> None:
        before = self._known
        try:
            self._load()
        except TunnelError as error:
            self._broken = error
            self._log.error(
                "The tunnels of managed clients stay as they were: {reason}",
                reason=error.message,
            )
        else:
            self._broken = None
            self._tell(before)

    def _tell(self, before: Mapping[str, ManagedForward]) -> None:
        both = {**before, **self._known}
        concerned = {
            each.client
            for each in both.values()
            if before.get(each.id) != self._known.get(each.id)
        }
        for client in self._clients:
            changed = getattr(client.side, "managedChanged", None)
            if client.identity.name in concerned and changed is not None:
                changed()

    def shareWith(self, siblings: Siblings) -> None:
        """Have what clients say listed at all members of the server."""
        self._siblings = siblings
        siblings.publish("managed", self.listed)

    def _save(self, known: dict[str, ManagedForward]) -> None:
        if self._broken is not None:
            raise self._broken
        if self.machines:
            raise badOption(
                "each machine of the cluster has its own managed.toml: write it into"
                " that of each of them"
            )
        if self._path:
            lines = [_HEADER]
            for each in known.values():
                texts = {"id": each.id, "client": each.client, "to": each.to}
                lines.append("[[tunnel]]")
                lines += [f"{key} = {tomlText(text)}" for key, text in texts.items()]
                lines += [f"port = {each.port}"] if each.port else []
                lines += [f"name = {tomlText(each.name)}"] if each.name else []
                lines += ["udp = true"] if each.udp else []
                lines.append("")
            with onlyWriter(self._path, make=True):
                replaceFile(self._path, "\n".join(lines).encode())
                self._signature = signature(self._path)
        before, self._known = self._known, known
        self._tell(before)

    # Remote methods

    def add(
        self,
        caller: Caller,
        client: str,
        to: str,
        port: int | str = 0,
        name: str = "",
        udp: bool = False,
    ) -> list[dict[str, object]]:
        """
        Give a client a tunnel; or several, if C{port} and C{to} have a range of
        ports each.

        @return: What there is now, as L{listed} has it.
        @raise TunnelError: C{not-permitted} for who is no admin, C{bad-option} or
            C{limit-reached}.
        """
        _checkAdmin(caller)
        self.refresh()
        pairs = [(port, to)] if isinstance(port, int) else pairedPorts(port, to)
        if name and len(pairs) > 1:
            raise badOption("several tunnels cannot have one name; leave it out")
        made = [
            ManagedForward(_newID(), client, each, number, name, udp).check()
            for number, each in pairs
        ]
        if (
            len(self._known) + len(made) > ALL
            or len(self._of(client)) + len(made) > MOST
        ):
            raise TunnelError(
                "limit-reached", f"a client can have at most {MOST} tunnels"
            )
        self._save({**self._known, **{each.id: each for each in made}})
        return [{"client": each.client, **each.describe()} for each in made]

    def remove(self, caller: Caller, id: str) -> None:
        """
        Take one away.

        @raise TunnelError: C{not-permitted}, or C{unknown-tunnel}.
        """
        _checkAdmin(caller)
        self.refresh()
        if id not in self._known:
            raise TunnelError("unknown-tunnel")
        self._save({key: each for key, each in self._known.items() if key != id})

    def listed(self, caller: Caller) -> list[dict[str, object]]:
        """
        All of them, and what their clients say: C{refused}, by whom it is, why.

        @raise TunnelError: C{not-permitted} for who is no admin.
        """
        _checkAdmin(caller)
        self.refresh()
        said: dict[str, tuple[list[str], dict[str, str]]] = {}
        for client in self._clients:
            if client.side in self._said:
                said[client.identity.name] = self._said[client.side]
        described = []
        for each in self._known.values():
            consent, refused = said.get(each.client, ([], {}))
            described.append(
                {
                    "client": each.client,
                    **each.describe(),
                    "consent": consent,
                    "connected": each.client in said,
                    "refused": refused.get(each.id, ""),
                }
            )
        return described

    @returnsDeferred
    async def listedByAll(self, caller: Caller) -> list[dict[str, object]]:
        """
        The same, with what those clients say that are at other members of the server.

        @raise TunnelError: C{not-permitted} for who is no admin.
        """
        found = {each["id"]: each for each in self.listed(caller)}
        if self._siblings is not None:
            others = await self._siblings.gather("managed", caller)
            for each in chain.from_iterable(listed for _, listed in others.answers):
                if each["connected"] or each["id"] not in found:
                    found[each["id"]] = each
        return list(found.values())

    def forClient(
        self, caller: Caller, consent: object = None, refused: object = None
    ) -> list[dict[str, object]]:
        """
        Get what the client that calls this is asked for.

        @param consent: What it agrees to, to be shown.
        @param refused: Why it does not open some, by their ids.
        @raise TunnelError: C{not-permitted} for who has no name of its own.
        """
        if caller.clientSide is None or caller.limitedTo is not None:
            raise TunnelError("not-permitted", "that is for clients")
        if caller.identity.anonymous:
            raise TunnelError(
                "not-permitted",
                "a managed client needs a name: start the server with --auth",
            )
        self._said[caller.clientSide] = (_texts(consent), _reasons(refused))
        self.refresh()
        return [each.describe() for each in self._of(caller.identity.name)]

    def _of(self, client: str) -> list[ManagedForward]:
        return [each for each in self._known.values() if each.client == client]


def _checkAdmin(caller: Caller) -> None:
    if caller.identity.grant is not None:
        caller.identity.grant.check()
    if not isAdmin(caller.identity):
        raise TunnelError("not-permitted", "this needs a token that may admin")


def _newID() -> str:
    return secrets.token_hex(4)


def _texts(value: object) -> list[str]:
    found = value if isinstance(value, list) else []
    return [printable(each, 100) for each in found[:_PATTERNS] if isinstance(each, str)]


def _reasons(value: object) -> dict[str, str]:
    found: Iterable[tuple[object, object]] = (
        value.items() if isinstance(value, dict) else ()
    )
    kept = [(str(key)[:32], printable(str(why), 200)) for key, why in found]
    return dict(kept[:MOST])


def _read(file: ConfigFile, index: int, table: Any) -> list[ManagedForward]:
    place = ("tunnel", index)
    if not isinstance(table, dict):
        raise file.wrong(place, "write [[tunnel]]")
    values = valuesIn(file, place, table, _KEYS)
    to, port, ports = (
        values.get("to", ""),
        values.get("port", 0),
        values.get("ports", ""),
    )
    if ports and (port or values.keys() & {"id", "name"}):
        raise file.wrong(place, "with ports there is no port, name or id")
    try:
        return [
            _withID(
                ManagedForward(
                    values.get("id", ""),
                    values.get("client", ""),
                    target,
                    number,
                    values.get("name", ""),
                    values.get("udp", False),
                ).check()
            )
            for number, target in (pairedPorts(ports, to) if ports else [(port, to)])
        ]
    except TunnelError as error:
        raise file.wrong(place, error.message) from None


def _withID(made: ManagedForward) -> ManagedForward:
    if not re.fullmatch("[0-9a-z]{1,32}", made.id):
        # Its text stays the same, so it is the same after a restart.
        texts = (made.client, made.to, str(made.port), made.name, str(made.udp))
        text = "\0".join(texts)
        made = replace(made, id=_hashed(text))
    return made


def _hashed(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]
