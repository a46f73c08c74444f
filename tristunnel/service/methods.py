"""The remote methods by name: what JSON-RPC, XML-RPC and control frames call."""

from __future__ import annotations

from collections.abc import Callable

from twisted.internet.defer import Deferred

from tristunnel.auth.token_store import INVITATION_TIME
from tristunnel.errors import TunnelError, badOption
from tristunnel.service.caller import Caller
from tristunnel.service.granting import Granting
from tristunnel.service.invitations import Invitations
from tristunnel.service.listing import Listing
from tristunnel.service.rights import isAdmin
from tristunnel.service.siblings import Cluster, everywhere
from tristunnel.service.tunnel_service import TunnelService

__all__ = ["ACCESS_TTL", "methodsOf"]

ACCESS_TTL = 3600.0
"""Seconds that access is granted for, if nothing is said."""


_THIS_MACHINE = ("", "127.0.0.1", "::/64")
"""What callers on the server's own machine are counted as."""


def methodsOf(service: TunnelService) -> dict[str, Callable[..., object]]:
    """
    Make the table of methods.

    @return: Functions of a L{Caller<tristunnel.service.caller.Caller>} and the
        call's own parameters, by name.
    """
    methods = _Methods(service)
    found = {name: getattr(methods, name) for name in vars(_Methods) if name[0] != "_"}
    return found if service.siblings is None else everywhere(found, service.siblings)


