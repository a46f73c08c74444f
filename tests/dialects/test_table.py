"""
Which dialects a server speaks: C{--dialects}.
"""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tristunnel.dialects.table import DIALECTS, ours, parseDialects
from tristunnel.errors import TunnelError


class ServedTests(SynchronousTestCase):
    """What is said, and what follows from who may connect."""

    def test_all(self) -> None:
        """All of them where nothing is said."""
        self.assertEqual(DIALECTS, parseDialects("", False))

    def test_some(self) -> None:
        """Those that are named, in the order of the table."""
        self.assertEqual(["framed", "ssh"], list(parseDialects("ssh, framed", False)))

    def test_unknown(self) -> None:
        """One that is not known is refused, with the nearest."""
        with self.assertRaises(TunnelError) as caught:
            parseDialects("framed,shs", False)
        self.assertIn("ssh", caught.exception.message)

    def test_certificates(self) -> None:
        """
        Where nothing but a certificate says who a client is, what can show none is
        left out, and asking for it is a mistake.
        """
        served = parseDialects("", True)
        self.assertEqual({"ssh"}, DIALECTS.keys() - served.keys())
        with self.assertRaises(TunnelError) as caught:
            parseDialects("ssh", True)
        self.assertIn("--auth", caught.exception.message)

    def test_ours(self) -> None:
        """Our own clients speak all but OpenSSH's."""
        self.assertEqual({"ssh"}, DIALECTS.keys() - ours().keys())
