"""Who may have which name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any
from unittest.mock import Mock

from tests.service.rig import ALICE, BOB, ServiceTestCase
from tristunnel.listeners.names import NameListeners
from tristunnel.model.names import parseNames
from tristunnel.model.permissions import (
    ANONYMOUS_IDENTITY,
    Grant,
    Identity,
    Permissions,
)
from tristunnel.model.quota import TunnelQuota
from tristunnel.names.public import PublicNames
from tristunnel.service.caller import Caller

DOMAIN = "t.example"


def holder(name: str, *names: str) -> Caller:
    grant = Grant(Permissions(names=parseNames(names)))
    return replace(ALICE, identity=Identity(name, grant=grant))


class HostRulesTests(ServiceTestCase):
    """Tunnels with names."""

    def setUp(self) -> None:
        self.names = PublicNames()
        super().setUp()

    def makeService(self, **options: Any) -> None:
        listener = NameListeners("http", self.names)
        other = NameListeners("tls-name", self.names, "tls")
        options.setdefault(
            "listeners", {"http": listener, "tls-name": other, "tcp": self.visitors}
        )
        super().makeService(**options)
        self.service.hosts.change([DOMAIN, "u.example"], "Server.Example.")

    def opened(self, caller: Caller = ALICE, **options: object) -> str:
        uri = self.open(caller, listener="http", via="w3p", **options)
        return self.address(uri, caller)

    def refused(self, code: str, caller: Caller = ALICE, **options: object) -> str:
        options.setdefault("via", "w3p")
        return self.assertNotOpened(code, caller, listener="http", **options)

    def test_below(self) -> None:
        """A name without a dot lies below the first domain; others are to be whole."""
        self.assertEqual(self.opened(name="Blog"), "http://blog.t.example")
        address = self.opened(name="blog.u.example", path="api")
        self.assertEqual(address, "http://blog.u.example/api")
        called = [each.called for each in self.service.tunnels]
        self.assertEqual(called, ["blog.t.example", "blog.u.example/api"])
        self.assertEqual(
            {each.host for each in self.names.table},
            {"blog.t.example", "blog.u.example"},
        )
        for name in ("a.b", "t.example", "x.y.t.example", "*.t.example"):
            self.assertIn("--domain", self.refused("name-not-permitted", name=name))

    def test_reserved(self) -> None:
        """The server's own name and reserved ones are nobody's, also by token."""
        owner = holder("anna", "*.example", "*")
        for name in ("server.example", "wpad", "wpad.u.example"):
            for caller in (ALICE, owner):
                self.refused("name-not-permitted", caller, name=name)

    def test_oneOwner(self) -> None:
        """A host is one owner's, with all of its paths and kinds, until it is free."""
        uri = self.open(listener="http", name="blog")
        self.open(listener="http", name="blog", path="/api")
        self.open(listener="tls-name", name="blog")
        self.refused("name-taken", BOB, name="blog", path="/bob")
        self.assertNotOpened("name-taken", BOB, listener="tls-name", name="blog")
        self.close(uri)
        self.refused("name-taken", BOB, name="blog")
        for each in self.list():
            self.close(str(each["uri"]))
        self.opened(BOB, name="blog")

    def test_taken(self) -> None:
        """A place is taken by a tunnel that is served, whose owner is told so."""
        self.open(listener="http", name="blog", via="w3p")
        message = self.refused("name-taken", name="blog")
        self.assertIn("blog.t.example", message)

    def test_noPorts(self) -> None:
        """A name is not counted with what has ports, of which there may be fewer."""
        self.makeService(quota=TunnelQuota(0, 4, 1))
        uri = self.open(listener="tcp", via="w3p")
        self.assertNotOpened("limit-reached", listener="tcp", via="w3p")
        self.opened(name="one")
        self.close(uri)
        self.open(listener="tcp", via="w3p")
        self.opened(name="two")
        self.opened(name="three")
        self.refused("limit-reached", name="four")

    def test_tokens(self) -> None:
        """What a token has among its names is its holder's, who has no other."""
        self.service.hosts.holders = lambda patterns: (
            {"anna"} if {"*.shop.example", "blog"} & {*patterns} else set()
        )
        anna = holder("anna", "blog", "*.shop.example")
        self.refused("name-taken", name="blog")
        self.refused("name-not-permitted", anna, name="other")
        self.assertEqual(self.opened(anna, name="blog"), "http://blog.t.example")
        address = self.opened(anna, name="*.shop.example")
        self.assertEqual(address, "http://*.shop.example")
        self.assertEqual(
            self.opened(anna, name="a.b.shop.example"), "http://a.b.shop.example"
        )

    def test_madeUp(self) -> None:
        """A name that is made up is new, is had again, and goes to nobody else."""
        uri = self.open(listener="http")
        address = self.address(uri)
        self.assertRegex(address, r"\Ahttp://[a-z]+-[a-z]+\.t\.example\Z")
        self.assertNotEqual(self.opened(), address)
        host = address.partition("://")[2]
        self.close(uri)
        self.refused("name-taken", BOB, name=host)
        self.assertEqual(self.opened(preferName=host), address)
        self.assertNotEqual(self.opened(preferName=host), address)
        # Of those who have names of their own, it is one of these.
        anna = holder("anna", "one", "*.shop.example")
        self.assertEqual(self.opened(anna), "http://one.t.example")
        self.refused("name-taken", anna)

    def test_anonymous(self) -> None:
        """Those of whom nothing is known are not each other."""
        one = Caller(ANONYMOUS_IDENTITY, "server", 9000)
        two = Caller(ANONYMOUS_IDENTITY, "server", 9000)
        self.opened(one, name="blog")
        self.refused("name-taken", two, name="blog", path="/x")

    def test_options(self) -> None:
        """Each kind of listener has its own options."""
        self.refused("bad-option", name="blog", port=8010)
        self.refused("bad-option", name="a_b")
        self.refused("bad-option", path="/..")
        self.assertNotOpened("bad-option", listener="tcp", path="/x")
        self.assertNotOpened("bad-option", listener="tcp", name="*.x")
        self.service.hosts.change([], "")
        self.refused("name-not-permitted", name="blog")
        self.refused("name-not-permitted")

    def test_finish(self) -> None:
        """A tunnel that ends with its last visitor has its name no longer."""
        uri = self.open(listener="http", name="blog", via="w3p")
        tunnel = self.successResultOf(self.service.find(uri))
        stays: Any = Mock(visitor=None)
        tunnel.streams.add(stays)
        self.successResultOf(self.service.closeTunnel(ALICE, uri, finish=True))
        tunnel.streams.clear()
        self.assertEqual(list(self.names.table), [])
        self.opened(BOB, name="blog")