class _Methods:
    def __init__(self, service: TunnelService) -> None:
        self._service = service
        self._listing, self._granting = Listing(service), Granting(service)

    @property
    def _invitations(self) -> Invitations:
        return self._service.invitations

    def openTunnel(
        self, caller: Caller, options: object = None, /, **named: object
    ) -> Deferred[str]:
        """Options are given by name, or as one object in first place."""
        if options is not None:
            if not isinstance(options, dict):
                raise badOption("openTunnel takes its options by name, in an object")
            named = {**options, **named}
        return self._service.openTunnel(caller, named)

    def getTunnelAddress(self, caller: Caller, uri: str) -> Deferred[str]:
        """The address of a tunnel."""
        return self._service.getTunnelAddress(caller, _uri(uri))

    def getKnockLink(self, caller: Caller, uri: str) -> Deferred[str]:
        """Where visitors of a tunnel knock."""
        return self._service.knocks.getKnockLink(caller, _uri(uri))

    def closeTunnel(
        self, caller: Caller, uri: str, finish: object = False
    ) -> Deferred[None]:
        """The end of a tunnel."""
        return self._service.closeTunnel(caller, _uri(uri), _flag(finish, "finish"))

    def listTunnels(self, caller: Caller) -> Deferred[list[dict[str, object]]]:
        """The caller's tunnels."""
        return self._service.listTunnels(caller)

    def reportHealth(
        self, caller: Caller, uri: str, well: object, reason: object = ""
    ) -> None:
        """Whether the service of a session's tunnel is well; for clients."""
        self._service.reportHealth(
            caller, _uri(uri), _flag(well, "well"), _text(reason, "reason")
        )

    def setPolicy(
        self, caller: Caller, uri: str, policy: object = None, endDenied: object = False
    ) -> Deferred[dict[str, object]]:
        """What is asked of a tunnel's visitors."""
        if not isinstance(policy, dict):
            raise badOption(
                'policy takes an object, such as {"maxVisitors": 5}; {} sets no limits'
            )
        ending = _flag(endDenied, "endDenied")
        return self._service.setPolicy(caller, _uri(uri), policy, ending)

    def listNodeTunnels(self, caller: Caller) -> list[dict[str, object]]:
        """
        The tunnels between this server and others, for an admin; for anybody,
        where nobody is asked who they are.
        """
        if not (isAdmin(caller.identity) or caller.identity.anonymous):
            raise TunnelError(
                "not-permitted",
                "listing the server's own tunnels needs a token that may admin",
            )
        return [tunnel.describe() for tunnel in self._service.nodes]

    def listMembers(self, caller: Caller) -> Deferred[list[dict[str, object]]]:
        """The members of the server's cluster, and how each of them is."""
        _checkOperator(caller, "listing the members of the cluster")
        return self._cluster.describe(caller)

    def drainMember(
        self, caller: Caller, member: str
    ) -> Deferred[list[dict[str, object]]]:
        """Have a member's clients go elsewhere, before it is stopped."""
        _checkOperator(caller, "draining a member of the cluster")
        return self._cluster.drain(caller, _text(member, "member"), True)

    def undrainMember(
        self, caller: Caller, member: str
    ) -> Deferred[list[dict[str, object]]]:
        """Have a member take clients again."""
        _checkOperator(caller, "draining a member of the cluster")
        return self._cluster.drain(caller, _text(member, "member"), False)

    def standbyAddresses(self, caller: Caller) -> list[str]:
        """Other members where a client may have a second session; for clients."""
        cluster = self._service.cluster
        return [] if cluster is None else list(cluster.elsewhere())

    @property
    def _cluster(self) -> Cluster:
        if self._service.cluster is None:
            raise badOption(
                "this server is not part of a cluster; start it with --cluster"
            )
        return self._service.cluster

    def reload(self, caller: Caller) -> Deferred[dict[str, object]]:
        """The configuration, read again."""
        _checkOperator(caller, "reloading")
        if self._service.reload is None:
            raise badOption("there is no file to reload: start with --config FILE")
        if self._service.processes is not None:
            self._service.processes.tell("reload")
        return self._service.reload()

    def listSessions(self, caller: Caller) -> Deferred[list[dict[str, object]]]:
        """The clients, tunnels and visitors that the caller may see."""
        return self._listing.listSessions(caller)

    def closeSession(self, caller: Caller, id: str) -> Deferred[None]:
        """The end of a client's session, a tunnel or a visitor's stream."""
        return self._listing.closeSession(caller, _text(id, "id"))

    def kick(self, caller: Caller, visitor: str) -> Deferred[None]:
        """The end of a visitor's stream."""
        return self._listing.kick(caller, _text(visitor, "visitor"))

    def grantAccess(
        self,
        caller: Caller,
        service: str,
        ttl: float = ACCESS_TTL,
        address: str = "",
        token: str = "",
        uses: int = 0,
    ) -> Deferred[str]:
        """A capability for a named service."""
        if type(ttl) not in (int, float) or not abs(ttl) < 1e12:
            raise badOption("ttl takes seconds")
        if type(uses) is not int:
            raise badOption("uses takes a whole number")
        return self._granting.grantAccess(
            caller,
            _text(service, "service"),
            float(ttl),
            _text(address, "address"),
            _text(token, "token"),
            uses,
        )

    def listAccess(self, caller: Caller) -> list[dict[str, object]]:
        """The access that the caller has granted."""
        return self._granting.listAccess(caller)

    def revokeAccess(self, caller: Caller, id: str) -> None:
        """The end of a capability."""
        self._granting.revokeAccess(caller, _text(id, "id"))

    def createInvitation(
        self,
        caller: Caller,
        name: str = "",
        lifetime: object = INVITATION_TIME,
        **permissions: object,
    ) -> dict[str, object]:
        """An invitation to a token, for whoever may have it."""
        return self._invitations.createInvitation(
            caller, _text(name, "name"), lifetime, **permissions
        )

    def listInvitations(self, caller: Caller) -> list[dict[str, object]]:
        """The invitations that were not used."""
        return self._invitations.listInvitations(caller)

    def revokeInvitation(self, caller: Caller, name: str) -> None:
        """The end of an invitation, or of the token that it was used for."""
        self._invitations.revoke(caller, _text(name, "name"))

    def createToken(
        self, caller: Caller, name: str, **permissions: object
    ) -> dict[str, object]:
        """A token."""
        return self._invitations.createToken(caller, _text(name, "name"), **permissions)

    def listTokens(self, caller: Caller) -> list[dict[str, object]]:
        """The tokens of the server."""
        return self._invitations.listTokens(caller)

    def addManaged(
        self,
        caller: Caller,
        client: str,
        to: str,
        port: int | str = 0,
        name: str = "",
        udp: object = False,
    ) -> object:
        """A tunnel that a managed client is to open; a list of them for a range."""
        if type(port) not in (int, str):
            raise badOption("port takes a number, or a range such as '6000-6010'")
        made = self._service.managed.add(
            caller,
            _text(client, "client"),
            _text(to, "to"),
            port,
            _text(name, "name"),
            _flag(udp, "udp"),
        )
        return made if isinstance(port, str) else made[0]

    def removeManaged(self, caller: Caller, id: str) -> None:
        """The end of such a tunnel."""
        self._service.managed.remove(caller, _text(id, "id"))

    def listManaged(self, caller: Caller) -> Deferred[list[dict[str, object]]]:
        """The tunnels of managed clients."""
        return self._service.managed.listedByAll(caller)

    def managedForwards(
        self, caller: Caller, consent: object = None, refused: object = None
    ) -> list[dict[str, object]]:
        """What a managed client is to open; for clients."""
        return self._service.managed.forClient(caller, consent, refused)

    def revokeToken(self, caller: Caller, name: str) -> None:
        """The end of a token, and of what lives on it."""
        self._invitations.revoke(caller, _text(name, "name"))


def _checkOperator(caller: Caller, doing: str) -> None:
    """
    @raise TunnelError: C{not-permitted}, for who is neither an admin, nor on this
        machine where nobody is asked who they are.
    """
    here = caller.identity.anonymous and caller.address in _THIS_MACHINE
    if not (isAdmin(caller.identity) or here):
        raise TunnelError(
            "not-permitted",
            f"{doing} needs a token that may admin,"
            " or for this machine where nobody is asked for a token",
        )


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise badOption(f"{name} takes true or false")
    return value


def _text(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise badOption(f"{name} takes a string")
    return value


def _uri(value: object) -> str:
    if not isinstance(value, str):
        raise badOption("a tunnel is named by its URI, a string")
    return value
