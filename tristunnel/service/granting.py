"""
Granting access to named services on request: C{grantAccess}, C{listAccess} and
C{revokeAccess}.
"""

from __future__ import annotations

import json
from urllib.parse import urlencode

from tristunnel.errors import TunnelError, badOption
from tristunnel.model.gate import GATE_PATH
from tristunnel.model.options import TunnelOptions
from tristunnel.model.record import TunnelRecord, named, reservedFor
from tristunnel.service.access import Access
from tristunnel.service.caller import Caller
from tristunnel.service.entries import ownerOf
from tristunnel.service.rights import isAdmin
from tristunnel.service.tunnel_service import TunnelService
from tristunnel.util.deferreds import returnsDeferred
from tristunnel.util.hosts import hostAndPort

__all__ = ["Granting"]


class Granting:
    """
    Grants access to the caller's services.

    @param service: Whose named tunnels.
    """

    def __init__(self, service: TunnelService) -> None:
        self._service = service

    @returnsDeferred
    async def grantAccess(
        self,
        caller: Caller,
        service: str,
        ttl: float,
        address: str = "",
        token: str = "",
        uses: int = 0,
    ) -> str:
        """
        Grant access to a named service of the caller's for a limited time.

        @param ttl: Seconds.
        @param address: The address or network to use it from; empty for all.
        @param token: The name that its user must log in by; empty for none.
        @param uses: Sessions that may begin with it; 0 for any number.
        @return: The capability, a URI; for a name whose visitors come in by links, a
            link.
        @raise TunnelError: C{unknown-tunnel}, also for somebody else's.
        """
        tunnels = self._service
        if caller.identity.grant is not None:
            caller.identity.grant.check()
        record = await tunnels.entries.holder(named(service))
        if record is None:
            record = await self._named(service)
        if (
            record is None
            or caller.limitedTo is not None
            or not tunnels.rights.mayControl(caller.identity, ownerOf(record))
        ):
            raise TunnelError("unknown-tunnel", f"there is no service {service[:64]!r}")
        if linked := self.linked(record):
            if token:
                raise badOption("a link lets in whoever has it: leave out token")
            access, secret = await tunnels.access.issue(
                caller.identity,
                linked,
                ttl,
                address,
                uses=uses,
                serviceOwner=ownerOf(record),
                countedAs=caller.countedAs,
            )
            query = urlencode({"id": access.id, "secret": secret})
            return f"{record.address}{GATE_PATH}/link?{query}"
        if not record.name:
            raise badOption(
                f"visitors of {record.address} are not let in by links: open the tunnel"
                " with link"
            )
        port, secure = tunnels.clientPort
        if not port:
            raise badOption("access needs a TCP --port that visitors can reach")
        access, secret = await tunnels.access.issue(
            caller.identity,
            service,
            ttl,
            address,
            token,
            uses,
            ownerOf(record),
            caller.countedAs,
        )
        scheme = "w3ps" if secure else "w3p"
        where = hostAndPort(tunnels.hostname or caller.host, port)
        return f"{scheme}://{where}/access/{access.id}#{secret}"

    async def _named(self, name: str) -> TunnelRecord | None:
        service, entries = self._service, self._service.entries
        host, slash, path = name.partition("/")
        for kind, listeners in service.listeners.items():
            if not getattr(listeners, "hasGate", False):
                continue
            wanted = TunnelOptions(listener=kind, name=host)
            try:
                full = service.hosts.completed(wanted, True).name
            except TunnelError:
                continue
            found = await entries.holder(reservedFor(kind, f"{full}{slash}{path}"))
            if found is not None:
                return found
        return None

    def linked(self, record: TunnelRecord) -> str:
        """
        What links to a tunnel are for, as the book calls it.

        @return: Empty, if its visitors do not come in by links.
        """
        if not (record.address and json.loads(record.options or "{}").get("link")):
            return ""
        known = self._service.listeners
        named = (
            each
            for each in record.reserved
            if getattr(known.get(each.partition(":")[0]), "hasGate", False)
        )
        return next(named, "")

    def listAccess(self, caller: Caller) -> list[dict[str, object]]:
        """
        Describe the access that the caller has granted; all of it for an
        admin.
        """
        grants = self._service.access
        return [
            {
                "id": access.id,
                "service": access.record.service,
                "owner": access.owner.name,
                "address": access.record.networks,
                "token": access.record.token,
                "usesLeft": access.usesLeft,
                "timeLeft": grants.timeLeft(access),
            }
            for access in self._of(caller)
        ]

    def revokeAccess(self, caller: Caller, identifier: str) -> None:
        """
        Revoke access, and end what depends on it.

        @raise TunnelError: C{unknown-session}, also for somebody else's.
        """
        for access in self._of(caller):
            if access.id == identifier:
                self._service.access.revoke(access)
                return
        raise TunnelError("unknown-session", "there is no such access")

    def _of(self, caller: Caller) -> list[Access]:
        owner = None if isAdmin(caller.identity) else caller.identity
        return self._service.access.of(owner)
