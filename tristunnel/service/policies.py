"""
The limits on a tunnel's visitors, which are set by the server, by its owner's token, by
an operator and by its owner: the strictest holds.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IReactorTime

from tristunnel.dataplane.descriptors import RESERVE, Reserve
from tristunnel.dataplane.throttle import Throttle
from tristunnel.errors import TunnelError, badOption
from tristunnel.model.policy import VisitorPolicy
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.countries import CountryDatabase
from tristunnel.service.knocked import Knocked, networkOf
from tristunnel.service.visitor_filter import PolicyFilter, StreamSweep, hostOfVisitor

__all__ = ["VisitorPolicies"]


@dataclass
class _Asked:
    """
    The limits on a tunnel's visitors, besides those that the server sets for all.

    @ivar filter: Applies them.
    @ivar owner: Set by the tunnel's owner.
    @ivar operator: Set by somebody else, who may admin.
    @ivar throttle: Limits the rate, if there ever was a limit.
    @ivar knocked: Who has knocked; C{None} where nobody needs to.
    """

    filter: PolicyFilter
    owner: VisitorPolicy = field(default_factory=VisitorPolicy)
    operator: VisitorPolicy = field(default_factory=VisitorPolicy)
    throttle: Throttle | None = None
    knocked: Knocked | None = None


class VisitorPolicies:
    """
    The limits on the visitors of all tunnels. A tunnel is subject to four policies,
    each of which can only make the whole stricter: the server's, that of its owner's
    token, an operator's and its owner's.

    @param reactor: Tells time.
    @param reserve: Knows how many descriptors are left.

    @ivar policy: The server's.
    @ivar countries: Knows the countries of addresses; C{None} if nothing does.
    """

    def __init__(self, reactor: IReactorTime, reserve: Reserve = RESERVE) -> None:
        self.policy = VisitorPolicy()
        self.countries: CountryDatabase | None = None
        self._reactor = reactor
        self._reserve = reserve
        self._sweep = StreamSweep(reactor)
        self._asked: WeakKeyDictionary[Tunnel, _Asked] = WeakKeyDictionary()

    # Asking

    def setByOwner(self, tunnel: Tunnel, wanted: VisitorPolicy) -> None:
        """
        Set the policy of a tunnel's owner, in place of the earlier one.

        @raise TunnelError: C{bad-option}, if nobody could come in; nothing has
            changed then.
        """
        asked = self._askedOf(tunnel)
        policy = self._together(tunnel, wanted, asked.operator)
        asked.owner = wanted
        self._enforce(tunnel, asked, policy)

    def setByOperator(self, tunnel: Tunnel, wanted: VisitorPolicy) -> None:
        """
        Set an operator's policy for somebody else's tunnel, in place of any operator's
        earlier one.

        @raise TunnelError: C{bad-option}, if nobody could come in; nothing has
            changed then.
        """
        asked = self._askedOf(tunnel)
        policy = self._together(tunnel, asked.owner, wanted)
        asked.operator = wanted
        self._enforce(tunnel, asked, policy)

    def change(self, policy: VisitorPolicy) -> None:
        """
        Change the server's policy. Where nobody could come in with it, nobody comes in.
        """
        self.policy = policy
        for tunnel in list(self._asked):
            self.refresh(tunnel)

    def refresh(self, tunnel: Tunnel) -> None:
        """Apply a tunnel's policies again, because something has changed."""
        asked = self._asked.get(tunnel)
        if asked is not None and tunnel.closed is None:
            policy = self._together(tunnel, asked.owner, asked.operator, False)
            self._enforce(tunnel, asked, policy)

    def endDenied(self, tunnel: Tunnel) -> int:
        """
        End the streams of visitors whose addresses are not let in any more.

        @return: How many.
        """
        asked = self._askedOf(tunnel)
        count = 0
        for stream in list(tunnel.streams):
            host = hostOfVisitor(stream.visitorAddress)
            try:
                asked.filter.checkNetwork(host)
                if asked.knocked is not None:
                    asked.knocked.check(host)
            except TunnelError as refusal:
                stream.reset(refusal)
                count += 1
        return count

    def admit(self, tunnel: Tunnel, host: str, seconds: float = 0.0) -> float:
        """
        Let an address in to a tunnel whose visitors have to knock.

        @param seconds: For how long; 0 for as long as the tunnel says.
        @return: For how many seconds.
        @raise TunnelError: C{not-permitted}, if nobody may come from there;
            C{limit-reached}, if too many are in.
        """
        asked, network = self._askedOf(tunnel), networkOf(host)
        asked.filter.checkNetwork(host)
        if network is None or asked.knocked is None:
            raise TunnelError("not-permitted", "the visitor's address is not known")
        return asked.knocked.admit(network, seconds or tunnel.gate.knock)

    def forget(self, tunnel: Tunnel) -> None:
        """Remove a tunnel that is over."""
        asked = self._asked.get(tunnel)
        if asked is not None and asked.knocked is not None:
            asked.knocked.forget()

    # Enforcing

    def _askedOf(self, tunnel: Tunnel) -> _Asked:
        asked = self._asked.get(tunnel)
        if asked is None:
            asked = self._asked[tunnel] = _Asked(
                PolicyFilter(VisitorPolicy(), self._reactor.seconds, self._countryOf)
            )
            tunnel.checks.append(self._checkDescriptors)
        return asked

    def _checkDescriptors(self, stream: Stream) -> None:
        """Let no visitor have one of the last descriptors."""
        self._reserve.checkVisitor()

    def _countryOf(self, host: str) -> str:
        return "" if self.countries is None else self.countries.countryOf(host)

    def _together(
        self,
        tunnel: Tunnel,
        owner: VisitorPolicy,
        operator: VisitorPolicy,
        strict: bool = True,
    ) -> VisitorPolicy:
        """
        All policies as one.

        @raise TunnelError: C{bad-option}, if nobody could come in.
        """
        if (
            strict
            and self.countries is None
            and (owner.countries or operator.countries)
        ):
            raise badOption(
                "this server does not know where visitors come from; its operator has"
                " to give --country-database, or leave countries out"
            )
        policy, grant = self.policy, tunnel.owner.grant
        if grant is not None:
            # This is not the caller's fault, so it is never an error of the call.
            policy = policy.combined(grant.permissions.policy, False)
        if tunnel.gate.knock:
            # Those who come from there need not knock; others may knock from anywhere.
            owner = replace(owner, allow=())
        return policy.combined(operator, strict).combined(owner, strict)

    def _enforce(self, tunnel: Tunnel, asked: _Asked, policy: VisitorPolicy) -> None:
        tunnel.policy = policy
        asked.filter.apply(policy, tunnel.streams)
        if asked.filter in tunnel.filters:
            tunnel.filters.remove(asked.filter)
        if policy.asksVisitors:
            tunnel.filters.append(asked.filter)
        self._haveKnocked(tunnel, asked)
        watched = self._sweep in tunnel.filters
        if policy.endsStreams and not watched:
            tunnel.filters.append(self._sweep)
        elif watched and not policy.endsStreams:
            tunnel.filters.remove(self._sweep)
        if policy.endsStreams:
            for stream in tunnel.streams:
                self._sweep.watch(stream)
        if asked.throttle is not None:
            asked.throttle.change(policy.rate)
        elif policy.rate:
            asked.throttle = Throttle(self._reactor, policy.rate)
        tunnel.ownThrottle = asked.throttle if policy.rate else None
        if tunnel.ownThrottle is not None:
            for stream in tunnel.streams:
                stream.slowDown(tunnel.ownThrottle)

    def _haveKnocked(self, tunnel: Tunnel, asked: _Asked) -> None:
        """
        Have visitors knock; those who did when something else was asked have to do it
        again.
        """
        before = asked.knocked
        if before is not None and before.rules != tunnel.gate:
            before.forget()
            tunnel.filters.remove(before)
            asked.knocked = None
        if asked.knocked is None and tunnel.gate.knock:
            asked.knocked = Knocked(self._reactor, tunnel)
            tunnel.filters.append(asked.knocked)
        if asked.knocked is not None:
            asked.knocked.free = asked.owner.allow
            if asked.knocked is not before:
                asked.knocked.endStreams()
