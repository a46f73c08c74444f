"""
Granting access to named services on request: C{grantAccess}, C{listAccess} and
C{revokeAccess}.
"""

from __future__ import annotations

from tristunnel.errors import TunnelError, badOption
from tristunnel.model.record import named
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
    Grants access to what is the caller's.

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
        @return: The capability, a URI.
        @raise TunnelError: C{unknown-tunnel}, also for somebody else's.
        """
        tunnels = self._service
        if caller.identity.grant is not None:
            caller.identity.grant.check()
        record = await tunnels.entries.holder(named(service))
        if (
            record is None
            or caller.limitedTo is not None
            or not tunnels.rights.mayControl(caller.identity, ownerOf(record))
        ):
            raise TunnelError("unknown-tunnel", f"there is no service {service[:64]!r}")
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
        Take access back, and end what lives on it.

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
