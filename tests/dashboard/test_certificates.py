"""What the dashboard says of certificates."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from tests.dashboard.rig import DashboardTestCase
from tristunnel.dashboard.certificates import (
    certificateCounts,
    certificateWords,
    stateFor,
)
from tristunnel.names.public import CertificateState

NOW = 1_800_000_000.0
DAY = 86400.0
GOOD = CertificateState(
    ("t.example", "*.t.example"), NOW - DAY, NOW + 60 * DAY, NOW + 30 * DAY, ""
)
NONE = CertificateState(("a.example",), 0.0, 0.0, NOW + 600, "caa: <b>no</b>")


class WordsTests(SynchronousTestCase):
    def test_states(self) -> None:
        """Each state is said in a few words."""
        for state, words in (
            (GOOD, "valid for 60 d"),
            (NONE, "none yet: caa: <b>no</b>"),
            (None, "none of its own"),
            (CertificateState(("a",), 0.0, 0.0, 0.0, ""), "being got"),
            (CertificateState(("a",), 1.0, NOW - DAY, NOW, "x"), "not renewed: x"),
            (CertificateState(("a",), 1.0, NOW - DAY, NOW, ""), "expired"),
        ):
            self.assertIn(words, certificateWords(state, NOW))

    def test_counts(self) -> None:
        """Certificates are counted by how they are."""
        expired = CertificateState(("a",), 1.0, NOW - DAY, NOW, "x")
        self.assertEqual(
            certificateCounts([GOOD, NONE, expired], NOW),
            {"good": 1, "missing": 1, "expired": 1, "failing": 2},
        )

    def test_found(self) -> None:
        """A host has its own state, or that of a wildcard."""
        for host, expected in (
            ("a.example", NONE),
            ("t.example", GOOD),
            ("blog.t.example", GOOD),
            ("x.blog.t.example", None),
        ):
            self.assertIs(stateFor([NONE, GOOD], host), expected)


class PageTests(DashboardTestCase):
    def test_page(self) -> None:
        """Certificates are shown with their age and trouble, and to nobody but those
        who see everything."""
        self.service.certificates = lambda: [GOOD, NONE]
        body = self.page()
        for words in ("t.example, *.t.example", "Certificates", "caa: <b>no</b>"):
            self.assertIn(words, body)
        self.build(asked=True)
        status, _, text = self.ask("/", self.basic("alice"))
        self.assertEqual(status, 200)
        self.assertNotIn("*.t.example", text)
