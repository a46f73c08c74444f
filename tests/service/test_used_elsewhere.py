"""Tests for L{tristunnel.service.used_elsewhere}."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from tests.support.ends import SilentEnd
from tristunnel.errors import TunnelError
from tristunnel.model.observer import ServerObserver
from tristunnel.model.permissions import Grant, Identity, Permissions
from tristunnel.model.tunnel import Stream, Tunnel
from tristunnel.service.rights import TunnelRights
from tristunnel.service.used_elsewhere import UsedElsewhere


class _Siblings:
    """
    The others, all of which hear at once what is told.

    @ivar all: All members, by name.
    """

    all: dict[str, _Siblings]

    def __init__(self, name: str, everybody: dict[str, _Siblings]) -> None:
        self.name, self.all = name, everybody
        self.published: dict[str, Any] = {}
        everybody[name] = self

    @property
    def names(self) -> set[str]:
        return set(self.all) - {self.name}

    def publish(self, name: str, function: Any) -> None:
        self.published[name] = function

    def tell(self, name: str, *params: object) -> None:
        for each in self.names:
            self.all[each].published[name](*params)


class UsedElsewhereTests(SynchronousTestCase):
    """Two members, and a client at each with the same token."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.everybody: dict[str, _Siblings] = {}
        self.rights: list[TunnelRights] = []
        self.used: list[UsedElsewhere] = []
        self.tunnels: list[Tunnel] = []
        for name in ("0", "1"):
            siblings: Any = _Siblings(name, self.everybody)
            rights = TunnelRights(self.clock)
            self.rights.append(rights)
            self.used.append(UsedElsewhere(siblings, rights))
            # Each process has read the token by itself.
            grant = Grant(Permissions(maxVisitors=3, rate=1000))
            tunnel = Tunnel(
                f"t{name}",
                Identity("laptop", grant=grant),
                None,
                ServerObserver(),
                self.clock.seconds,
            )
            rights.opened(tunnel, lambda *args: None)
            self.tunnels.append(tunnel)

    def visit(self, member: int) -> Stream:
        tunnel = self.tunnels[member]
        stream = Stream(tunnel, SilentEnd(), "192.0.2.1:5", 0.0)
        tunnel.streams.add(stream)
        try:
            self.rights[member].check(stream)
        except TunnelError:
            tunnel.streams.discard(stream)
            raise
        return stream

    def look(self) -> None:
        for each in self.used * 2:
            each.look()

    def rates(self) -> list[int]:
        throttles = [tunnel.throttle for tunnel in self.tunnels]
        return [0 if each is None else each.rate for each in throttles]

    def test_together(self) -> None:
        """Visitors count at both members, and share the rate by their number."""
        self.visit(0)
        second = self.visit(0)
        self.look()
        self.visit(1)
        self.look()
        self.assertRaises(TunnelError, self.visit, 0)
        self.assertRaises(TunnelError, self.visit, 1)
        self.assertEqual(self.rates(), [666, 333])
        self.tunnels[0].streams.discard(second)
        self.look()
        self.assertEqual(self.rates(), [500, 500])
        self.visit(1)

    def test_gone(self) -> None:
        """What a member had that is gone does not count; one that comes is told."""
        for _ in range(3):
            self.visit(0)
        self.look()
        self.assertRaises(TunnelError, self.visit, 1)
        gone = self.everybody.pop("0")
        self.visit(1)
        self.look()
        self.assertEqual(self.rates()[1], 1000)
        self.everybody["0"] = gone
        self.used[0]._heard.clear()
        self.look()
        self.assertEqual(self.rights[0].elsewhere("laptop"), 1)
