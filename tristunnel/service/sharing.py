"""
Who may share a public side with whom: what C{share} of C{openTunnel} asks for.
"""

from __future__ import annotations

from typing import Any

from tristunnel.model.group import Group, SharedListener
from tristunnel.model.options import TunnelOptions
from tristunnel.model.permissions import Identity
from tristunnel.model.place import IListener
from tristunnel.model.tunnel import Tunnel

__all__ = ["Sharing"]

Place = tuple[str, str]
"""What visitors connect to: its kind, and a number or a name."""


class Sharing:
    """The groups of a server."""

    def __init__(self) -> None:
        self._groups: dict[Place, Group] = {}
        # Where each group is, and by which listener.
        self._places: dict[Group, tuple[str, list[Place]]] = {}

    def find(self, identity: Identity, wanted: TunnelOptions) -> Group | None:
        """
        Find the group that a tunnel would join.

        @param identity: Whose it is.
        @param wanted: What is asked of it, in full.
        @return: C{None} if no group would have it: then it needs a place of its own.
        """
        for place in _placesOf(wanted, wanted.port):
            group = self._groups.get(place)
            if group is None or self._places[group][0] != _kindOf(wanted):
                continue
            if group.tunnels and all(
                _mayShare(identity, each.owner) for each in group.tunnels
            ):
                return group
        return None

    def join(self, group: Group, tunnel: Tunnel, balance: str) -> IListener | None:
        """
        Take a tunnel into a group.

        @param balance: How it would have visitors divided.
        @return: Its listener, if visitors do not come by name only.
        @raise TunnelError: If its owner may not have what is shared.
        """
        grant = tunnel.owner.grant
        listener = None if group.listener is None else SharedListener(group, tunnel)
        if grant is not None and listener is not None:
            kind, _, port = listener.address
            grant.permissions.checkListener(kind)
            if port and not getattr(listener, "host", ""):
                grant.permissions.checkPort(port)
        group.enter(tunnel, balance)
        return listener

    def asked(self, tunnel: Tunnel, wanted: TunnelOptions) -> None:
        """
        Let others join a tunnel that is open, or that its owner asks for again, if it
        may be shared. Those that have joined it stay.

        @param wanted: What was asked of it, in full.
        """
        if wanted.share and isinstance(tunnel.group, Group):
            tunnel.group.balance = wanted.share
        elif wanted.share:
            self._begin(tunnel, wanted)

    def _begin(self, tunnel: Tunnel, wanted: TunnelOptions) -> None:
        listener: Any = tunnel.listener
        group = Group(wanted.share, [], 0, listener)
        group.enter(tunnel, wanted.share)
        if listener is not None:
            tunnel.listener = SharedListener(group, tunnel)
        port = 0 if listener is None else listener.address[2]
        places = _placesOf(wanted, port)
        self._places[group] = _kindOf(wanted), places
        self._groups.update(dict.fromkeys(places, group))

    def left(self, tunnel: Tunnel) -> Tunnel | None:
        """
        Remove a tunnel that is over. It may be called twice.

        @return: The tunnel of its group that takes over what it had, such as the name;
            C{None} if there is none.
        """
        group = tunnel.group
        if not isinstance(group, Group):
            return None
        group.leave(tunnel)
        if not group.tunnels:
            for place in self._places.pop(group, ("", []))[1]:
                del self._groups[place]
            return None
        return group.tunnels[0]


def _kindOf(wanted: TunnelOptions) -> str:
    return "" if wanted.private else wanted.listener


def _placesOf(wanted: TunnelOptions, port: int) -> list[Place]:
    kind = _kindOf(wanted)
    places = [(kind, str(port))] if port and kind else []
    return [*places, (kind, f"{wanted.name}{wanted.path}")] if wanted.name else places


def _mayShare(one: Identity, other: Identity) -> bool:
    """
    Whether two owners trust each other with their visitors: they are the same, or
    both have tokens that may share; where nobody is asked who they are, all are
    the same.
    """
    if one == other:
        return not one.issued
    return all(
        each.grant is not None and "share" in each.grant.permissions.may
        for each in (one, other)
    )
