"""Tests for L{tristunnel.util.strings}."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.endpoints import quoteStringArgument
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.errors import TunnelError
from tristunnel.util.strings import splitEndpoint, unknownKeywords, whyNoEndpoint

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


class SplitEndpointTests(SynchronousTestCase):
    """Tests for L{splitEndpoint}."""

    def test_examples(self) -> None:
        """Prefix, positional parts and keywords are told apart."""
        for text, parts in (
            ("tcp:9000", ("tcp", ["9000"], {})),
            (
                "tcp:9000:interface=::1".replace("::1", r"\:\:1"),
                ("tcp", ["9000"], {"interface": "::1"}),
            ),
            (
                "tls:host:443:trustRoots=/a=b",
                ("tls", ["host", "443"], {"trustRoots": "/a=b"}),
            ),
            ("unix:/run/a\\:b.sock", ("unix", ["/run/a:b.sock"], {})),
            (
                "systemd:domain=INET:index=0",
                ("systemd", [], {"domain": "INET", "index": "0"}),
            ),
            (
                "tcp:[::1]:80:bindAddress=[fe80::1%lo]",
                ("tcp", ["::1", "80"], {"bindAddress": "fe80::1%lo"}),
            ),
            ("unix:[a]:b", ("unix", ["[a]", "b"], {})),
            ("tls:[:x", ("tls", ["[", "x"], {})),
            ("", ("", [], {})),
            ("tcp:", ("tcp", [""], {})),
            ("a\\", ("a", [], {})),
        ):
            self.assertEqual(splitEndpoint(text), parts)

    @settings(deadline=None)
    @given(
        TEXTS, st.lists(TEXTS, max_size=4), st.dictionaries(TEXTS, TEXTS, max_size=3)
    )
    def test_quoted(
        self, prefix: str, positional: list[str], keywords: dict[str, str]
    ) -> None:
        """What Twisted quotes comes back as it was."""
        # It leaves alone the "=" that would make a keyword.
        quoted = [
            quoteStringArgument(part).replace("=", r"\=")
            for part in [prefix, *positional, *keywords]
        ]
        for place, value in enumerate(keywords.values(), 1 + len(positional)):
            quoted[place] += "=" + quoteStringArgument(value)
        self.assertEqual(
            splitEndpoint(":".join(quoted)), (prefix, positional, keywords)
        )

    @settings(deadline=None)
    @given(st.text())
    def test_anything(self, text: str) -> None:
        """Any string has parts."""
        splitEndpoint(text)


class UnknownKeywordsTests(SynchronousTestCase):
    """Tests for L{unknownKeywords}."""

    def test_known(self) -> None:
        """Known keywords pass."""
        unknownKeywords("--port", {"a": "1"}, {"a", "b"})
        unknownKeywords("--port", {}, set())

    def test_unknown(self) -> None:
        """Another one is named, with those that there are."""
        with self.assertRaises(TunnelError) as caught:
            unknownKeywords("--port", {"a": "1", "z": "1", "c": ""}, {"b", "a"})
        self.assertEqual(caught.exception.code.name, "bad-option")
        self.assertEqual(
            caught.exception.message, "--port: c= is not known; there is a, b"
        )


class WhyNoEndpointTests(SynchronousTestCase):
    """Tests for L{whyNoEndpoint}."""

    def test_kinds(self) -> None:
        """
        A kind that nobody knows is named; for those of Tor, so is what brings
        them.
        """
        for kind, words in (
            ("bogus", "there is no kind 'bogus'"),
            ("tor", "tor: comes with txtorcon: pip install txtorcon"),
            ("onion", "onion: comes with txtorcon: pip install txtorcon"),
        ):
            error = ValueError(f"Unknown endpoint type: {kind!r}")
            self.assertEqual(whyNoEndpoint(kind, error), words)
