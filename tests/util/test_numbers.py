"""Tests for L{tristunnel.util.numbers}."""

from __future__ import annotations

from twisted.python.usage import UsageError
from twisted.trial.unittest import SynchronousTestCase

from tristunnel.cli.client_tap import Options as ClientOptions
from tristunnel.cli.server_tap import Options as ServerOptions
from tristunnel.util.numbers import decimalOf, wholeOf


class NumberTests(SynchronousTestCase):
    """Numbers, and what is said of anything else."""

    def test_read(self) -> None:
        """Numbers are read."""
        self.assertEqual(decimalOf("grace")("2.5"), 2.5)
        self.assertEqual(wholeOf("spares")("3"), 3)

    def test_mistakes(self) -> None:
        """A mistake in an option names the option and what it takes."""
        for kind, words, said in (
            (ServerOptions, ["--grace", "soon"], "--grace takes a number"),
            (ServerOptions, ["--max-clients", "1.5"], "--max-clients takes a whole"),
            (ClientOptions, ["--spares", "few"], "--spares takes a whole number"),
        ):
            error = self.assertRaises(UsageError, kind().parseOptions, words)
            self.assertIn(said, str(error))
