"""Tests for L{tristunnel.service.clients}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.service.clients import ClientFacts

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=200),
    lambda inner: (
        st.dictionaries(st.sampled_from(["host", "program", "other"]), inner)
        | st.lists(inner)
    ),
    max_leaves=5,
)


class FactsTests(SynchronousTestCase):
    """What a client says of itself."""

    def test_said(self) -> None:
        """Its program, its host, and the id that it claims."""
        about = {"program": " tristunnel 9 ", "host": "den", "name": "root"}
        self.assertEqual(
            ClientFacts.said(about, "alice").asDict(),
            {"name": "alice", "host": "den", "program": "tristunnel 9"},
        )

    @given(_JSON, _JSON)
    def test_anything(self, about: object, claimed: object) -> None:
        """Whatever it is, short lines that can be printed come of it."""
        for text in ClientFacts.said(about, claimed).asDict().values():
            self.assertTrue(text.isprintable(), ascii(text))
            self.assertLessEqual(len(text), 64)
