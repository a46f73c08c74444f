"""
Which dialects a server speaks: C{--dialects}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tristunnel.dialects.table import DIALECTS, ours, parseDialects
from tristunnel.errors import TunnelError


class ServedTests(SynchronousTestCase):
    """What is said, and what follows from who may connect."""

    def served(self, names: str | None = None, *ports: int, **asks: bool) -> list[str]:
        login, certificates = asks.get("login", False), asks.get("certificates", False)
        return list(parseDialects(names, ports, login, certificates))

    def refused(self, names: str, *ports: int, **asks: bool) -> str:
        with self.assertRaises(TunnelError) as caught:
            self.served(names, *ports, **asks)
        return caught.exception.message

    def test_all(self) -> None:
        """All of them where nothing is said, and what has a port of its own with it."""
        self.assertEqual(list(DIALECTS), self.served(None, 7835))
        self.assertEqual({"bore"}, DIALECTS.keys() - self.served())

    def test_some(self) -> None:
        """Those that are named, in the order of the table."""
        self.assertEqual(["framed", "ssh"], self.served("ssh, framed", 7835))

    def test_unknown(self) -> None:
        """One that is not known is refused, with the nearest; so is none at all."""
        self.assertIn("ssh", self.refused("framed,shs"))
        self.assertIn("is empty", self.refused(" ,"))

    def test_certificates(self) -> None:
        """
        Where nothing but a certificate says who a client is, what can show none is
        left out, and asking for it is a mistake.
        """
        served = self.served(None, 7835, certificates=True)
        self.assertEqual({"ssh", "bore", "localtunnel"}, DIALECTS.keys() - served)
        self.assertIn("--auth", self.refused("ssh", certificates=True))

    def test_noLogin(self) -> None:
        """What cannot say who it is goes without both."""
        for asks in ({"login": True}, {"certificates": True}):
            self.assertNotIn("localtunnel", self.served(None, **asks))
            self.assertIn("leave it out", self.refused("localtunnel", **asks))

    def test_ownPort(self) -> None:
        """What has a port of its own is asked for with it."""
        self.assertIn("--port tcp:7835", self.refused("bore"))
        self.assertEqual(["bore"], self.served("bore", 7835, login=True))

    def test_ours(self) -> None:
        """Our own clients speak all that have no client of everybody's."""
        self.assertEqual(
            {"ssh", "bore", "localtunnel"}, DIALECTS.keys() - ours().keys()
        )
