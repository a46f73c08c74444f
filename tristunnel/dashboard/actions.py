"""
What a caller can do from the dashboard: end something, grant access to it, revoke a
token.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from tristunnel.dashboard.events import titleOf
from tristunnel.errors import TunnelError, badOption
from tristunnel.service.entries import ownerOf
from tristunnel.service.granting import Granting
from tristunnel.service.listing import Listing, mayEnd
from tristunnel.service.rights import isAdmin
from tristunnel.util.quantities import formatDuration, parseDuration
from tristunnel.util.words import plural

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from tristunnel.dashboard.view import Board
    from tristunnel.model.record import TunnelRecord
    from tristunnel.service.caller import Caller

__all__ = ["KINDS", "Actions", "kindOf"]

KINDS = {
    "tunnel": ("Close the tunnel", "The tunnel is closed."),
    "client": ("Disconnect the client", "The client is disconnected."),
    "visitor": ("Disconnect the visitor", "The visitor was disconnected."),
    "access": ("Revoke the access", "The access was revoked."),
    "token": ("Revoke the token", "The token is revoked."),
}
"""The text of the button, and the message afterwards; a link to the page can put no
other text on it."""


def kindOf(identifier: str) -> str:
    """Find the kind of thing that an id belongs to."""
    kind, colon, _ = identifier.partition(":")
    if colon:
        return kind if kind in KINDS else "tunnel"
    if "." in identifier:
        return "visitor"
    return (
        "client" if identifier.startswith("c") and len(identifier) == 13 else "tunnel"
    )


class Actions:
    """
    Does what a form asks for, for callers who may.

    @param board: What the dashboard shows.
    """

    def __init__(self, board: Board) -> None:
        self._board = board
        self._service = board.service
        self._siblings = board.service.siblings
        if self._siblings is not None:
            self._siblings.publish("describe", self.describeHere)

    async def describe(self, caller: Caller, identifier: str) -> tuple[str, str] | None:
        """
        Describe what would be ended.

        @param identifier: Of a client, a tunnel or a visitor; C{access:} and
            C{token:} before those of others.
        @return: A question and what follows from it; C{None} if there is no
            such thing for this caller.
        """
        found = await self.describeHere(caller, identifier)
        if found is None and self._siblings is not None:
            others = await self._siblings.gather("describe", caller, identifier)
            answers = (each for _, each in others.answers if each is not None)
            found = next(((each[0], each[1]) for each in answers), None)
        return found

    async def describeHere(
        self, caller: Caller, identifier: str
    ) -> tuple[str, str] | None:
        """Describe it, if this process has it."""
        service = self._service
        if ":" in identifier:
            return self._question(caller, identifier)
        client = service.clients.find(identifier)
        if client is not None and mayEnd(caller, client):
            return (
                f"Disconnect client {client.identity.shown}?",
                f"Its connection from {client.peer} is closed. A tristunnel client"
                " reconnects by itself; to keep it away, revoke its credentials.",
            )
        for tunnel in (*service.here, *service.here.dialled):
            if not service.mayControl(caller, tunnel):
                continue
            if tunnel.id == identifier:
                visitors = plural(len(tunnel.streams), "visitor")
                return (
                    f"Close tunnel {titleOf(tunnel)}?",
                    f"{tunnel.address or tunnel.publicURI} will stop accepting"
                    " visitors, and"
                    f" {visitors} will be disconnected.",
                )
            if identifier.startswith(f"{tunnel.id}."):
                for stream in tunnel.streams:
                    if stream.id == identifier:
                        return (
                            f"Disconnect visitor {stream.visitorAddress}?",
                            f"The connection to {stream.target or titleOf(tunnel)} is"
                            " closed. The visitor may return.",
                        )
        return None

    def _question(self, caller: Caller, identifier: str) -> tuple[str, str] | None:
        kind, _, rest = identifier.partition(":")
        everything = self._board.seesAll(caller)
        for access in self._service.access.of(None if everything else caller.identity):
            if kind == "access" and access.id == rest:
                return (
                    f"Revoke access to {access.record.service}?",
                    "Connections that use it are closed, and its address stops"
                    " working.",
                )
        for _, token in self._board.tokens(caller):
            if kind == "token" and token.name == rest and token.revoked is None:
                own = " You are signed in with it."
                return (
                    f"Revoke the token of {token.name}?",
                    "Its sessions and tunnels end now, and it cannot be used again."
                    + own * (token.name == caller.identity.name)
                    + " To create a new one with this name: tristunnel token create"
                    f" --name {token.name}",
                )
        return None

    async def grantable(self, caller: Caller, identifier: str) -> TunnelRecord | None:
        """
        Find a tunnel that the caller may grant access to: one of their own that has a
        name or lets visitors in by links.
        """
        try:
            record = await self._service.entries.find(identifier)
        except TunnelError:
            return None
        mine = self._service.rights.mayControl(caller.identity, ownerOf(record))
        has = record.name or Granting(self._service).linked(record)
        return record if mine and has else None

    async def grant(
        self,
        caller: Caller,
        tunnel: TunnelRecord,
        ttl: str,
        address: str,
        token: str,
        uses: str,
    ) -> str:
        """
        Grant access to a tunnel for a time.

        @return: The capability, a URI.
        @raise TunnelError: What is wrong with the form's fields, or why it is not
            permitted.
        """
        seconds = parseDuration(ttl)
        if uses and not (uses.isascii() and uses.isdecimal() and len(uses) < 9):
            raise badOption("how often takes a number, or nothing")
        granting = Granting(self._service)
        name = tunnel.name or granting.linked(tunnel).partition(":")[2]
        uri: str = await granting.grantAccess(
            caller, name, seconds, address, token, int(uses or 0)
        )
        text = f"granted access to {name} for {formatDuration(seconds)}"
        self._tell(caller, tunnel.owner, text)
        return uri

    def mayInvite(self, caller: Caller) -> bool:
        """Whether the caller may invite clients: an admin, if there are tokens."""
        return isAdmin(caller.identity) and bool(self._board.files)

    def invite(self, caller: Caller, wanted: Mapping[str, str]) -> tuple[str, str, str]:
        """
        Create an invitation, and the command that takes it up.

        @param wanted: C{name}, C{ports} and C{expires}; empty for the default.
        @return: A title, what it is for, and the command.
        @raise TunnelError: What is wrong with it, or why it is not permitted.
        """
        asked = {key: value for key, value in wanted.items() if value}
        made = self._service.invitations.createInvitation(caller, **asked)
        name = str(made["name"])
        self._board.events.done("", f"{caller.identity.name} has invited {name}")
        return (
            f"An invitation for {name}",
            "Run this on the client's machine within a day. Whoever has it can take it"
            " up, once.",
            f"tristunnel join {made['invitation']}",
        )

    def makeToken(
        self, caller: Caller, wanted: Mapping[str, str]
    ) -> tuple[str, str, str]:
        """
        Create a token, in the same way.

        @return: A title, what it is for, and the token.
        """
        asked = {key: value for key, value in wanted.items() if value}
        name = asked.pop("name", "")
        made = self._service.invitations.createToken(caller, name, **asked)
        self._board.events.done("", f"{caller.identity.name} has made a token: {name}")
        return (
            f"A token for {name}",
            "Keep it in a file for --token-file, or in TRISTUNNEL_TOKEN.",
            str(made["token"]),
        )

    def managed(self, caller: Caller) -> Deferred[list[dict[str, object]]]:
        """The tunnels of managed clients."""
        return self._service.managed.listedByAll(caller)

    def manage(self, caller: Caller, wanted: Mapping[str, str]) -> None:
        """
        Give a managed client a tunnel.

        @param wanted: C{client}, C{to}, C{port} and C{name}, the last two may be
            empty.
        @raise TunnelError: What is wrong with it, or why it is not permitted.
        """
        port: int | str = wanted["port"] or 0
        if isinstance(port, str) and "-" not in port:
            if not (port.isascii() and port.isdecimal()):
                raise badOption("the visitors' port is a number, a range, or nothing")
            port = int(port[:6])
        client, to = wanted["client"], wanted["to"]
        self._service.managed.add(caller, client, to, port, wanted["name"])
        self._tell(caller, client, f"gave {client} a tunnel to {to}")

    def unmanage(self, caller: Caller, identifier: str) -> None:
        """
        Remove a managed client's tunnel.

        @raise TunnelError: C{unknown-tunnel}, or why it is not permitted.
        """
        self._service.managed.remove(caller, identifier)
        self._tell(caller, "", "removed a managed client's tunnel")

    async def end(self, caller: Caller, identifier: str) -> None:
        """
        End what L{describe} has described.

        @raise TunnelError: C{unknown-session}, also for what is not the
            caller's; C{bad-option}, if a token cannot be revoked from here.
        """
        kind, _, rest = identifier.partition(":")
        if kind == "access":
            Granting(self._service).revokeAccess(caller, rest)
        elif kind == "token":
            self._revoke(caller, rest)
        else:
            await self._close(caller, identifier)

    async def _close(self, caller: Caller, identifier: str) -> None:
        try:
            await Listing(self._service).closeSession(caller, identifier)
        except TunnelError as refusal:
            if self._siblings is None:
                raise
            await self._siblings.first(refusal, "closeSession", caller, identifier)

    def _revoke(self, caller: Caller, name: str) -> None:
        if caller.identity.grant is not None:
            caller.identity.grant.check("admin")
        for file, token in self._board.tokens(caller):
            if token.name == name and token.revoked is None:
                try:
                    file.revoke(name)
                except TunnelError as refusal:
                    raise TunnelError(
                        refusal.code.name,
                        f"{refusal.message}. On a machine where it can be written,"
                        " run: tristunnel"
                        f" token revoke {name} --file {file.path}",
                    ) from None
                self._tell(caller, "", f"revoked the token of {name}")
                return
        raise TunnelError("unknown-session")

    def _tell(self, caller: Caller, owner: str, text: str) -> None:
        self._service.observer.requestNoted(caller.identity, text, False)
        self._board.events.done(owner, f"{caller.identity.name} {text}")
