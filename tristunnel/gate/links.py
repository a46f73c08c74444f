"""
Visitors who come in by a link: access that somebody has granted for a time.

The link leads to a page with a button. Programs that preview or scan links open the
page, but press no button.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred

from tristunnel.errors import TunnelError
from tristunnel.gate.attempts import Attempts
from tristunnel.gate.pages import GatePages, form, hidden
from tristunnel.gate.visit import Account, GateVisit
from tristunnel.names.gate import Answer
from tristunnel.service.access import AccessGrants

__all__ = ["Links"]

_OVER = "This link is not valid, or no longer."


@dataclass(eq=False)
class Links:
    """
    Lets visitors in by links.

    @ivar access: What was granted.
    @ivar attempts: Slows down those who guess.
    @ivar pages: Writes answers.
    """

    access: AccessGrants
    attempts: Attempts
    pages: GatePages

    def isGood(self, visit: GateVisit, account: Account) -> bool:
        """Whether somebody who has come in by a link may still visit."""
        return self.access.serviceFor(account.access) == visit.service

    def page(self, visit: GateVisit) -> Answer:
        """Show the button."""
        said = visit.said
        fields = "\n".join(
            hidden(each, said.get(each, "")) for each in ("id", "secret")
        )
        return self.pages.page(
            visit,
            200,
            "Post id and secret of this link to this address.",
            [form(visit, "link", fields, "Come in")],
            title=f"Visit {visit.place}",
        )

    def enter(
        self, visit: GateVisit, fields: dict[str, str]
    ) -> Deferred[tuple[Account, float] | Answer]:
        """
        Take a link.

        @param fields: C{id} and C{secret}.
        @return: Who comes in, and for how many seconds at most; or why nobody does.
        """
        return Deferred.fromCoroutine(self._enter(visit, fields))

    async def _enter(
        self, visit: GateVisit, fields: dict[str, str]
    ) -> tuple[Account, float] | Answer:
        identifier = fields.get("id", "")
        peer: Any = IPv4Address("TCP", visit.address, 0)
        try:
            self.attempts.check(visit.address, visit.place)
            if self.access.serviceFor(identifier) != visit.service:
                raise TunnelError("auth-refused")
            await self.access.claim(fields, peer, _nobody)
        except TunnelError as refusal:
            if refusal.code.name != "auth-refused":
                return self.pages.refused(visit, refusal)
            self.attempts.wrong(visit.address, visit.place)
            return self.pages.asks(visit, 403, _OVER)
        left = self.access.timeLeft(self.access.find(identifier))
        return Account("link", access=identifier), left or 1.0


async def _nobody() -> Any:
    raise TunnelError("auth-refused")
